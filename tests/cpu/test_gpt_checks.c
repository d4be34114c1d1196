// The specification's unit checks (9.2) that concern the whole model: what init, the residual
// wiring, the fp8 head and the first steps of training must give, in closed form.
#include "../../gpt/internal.h"
#include "../../run/optimizer.h"
#include "../test.h"
#include "model.h"

static Gpt *made(const Recipe *recipe, const Ops *ops, bool real_storage, int batches)
{
    Error err;
    Gpt *gpt = gpt_create(recipe, ops, real_storage, batches, &err);
    if (!gpt) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    gpt_init(gpt, 3);
    gpt_set_step(gpt, 0);
    return gpt;
}

// speedrun in all but the width, 64, and the batch.
static Recipe narrow_speedrun(const char *head)
{
    const char *fields[] = {"heads",      "1",       "head_dim", "64",        "micro_batch",
                            "128",        "max_doc", "128",      "val_chunk", "128",
                            "val_tokens", "128",     "head",     head,        NULL};
    return model_recipe("speedrun", fields);
}

static Recipe short_tiny(void)
{
    const char *fields[] = {"micro_batch", "128",        "max_doc", "128", "val_chunk",
                            "128",         "val_tokens", "128",     NULL};
    return model_recipe("tiny", fields);
}

// 9.2, 1: ln of the padded vocabulary, whatever the data.
TEST(loss_at_init)
{
    static ModelBatch m;
    for (int which = 0; which < 3; which++) {
        const Recipe recipe = which < 2 ? narrow_speedrun(which ? "full" : "fp8") : short_tiny();
        const double want = log(recipe.vocab_padded);
        Gpt *gpt = made(&recipe, &ops_cpu, false, 1);
        if (which < 2) CHECK_NEAR(want, 10.825840, 0.5e-6);
        for (int data = 0; data < 2; data++) {
            model_batch(&m, recipe.vocab_size, data ? (int[]){1, 0, 9, 6, -1} : (int[]){20, -1});
            CHECK_NEAR(gpt_evaluate(gpt, &m.batch), want, 4 * 0x1p-24 * want);
            CHECK_NEAR(gpt_forward_backward(gpt, &m.batch), want, 4 * 0x1p-24 * want);
        }
        gpt_free(gpt);
    }
}

typedef struct {
    double largest, mean, deviation;
} Moments;

static Moments moments(const GptBank *b, int i)
{
    const size_t n = (size_t)b->rows * (size_t)b->cols;
    Moments m = {0, 0, 0};
    for (size_t j = (size_t)i * n; j < (size_t)(i + 1) * n; j++) {
        const double x = dtype_get(b->param, b->dtype, j);
        m.largest = fmax(m.largest, fabs(x));
        m.mean += x / (double)n;
        m.deviation += x * x / (double)n;
    }
    m.deviation = sqrt(m.deviation - m.mean * m.mean);
    return m;
}

// 9.2, 2, at the width of speedrun. A mean of n draws has the deviation s / sqrt(n), their standard
// deviation s sqrt((kurtosis - 1) / 4n), with kurtosis 1.8 (uniform) and 3 (normal): five of each.
TEST(initial_values)
{
    const char *fields[] = {"layers",     "smv0b",   "vocab_size", "1000",      "micro_batch",
                            "16",         "max_doc", "16",         "val_chunk", "16",
                            "val_tokens", "16",      NULL};
    const Recipe recipe = model_recipe("speedrun", fields);
    Gpt *gpt = made(&recipe, &ops_cpu, false, 1);
    const BankId ids[] = {BANK_ATTN, BANK_MLP, BANK_EMBED, BANK_VALUE_EMBED};
    for (int k = 0; k < 4; k++) {
        const GptBank *b = gpt_bank(gpt, ids[k]);
        const double n = (double)b->rows * b->cols;
        for (int i = 0; i < b->count; i++) {
            const Moments m = moments(b, i);
            const bool normal = k >= 2,
                       zero = ids[k] == BANK_ATTN ? i == 3 : ids[k] == BANK_MLP && i;
            const double s = zero ? 0 : normal ? 1 : 0.018042195912175804; // 1 / (32 sqrt 3)
            CHECK_NEAR(m.mean, 0, 5 * s / sqrt(n));
            CHECK_NEAR(m.deviation, s, 5 * s * sqrt((normal ? 2 : 0.8) / (4 * n)));
            if (!normal) CHECK(m.largest <= 0.03125 && (zero || m.largest > 0.0312));
            if (normal) CHECK(m.largest > 4 && m.largest < 7); // 768000 draws
        }
    }
    const float *attn = gpt_bank(gpt, BANK_ATTN)->param;
    int equal = 0;
    for (int j = 0; j < 768 * 768; j++) equal += attn[j] == attn[j + 768 * 768];
    CHECK(equal < 10, "%d entries of Q and K are equal", equal);
    const BankId zeros[] = {BANK_ATTN_GATE, BANK_SMEAR_GATE, BANK_LM_HEAD};
    for (int k = 0; k < 3; k++) CHECK(moments(gpt_bank(gpt, zeros[k]), 0).largest == 0);
    // one slot: skip gate, lambdas of x and x0, of v and ve, smear, backout
    const double want[] = {-1.5, 1, 0, 0.5, 0.5, 0, 0.5};
    for (int j = 0; j < 7; j++)
        CHECK(((const float *)gpt_bank(gpt, BANK_SCALARS)->param)[j] == (float)want[j], "%d", j);
    gpt_free(gpt);
}

