// Adam on the CPU against PyTorch's bits, its closed forms, and the formula spelled out per
// element.
#include "../../ops/ops.h"

#include <stdlib.h>
#include <string.h>

#include "../golden/golden.h"
#include "../test.h"

void cpu_adam(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
              const AdamConfig *config, const StepState *step);
void cpu_adam_f64(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
                  const AdamConfig *config, const StepState *step);

static const AdamConfig config = {.lr_mul = 1, .beta1 = 0.65, .beta2 = 0.95, .eps = 1e-8};

static StepState step_of(double lr, int t)
{
    return (StepState){.adam_alpha = lr * sqrt(1 - pow(0.95, t)) / (1 - pow(0.65, t))};
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

// Specification 9.2 #23: twenty steps in bf16, bit for bit, some elements without gradients.
TEST(golden_bits)
{
    enum { MOST = 256 };
    GoldenFile f = golden_open("tests/golden/rounding.txt");
    char *kind;
    while ((kind = golden_next(&f)) && strcmp(kind, "adam")) {
    }
    int steps = (int)golden_int(&f), n = (int)golden_int(&f);
    double lr = golden_double(&f);
    AdamConfig c = {.lr_mul = 1, .beta1 = golden_double(&f)};
    c.beta2 = golden_double(&f);
    c.eps = golden_double(&f);
    uint16_t p[MOST], m[MOST] = {0}, v[MOST] = {0}, g[MOST], expected[3][MOST];
    if (n > MOST) golden_stop(&f, "more elements than the test has room for");
    read_bits(&f, "adam_p0", p, n);
    for (int t = 1; t <= steps; t++) {
        read_bits(&f, "adam_g", g, n);
        StepState step = step_of(lr, t);
        cpu_adam(p, m, v, g, DT_BF16, (size_t)n, &c, &step);
    }
    read_bits(&f, "adam_p", expected[0], n);
    read_bits(&f, "adam_m", expected[1], n);
    read_bits(&f, "adam_v", expected[2], n);
    fclose(f.file);
    CHECK(!count_different(p, expected[0], n), "%d of p", count_different(p, expected[0], n));
    CHECK(!count_different(m, expected[1], n), "%d of m", count_different(m, expected[1], n));
    CHECK(!count_different(v, expected[2], n), "%d of v", count_different(v, expected[2], n));
}

// Specification 9.2 #22: from zero, every entry moves by 0.008 up to the roundings.
TEST(first_step_of_the_head)
{
    enum { N = 4096 };
    static uint16_t p[N], m[N], v[N], g[N];
    for (int i = 0; i < N; i++) { // |g| over 2^-9 .. 2^9, every fraction
        uint16_t size = (uint16_t)((118 + i / 128 % 18) << 7 | (i & 127));
        g[i] = (uint16_t)(size | (i / 7 % 2) << 15);
    }
    StepState step = step_of(0.008, 1);
    cpu_adam(p, m, v, g, DT_BF16, N, &config, &step);
    int usual = 0;
    for (int i = 0; i < N; i++) {
        float moved = bf16_to_f32(p[i]), size = fabsf(moved);
        usual += size == 0.00799560546875f;
        CHECK(size == 0.00799560546875f || size == 0.0079345703125f, "%g", (double)moved);
        CHECK((moved < 0) == (bf16_to_f32(g[i]) > 0));
    }
    CHECK(usual > N * 9 / 10, "%d of %d", usual, N);
}

TEST(zeros_stay_and_momentum_coasts)
{
    for (DType t = DT_F32; t <= DT_BF16; t++) {
        uint16_t bits[4][4] = {{0x3f80, 0x3f80, 0, 0x4000}};
        float f[4][4] = {{1, 1, 0, 2}}; // p; then m, v, g
        f[3][1] = -0.5f, bits[3][1] = 0xbf00;
        void *a[4];
        for (int k = 0; k < 4; k++) a[k] = t == DT_F32 ? (void *)f[k] : (void *)bits[k];
        StepState step = step_of(0.1, 1);
        cpu_adam(a[0], a[1], a[2], a[3], t, 4, &config, &step);
        float first = t == DT_F32 ? f[0][1] : bf16_to_f32(bits[0][1]);
        CHECK_NEAR(first, 1.1, t == DT_F32 ? 1e-6 : 0x1p-8);
        memset(a[3], 0, t == DT_F32 ? sizeof f[3] : sizeof bits[3]);
        step = step_of(0.1, 2);
        cpu_adam(a[0], a[1], a[2], a[3], t, 4, &config, &step);
        float second = t == DT_F32 ? f[0][1] : bf16_to_f32(bits[0][1]);
        CHECK(second > first + 0.03f, "g = 0 but m is not: %g", (double)second);
        if (t == DT_F32) CHECK(f[0][0] == 1 && f[0][2] == 0 && f[0][3] == 2);
        if (t == DT_BF16) CHECK(bits[0][0] == 0x3f80 && bits[0][2] == 0 && bits[0][3] == 0x4000);
    }
}

// fp32 state in float arithmetic, fp64 in double: the formula without any further rounding.
TEST(wide_types_follow_the_formula)
{
    enum { N = 37 };
    float p[N], m[N] = {0}, v[N] = {0}, g[N];
    double p64[N], m64[N] = {0}, v64[N] = {0}, g64[N], exact_m[N] = {0}, exact_v[N] = {0},
                   exact_p[N];
    for (int i = 0; i < N; i++) exact_p[i] = p64[i] = p[i] = (float)golden_uniform(1, (uint64_t)i);
    AdamConfig c = config;
    c.lr_mul = 5;
    for (int t = 1; t <= 5; t++) {
        StepState step = step_of(0.008, t);
        for (int i = 0; i < N; i++) {
            g64[i] = g[i] = (float)(golden_uniform(1 + (uint64_t)t, (uint64_t)i) - 0.5);
            exact_m[i] = 0.65 * exact_m[i] + (1 - 0.65) * g64[i];
            exact_v[i] = 0.95 * exact_v[i] + (1 - 0.95) * g64[i] * g64[i];
            exact_p[i] -= exact_m[i] / (sqrt(exact_v[i]) + 1e-8) * step.adam_alpha * 5;
        }
        cpu_adam(p, m, v, g, DT_F32, N, &c, &step);
        cpu_adam_f64(p64, m64, v64, g64, DT_F64, N, &c, &step);
    }
    for (int i = 0; i < N; i++) {
        CHECK_NEAR(p64[i], exact_p[i], 1e-14);
        CHECK_NEAR(m64[i], exact_m[i], 1e-16);
        CHECK_NEAR(v64[i], exact_v[i], 1e-16);
        CHECK_NEAR(p[i], exact_p[i], 1e-6);
    }
}

// Elements do not see each other: any length, chunk or thread gives what one element alone gets.
TEST(lengths_and_chunks)
{
    enum { N = 3 * 16384 + 77 };
    const size_t size = N * sizeof(uint16_t);
    uint16_t *p = malloc(size), *m = malloc(size), *v = malloc(size), *g = malloc(size);
    uint16_t *q = malloc(size), *qm = malloc(size), *qv = malloc(size);
    for (uint64_t i = 0; i < N; i++) {
        q[i] = p[i] = bf16_from_f32((float)golden_uniform(5, i) - 0.5f);
        qm[i] = m[i] = bf16_from_f32((float)golden_uniform(6, i) - 0.5f);
        qv[i] = v[i] = bf16_from_f32((float)golden_uniform(7, i));
        g[i] = bf16_from_f32((float)golden_uniform(8, i) - 0.5f);
    }
    StepState step = step_of(0.008, 3);
    cpu_adam(p, m, v, g, DT_BF16, N, &config, &step);
    for (int i = 0; i < N; i++) cpu_adam(q + i, qm + i, qv + i, g + i, DT_BF16, 1, &config, &step);
    CHECK(!memcmp(p, q, size) && !memcmp(m, qm, size) && !memcmp(v, qv, size));
    uint16_t before = p[0];
    cpu_adam(p, m, v, g, DT_BF16, 0, &config, &step);
    CHECK(p[0] == before);
    free(p), free(m), free(v), free(g), free(q), free(qm), free(qv);
}

TEST(poison_is_kept)
{
    uint16_t p[2] = {0x3f80, 0x3f80}, m[2] = {0}, v[2] = {0}, g[2] = {0x7fc0, 0x3f80};
    StepState step = step_of(0.008, 1);
    cpu_adam(p, m, v, g, DT_BF16, 2, &config, &step);
    CHECK(isnan(bf16_to_f32(p[0])) && isnan(bf16_to_f32(m[0])) && !isnan(bf16_to_f32(p[1])));
}

int main(void)
{
    RUN(golden_bits);
    RUN(first_step_of_the_head);
    RUN(zeros_stay_and_momentum_coasts);
    RUN(wide_types_follow_the_formula);
    RUN(lengths_and_chunks);
    RUN(poison_is_kept);
    return TEST_SUMMARY();
}
