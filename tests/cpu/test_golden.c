// The CPU device against tests/golden: an independent PyTorch float64 statement of the
// specification.
#include "../../run/optimizer.h"
#include "../golden/golden.h"
#include "../test.h"
#include "../../ablate/svd.h"

// ---- training cases ----------------------------------------------------------------------------

// Where a golden tensor lies: n numbers of a bank from `first` on.
typedef struct {
    GptBank *bank;
    size_t first;
} Place;

static Place place(Gpt *gpt, const char *name)
{
    static const struct {
        const char *stem;
        BankId id;
        int offset;
    } stems[] = {
        {"embed", BANK_EMBED, 0},
        {"value_embed", BANK_VALUE_EMBED, 0},
        {"lm_head", BANK_LM_HEAD, 0},
        {"scalars", BANK_SCALARS, 0},
        {"smear_gate", BANK_SMEAR_GATE, 0},
        {"attn_gate", BANK_ATTN_GATE, 0},
        {"qkvo", BANK_ATTN, 0},
        {"c_fc", BANK_MLP, 0},
        {"c_proj", BANK_MLP, 1}, // it follows its slot's c_fc
    };
    const size_t length = strcspn(name, ".");
    const int number = name[length] ? atoi(name + length + 1) : 0;
    for (size_t k = 0; k < sizeof stems / sizeof *stems; k++) {
        if (strlen(stems[k].stem) != length || strncmp(stems[k].stem, name, length)) continue;
        const BankId id = stems[k].id;
        const bool by_slot = id == BANK_ATTN_GATE || id == BANK_ATTN || id == BANK_MLP;
        GptBank *b = gpt_bank(gpt, id);
        const int index = by_slot ? gpt_matrix_index(gpt, id, number) : number;
        if (index < 0 || index >= b->count) break;
        return (Place){b, (size_t)(index + stems[k].offset) * (size_t)b->rows * (size_t)b->cols};
    }
    fprintf(stderr, "the model has no tensor %s\n", name);
    exit(1);
}

static double *read_tensor(const void *from, Place at, size_t n)
{
    double *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = dtype_get(from, at.bank->dtype, at.first + i);
    return x;
}

static void put_parameters(Gpt *gpt, const GoldenCase *c)
{
    Place at = place(gpt, "scalars");
    CHECK(at.bank->cols == c->n_scalars);
    for (int i = 0; i < c->n_scalars; i++)
        dtype_set(at.bank->param, at.bank->dtype, (size_t)i, c->scalars[i]);
    for (int t = 0; t < c->n_tensors; t++) {
        at = place(gpt, c->tensor[t].name);
        for (size_t i = 0; i < c->tensor[t].n; i++)
            dtype_set(at.bank->param, at.bank->dtype, at.first + i, golden_value(c, t, i));
    }
    for (int id = 0; id < GPT_BANKS; id++) gpt_load_weights(gpt, (BankId)id);
}

static GptBatch batch_of(const GoldenCase *c, const Recipe *r, int index)
{
    static int32_t ids[4096], targets[4096];
    golden_tokens(c, index, r->vocab_size, r->micro_batch, ids, targets);
    return (GptBatch){.ids = ids,
                      .targets = targets,
                      .cu = c->batch[index].cu,
                      .n_docs = c->batch[index].n_cu - 1,
                      .tokens = r->micro_batch};
}

// Mean loss over the micro-batches of a step, with or without the backward pass.
static double mean_loss(Gpt *gpt, const GoldenCase *c, int step, bool backward)
{
    const Recipe *r = gpt_recipe(gpt);
    double sum = 0;
    for (int i = 0; i < c->n_batches; i++) {
        if (c->batch[i].step != step) continue;
        const GptBatch batch = batch_of(c, r, i);
        if (backward) gpt_forward_backward(gpt, &batch);
        sum += backward ? gpt_loss(gpt) : gpt_evaluate(gpt, &batch);
    }
    return sum / r->micro_batches;
}

// Allowed relative errors, of losses and of whole tensors: at the start, and over ten steps.
typedef struct {
    double loss, gradient, path_loss, change;
} Tolerance;

