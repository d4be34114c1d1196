// Orthogonalisation on the GPU at sizes that are too large to compute on the CPU in a test.
#include "ns_data.h"

void ns_use_hopper(bool yes);

// Whole banks and large matrices, by our kernels and by cuBLASLt's: as far apart as the storage's
// roundings make them. On an H100's 132 multiprocessors those with 2048 to 2560 rows or columns
// take tiles in pairs, 4096 does not, and a few of 768 take small ones, more than run at once
// (choose_tiles in ops/cuda/ns_hopper.cuh).
TEST(full_sizes)
{
    static const struct {
        const char *method;
        int batch, rows, cols;
    } cases[] = {{"turbo4", 22, 768, 3072},      {"turbo4", 40, 768, 768},
                 {"turbo-gram4", 22, 768, 3072}, {"s4-gram4", 40, 768, 768},
                 {"turbo4", 1, 4096, 16384},     {"turbo-gram4", 1, 4096, 16384},
                 {"s4-polar4", 1, 4096, 4096},   {"turbo4", 1, 2048, 2048},
                 {"s4-polar4", 4, 2296, 2616},   {"turbo-gram4", 1, 2296, 5000},
                 {"s4-gram4", 2, 5000, 2048},    {"turbo4", 1, 3001, 2560},
                 {"turbo-gram4", 6, 768, 3072},  {"s4-gram5", 5, 768, 768}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        NsMethod m = method_with(cases[i].method, NULL);
        const int batch = cases[i].batch, rows = cases[i].rows, cols = cases[i].cols;
        const size_t n = (size_t)batch * rows * cols;
        float *x = malloc(n * sizeof(float)), *y = malloc(n * sizeof(float)),
              *z = malloc(n * sizeof(float));
        uint64_t state = 5;
        for (size_t k = 0; k < n; k++)
            x[k] = round_bf16((float)(random_bits(&state) >> 40) * 0x1p-23f - 1);
        CHECK(run_gpu(y, &m, x, DT_BF16, batch, rows, cols) == 0);
        ns_use_hopper(false);
        CHECK(run_gpu(z, &m, x, DT_BF16, batch, rows, cols) == 0);
        ns_use_hopper(true);
        const double apart = distance(y, z, n);
        printf("     %-11s %2d x %4d x %5d: %.5f from cuBLASLt's\n", cases[i].method, batch, rows,
               cols, apart);
        CHECK(apart < 0.03, "%s %dx%dx%d: %g", cases[i].method, batch, rows, cols, apart);
        free(x), free(y), free(z);
    }
}

// out (cols) = G^T u, or out (rows) = G u: G (rows,cols).
static void times_transpose(double *out, const float *g, const double *u, int rows, int cols)
{
    enum { PART = 512 };
#pragma omp parallel for
    for (int from = 0; from < cols; from += PART) {
        const int count = cols - from < PART ? cols - from : PART;
        double sums[PART] = {0};
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < count; j++) sums[j] += u[i] * g[(size_t)i * cols + from + j];
        memcpy(out + from, sums, (size_t)count * sizeof *out);
    }
}

static void times(double *out, const float *g, const double *u, int rows, int cols)
{
#pragma omp parallel for
    for (int i = 0; i < rows; i++) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < cols; j++) sum += u[j] * g[(size_t)i * cols + j];
        out[i] = sum;
    }
}

// u = p(X X^T) u for the product p of the polynomials of all iterations: one takes a u + b A u +
// c A^2 u with A = X X^T = q(G G^T) G G^T q(G G^T), where q are those before it.
static void apply_polynomials(const NsMethod *m, int iterations, double factor, const float *g,
                              double *u, int rows, int cols)
{
    if (!iterations) return;
    const NsCoeff coeff = m->coeff[iterations - 1];
    const double weights[] = {coeff.a, coeff.b, coeff.c};
    double *now = malloc(sizeof(double) * (size_t)rows),
           *wide = malloc(sizeof(double) * (size_t)cols);
    memcpy(now, u, sizeof(double) * (size_t)rows);
    for (int i = 0; i < rows; i++) u[i] *= weights[0];
    for (int power = 1; power < 3; power++) {
        apply_polynomials(m, iterations - 1, factor, g, now, rows, cols);
        times_transpose(wide, g, now, rows, cols);
        times(now, g, wide, rows, cols);
        apply_polynomials(m, iterations - 1, factor, g, now, rows, cols);
        for (int i = 0; i < rows; i++) {
            now[i] *= factor * factor;
            u[i] += weights[power] * now[i];
        }
    }
    apply_polynomials(m, iterations - 1, factor, g, u, rows, cols);
    free(now), free(wide);
}

