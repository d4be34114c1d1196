// NorMuon on the CPU against PyTorch's bits, the formula spelled out in double, and closed forms.
#include "../../muon.h"

#include <stdlib.h>
#include <string.h>

#include "../golden/golden.h"
#include "../test.h"

void cpu_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                 void *workspace);
size_t cpu_normuon_workspace(const MuonBank *bank, const NsMethod *method);
void cpu_normuon_f64(const MuonBank *bank, const NsMethod *method, const StepState *step,
                     void *workspace);
size_t cpu_normuon_workspace_f64(const MuonBank *bank, const NsMethod *method);

static const double ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
static const StepState peak = {.muon_lr = 0.03, .muon_momentum = 0.95, .muon_wd = 1.2};

static NsMethod method_with(const char *name, const char *storage)
{
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    if (storage) CHECK(ns_method_set_storage(&method, storage, &err), "%s", err.text);
    return method;
}

// The workspace ends in a guard, so that a size that is too small shows.
static void update(const MuonBank *bank, const NsMethod *method, const StepState *step)
{
    const size_t bytes = cpu_normuon_workspace(bank, method);
    unsigned char *work = malloc(bytes + 64);
    memset(work, 0xa5, bytes + 64);
    cpu_normuon(bank, method, step, work);
    for (int i = 0; i < 64; i++)
        CHECK(work[bytes + (size_t)i] == 0xa5, "written past the workspace");
    free(work);
}

static double entry(uint64_t seed, size_t i) { return 2 * golden_uniform(seed, i) - 1; }