// Largest |x - factor x0| of a slot's output.
static double multiple_error(const Gpt *gpt, const Acts *acts, int slot, double factor, int t)
{
    const double *x = acts->slot[slot].x, *x0 = acts->x0;
    double error = 0;
    for (int i = 0; i < t * gpt->recipe.width; i++) {
        const double e = fabs(x[i] - factor * x0[i]);
        if (!(e <= error)) error = e;
    }
    return error;
}

// 9.2, 10: with sublayers that add nothing, as at init, every stream is a multiple of x0: 1 + 5 g
// at the end and 1 + 3 g at the backout, g = sigmoid(-1.5); and with other lambdas and gates what
// the recurrence with a stack gives.
TEST(residual_wiring)
{
    static ModelBatch m;
    const Recipe recipe = narrow_speedrun("full");
    Gpt *gpt = made(&recipe, &ops_cpu_f64, true, 1);
    GptBank *scalars = gpt_bank(gpt, BANK_SCALARS);
    double *s = scalars->param;
    Acts acts;
    model_batch(&m, recipe.vocab_size, (int[]){20, 0, 12, -1});
    acts_layout(&acts, gpt, 32, true, gpt->arena);
    gpt_forward_backward(gpt, &m.batch);
    const double g = 1 / (1 + exp(1.5));
    CHECK_NEAR(g, 0.18243, 0.5e-5);
    CHECK(multiple_error(gpt, &acts, 11, 1 + 5 * g, 32) < 1e-13);
    CHECK(multiple_error(gpt, &acts, 8, 1 + 3 * g, 32) < 1e-13);

    for (int j = 0; j < 36; j++) s[j] = model_random();
    gpt_load_weights(gpt, BANK_SCALARS);
    gpt_forward_backward(gpt, &m.batch);
    double x = 1, stack[12];
    int top = 0;
    for (int i = 1; i <= 11; i++) {
        if (i >= 6 && i <= 10) x += stack[--top] / (1 + exp(-s[i - 6]));
        x = s[12 + 2 * i] * x + s[13 + 2 * i];
        if (i < 6) stack[top++] = x;
        CHECK(multiple_error(gpt, &acts, i, x, 32) < 1e-13, "slot %d", i);
    }
    gpt_free(gpt);
}

// Padding with empty documents, one more than there are tokens in all, changes no bit.
TEST(empty_documents)
{
    static ModelBatch m;
    const Recipe recipe = short_tiny();
    Gpt *gpt = made(&recipe, &ops_cpu, false, 1);
    model_randomize(gpt, 0.1);
    int32_t cu[130];
    model_batch(&m, recipe.vocab_size, (int[]){100, 28, -1});
    const double plain = gpt_evaluate(gpt, &m.batch);
    for (int i = 0; i <= 129; i++) cu[i] = i < 60 ? 0 : i < 90 ? 100 : 128;
    m.batch.cu = cu, m.batch.n_docs = 129;
    CHECK(gpt_evaluate(gpt, &m.batch) == plain && gpt_forward_backward(gpt, &m.batch) == plain);
    gpt_free(gpt);
}

