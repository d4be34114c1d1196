// Micro-batches from their recordings, CUDA graphs, against the same queued operation by operation:
// losses, gradients and parameters to the last bit, over steps in which documents, windows and the
// rotary tables change; what hooks see between the parts; and how many recordings there are.
#include "gpu_check.h"

#include "../../run/optimizer.h"
#include "../cpu/model.h"

enum { TOKENS = 512, STEPS = 6, MICRO_BATCHES = 3 };

static void use_graphs(bool yes)
{
    const char *kernels = getenv("TEST_KERNELS");
    ops_cuda_configure(
        &(CudaConfig){.portable = kernels && !strcmp(kernels, "portable"), .no_graphs = !yes});
}

static Recipe recipe_with(const char *head)
{
    const char *fields[] = {"layers",
                            "- smv1 lmv0 m<1 smb lmv1<2",
                            "micro_batch",
                            "512",
                            "val_chunk",
                            "512",
                            "val_tokens",
                            "512",
                            "scheduled_steps",
                            "6",
                            "windows",
                            "1,3",
                            "window_block",
                            "32",
                            "head",
                            head,
                            NULL};
    return model_recipe("tiny", fields);
}

// Everything that a run computed, one behind the other.
typedef struct {
    char *bits;
    size_t size, room;
} Trace;

static void *trace_room(Trace *trace, size_t bytes)
{
    while (trace->size + bytes > trace->room) {
        trace->room = 2 * trace->room + bytes;
        trace->bits = realloc(trace->bits, trace->room);
        if (!trace->bits) abort();
    }
    trace->size += bytes;
    return trace->bits + trace->size - bytes;
}

static void trace_banks(Trace *trace, Gpt *gpt)
{
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t bytes = gpt_bank_size(b) * dtype_size(b->dtype);
        cuda->mem_get(trace_room(trace, bytes), b->grad, bytes);
        cuda->mem_get(trace_room(trace, bytes), b->param, bytes);
    }
}

static void check_same(const Trace *a, const Trace *b)
{
    size_t differ = 0;
    CHECK(a->size == b->size && a->size > 0, "%zu and %zu bytes", a->size, b->size);
    for (size_t i = 0; i < a->size && a->size == b->size; i++) differ += a->bits[i] != b->bits[i];
    CHECK(differ == 0, "%zu of %zu bytes differ", differ, a->size);
}

// The i-th batch of a step: other tokens and another number of documents each time.
static void draw(ModelBatch *m, int vocab, int step, int i)
{
    static const int lengths[MICRO_BATCHES][8] = {
        {1, 130, 0, 3, 329, 49, -1}, {512, -1}, {100, 100, 100, 0, 0, 212, -1}};
    model_random_state = (uint64_t)(1000 * step + i + 1);
    model_batch(m, vocab, lengths[(step + i) % MICRO_BATCHES]);
}

