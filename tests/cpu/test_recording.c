// Recordings of micro-batches (gpt/recording.c): when they are made and replayed, what may not
// happen meanwhile, where hooks are called, and that what the host gives to the operations of one
// micro-batch serves for the next. The device does at once what it records; a replay does it again
// as the host gave it then, but without the batch, which only the device's memory holds.
#include "../../gpt/internal.h"
#include "../test.h"
#include "model.h"

static Ops tape; // the device
static Gpt *model;

static struct {
    bool on, empty;            // empty: nothing is recorded
    int made, alive, replayed; // recordings; replays
} count;

// Of the recording made last.
static struct {
    Acts acts;
    GptBatch batch;
    int replayed;
} kept;

static void record(void)
{
    const Recording *r = model->recorder;
    CHECK(!count.on, "recorded twice");
    count.on = true;
    acts_layout(&kept.acts, model, r->tokens, true, model->arena);
    kept.acts.n_docs = r->n_docs;
    kept.batch = (GptBatch){.n_docs = -1, .tokens = r->tokens, .sequence = r->sequence};
    kept.replayed = 0;
}

static void *recorded(void)
{
    CHECK(count.on, "nothing is being recorded");
    count.on = false;
    if (count.empty) return NULL;
    count.made++, count.alive++;
    return malloc(1);
}

static void replay(void *recording)
{
    CHECK(recording && !count.on);
    count.replayed++;
    if (kept.replayed++ > 0 && count.made == 1) micro_batch(model, &kept.acts, &kept.batch);
}

static void forget(void *recording)
{
    CHECK(recording && !count.on);
    free(recording);
    count.alive--;
}

// What no recording can hold.
static void *mem_alloc(size_t bytes)
{
    CHECK(!count.on, "memory is taken");
    return ops_cpu.mem_alloc(bytes);
}

static void mem_free(void *p)
{
    CHECK(!count.on, "memory is freed");
    ops_cpu.mem_free(p);
}

static void mem_put(void *device, const void *host, size_t bytes)
{
    CHECK(!count.on, "a put is recorded");
    ops_cpu.mem_put(device, host, bytes);
}

static void mem_get(void *host, const void *device, size_t bytes)
{
    CHECK(!count.on, "a get is recorded");
    ops_cpu.mem_get(host, device, bytes);
}

static void sync_device(void)
{
    CHECK(!count.on, "the host waits");
    ops_cpu.sync();
}

enum { TOKENS = 256 };
static const char *const fields[] = {"layers",
                                     "- sv0 lm<1 smb",
                                     "heads",
                                     "1",
                                     "mlp_ratio",
                                     "2",
                                     "micro_batch",
                                     "256",
                                     "val_tokens",
                                     "256",
                                     "val_chunk",
                                     "256",
                                     "head",
                                     "fp8",
                                     "window_block",
                                     "8",
                                     NULL};

static Gpt *create(const Ops *ops)
{
    const Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpt = model_create(&recipe, ops, false, 1);
    model_random_state = 7;
    model_randomize(gpt, 0.05);
    return gpt;
}

static Gpt *create_on_tape(void)
{
    memset(&count, 0, sizeof count);
    tape = ops_cpu;
    tape.record = record, tape.recorded = recorded, tape.replay = replay, tape.forget = forget;
    tape.mem_alloc = mem_alloc, tape.mem_free = mem_free, tape.mem_put = mem_put;
    tape.mem_get = mem_get, tape.sync = sync_device;
    return model = create(&tape);
}

// One micro-batch of `tokens` in documents of `length`, of tokens that differ from call to call.
static void micro_batch_of(Gpt *gpt, int tokens, int length)
{
    static ModelBatch m;
    int32_t cu[TOKENS + 1];
    model_batch(&m, 257, (int[]){tokens, -1});
    m.batch.cu = cu, m.batch.n_docs = 0, cu[0] = 0;
    for (int at = 0; at < tokens; cu[++m.batch.n_docs] = at)
        at = tokens - at < length ? tokens : at + length;
    gpt_forward_backward(gpt, &m.batch);
}

// Six micro-batches, whose documents differ in number, over a change of the window.
static double losses_of_six(Gpt *gpt, bool recorded)
{
    for (int i = 0; i < 6; i++) {
        gpt_set_step(gpt, i / 3 * (gpt->recipe.total_steps - 1));
        micro_batch_of(gpt, TOKENS, 100 - 16 * i);
        if (recorded)
            CHECK(count.made == (i > 0) && count.replayed == i, "%d made, %d replayed after %d",
                  count.made, count.replayed, i + 1);
    }
    return gpt_loss(gpt);
}