// 9.2, 12. Rows of embed that hold +-1 and +-1/2 have rms sqrt(5/8), so that the normed stream is
// +-1.265 and +-0.632, and its fp8 operand, divided by 8/448, +-72 and +-36 (from 70.8 and 35.4).
static void fp8_head_case(int batches)
{
    static ModelBatch m;
    const Recipe recipe = narrow_speedrun("fp8");
    Gpt *gpt = made(&recipe, &ops_cpu, false, batches);
    GptBank *embed = gpt_bank(gpt, BANK_EMBED), *head = gpt_bank(gpt, BANK_LM_HEAD);
    enum { D = 64, T = 48 };
    for (size_t i = 0; i < model_bank_size(embed); i++)
        dtype_set(embed->param, embed->dtype, i, (model_random() < 0 ? -1 : 1) * (i % 2 ? 0.5 : 1));
    gpt_load_weights(gpt, BANK_EMBED);
    model_batch(&m, 1000, (int[]){30, 18, -1}); // targets below 1000
    Acts acts;
    acts_layout(&acts, gpt, T, true, gpt->arena);
    gpt_forward_backward(gpt, &m.batch);

    const float *x8 = acts.head_in, *delta = head->delta;
    const uint16_t *grad = head->grad;
    for (int i = 0; i < T * D; i++) {
        const double e = dtype_get(embed->param, embed->dtype, (size_t)(m.ids[i / D] * D + i % D));
        CHECK((double)x8[i] == 72 * e, "%g for %g", (double)x8[i], e);
    }
    const double unit = 0.009765625 / 448 / batches;
    CHECK_NEAR(unit * batches, 2.17983e-05, 0.5e-10);
    static const int sampled[] = {1000, 31415, 50256, 50257,
                                  50303}; // never targets; two of padding
    for (int k = 0; k < 5 + T; k++) {
        const int v = k < 5 ? sampled[k] : m.targets[k - 5];
        for (int j = 0; j < D; j++) {
            double sum = 0;
            for (int p = 0; p < T; p++)
                sum += (double)x8[p * D + j] / 56 * (m.targets[p] == v ? -1.0 / batches : unit);
            // sums of multiples of 36: only the final factor and rare wide sums round
            const float got = delta[v * D + j];
            CHECK_NEAR((double)got, sum, 0x1p-20 * fabs(sum) + 1e-12);
            CHECK(grad[v * D + j] == bf16_from_f32(got));
        }
    }
    gpt_free(gpt);
}

TEST(fp8_head_at_step_0)
{
    fp8_head_case(1);
    fp8_head_case(8);
}

// The fp8 head away from zero: weights that e4m3 holds exactly once divided by 2^-9, but for some
// of
// +-1.5, which saturate at 448 2^-9 = 0.875; and a stream of +-1, which it holds once divided by
// 8/448. The loss is then that of the full head with the saturated weights. The gradient that
// enters the trunk differs by the rounding of each du to e5m2, 1/8 of it at most: 1/8 in norm when
// the roundings are independent of the weights, and twice that is allowed.
TEST(fp8_head_of_exact_weights)
{
    static ModelBatch m;
    const Recipe recipes[] = {narrow_speedrun("fp8"), narrow_speedrun("full")};
    Gpt *gpt[2];
    model_batch(&m, recipes[0].vocab_size, (int[]){30, 18, -1});
    double loss[2];
    for (int k = 0; k < 2; k++) {
        gpt[k] = made(&recipes[k], &ops_cpu, false, 1);
        const BankId ids[] = {BANK_EMBED, BANK_LM_HEAD};
        for (int i = 0; i < 2; i++) {
            GptBank *b = gpt_bank(gpt[k], ids[i]);
            uint32_t bits = 7;
            for (size_t j = 0; j < model_bank_size(b); j++) {
                bits = bits * 1664525u + 1013904223u;
                double w = (bits >> 24 & 15) * 0x1p-6; // 0 to 15/64: four bits
                if (bits >> 20 & 1) w = k ? 0.875 : 1.5;
                dtype_set(b->param, b->dtype, j, (bits >> 31 ? -1 : 1) * (i ? w : 1));
            }
            gpt_load_weights(gpt[k], ids[i]);
        }
        loss[k] = gpt_forward_backward(gpt[k], &m.batch);
    }
    CHECK(loss[1] > 11); // far from init
    CHECK_NEAR(loss[0], loss[1], 64 * 0x1p-23 * loss[1]);
    CHECK_NEAR(gpt_evaluate(gpt[1], &m.batch), loss[1], 64 * 0x1p-23 * loss[1]);
    const GptBank *b[2] = {gpt_bank(gpt[0], BANK_EMBED), gpt_bank(gpt[1], BANK_EMBED)};
    double error = 0, norm = 0;
    for (size_t j = 0; j < model_bank_size(b[0]); j++) {
        const double want = dtype_get(b[1]->grad, b[1]->dtype, j);
        error += pow(dtype_get(b[0]->grad, b[0]->dtype, j) - want, 2);
        norm += want * want;
    }
    CHECK(norm > 0 && sqrt(error / norm) < 0.25, "relative error %.3g", sqrt(error / norm));
    for (int k = 0; k < 2; k++) gpt_free(gpt[k]);
}

