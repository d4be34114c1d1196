// The whole model on the GPU against the CPU: gradients of every bank against the double device,
// and the losses of twenty steps against the float device.
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <time.h>

#include "gpu_check.h"

#include "../../run/optimizer.h"
#include "../cpu/model.h"

// The GPU's parameters (rounded to bf16, which its products read anyway) as the double model's.
static void share_parameters(Gpt *gpu, Gpt *cpu)
{
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *from = gpt_bank(gpu, (BankId)id), *to = gpt_bank(cpu, (BankId)id);
        const size_t n = model_bank_size(from), size = dtype_size(from->dtype);
        char *host = malloc(n * size + 1);
        cuda->mem_get(host, from->param, n * size);
        for (size_t i = 0; i < n; i++) {
            // At the recipe's init most gradients vanish: nothing is to be zero.
            double x = dtype_get(host, from->dtype, i) + 0.05 * model_random();
            x = (double)round_bf16((float)x);
            dtype_set(host, from->dtype, i, x);
            dtype_set(to->param, to->dtype, i, x);
        }
        cuda->mem_put(from->param, host, n * size);
        gpt_load_weights(gpu, (BankId)id);
        gpt_load_weights(cpu, (BankId)id);
        free(host);
    }
}

// |gpu - exact| / |exact| of a bank's gradient.
static double gradient_error(Gpt *gpu, Gpt *cpu, BankId id)
{
    GptBank *a = gpt_bank(gpu, id), *b = gpt_bank(cpu, id);
    const size_t n = model_bank_size(a), size = dtype_size(a->dtype);
    char *host = malloc(n * size + 1);
    double error = 0, norm = 0;
    cuda->mem_get(host, a->grad, n * size);
    for (size_t i = 0; i < n; i++) {
        const double x = dtype_get(b->grad, b->dtype, i), d = dtype_get(host, a->dtype, i) - x;
        error += d * d;
        norm += x * x;
    }
    free(host);
    return sqrt(error / norm);
}

static void check_gradients(const char *const *fields, const int *lengths)
{
    Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpu = model_create(&recipe, cuda, false, 1);
    Gpt *cpu = model_create(&recipe, &ops_cpu_f64, true, 1);
    static ModelBatch m;
    model_batch(&m, recipe.vocab_size, lengths);
    share_parameters(gpu, cpu);
    const double loss = model_loss(gpu, &m.batch);
    const double exact = model_loss(cpu, &m.batch);
    // A value passes some 8 roundings to bf16 a slot, forward and backward, each of relative size
    // 2^-9 at most and independent: their root adds up. Twice that.
    const double rounding = 0x1p-9 * sqrt(16.0 * recipe.n_slots);
    printf("     loss %.6f, exactly %.6f; gradients' errors", loss, exact);
    CHECK_NEAR(loss, exact, rounding);
    for (int id = 0; id < GPT_BANKS; id++) {
        const double error = gradient_error(gpu, cpu, (BankId)id);
        printf(" %.4f", error);
        CHECK(error <= 2 * rounding, "bank %s: relative error %.3g, allowed %.3g",
              gpt_bank(gpu, (BankId)id)->name, error, 2 * rounding);
    }
    printf("\n");
    CHECK_NEAR(gpt_evaluate(gpu, &m.batch), gpt_evaluate(cpu, &m.batch), rounding);
    gpt_free(gpu);
    gpt_free(cpu);
}

TEST(gradients_with_narrow_heads)
{
    const char *fields[] = {"layers",      "- smv1 lmv0 m<1 smb lmv1<2",
                            "vocab_size",  "60",
                            "micro_batch", "512",
                            "val_chunk",   "512",
                            "val_tokens",  "512",
                            "head",        "full",
                            NULL};
    check_gradients(fields, (int[]){1, 130, 0, 3, 329, 49, 0, -1});
}

TEST(gradients_with_wide_heads_and_odd_lengths)
{
    const char *fields[] = {"layers",
                            "- smv0 lm m<1 smb<2 lmv0",
                            "heads",
                            "3",
                            "head_dim",
                            "128",
                            "vocab_size",
                            "1000",
                            "micro_batch",
                            "777",
                            "val_chunk",
                            "777",
                            "val_tokens",
                            "777",
                            "window_block",
                            "16",
                            NULL};
    check_gradients(fields, (int[]){700, 0, 76, 1, -1});
}

enum { STEPS = 20 };