// The gradients, or the parameters minus `start`, of all tensors of the case.
static void check_tensors(Gpt *gpt, const char *what, const GoldenSketch *sketch, int n, bool grad,
                          double **start, double tolerance)
{
    double worst = 0;
    const char *where = "nowhere";
    for (int k = 0; k < n; k++) {
        const Place at = place(gpt, sketch[k].name);
        double *x = read_tensor(grad ? at.bank->grad : at.bank->param, at, sketch[k].n);
        for (size_t i = 0; start && i < sketch[k].n; i++) x[i] -= start[k][i];
        const double error = golden_error(&sketch[k], x, sketch[k].n);
        CHECK(error <= tolerance, "%s of %s: relative error %.3g", what, sketch[k].name, error);
        if (error > worst) worst = error, where = sketch[k].name;
        free(x);
    }
    printf("     %s: largest relative error %.2g, of %s\n", what, worst, where);
}

// The speedrun with the fields of the case, in storage real.
static Recipe recipe_of(const GoldenCase *c)
{
    Recipe recipe;
    Error err;
    bool ok =
        recipe_find(&recipe, "speedrun", &err) && recipe_set(&recipe, "ns_storage", "real", &err);
    for (int i = 0; ok && i < c->n_set; i++) {
        const char *field = c->set[i].field, *value = c->set[i].value;
        ok = recipe_set(&recipe, field, value, &err);
        if (ok && !strcmp(field, "micro_batch"))
            ok = recipe_set(&recipe, "val_chunk", value, &err) &&
                 recipe_set(&recipe, "val_tokens", value, &err);
    }
    if (!ok || !recipe_finish(&recipe, &err)) {
        fprintf(stderr, "golden case: %s\n", err.text);
        exit(1);
    }
    return recipe;
}