// Whether the gradient of numbers [first, first + n) of a bank is all zero; n = 0: to its end.
static bool no_gradient(Gpt *gpt, BankId id, size_t first, size_t n)
{
    const GptBank *b = gpt_bank(gpt, id);
    if (n == 0) n = model_bank_size(b) - first;
    for (size_t i = first; i < first + n; i++)
        if (dtype_get(b->grad, b->dtype, i) != 0) return false;
    return true;
}

static bool no_gradient_of(Gpt *gpt, BankId id, int item) // of one matrix
{
    const GptBank *b = gpt_bank(gpt, id);
    const size_t n = (size_t)b->rows * (size_t)b->cols;
    return no_gradient(gpt, id, (size_t)item * n, n);
}

// What section 3.5 says of each step's gradients, before the optimizers use them. Adam's go on
// summing over two steps, so that "zero at step 3" includes step 2.
static void check_step(Gpt *gpt, int step)
{
    const Recipe *r = gpt_recipe(gpt);
    CHECK(!no_gradient(gpt, BANK_LM_HEAD, 0, 0));
    CHECK(no_gradient(gpt, BANK_EMBED, 0, 0) == (step < 2));
    CHECK(no_gradient(gpt, BANK_SCALARS, (size_t)recipe_smear(r), 1) == (step < 2));
    if (step < 2) CHECK(no_gradient(gpt, BANK_SCALARS, 0, 0));
    for (int i = 0; i < r->n_slots; i++) {
        const LayerSlot *slot = &r->slot[i];
        const int q = gpt_matrix_index(gpt, BANK_ATTN, i), fc = gpt_matrix_index(gpt, BANK_MLP, i);
        const size_t lambda = (size_t)recipe_value_lambda(r, i);
        if (slot->attention) {
            for (int k = 0; k < 3; k++) CHECK(no_gradient_of(gpt, BANK_ATTN, q + k) == (step < 3));
            CHECK(no_gradient_of(gpt, BANK_ATTN, q + 3) == (step < 2));
            CHECK(no_gradient_of(gpt, BANK_ATTN_GATE, q / 4) == (step < 3));
            CHECK(no_gradient(gpt, BANK_SCALARS, lambda, 1) == (step < 3));
        }
        if (slot->value_embed >= 0) {
            CHECK(no_gradient(gpt, BANK_SCALARS, lambda + 1, 1) == (step < 3));
            CHECK(no_gradient_of(gpt, BANK_VALUE_EMBED, slot->value_embed) == (step < 3));
        }
        if (slot->mlp) {
            CHECK(no_gradient_of(gpt, BANK_MLP, fc) == (step < 3));
            CHECK(no_gradient_of(gpt, BANK_MLP, fc + 1) == (step < 2));
        }
    }
    CHECK(no_gradient(gpt, BANK_SMEAR_GATE, 0, 0) == (step < 4));
}

static void first_steps(const Recipe *recipe)
{
    static ModelBatch m;
    Error err;
    Optimizer optimizer;
    Gpt *gpt = made(recipe, &ops_cpu, false, 2);
    CHECK(optimizer_create(&optimizer, gpt, &err), "%s", err.text);
    for (int step = 0; step < 5; step++) {
        const int before = checks_failed;
        gpt_set_step(gpt, step);
        for (int k = 0; k < 2; k++) {
            model_batch(&m, recipe->vocab_size, (int[]){50, 0, 78, -1});
            gpt_forward_backward(gpt, &m.batch);
        }
        check_step(gpt, step);
        CHECK(checks_failed == before, "recipe %s, step %d", recipe->name, step);
        optimizer_step(&optimizer, step);
    }
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

// 9.2, 14, and the rest of section 3.5.
TEST(zero_gradients_of_the_first_steps)
{
    Recipe recipe = short_tiny();
    first_steps(&recipe);
    strcpy(recipe.head, "fp8");
    first_steps(&recipe);
}

int main(void)
{
    RUN(loss_at_init);
    RUN(initial_values);
    RUN(residual_wiring);
    RUN(empty_documents);
    RUN(fp8_head_at_step_0);
    RUN(fp8_head_of_exact_weights);
    RUN(zero_gradients_of_the_first_steps);
    return TEST_SUMMARY();
}
