#include "warm_up.h"

#include <math.h>
#include <stdlib.h>

#include "batch.h"
#include "clock.h"

enum { PIECE = 1 << 16, DOCUMENT = 500 };

static uint32_t random_bits(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u); }

// Fills n numbers with uniform ones of the size that a trained matrix has, by pieces that are all
// the same. False when memory is short.
static bool randomize(const Ops *ops, void *numbers, DType type, size_t n)
{
    const size_t size = dtype_size(type);
    double *piece = malloc(PIECE * sizeof *piece); // room for the widest type
    if (!piece) return false;
    uint32_t state = 1;
    for (size_t i = 0; i < PIECE; i++)
        dtype_set(piece, type, i, random_bits(&state) * 0x1p-36 - 0x1p-5);
    for (size_t at = 0; at < n; at += PIECE)
        ops->mem_put((char *)numbers + at * size, piece, (n - at < PIECE ? n - at : PIECE) * size);
    free(piece);
    return true;
}

static bool randomize_parameters(Gpt *gpt)
{
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        if (!randomize(gpt_ops(gpt), b->param, b->dtype, gpt_bank_size(b))) return false;
        gpt_load_weights(gpt, (BankId)id);
    }
    return true;
}

static void random_batch(Batch *batch, int vocab)
{
    uint32_t state = 2;
    for (int i = 0; i <= batch->n_tokens; i++)
        batch->ids[i] = (int32_t)(random_bits(&state) >> 8) % vocab;
    memcpy(batch->targets, batch->ids + 1, (size_t)batch->n_tokens * sizeof *batch->ids);
    for (int at = 0; at < batch->n_tokens;) {
        at = batch->n_tokens - at < DOCUMENT ? batch->n_tokens : at + DOCUMENT;
        batch->cu[++batch->n_docs] = at;
    }
}

static void clear(Gpt *gpt, Optimizer *optimizer, ShardedOptimizer *sharded)
{
    const Ops *ops = gpt_ops(gpt);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t bytes = gpt_bank_size(b) * dtype_size(b->dtype);
        ops->mem_zero(b->param, bytes);
        ops->mem_zero(b->grad, bytes);
    }
    (void)gpt_loss(gpt); // forgotten
    if (optimizer) optimizer_clear(optimizer);
    if (sharded) sharded_clear(sharded);
}

bool warm_up(Gpt *gpt, Optimizer *optimizer, ShardedOptimizer *sharded, Error *err)
{
    const Ops *ops = gpt_ops(gpt);
    const Recipe *r = gpt_recipe(gpt);
    Batch train = {0}, val = {0};
    int step = 0; // the first at which both optimizers work
    while (!recipe_adam_updates(r, step)) step++;
    const bool ok = batch_alloc(&train, r->micro_batch, r->micro_batch / r->sequence) &&
                    batch_alloc(&val, r->val_chunk, 1) && randomize_parameters(gpt);
    if (ok) {
        random_batch(&train, r->vocab_size);
        random_batch(&val, r->vocab_size);
        const GptBatch steps = batch_view(&train), chunk = batch_view(&val);
        if (ops->tune) ops->tune(true);
        gpt_set_step(gpt, step);
        if (sharded) {
            sharded_touch(sharded, train.ids, train.n_tokens);
            sharded_begin(sharded, step);
            sharded_send(sharded, step);
        }
        gpt_forward_backward(gpt, &steps);
        if (sharded) sharded_step(sharded, step);
        if (optimizer) optimizer_step(optimizer, step);
        if (ops->record) gpt_forward_backward(gpt, &steps); // the second one is recorded
        gpt_evaluate(gpt, &chunk);
        if (ops->tune) ops->tune(false);
        clear(gpt, optimizer, sharded);
        ops->sync();
    }
    batch_free(&train);
    batch_free(&val);
    return ok || fail(err, "out of memory for the warm-up");
}

double warm_up_gemm(const Ops *ops)
{
    enum { SIDE = 8192, ROUNDS = 4, PRODUCTS = 8 };
    const size_t n = (size_t)SIDE * SIDE, bytes = n * ops->real_size;
    void *a = ops->mem_alloc(bytes);
    void *b = ops->mem_alloc(bytes);
    void *c = ops->mem_alloc(bytes);
    double best = NAN;
    // cppcheck-suppress knownConditionTrueFalse ; the three are not one
    if (a && b && c && randomize(ops, a, ops->real_type, n) &&
        randomize(ops, b, ops->real_type, n)) {
        if (ops->tune) ops->tune(true);
        for (int round = 0; round < ROUNDS; round++) {
            ops->sync();
            const double from = now_ms();
            for (int i = 0; i < PRODUCTS; i++) ops->matmul(c, a, b, MM_NT, SIDE, SIDE, SIDE, 1, 0);
            ops->sync();
            const double seconds = (now_ms() - from) / 1e3;
            const double rate = 2.0 * PRODUCTS * (double)n * SIDE / seconds;
            if (!(best > rate)) best = rate; // the first one makes the plan
        }
        if (ops->tune) ops->tune(false);
    }
    ops->mem_free(a);
    ops->mem_free(b);
    ops->mem_free(c);
    return best;
}
