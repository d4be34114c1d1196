// The specification's unit checks (9.2) that concern the whole model: what init, the residual
// wiring and the first steps of training must give, in closed form.
#include "../../gpt/internal.h"
#include "../../run/optimizer.h"
#include "../test.h"
#include "model.h"

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
        const Recipe recipe =
            which < 2 ? model_narrow_speedrun(which ? "full" : "fp8") : short_tiny();
        const double want = log(recipe.vocab_padded);
        Gpt *gpt = model_create(&recipe, &ops_cpu, false, 1);
        if (which < 2) CHECK_NEAR(want, 10.825840, 0.5e-6);
        for (int data = 0; data < 2; data++) {
            model_batch(&m, recipe.vocab_size, data ? (int[]){1, 0, 9, 6, -1} : (int[]){20, -1});
            CHECK_NEAR(gpt_evaluate(gpt, &m.batch), want, 4 * 0x1p-24 * want);
            CHECK_NEAR(model_loss(gpt, &m.batch), want, 4 * 0x1p-24 * want);
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
    Gpt *gpt = model_create(&recipe, &ops_cpu, false, 1);
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
    const Recipe recipe = model_narrow_speedrun("full");
    Gpt *gpt = model_create(&recipe, &ops_cpu_f64, true, 1);
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
    Gpt *gpt = model_create(&recipe, &ops_cpu, false, 1);
    model_randomize(gpt, 0.1);
    int32_t cu[130];
    model_batch(&m, recipe.vocab_size, (int[]){100, 28, -1});
    const double plain = gpt_evaluate(gpt, &m.batch);
    for (int i = 0; i <= 129; i++) cu[i] = i < 60 ? 0 : i < 90 ? 100 : 128;
    m.batch.cu = cu, m.batch.n_docs = 129;
    CHECK(gpt_evaluate(gpt, &m.batch) == plain && model_loss(gpt, &m.batch) == plain);
    gpt_free(gpt);
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
    Gpt *gpt = model_create(recipe, &ops_cpu, false, 2);
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
        for (int id = 0; id < GPT_BANKS; id++) // Adam's go on summing after even steps
            CHECK(no_gradient(gpt, (BankId)id, 0, 0) ||
                      (!gpt_bank(gpt, (BankId)id)->muon && step % 2 == 0),
                  "bank %d, step %d", id, step);
        CHECK(no_gradient(gpt, BANK_LM_HEAD, 0, 0) == (step % 2 == 1), "step %d", step);
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

// Sections 5.1 to 5.4 and 4.2 as the device sees them: windows in tokens, softmax scale, rates.
TEST(state_of_each_phase)
{
    static const struct {
        int step, window_short, window_long;
        double scale, factor, momentum;
        int updates; // of Adam
    } want[] = {{0, 128, 384, 0.1, 1, 0.85, 0},
                {1, 128, 384, 0.1, 1, 0.85 + 0.1 / 300, 1},
                {735, 384, 896, 0.11694595720774409, 1, 0.95, 368},
                {1470, 640, 1408, 0.12751752379570258, 0.7, 0.95, 735},
                {2205, 768, 1664, 0.1317779884389435, 0.10018, 0.93, 1103},
                {2245, 768, 2560, 0.1317779884389435, 0.10018, 0.85, 1123}};
    const Recipe recipe = model_narrow_speedrun("full");
    Gpt *gpt = model_create(&recipe, &ops_cpu, false, 1);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        gpt_set_step(gpt, want[i].step);
        const StepState *s = gpt_step_state(gpt);
        const int t = want[i].updates;
        const double correction = t ? sqrt(1 - pow(0.95, t)) / (1 - pow(0.65, t)) : 0;
        CHECK(s->window_short == want[i].window_short, "%d: %d", want[i].step, s->window_short);
        CHECK(s->window_long == want[i].window_long, "%d: %d", want[i].step, s->window_long);
        CHECK_NEAR(s->attn_scale, want[i].scale, 1e-15);
        CHECK_NEAR(s->muon_lr, 0.03 * want[i].factor, 1e-15);
        CHECK_NEAR(s->muon_momentum, want[i].momentum, 1e-15);
        CHECK_NEAR(s->adam_alpha, 0.008 * want[i].factor * correction, 1e-15);
        CHECK(s->muon_wd == 1.2);
    }
    gpt_free(gpt);
}

int main(void)
{
    RUN(loss_at_init);
    RUN(initial_values);
    RUN(residual_wiring);
    RUN(empty_documents);
    RUN(zero_gradients_of_the_first_steps);
    RUN(state_of_each_phase);
    return TEST_SUMMARY();
}
