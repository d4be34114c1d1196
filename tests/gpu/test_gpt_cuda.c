// The whole model on the GPU against the CPU: gradients of every bank against the double device,
// and the losses of twenty steps against the float device.
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
    const double loss = gpt_forward_backward(gpu, &m.batch);
    const double exact = gpt_forward_backward(cpu, &m.batch);
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
static void train(double *losses, const Ops *ops, ModelBatch *m, bool shake)
{
    Error err;
    const char *fields[] = {"val_tokens", "1024", "val_chunk", "1024", NULL};
    Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpt = model_create(&recipe, ops, false, 1);
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
        losses[step] = gpt_forward_backward(gpt, &m->batch);
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

TEST(twenty_steps_as_on_the_cpu)
{
    static ModelBatch m;
    double gpu[STEPS], again[STEPS], shaken[STEPS], cpu[STEPS];
    model_batch(&m, 257, (int[]){512, 100, 0, 300, 112, -1});
    train(gpu, cuda, &m, false);
    train(again, cuda, &m, false);
    train(shaken, cuda, &m, true);
    train(cpu, &ops_cpu, &m, false);
    const double noise = distance(gpu, shaken), apart = distance(gpu, cpu);
    printf("     loss %.4f to %.4f, on the CPU %.4f; apart %.5f, noise %.5f\n", gpu[0],
           gpu[STEPS - 1], cpu[STEPS - 1], apart, noise);
    CHECK(cpu[STEPS - 1] < 0.8 * cpu[0], "the losses do not fall, and prove nothing");
    CHECK(apart <= 3 * noise, "apart %.5f, noise %.5f", apart, noise);
    CHECK(!memcmp(gpu, again, sizeof gpu), "two runs on the GPU differ");
}

int main(void)
{
    find_gpu();
    RUN(gradients_with_narrow_heads);
    RUN(gradients_with_wide_heads_and_odd_lengths);
    RUN(twenty_steps_as_on_the_cpu);
    return TEST_SUMMARY();
}