// |(Y - E)^T u| / |E^T u|.
static double direction_error(const float *y, const double *exact, const double *u, int rows,
                              int cols)
{
    double *got = malloc(sizeof(double) * (size_t)cols), off = 0, size = 0;
    times_transpose(got, y, u, rows, cols);
    for (int j = 0; j < cols; j++) {
        off += (got[j] - exact[j]) * (got[j] - exact[j]);
        size += exact[j] * exact[j];
    }
    free(got);
    return sqrt(off / size);
}

static void transpose(float *out, const float *in, int rows, int cols)
{
#pragma omp parallel for
    for (int from = 0; from < cols; from += 16)
        for (int i = 0; i < rows; i++)
            for (int j = from; j < from + 16 && j < cols; j++)
                out[(size_t)j * rows + i] = in[(size_t)i * cols + j];
}

// Divides by |G|_F times what brings the largest singular value of random (rows, 4 rows) to 1.
static NsMethod large_method(const char *name, int rows)
{
    NsMethod m = method_with(name, NULL);
    Error err;
    CHECK(ns_method_set_norm(&m, "frobenius", &err), "%s", err.text);
    m.delta = 1.5 / sqrt(rows) - 1;
    return m;
}

// A matrix that is too large for the CPU's iteration, wide and tall, by what its orthogonalisation
// does to one vector: products of G with vectors alone say what that is exactly. The plain low
// precision is that of a matrix of the same singular values with an eighth of the rows and columns.
TEST(large_in_one_direction)
{
    enum { ROWS = 4096, COLS = 4 * ROWS, LESS = 8 };
    static const char *const names[] = {"s4-polar4", "s4-gram4"};
    const size_t n = (size_t)ROWS * COLS;
    float *g = malloc(n * sizeof(float)), *x = malloc(n * sizeof(float)),
          *y = malloc(n * sizeof(float));
    double *u = malloc(sizeof(double) * ROWS), *v = malloc(sizeof(double) * ROWS),
           *exact = malloc(sizeof(double) * COLS), square = 0;
    uint64_t state = 77;
    for (size_t i = 0; i < n; i++) {
        g[i] = round_bf16((float)(random_bits(&state) >> 40) * 0x1p-23f - 1);
        square += (double)g[i] * g[i];
    }
    for (int i = 0; i < ROWS; i++) u[i] = v[i] = (double)(random_bits(&state) >> 40) * 0x1p-23 - 1;
    for (int k = 0; k < 2; k++) {
        NsMethod m = large_method(names[k], ROWS);
        const double factor = 1 / ((1 + m.delta) * sqrt(square) + m.eps);
        if (k == 0) { // both methods are one polynomial
            apply_polynomials(&m, m.iterations, factor, g, v, ROWS, COLS);
            times_transpose(exact, g, v, ROWS, COLS);
            for (int j = 0; j < COLS; j++) exact[j] *= factor;
        }
        enum { FEW = ROWS / LESS, PART = COLS / LESS };
        float *plain = malloc(sizeof(float) * FEW * PART);
        const NsMethod less = large_method(names[k], FEW);
        double *few = run_exact(&less, g, 1, FEW, PART);
        run_f32(plain, &less, g, 1, FEW, PART);
        for (int is_tall = 0; is_tall < 2; is_tall++) {
            const DType dtype = is_tall == k ? DT_BF16 : DT_F16;
            const int rows = is_tall ? COLS : ROWS, cols = is_tall ? ROWS : COLS;
            if (is_tall) transpose(x, g, ROWS, COLS);
            CHECK(run_gpu(y, &m, is_tall ? x : g, dtype, 1, rows, cols) == 0);
            if (is_tall) transpose(x, y, COLS, ROWS);
            float *plain_too = rounded(dtype, plain, (size_t)FEW * PART);
            const double ours = direction_error(is_tall ? x : y, exact, u, ROWS, COLS),
                         theirs = mean_error(plain_too, few, 1, (size_t)FEW * PART);
            printf("     %-11s %5d x %5d %s: error %.5f, CPU emulation %.5f\n", m.name, rows, cols,
                   dtype_name(dtype), ours, theirs);
            CHECK(ours <= 2 * theirs, "%s %dx%d %s: %.3g against %.3g", m.name, rows, cols,
                  dtype_name(dtype), ours, theirs);
            free(plain_too);
        }
        free(plain), free(few);
    }
    free(g), free(x), free(y), free(u), free(v), free(exact);
}

int main(void)
{
    find_gpu();
    RUN(full_sizes);
    RUN(large_in_one_direction);
    return TEST_SUMMARY();
}