// Six steps, in which the window grows. Nothing is waited for, and after the first one's second
// micro-batch nothing taken or recorded.
static void train(Trace *trace, const Recipe *recipe, bool graphs)
{
    static ModelBatch m;
    Error err;
    Optimizer optimizer;
    double loss, first = 0;
    use_graphs(graphs);
    Gpt *gpt = model_create(recipe, cuda, false, MICRO_BATCHES);
    if (!optimizer_create(&optimizer, gpt, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    for (int step = 0; step < STEPS; step++) {
        cuda->sync();
        const CudaCounters before = cuda_counters();
        gpt_set_step(gpt, step);
        for (int i = 0; i < MICRO_BATCHES; i++) {
            draw(&m, recipe->vocab_size, step, i);
            gpt_forward_backward(gpt, &m.batch);
        }
        const CudaCounters after = cuda_counters();
        CHECK(after.waits == before.waits, "step %d waits", step);
        CHECK(after.allocations - before.allocations == (step == 0 && graphs),
              "step %d allocates %ld times", step, after.allocations - before.allocations);
        CHECK(after.recordings == graphs, "%ld recordings", after.recordings);
        loss = gpt_loss(gpt);
        if (step == 0) first = loss;
        memcpy(trace_room(trace, sizeof loss), &loss, sizeof loss);
        trace_banks(trace, gpt);
        optimizer_step(&optimizer, step);
    }
    draw(&m, recipe->vocab_size, STEPS, 0);
    loss = gpt_evaluate(gpt, &m.batch);
    CHECK(isfinite(loss) && loss != first, "%g after %g: nothing was learnt", loss, first);
    memcpy(trace_room(trace, sizeof loss), &loss, sizeof loss);
    optimizer_free(&optimizer);
    gpt_free(gpt);
    CHECK(cuda_counters().recordings == 0, "a recording outlives its model");
}

static void check_training(const char *head)
{
    const Recipe recipe = recipe_with(head);
    Trace queued = {0}, recorded = {0};
    CHECK(recipe_long_window(&recipe, 1) != recipe_long_window(&recipe, STEPS - 1),
          "the window does not change");
    train(&queued, &recipe, false);
    train(&recorded, &recipe, true);
    check_same(&queued, &recorded);
    free(queued.bits);
    free(recorded.bits);
}

TEST(the_same_bits_with_a_full_head) { check_training("full"); }
TEST(the_same_bits_with_an_fp8_head) { check_training("fp8"); }

// Hooks that queue operations of their own, as those of several ranks do: before the first layer
// the MLPs' weights come, which were zeroed; a bank's gradients are copied when they are final.
typedef struct {
    Gpt *gpt;
    void *copy[GPT_BANKS];
    int calls;
} Peer;

static void bring_weights(void *context, int slot)
{
    Peer *peer = context;
    peer->calls++;
    if (slot < 0) gpt_load_weights(peer->gpt, BANK_MLP);
}

static void copy_gradients(void *context, BankId id, int end)
{
    Peer *peer = context;
    const GptBank *b = gpt_bank(peer->gpt, id);
    peer->calls++;
    cuda->load_param(peer->copy[id], b->dtype, b->grad, b->dtype,
                     (size_t)end * (size_t)b->rows * (size_t)b->cols);
}

static void train_with_hooks(Trace *trace, const Recipe *recipe, bool graphs)
{
    static ModelBatch m;
    use_graphs(graphs);
    Gpt *gpt = model_create(recipe, cuda, false, 4);
    Peer peer = {.gpt = gpt};
    const GptBank *mlp = gpt_bank(gpt, BANK_MLP);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t n = gpt_bank_size(b), size = dtype_size(b->dtype);
        char *host = malloc(n * size + 1);
        model_random_state = (uint64_t)id + 1;
        for (size_t i = 0; host && i < n; i++) dtype_set(host, b->dtype, i, 0.1 * model_random());
        cuda->mem_put(b->param, host, n * size); // at the recipe's init most gradients vanish
        gpt_load_weights(gpt, (BankId)id);
        free(host);
        peer.copy[id] = cuda->mem_alloc(n * size);
    }
    gpt_set_hooks(gpt, &(GptHooks){&peer, bring_weights, copy_gradients});
    for (int i = 0; i < 4; i++) {
        const int calls = peer.calls;
        draw(&m, recipe->vocab_size, 0, i % MICRO_BATCHES);
        cuda->mem_zero(mlp->weight, gpt_bank_size(mlp) * cuda->real_size);
        gpt_forward_backward(gpt, &m.batch);
        const double loss = gpt_loss(gpt);
        memcpy(trace_room(trace, sizeof loss), &loss, sizeof loss);
        CHECK(i == 0 || peer.calls == (i + 1) * (calls / i), "%d calls of hooks", peer.calls);
        for (int id = 0; id < GPT_BANKS; id++) {
            const GptBank *b = gpt_bank(gpt, (BankId)id);
            const size_t bytes = gpt_bank_size(b) * dtype_size(b->dtype);
            char *now = malloc(2 * bytes + 1);
            if (!now) abort();
            cuda->mem_get(now, b->grad, bytes);
            cuda->mem_get(now + bytes, peer.copy[id], bytes);
            CHECK(!memcmp(now, now + bytes, bytes), "%s was not final in micro-batch %d", b->name,
                  i);
            free(now);
        }
        trace_banks(trace, gpt);
    }
    CHECK(graphs ? cuda_counters().recordings > GPT_BANKS : cuda_counters().recordings == 0,
          "%ld parts", cuda_counters().recordings);
    gpt_set_hooks(gpt, &(GptHooks){0});
    CHECK(cuda_counters().recordings == 0, "parts outlive their hooks");
    for (int id = 0; id < GPT_BANKS; id++) cuda->mem_free(peer.copy[id]);
    gpt_free(gpt);
}

TEST(hooks_run_between_the_parts)
{
    const Recipe recipe = recipe_with("full");
    Trace queued = {0}, recorded = {0};
    train_with_hooks(&queued, &recipe, false);
    train_with_hooks(&recorded, &recipe, true);
    check_same(&queued, &recorded);
    free(queued.bits);
    free(recorded.bits);
}

// Lengths of micro-batches beyond the room for recordings: the oldest is forgotten, while the GPU
// may be at it.
TEST(recordings_are_bounded)
{
    enum { LENGTHS = 11, MOST = 8 };
    static ModelBatch m;
    double loss[2][LENGTHS];
    const Recipe recipe = recipe_with("full");
    for (int graphs = 0; graphs < 2; graphs++) {
        use_graphs(graphs);
        Gpt *gpt = model_create(&recipe, cuda, false, 1);
        for (int k = 0; k < LENGTHS; k++) {
            model_random_state = (uint64_t)k + 1;
            model_batch(&m, recipe.vocab_size, (int[]){16 * (k + 1), -1});
            for (int i = 0; i < 3; i++) gpt_forward_backward(gpt, &m.batch);
            const long n = cuda_counters().recordings;
            CHECK(n == (!graphs        ? 0
                        : k + 1 < MOST ? k + 1
                                       : MOST),
                  "%ld after %d lengths", n, k + 1);
        }
        (void)gpt_loss(gpt); // of all of them; now of each
        for (int k = 0; k < LENGTHS; k++) {
            model_random_state = (uint64_t)k + 1;
            model_batch(&m, recipe.vocab_size, (int[]){16 * (k + 1), -1});
            for (int i = 0; i < 3; i++) gpt_forward_backward(gpt, &m.batch);
            loss[graphs][k] = gpt_loss(gpt);
        }
        gpt_free(gpt);
        CHECK(cuda_counters().recordings == 0);
    }
    CHECK(!memcmp(loss[0], loss[1], sizeof loss[0]), "losses differ");
}

int main(void)
{
    find_gpu();
    RUN(the_same_bits_with_a_full_head);
    RUN(the_same_bits_with_an_fp8_head);
    RUN(hooks_run_between_the_parts);
    RUN(recordings_are_bounded);
    return TEST_SUMMARY();
}
