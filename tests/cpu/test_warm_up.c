// The warm-up leaves no trace: a run begins and goes on with the same bits as without it.
#include "../../run/warm_up.h"

#include "../test.h"
#include "model.h"

static const char *const fields[] = {"layers",
                                     "- sv0 lm<1 smb",
                                     "heads",
                                     "1",
                                     "mlp_ratio",
                                     "2",
                                     "micro_batch",
                                     "64",
                                     "val_tokens",
                                     "96",
                                     "val_chunk",
                                     "96",
                                     "head",
                                     "fp8",
                                     "scheduled_steps",
                                     "6",
                                     "windows",
                                     "1,3",
                                     "window_block",
                                     "8",
                                     NULL};

// Losses of four steps and of a validation, and then the bits of all parameters and state.
typedef struct {
    double loss[5];
    void *bits[GPT_BANKS * 4];
    size_t bytes[GPT_BANKS * 4];
} Trace;

static void keep(Trace *trace, int i, const void *from, size_t bytes)
{
    trace->bits[i] = malloc(bytes + 1);
    trace->bytes[i] = bytes;
    memcpy(trace->bits[i], from, bytes); // the CPU device's memory is the host's
}

static void train(Trace *trace, bool warm)
{
    Recipe recipe = model_recipe("tiny", fields);
    Error err = {""};
    Optimizer optimizer;
    static ModelBatch m;
    Gpt *gpt = gpt_create(&recipe, &ops_cpu, false, 1, &err);
    CHECK(gpt && optimizer_create(&optimizer, gpt, &err), "%s", err.text);
    if (warm) CHECK(warm_up(gpt, &optimizer, NULL, &err), "%s", err.text);
    gpt_init(gpt, 3);
    model_random_state = 5;
    model_batch(&m, recipe.vocab_size, (int[]){40, 0, 24, -1});
    for (int step = 0; step < 4; step++) { // the window changes at step 3
        gpt_set_step(gpt, step);
        gpt_forward_backward(gpt, &m.batch);
        trace->loss[step] = gpt_loss(gpt);
        optimizer_step(&optimizer, step);
    }
    trace->loss[4] = gpt_evaluate(gpt, &m.batch);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t size = dtype_size(b->dtype), n = gpt_bank_size(b) * size;
        keep(trace, 4 * id, b->param, n);
        keep(trace, 4 * id + 1, b->grad, n);
        keep(trace, 4 * id + 2, optimizer.first[id], n);
        keep(trace, 4 * id + 3, optimizer.second[id],
             b->muon ? (size_t)b->count * (size_t)b->cols * size : n);
    }
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

TEST(no_trace)
{
    Trace cold, warm;
    train(&cold, false);
    train(&warm, true);
    CHECK(!memcmp(cold.loss, warm.loss, sizeof cold.loss), "%.9g, warm %.9g", cold.loss[4],
          warm.loss[4]);
    CHECK(cold.loss[3] != cold.loss[0]);
    for (int i = 0; i < GPT_BANKS * 4; i++) {
        CHECK(!memcmp(cold.bits[i], warm.bits[i], cold.bytes[i]), "bank %d, array %d", i / 4,
              i % 4);
        free(cold.bits[i]);
        free(warm.bits[i]);
    }
}

static int tuned;
static void count_tuning(bool on) { tuned += on ? 1 : 100; }

TEST(all_is_zero_and_tuning_ends)
{
    Recipe recipe = model_recipe("tiny", fields);
    Error err = {""};
    Optimizer optimizer;
    Ops ops = ops_cpu;
    ops.tune = count_tuning;
    Gpt *gpt = gpt_create(&recipe, &ops, false, 1, &err);
    CHECK(gpt && optimizer_create(&optimizer, gpt, &err), "%s", err.text);
    if (!gpt) return;
    CHECK(warm_up(gpt, &optimizer, NULL, &err), "%s", err.text);
    CHECK(tuned == 101, "on once, then off");
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        for (size_t i = 0; i < gpt_bank_size(b); i++)
            if (dtype_get(b->param, b->dtype, i) != 0 || dtype_get(b->grad, b->dtype, i) != 0 ||
                dtype_get(optimizer.first[id], b->dtype, i) != 0) {
                CHECK(false, "bank %d, number %zu", id, i);
                break;
            }
    }
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

int main(void)
{
    RUN(no_trace);
    RUN(all_is_zero_and_tuning_ends);
    return TEST_SUMMARY();
}