static void check_case(const char *path, const Ops *ops, Tolerance tolerance)
{
    static GoldenCase c;
    golden_read_case(path, &c);
    const Recipe recipe = recipe_of(&c);
    Error err;
    Optimizer optimizer;
    Gpt *gpt = gpt_create(&recipe, ops, true, recipe.micro_batches, &err);
    if (!gpt || !optimizer_create(&optimizer, gpt, &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    put_parameters(gpt, &c);
    double *start[GOLDEN_TENSORS], loss_error = 0;
    for (int k = 0; k < c.n_changes; k++) {
        const Place at = place(gpt, c.change[k].name);
        start[k] = read_tensor(at.bank->param, at, c.change[k].n);
    }

    const int steps = recipe.total_steps;
    CHECK(c.n_losses == steps + 1);
    for (int step = 0; step < steps; step++) {
        gpt_set_step(gpt, step);
        const double loss = mean_loss(gpt, &c, step, true);
        const double bound = step ? tolerance.path_loss : tolerance.loss;
        CHECK_NEAR(loss, c.loss[step], bound * c.loss[step]);
        loss_error = fmax(loss_error, fabs(loss / c.loss[step] - 1));
        if (step == 0)
            check_tensors(gpt, "gradient", c.gradient, c.n_gradients, true, NULL,
                          tolerance.gradient);
        optimizer_step(&optimizer, step);
    }
    check_tensors(gpt, "change", c.change, c.n_changes, false, start, tolerance.change);
    gpt_set_step(gpt,
                 steps - 1); // the windows of the last step, then those of the final validation
    CHECK_NEAR(mean_loss(gpt, &c, steps, false), c.loss[steps],
               tolerance.path_loss * c.loss[steps]);
    gpt_set_step(gpt, steps);
    CHECK_NEAR(mean_loss(gpt, &c, steps, false), c.loss_final, tolerance.path_loss * c.loss_final);
    printf("     loss: largest relative error %.2g\n", loss_error);

    for (int k = 0; k < c.n_changes; k++) free(start[k]);
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

// A rounding is 1e-16 or 6e-8; sums of some hundred terms with cancellation stand between it and a
// gradient. Over ten steps the orthogonalisation multiplies small singular values by up to 500, and
// Adam's normalised step follows even gradients that are rounding noise: where one entry in 10^4
// is, and steps the other way, the change is off by sqrt(10^-4) = 1e-2.
static const Tolerance in_double = {1e-12, 1e-9, 1e-9, 1e-6};
static const Tolerance in_float = {1e-5, 1e-4, 1e-4, 1e-2};

TEST(speedrun_layers_in_double)
{
    check_case("tests/golden/speedrun_small.txt", &ops_cpu_f64, in_double);
}
TEST(wide_head_in_double) { check_case("tests/golden/wide_head.txt", &ops_cpu_f64, in_double); }
TEST(plain_muon_in_double) { check_case("tests/golden/plain.txt", &ops_cpu_f64, in_double); }
TEST(speedrun_layers_in_float)
{
    check_case("tests/golden/speedrun_small.txt", &ops_cpu, in_float);
}
TEST(wide_head_in_float) { check_case("tests/golden/wide_head.txt", &ops_cpu, in_float); }
TEST(plain_muon_in_float) { check_case("tests/golden/plain.txt", &ops_cpu, in_float); }

// ---- orthogonalisation -------------------------------------------------------------------------

typedef struct {
    char label[40], restarts[24];
    NsMethod method;
    int rows, cols, seed;
    double scale, polar_error, orthogonality_error;
    GoldenSketch out;
} NsCase;

static void read_ns_case(GoldenFile *f, NsCase *c, int entries)
{
    Error err;
    bool ok = ns_method_find(&c->method, "muon5", &err);
    golden_copy(c->label, sizeof c->label, f, golden_word(f));
    ok = ok && ns_method_set_norm(&c->method, golden_word(f), &err);
    c->method.delta = golden_double(f);
    c->method.eps = golden_double(f);
    char table[32];
    golden_copy(table, sizeof table, f, golden_word(f));
    ok = ok && ns_method_set_coeffs(&c->method, table, (int)golden_int(f), &err);
    const bool gram = golden_int(f);
    c->restarts[0] = 0;
    for (long k = 0, n = golden_int(f); k < n; k++)
        sprintf(c->restarts + strlen(c->restarts), "%s%ld", k ? "," : "", golden_int(f));
    ok = ok && ns_method_set_gram(&c->method, gram, c->restarts, &err) &&
         ns_method_set_storage(&c->method, "real", &err);
    CHECK(ok, "%s: %s", c->label, err.text);
    c->rows = (int)golden_int(f);
    c->cols = (int)golden_int(f);
    c->seed = (int)golden_int(f);
    c->scale = golden_double(f);
    c->polar_error = golden_double(f);
    c->orthogonality_error = golden_double(f);
    c->out.n = (size_t)c->rows * (size_t)c->cols;
    golden_read_sketch(f, &c->out, entries);
}

// |Y - U V^T| / |U V^T| of a wide matrix.
static double polar_error(const double *y, const double *g, int rows, int cols)
{
    const size_t n = (size_t)rows * (size_t)cols;
    double *polar = malloc(n * sizeof *polar), sum = 0;
    svd_polar(polar, NULL, g, rows, cols);
    for (size_t i = 0; i < n; i++) sum += (y[i] - polar[i]) * (y[i] - polar[i]);
    free(polar);
    return sqrt(sum / rows);
}

static double orthogonality_error(const double *y, int rows, int cols)
{
    double sum = 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            double dot = i == j ? -1 : 0;
            for (int k = 0; k < cols; k++) dot += y[i * cols + k] * y[j * cols + k];
            sum += dot * dot;
        }
    return sqrt(sum / rows);
}

TEST(orthogonalisation)
{
    GoldenFile f = golden_open("tests/golden/ns.txt");
    int entries = 0, cases = 0;
    double worst = 0;
    for (char *kind; (kind = golden_next(&f));) {
        if (!strcmp(kind, "sketch")) {
            entries = (int)golden_int(&f);
            continue;
        }
        NsCase c;
        read_ns_case(&f, &c, entries);
        const size_t n = c.out.n;
        double *g = malloc(n * sizeof *g), *y = malloc(n * sizeof *y);
        for (size_t i = 0; i < n; i++)
            y[i] = g[i] = c.scale * (2 * golden_uniform((uint64_t)c.seed, i) - 1);
        void *work = malloc(ns_workspace_size(&c.method, 1, c.rows, c.cols, sizeof *y));
        CHECK(ns_orthogonalize_f64(&c.method, y, 1, c.rows, c.cols, work, 1) == 0);
        const double error = golden_error(&c.out, y, n);
        CHECK(error <= 1e-9, "%s, %d x %d: relative error %.3g", c.label, c.rows, c.cols, error);
        worst = fmax(worst, error);
        if (c.rows <= c.cols) {
            CHECK_NEAR(polar_error(y, g, c.rows, c.cols), c.polar_error,
                       1e-8 * (1 + c.polar_error));
            CHECK_NEAR(orthogonality_error(y, c.rows, c.cols), c.orthogonality_error,
                       1e-8 * (1 + c.orthogonality_error));
        }
        free(work);
        free(y);
        free(g);
        cases++;
    }
    CHECK(cases > 200);
    printf("     %d cases: largest relative error %.2g\n", cases, worst);
}

TEST(named_methods_are_as_specified)
{
    GoldenFile f = golden_open("tests/golden/ns.txt");
    Error err;
    int found = 0;
    for (char *kind; (kind = golden_next(&f));) {
        NsCase c;
        NsMethod named;
        if (strcmp(kind, "ns")) continue;
        read_ns_case(&f, &c, 8);
        if (!ns_method_find(&named, c.label, &err)) continue;
        found++;
        CHECK(named.norm == c.method.norm && named.delta == c.method.delta &&
                  named.eps == c.method.eps,
              "normaliser of %s", c.label);
        CHECK(named.gram == c.method.gram && named.restarts == c.method.restarts, "variant of %s",
              c.label);
        CHECK(named.iterations == c.method.iterations, "iterations of %s", c.label);
        for (int k = 0; k < named.iterations; k++)
            CHECK(named.coeff[k].a == c.method.coeff[k].a &&
                      named.coeff[k].b == c.method.coeff[k].b &&
                      named.coeff[k].c == c.method.coeff[k].c,
                  "row %d of %s", k, c.label);
    }
    CHECK(found == 8 * 5, "%d", found); // each of the published names, once per shape
}

// ---- schedules ---------------------------------------------------------------------------------

TEST(schedules_of_the_speedrun)
{
    Recipe r;
    Error err;
    CHECK(recipe_find(&r, "speedrun", &err) && recipe_finish(&r, &err), "%s", err.text);
    const int step_of_stage[] = {0, 735, 1470, 2205};
    GoldenFile f = golden_open("tests/golden/yarn.txt");
    for (char *kind; (kind = golden_next(&f));) {
        const long at = golden_int(&f); // stage or step
        if (!strcmp(kind, "schedule")) {
            CHECK_NEAR(recipe_lr_factor(&r, (int)at), golden_double(&f), 1e-15);
            CHECK_NEAR(recipe_momentum(&r, (int)at), golden_double(&f), 1e-15);
            const long small = golden_int(&f), large = golden_int(&f);
            CHECK(recipe_long_window(&r, (int)at) == large && large / 2 == small);
            continue;
        }
        double omega[64], narrow[64], scale, narrow_scale;
        gpt_yarn(&r, step_of_stage[at], false, omega, &scale);
        gpt_yarn(&r, step_of_stage[at], true, narrow, &narrow_scale);
        if (!strcmp(kind, "scale")) {
            CHECK_NEAR(scale, golden_double(&f), 1e-15);
            continue;
        }
        for (int j = 0; j < 32; j++) {
            const double expected = golden_double(&f);
            CHECK_NEAR(omega[j], expected, 1e-13 * expected);
            CHECK_NEAR(narrow[j], expected,
                       8 * 0x1p-24 * expected); // a rounding per update, and its growth
        }
    }
}

// ---- roundings, bit for bit --------------------------------------------------------------------

// The value of an fp8 code with `mantissa` bits; no infinities or NaNs among the golden codes.
static double fp8_value(uint32_t code, int mantissa, int bias)
{
    const int exponent = (int)(code >> mantissa) & (mantissa == 3 ? 15 : 31),
              m = (int)code & ((1 << mantissa) - 1);
    const double x =
        exponent ? ldexp(1 + ldexp(m, -mantissa), exponent - bias) : ldexp(m, 1 - bias - mantissa);
    return code & 0x80 ? -x : x;
}

static void read_bits(GoldenFile *f, uint16_t *bits, int n)
{
    for (int i = 0; i < n; i++) bits[i] = (uint16_t)golden_hex(f);
}

static void check_bits(const char *what, const uint16_t *got, GoldenFile *f, int n)
{
    for (int i = 0; i < n; i++) {
        const uint16_t expected = (uint16_t)golden_hex(f);
        CHECK(got[i] == expected, "%s[%d] is %04x, expected %04x", what, i, got[i], expected);
    }
}

TEST(conversions)
{
    GoldenFile f = golden_open("tests/golden/rounding.txt");
    int bf16 = 0, fp8 = 0;
    for (char *kind; (kind = golden_next(&f));) {
        if (!strcmp(kind, "bf16")) {
            const uint32_t from = golden_hex(&f), to = golden_hex(&f);
            CHECK(bf16_from_f32(f32_from_bits(from)) == to, "%08x", from);
            bf16++;
        } else if (!strcmp(kind, "fp8")) {
            const uint32_t from = golden_hex(&f), e4m3 = golden_hex(&f), e5m2 = golden_hex(&f);
            const float x = f32_from_bits(from), y = round_e4m3(x), z = round_e5m2(x);
            CHECK((double)y == fp8_value(e4m3, 3, 7) && !signbit(y) == !signbit(x), "%08x to e4m3",
                  from);
            CHECK((double)z == fp8_value(e5m2, 2, 15) && !signbit(z) == !signbit(x), "%08x to e5m2",
                  from);
            fp8++;
        }
    }
    CHECK(bf16 > 70 && fp8 > 200);
    CHECK(isnan(bf16_to_f32(bf16_from_f32(NAN))));
}

enum { MAX_STEPS = 32, MAX_NUMBERS = 128 };

TEST(adam_in_bf16)
{
    GoldenFile f = golden_open("tests/golden/rounding.txt");
    uint16_t p[MAX_NUMBERS], m[MAX_NUMBERS] = {0}, v[MAX_NUMBERS] = {0}, g[MAX_NUMBERS];
    AdamConfig config = {.lr_mul = 1};
    double lr = 0;
    int n = 0, steps = 0, t = 0;
    for (char *kind; (kind = golden_next(&f));) {
        if (!strcmp(kind, "adam")) {
            steps = (int)golden_int(&f);
            n = (int)golden_int(&f);
            lr = golden_double(&f);
            config.beta1 = golden_double(&f);
            config.beta2 = golden_double(&f);
            config.eps = golden_double(&f);
        } else if (!strcmp(kind, "adam_p0")) {
            read_bits(&f, p, n);
        } else if (!strcmp(kind, "adam_g")) {
            read_bits(&f, g, n);
            t++;
            const StepState step = {.adam_alpha = lr * sqrt(1 - pow(config.beta2, t)) /
                                                  (1 - pow(config.beta1, t))};
            ops_cpu.adam(p, m, v, g, DT_BF16, (size_t)n, &config, &step);
        } else if (!strcmp(kind, "adam_p")) {
            check_bits("p", p, &f, n);
        } else if (!strcmp(kind, "adam_m")) {
            check_bits("m", m, &f, n);
        } else if (!strcmp(kind, "adam_v")) {
            check_bits("v", v, &f, n);
        }
    }
    CHECK(t == steps && t > 0);
}

TEST(normuon_of_a_bf16_gate)
{
    GoldenFile f = golden_open("tests/golden/rounding.txt");
    uint16_t p[MAX_NUMBERS], m[MAX_NUMBERS] = {0}, s[MAX_NUMBERS] = {0}, g[MAX_NUMBERS];
    double momentum[MAX_STEPS] = {0}, lr_mul = 1;
    MuonBank bank = {.count = 1,
                     .dtype = DT_BF16,
                     .param = p,
                     .grad = g,
                     .momentum = m,
                     .second_moment = s,
                     .lr_mul = &lr_mul};
    StepState step = {0};
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, "turbo4", &err), "%s", err.text);
    int n = 0, steps = 0, t = 0;
    for (char *kind; (kind = golden_next(&f));) {
        if (!strcmp(kind, "normuon")) {
            steps = (int)golden_int(&f);
            bank.rows = (int)golden_int(&f);
            bank.cols = (int)golden_int(&f);
            n = bank.rows * bank.cols;
            step.muon_lr = golden_double(&f);
            step.muon_wd = golden_double(&f);
            bank.beta2 = golden_double(&f);
        } else if (!strcmp(kind, "normuon_momentum")) {
            for (int k = 0; k < steps; k++) momentum[k] = golden_double(&f);
        } else if (!strcmp(kind, "normuon_p0")) {
            read_bits(&f, p, n);
        } else if (!strcmp(kind, "normuon_g")) {
            read_bits(&f, g, n);
            step.muon_momentum = momentum[t++];
            void *work = malloc(ops_cpu.normuon_workspace(&bank, &method));
            ops_cpu.normuon(&bank, &method, &step, work);
            free(work);
        } else if (!strcmp(kind, "normuon_p")) {
            check_bits("p", p, &f, n);
        } else if (!strcmp(kind, "normuon_m")) {
            check_bits("momentum", m, &f, n);
        } else if (!strcmp(kind, "normuon_s")) {
            check_bits("second moment", s, &f, bank.cols);
        }
    }
    CHECK(t == steps && t > 0);
}

int main(void)
{
    RUN(conversions);
    RUN(adam_in_bf16);
    RUN(normuon_of_a_bf16_gate);
    RUN(schedules_of_the_speedrun);
    RUN(named_methods_are_as_specified);
    RUN(orthogonalisation);
    RUN(speedrun_layers_in_double);
    RUN(wide_head_in_double);
    RUN(plain_muon_in_double);
    RUN(speedrun_layers_in_float);
    RUN(wide_head_in_float);
    RUN(plain_muon_in_float);
    return TEST_SUMMARY();
}