TEST(the_second_is_recorded_and_the_others_replayed)
{
    Gpt *plain = create(&ops_cpu);
    CHECK(recipe_long_window(&plain->recipe, 0) !=
              recipe_long_window(&plain->recipe, plain->recipe.total_steps - 1),
          "the window does not change");
    const double loss = losses_of_six(plain, false);
    Gpt *gpt = create_on_tape();
    const double again = losses_of_six(gpt, true);
    CHECK(loss == again, "loss %.9g, recorded %.9g", loss, again);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *a = gpt_bank(plain, (BankId)id), *b = gpt_bank(gpt, (BankId)id);
        CHECK(!memcmp(a->grad, b->grad, gpt_bank_size(a) * dtype_size(a->dtype)), "gradients of %s",
              a->name);
    }
    static ModelBatch m;
    model_batch(&m, 257, (int[]){TOKENS, -1});
    CHECK(isfinite(gpt_evaluate(gpt, &m.batch)));
    CHECK(count.made == 1 && count.replayed == 5, "an evaluation was recorded");
    tape.record = NULL; // as --graphs no
    micro_batch_of(gpt, TOKENS, 50);
    CHECK(count.replayed == 5, "replayed without being asked to");
    gpt_free(gpt);
    CHECK(count.alive == 0, "%d are left", count.alive);
    gpt_free(plain);
}

// The hooks' calls of one micro-batch, as numbers.
static int calls[4][256], n_calls[4], now;

static void note(int number)
{
    CHECK(!count.on, "a hook is recorded");
    if (n_calls[now] < 256) calls[now][n_calls[now]++] = number;
}
static void before_layer(void *context, int slot)
{
    (void)context;
    note(1000 + slot);
}
static void grads_final(void *context, BankId id, int end)
{
    (void)context;
    note(2000 + 100 * (int)id + end);
}

TEST(hooks_are_called_between_the_parts)
{
    Gpt *gpt = create_on_tape();
    memset(n_calls, 0, sizeof n_calls);
    gpt_set_hooks(gpt, &(GptHooks){NULL, before_layer, grads_final});
    for (now = 0; now < 4; now++) {
        micro_batch_of(gpt, TOKENS, 60);
        CHECK(n_calls[now] == n_calls[0] && n_calls[0] > GPT_BANKS, "%d calls, first %d",
              n_calls[now], n_calls[0]);
        CHECK(!memcmp(calls[now], calls[0], sizeof calls[0]), "other calls in micro-batch %d", now);
        CHECK(count.made == (now > 0) * (n_calls[0] + 1), "%d parts, %d calls", count.made,
              n_calls[0]);
        CHECK(count.replayed == now * (n_calls[0] + 1), "%d", count.replayed);
    }
    gpt_set_hooks(gpt, &(GptHooks){0}); // the parts are of no use
    CHECK(count.alive == 0, "%d are left", count.alive);
    for (int i = 0; i < 3; i++) micro_batch_of(gpt, TOKENS, 60);
    CHECK(count.alive == 1, "%d parts without hooks", count.alive);
    gpt_free(gpt);
}

TEST(parts_without_operations)
{
    Gpt *gpt = create_on_tape();
    memset(n_calls, 0, sizeof n_calls);
    now = 0;
    count.empty = true;
    gpt_set_hooks(gpt, &(GptHooks){NULL, before_layer, NULL});
    for (int i = 0; i < 3; i++) micro_batch_of(gpt, TOKENS, 60);
    CHECK(count.replayed == 0 && n_calls[0] % 3 == 0 && n_calls[0] > 0, "%d calls", n_calls[0]);
    gpt_free(gpt); // forgets none
    CHECK(count.alive == 0);
}

// By their length and, in steps, the number of their documents; the oldest is forgotten.
TEST(kinds_of_micro_batches)
{
    enum { MOST = 8 };
    Gpt *gpt = create_on_tape();
    for (int i = 0; i < 2; i++) micro_batch_of(gpt, TOKENS, 3); // 86 documents
    for (int i = 0; i < 2; i++) micro_batch_of(gpt, TOKENS, TOKENS);
    CHECK(count.made == 1, "%d kinds of up to 127 documents", count.made);
    for (int i = 0; i < 2; i++) micro_batch_of(gpt, TOKENS, 2); // 128
    CHECK(count.made == 2, "127 and 128 documents are %d kinds", count.made);
    for (int i = 0; i < 2; i++) micro_batch_of(gpt, TOKENS, 1); // 256
    CHECK(count.made == 3, "127, 128 and 256 documents are %d kinds", count.made);
    for (int k = 1; k < 12; k++) {
        for (int i = 0; i < 2; i++) micro_batch_of(gpt, 16 * k, 40);
        CHECK(count.made == 3 + k && count.alive == (3 + k < MOST ? 3 + k : MOST), "%d of %d",
              count.alive, count.made);
    }
    micro_batch_of(gpt, 16 * 11, 40);
    CHECK(count.made == 14, "the newest was forgotten");
    for (int i = 0; i < 2; i++) micro_batch_of(gpt, TOKENS, 3);
    CHECK(count.made == 15 && count.alive == MOST, "the oldest was not");
    gpt_free(gpt);
    CHECK(count.alive == 0, "%d are left", count.alive);
}

int main(void)
{
    RUN(the_second_is_recorded_and_the_others_replayed);
    RUN(hooks_are_called_between_the_parts);
    RUN(parts_without_operations);
    RUN(kinds_of_micro_batches);
    return TEST_SUMMARY();
}