// Losses of STEPS steps on one batch. With `shake` the initial parameters move by up to a bf16
// rounding, which shows how far roundings alone carry the losses.
static void train(double *losses, const Ops *ops, const Recipe *recipe, ModelBatch *m, bool shake)
{
    Error err;
    Gpt *gpt = model_create(recipe, ops, false, 1);
    Optimizer optimizer;
    if (!optimizer_create(&optimizer, gpt, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    for (int id = 0; id < GPT_BANKS && shake; id++) {
        GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t n = model_bank_size(b), size = dtype_size(b->dtype);
        char *host = malloc(n * size + 1);
        ops->mem_get(host, b->param, n * size);
        for (size_t i = 0; i < n; i++)
            dtype_set(host, b->dtype, i,
                      dtype_get(host, b->dtype, i) * (1 + 0x1p-8 * model_random()));
        ops->mem_put(b->param, host, n * size);
        free(host);
        gpt_load_weights(gpt, (BankId)id);
    }
    for (int step = 0; step < STEPS; step++) {
        gpt_set_step(gpt, step);
        losses[step] = model_loss(gpt, &m->batch);
        optimizer_step(&optimizer, step);
    }
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

static double distance(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < STEPS; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum / STEPS);
}

static void check_curve(const Recipe *recipe, const int *lengths)
{
    static ModelBatch m;
    double gpu[STEPS], again[STEPS], shaken[STEPS], cpu[STEPS];
    model_batch(&m, recipe->vocab_size, lengths);
    train(gpu, cuda, recipe, &m, false);
    train(again, cuda, recipe, &m, false);
    train(shaken, cuda, recipe, &m, true);
    train(cpu, &ops_cpu, recipe, &m, false);
    const double noise = distance(gpu, shaken), apart = distance(gpu, cpu);
    printf("     loss %.4f to %.4f, on the CPU %.4f; apart %.5f, noise %.5f\n", gpu[0],
           gpu[STEPS - 1], cpu[STEPS - 1], apart, noise);
    CHECK(cpu[STEPS - 1] < 0.8 * cpu[0], "the losses do not fall, and prove nothing");
    CHECK(apart <= 3 * noise, "apart %.5f, noise %.5f", apart, noise);
    CHECK(!memcmp(gpu, again, sizeof gpu), "two runs on the GPU differ");
}

TEST(twenty_steps_as_on_the_cpu)
{
    const char *fields[] = {"val_tokens", "1024", "val_chunk", "1024", NULL};
    const Recipe recipe = model_recipe("tiny", fields);
    check_curve(&recipe, (int[]){512, 100, 0, 300, 112, -1});
}

// GPT-2's vocabulary, narrower and with fewer tokens than `mini` so that the CPU takes seconds.
TEST(twenty_steps_of_a_narrow_mini_as_on_the_cpu)
{
    const char *fields[] = {"heads",     "1",   "micro_batch", "256", "max_doc", "128",
                            "val_chunk", "256", "val_tokens",  "256", NULL};
    const Recipe recipe = model_recipe("mini", fields);
    check_curve(&recipe, (int[]){128, 60, 0, 67, 1, -1});
}

// Holds the stream up until the test lets go of it, or for ten seconds.
static atomic_bool let_go, held_too_long;

static void CUDART_CB hold(void *unused)
{
    const struct timespec a_millisecond = {.tv_nsec = 1000000};
    (void)unused;
    for (int i = 0; !let_go && i < 10000; i++) nanosleep(&a_millisecond, NULL);
    held_too_long = !let_go;
}

// The host queues whole steps, operation by operation or from a recording, while the GPU does not
// even begin: it waits for nothing.
static void check_queueing(bool graphs)
{
    const char *kernels = getenv("TEST_KERNELS");
    static ModelBatch m;
    Error err;
    const char *fields[] = {"val_tokens", "1024", "val_chunk", "1024", NULL};
    Recipe recipe = model_recipe("tiny", fields);
    ops_cuda_configure(
        &(CudaConfig){.portable = kernels && !strcmp(kernels, "portable"), .no_graphs = !graphs});
    Gpt *gpt = model_create(&recipe, cuda, false, 1);
    Optimizer optimizer;
    CHECK(optimizer_create(&optimizer, gpt, &err), "%s", err.text);
    model_batch(&m, 257, (int[]){512, 100, 0, 300, 112, -1});
    for (int step = 0; step < 6; step++) { // the first four load kernels and plan products
        gpt_set_step(gpt, step);
        cuda->sync();
        let_go = held_too_long = false;
        if (step >= 4) cudaLaunchHostFunc(cuda_stream(), hold, NULL);
        const CudaCounters before = cuda_counters();
        gpt_set_step(gpt, step);
        gpt_forward_backward(gpt, &m.batch);
        optimizer_step(&optimizer, step);
        const CudaCounters after = cuda_counters();
        let_go = true;
        const double loss = gpt_loss(gpt);
        CHECK(isfinite(loss) && !held_too_long, "step %d waits for the GPU", step);
        CHECK(before.waits == after.waits, "step %d waits %ld times", step,
              after.waits - before.waits);
        const long recorded = step == 1 && graphs; // the second micro-batch
        CHECK(after.allocations - before.allocations == recorded, "step %d allocates %ld times",
              step, after.allocations - before.allocations);
    }
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

TEST(a_step_neither_waits_nor_allocates) { check_queueing(false); }
TEST(nor_does_a_recorded_one) { check_queueing(true); }

// A batch may be overwritten as soon as the call returns, and puts beyond the staging memory wait.
TEST(what_was_put_may_be_overwritten)
{
    enum { N = 6 << 20 }; // 24 MiB
    int32_t *host = malloc(N * sizeof *host), *device = cuda->mem_alloc(N * sizeof *host);
    if (!host || !device) abort();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) host[i] = i + round;
        cuda->mem_put(device, host, N * sizeof *host);
        memset(host, 0xff, N * sizeof *host);
        cuda->mem_get(host, device, N * sizeof *host);
        int wrong = 0;
        for (int i = 0; i < N; i++) wrong += host[i] != i + round;
        CHECK(wrong == 0, "%d numbers", wrong);
    }
    cuda->mem_free(device);
    free(host);
}

int main(void)
{
    find_gpu();
    RUN(gradients_with_narrow_heads);
    RUN(gradients_with_wide_heads_and_odd_lengths);
    RUN(twenty_steps_as_on_the_cpu);
    RUN(twenty_steps_of_a_narrow_mini_as_on_the_cpu);
    RUN(a_step_neither_waits_nor_allocates);
    RUN(nor_does_a_recorded_one);
    RUN(what_was_put_may_be_overwritten);
    return TEST_SUMMARY();
}