static double norm_f32(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

// A bank of fp32 matrices with room for a few.
enum { ROWS = 16, COLS = 24, SIZE = ROWS * COLS };

typedef struct {
    float p[4 * SIZE], g[4 * SIZE], m[4 * SIZE], s[4 * COLS];
    MuonBank bank;
} Bank32;

static Bank32 *bank32(int count, uint64_t seed)
{
    Bank32 *b = calloc(1, sizeof *b);
    for (int i = 0; i < count * SIZE; i++) {
        b->p[i] = (float)entry(seed, (size_t)i);
        b->g[i] = (float)entry(seed + 1, (size_t)i);
    }
    b->bank = (MuonBank){count, ROWS, COLS, DT_F32, b->p, b->g, b->m, b->s, ones, 0.95};
    return b;
}

static void read_bits(GoldenFile *f, const char *kind, uint16_t *bits, int n)
{
    if (strcmp(golden_next(f), kind)) golden_stop(f, "another kind of line was expected");
    for (int i = 0; i < n; i++) bits[i] = (uint16_t)golden_hex(f);
}

static int count_different(const uint16_t *a, const uint16_t *b, int n)
{
    int different = 0;
    for (int i = 0; i < n; i++) different += a[i] != b[i];
    return different;
}

TEST(golden_bits)
{
    enum { MOST = 256, STEPS = 16 };
    GoldenFile f = golden_open("tests/golden/rounding.txt");
    char *kind;
    while ((kind = golden_next(&f)) && strcmp(kind, "normuon")) {
    }
    int steps = (int)golden_int(&f), rows = (int)golden_int(&f), cols = (int)golden_int(&f);
    int n = rows * cols;
    StepState step = {.muon_lr = golden_double(&f)};
    step.muon_wd = golden_double(&f);
    uint16_t p[MOST], g[MOST], m[MOST] = {0}, s[MOST] = {0}, expected[MOST];
    MuonBank bank = {1, rows, cols, DT_BF16, p, g, m, s, ones, golden_double(&f)};
    NsMethod turbo4 = method_with("turbo4", NULL);
    double momenta[STEPS];
    if (n > MOST || steps > STEPS || strcmp(golden_next(&f), "normuon_momentum"))
        golden_stop(&f, "not what the test has room for");
    for (int t = 0; t < steps; t++) momenta[t] = golden_double(&f);
    read_bits(&f, "normuon_p0", p, n);
    for (int t = 0; t < steps; t++) {
        read_bits(&f, "normuon_g", g, n);
        step.muon_momentum = momenta[t];
        update(&bank, &turbo4, &step);
    }
    read_bits(&f, "normuon_p", expected, n);
    CHECK(!count_different(p, expected, n), "%d of p", count_different(p, expected, n));
    read_bits(&f, "normuon_m", expected, n);
    CHECK(!count_different(m, expected, n), "%d of m", count_different(m, expected, n));
    read_bits(&f, "normuon_s", expected, cols);
    CHECK(!count_different(s, expected, cols), "%d of s", count_different(s, expected, cols));
    fclose(f.file);
}

// Without rounding, three steps of two matrices are the formula in double; lr_mul differs.
TEST(formula_in_double)
{
    enum { N = 2 * SIZE };
    static double p[N], g[N], m[N], s[2 * COLS], xp[N], xm[N], xs[2 * COLS], o[N];
    const double lr_mul[] = {1, 2};
    MuonBank bank = {2, ROWS, COLS, DT_F64, p, g, m, s, lr_mul, 0.95};
    NsMethod turbo4 = method_with("turbo4", "real");
    StepState step = peak;
    void *work = malloc(cpu_normuon_workspace_f64(&bank, &turbo4));
    void *ns_work = malloc(ns_workspace_size(&turbo4, 1, ROWS, COLS, sizeof(double)));
    for (size_t i = 0; i < N; i++) p[i] = xp[i] = entry(1, i);
    for (int t = 0; t < 3; t++) {
        const double mu = step.muon_momentum = 0.85 + 0.05 * t;
        for (size_t i = 0; i < N; i++) {
            g[i] = entry(2 + (uint64_t)t, i);
            xm[i] = mu * xm[i] + (1 - mu) * g[i];
            o[i] = (1 - mu) * g[i] + mu * xm[i];
        }
        ns_orthogonalize_f64(&turbo4, o, 2, ROWS, COLS, ns_work, 1);
        for (int k = 0; k < 2; k++) {
            double *ok = o + k * SIZE, before = 0, after = 0;
            for (int j = 0; j < COLS; j++) {
                double mean = 0;
                for (int i = 0; i < ROWS; i++) mean += ok[i * COLS + j] * ok[i * COLS + j] / ROWS;
                before += mean * ROWS;
                double *sj = xs + k * COLS + j;
                *sj = 0.95 * *sj + (1 - 0.95) * mean;
                for (int i = 0; i < ROWS; i++) ok[i * COLS + j] /= sqrt(*sj);
                after += mean * ROWS / *sj;
            }
            for (int i = 0; i < SIZE; i++) {
                double x = ok[i] * sqrt(before / after), *pi = xp + k * SIZE + i;
                if (x * *pi >= 0) x += *pi * 0.03 * 1.2;
                *pi -= 0.03 * lr_mul[k] * x;
            }
        }
        cpu_normuon_f64(&bank, &turbo4, &step, work);
    }
    for (size_t i = 0; i < N; i++) {
        CHECK_NEAR(p[i], xp[i], 1e-12);
        CHECK_NEAR(m[i], xm[i], 1e-15);
    }
    for (int j = 0; j < 2 * COLS; j++) CHECK_NEAR(s[j], xs[j], 1e-13);
    free(work), free(ns_work);
}

// Specification 9.2 #18 and #19, on the first step without decay: the update keeps the norm of the
// orthogonalised matrix, and its columns come out equally large.
TEST(norm_and_columns)
{
    Bank32 *b = bank32(1, 11), *start = bank32(1, 11);
    NsMethod turbo4 = method_with("turbo4", NULL);
    StepState step = peak;
    step.muon_wd = 0;
    float o[SIZE];
    for (int i = 0; i < SIZE; i++) { // torch's lerp, as the specification has it
        float m = 0.05f * b->g[i];
        o[i] = m - (m - b->g[i]) * (1 - 0.95f);
    }
    void *work = malloc(ns_workspace_size(&turbo4, 1, ROWS, COLS, sizeof(float)));
    ns_orthogonalize_f32(&turbo4, o, 1, ROWS, COLS, work, 1);
    update(&b->bank, &turbo4, &step);
    float moved[SIZE];
    for (int i = 0; i < SIZE; i++) moved[i] = (start->p[i] - b->p[i]) / 0.03f;
    // nu_0, nu_1 and rho round to bf16, 2^-9 each at most; single entries' roundings average out.
    CHECK_NEAR(norm_f32(moved, SIZE) / norm_f32(o, SIZE), 1, 4 * 0x1p-9);
    const double rms = norm_f32(o, SIZE) / sqrt(COLS);
    for (int j = 0; j < COLS; j++) {
        double mean = 0, column = 0;
        for (int i = 0; i < ROWS; i++) {
            mean += (double)o[i * COLS + j] * o[i * COLS + j] / ROWS;
            column += (double)moved[i * COLS + j] * moved[i * COLS + j];
        }
        CHECK_NEAR(b->s[j] / (0.05 * mean), 1, 2 * 0x1p-8); // squares and mean round to bf16
        CHECK(b->s[j] == 0.05f * round_bf16(b->s[j] / 0.05f), "the mean is not a bf16");
        CHECK_NEAR(sqrt(column) / rms, 1, 6 * 0x1p-9);
    }
    free(work), free(b), free(start);
}

// Specification 9.2 #20: without gradients only decay is left, lr lr_mul of lr wd.
TEST(cautious_decay_without_gradient)
{
    const double lr_mul[] = {1, 2};
    Bank32 *b = bank32(2, 21), *start = bank32(2, 21);
    memset(b->g, 0, sizeof b->g);
    b->bank.lr_mul = lr_mul;
    NsMethod turbo4 = method_with("turbo4", NULL);
    update(&b->bank, &turbo4, &peak);
    for (int i = 0; i < 2 * SIZE; i++) {
        float p = start->p[i], o = round_bf16(p * 0.036f), lr = i < SIZE ? 0.03f : 0.06f;
        CHECK(b->p[i] == p - lr * o, "%g", (double)p);
        CHECK_NEAR(b->p[i] / p, i < SIZE ? 0.99892 : 0.99784, 0.0022 * 0x1p-8);
    }
    for (int i = 0; i < 2 * COLS; i++) CHECK(b->s[i] == 0);
    free(b), free(start);
}

// Decay acts only where the step shrinks p: compare with and without.
TEST(decay_is_cautious)
{
    Bank32 *with = bank32(1, 31), *without = bank32(1, 31), *start = bank32(1, 31);
    NsMethod turbo4 = method_with("turbo4", "real");
    StepState step = peak;
    update(&with->bank, &turbo4, &step);
    step.muon_wd = 0;
    update(&without->bank, &turbo4, &step);
    int decayed = 0;
    for (int i = 0; i < SIZE; i++) {
        float p = start->p[i], plain = without->p[i];
        bool shrinks = (p - plain) * p >= 0;
        decayed += shrinks;
        CHECK_NEAR(with->p[i], shrinks ? plain - 0.00108 * p : plain, 2e-7);
    }
    CHECK(decayed > SIZE / 4 && decayed < SIZE * 3 / 4);
    free(with), free(without), free(start);
}

// Specification 9.2 #21: weights below one half start from the old value, others from the new.
TEST(lerp_branches)
{
    const double momenta[] = {0.95, 0.3};
    for (int k = 0; k < 2; k++) {
        Bank32 *b = bank32(1, 41);
        for (int i = 0; i < SIZE; i++) b->m[i] = (float)entry(43, (size_t)i);
        NsMethod turbo4 = method_with("turbo4", NULL);
        StepState step = peak;
        step.muon_momentum = momenta[k];
        update(&b->bank, &turbo4, &step);
        for (int i = 0; i < SIZE; i++) {
            float old = (float)entry(43, (size_t)i), g = b->g[i], w = (float)(1 - momenta[k]);
            float difference = g - old, low = w * difference, high = (1 - w) * difference;
            CHECK(b->m[i] == (w < 0.5f ? old + low : g - high));
        }
        free(b);
    }
}

// The gates' step sizes are bf16 as well: 0.03 is 0.030029297 and 0.036 is 0.035888672.
TEST(gate_step_sizes)
{
    uint16_t p[12], g[12] = {0}, m[12] = {0}, s[12] = {0};
    MuonBank bank = {1, 1, 12, DT_BF16, p, g, m, s, ones, 0.95};
    NsMethod turbo4 = method_with("turbo4", NULL);
    CHECK(round_bf16(0.03f) == 0.030029296875f && round_bf16(0.036f) == 0.035888671875f);
    for (int i = 0; i < 12; i++) p[i] = bf16_from_f32(1 + (float)i / 8);
    const StepState large = {.muon_lr = 0.3, .muon_momentum = 0.95, .muon_wd = 0.9}; // moves a bf16
    update(&bank, &turbo4, &large);
    for (int i = 0; i < 12; i++) {
        float was = 1 + (float)i / 8, o = round_bf16(was * round_bf16(0.27f));
        CHECK(bf16_to_f32(p[i]) == round_bf16(was - round_bf16(0.3f) * o));
    }
}

TEST(matrices_are_independent)
{
    const char *const names[] = {"turbo4", "muon5", "s4-gram5"};
    const double lr_mul[] = {1, 2, 0.5};
    for (int k = 0; k < 3; k++) {
        NsMethod method = method_with(names[k], NULL);
        Bank32 *all = bank32(3, 51), *again = bank32(3, 51), *one = bank32(3, 51);
        all->bank.lr_mul = again->bank.lr_mul = lr_mul;
        for (int t = 0; t < 2; t++) {
            update(&all->bank, &method, &peak);
            update(&again->bank, &method, &peak);
            for (int i = 0; i < 3; i++) {
                MuonBank bank = {1,
                                 ROWS,
                                 COLS,
                                 DT_F32,
                                 one->p + i * SIZE,
                                 one->g + i * SIZE,
                                 one->m + i * SIZE,
                                 one->s + i * COLS,
                                 lr_mul + i,
                                 0.95};
                update(&bank, &method, &peak);
            }
        }
        CHECK(!memcmp(all->p, again->p, sizeof all->p), "%s: not deterministic", method.name);
        CHECK(!memcmp(all->p, one->p, sizeof all->p) && !memcmp(all->m, one->m, sizeof all->m) &&
                  !memcmp(all->s, one->s, sizeof all->s),
              "%s", method.name);
        free(all), free(again), free(one);
    }
}

TEST(zeros_and_poison)
{
    NsMethod turbo4 = method_with("turbo4", NULL);
    const float poison[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        Bank32 *b = bank32(3, 61), *clean = bank32(3, 61);
        for (int i = 0; i < SIZE; i++) b->p[i] = b->g[i] = 0; // nothing at all: stays so
        b->g[SIZE + 7] = poison[k];
        update(&b->bank, &turbo4, &peak);
        update(&clean->bank, &turbo4, &peak);
        for (int i = 0; i < SIZE; i++) CHECK(b->p[i] == 0 && isnan(b->p[SIZE + i]));
        CHECK(!memcmp(b->p + 2 * SIZE, clean->p + 2 * SIZE, SIZE * sizeof(float)));
        free(b), free(clean);
    }
}

int main(void)
{
    RUN(golden_bits);
    RUN(formula_in_double);
    RUN(norm_and_columns);
    RUN(cautious_decay_without_gradient);
    RUN(decay_is_cautious);
    RUN(lerp_branches);
    RUN(gate_step_sizes);
    RUN(matrices_are_independent);
    RUN(zeros_and_poison);
    return TEST_SUMMARY();
}
