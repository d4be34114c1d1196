// The reference iteration for polar factors, over the CPU's products, against decompositions.
#include <stdlib.h>
#include <string.h>

#include "../../ablate/inputs.h"
#include "../../ablate/polar.h"
#include "../../ablate/svd.h"
#include "../../ops/ops.h"
#include "../test.h"

void cpu_matmul_f64(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta);

static void multiply(double *d, const double *a, const double *b, bool transposed, int m, int k,
                     int n, double alpha, double beta, const double *c)
{
    if (c) memcpy(d, c, sizeof(double) * (size_t)m * (size_t)k);
    cpu_matmul_f64(d, a, b, transposed ? MM_NT : MM_NN, m, k, n, alpha, c ? beta : 0);
}

static double distance(const double *x, const double *y, size_t size)
{
    double sum = 0;
    for (size_t i = 0; i < size; i++) sum += pow(x[i] - (y ? y[i] : 0), 2);
    return sqrt(sum);
}

static void scale(double *x, size_t size, double factor)
{
    for (size_t i = 0; i < size; i++) x[i] *= factor;
}

static void identity(double *x, int m)
{
    for (int i = 0; i < m * m; i++) x[i] = i % (m + 1) == 0;
}

static const PolarDevice cpu = {multiply, distance, scale, identity};

static PolarReport run(double *x, double *e, int m, int n)
{
    double *y = malloc(sizeof(double) * (size_t)(m * n)),
           *a = malloc(sizeof(double) * (size_t)(2 * m * m));
    const PolarReport report = polar_factor(&cpu, x, e, y, a, a + m * m, m, n);
    free(y), free(a);
    return report;
}

TEST(as_the_decomposition)
{
    static const struct {
        int m, n;
    } shape[] = {{1, 1}, {1, 12}, {7, 7}, {24, 40}, {96, 96}};
    enum { MOST = 96 * 96 };
    static double g[MOST], x[MOST], exact[MOST], e[MOST], sigma[96];
    for (int s = 0; s < 5; s++)
        for (int i = 0; inputs_name(i); i++) {
            const int m = shape[s].m, n = shape[s].n;
            double most = 0, least = INFINITY;
            CHECK(inputs_fill(g, m, n, inputs_name(i), 7));
            for (int k = 0; k < m * n; k++) x[k] = 1e-9 * g[k]; // any scale
            svd_polar(exact, sigma, g, m, n);
            for (int k = 0; k < m; k++) most = fmax(most, sigma[k]), least = fmin(least, sigma[k]);
            const PolarReport report = run(x, e, m, n);
            const double off = distance(x, exact, (size_t)(m * n)) / sqrt(m);
            CHECK(off < 1e-15 * (100 + 10 * most / least), "%dx%d %s: %g, condition %g", m, n,
                  inputs_name(i), off, most / least);
            CHECK(report.rank == m && report.residual < 1e-13 && report.iterations <= 30,
                  "%dx%d %s: rank %d, residual %g, %d iterations", m, n, inputs_name(i),
                  report.rank, report.residual, report.iterations);
        }
}

// U diag(sigma) V^T with sigma from 1 to 1e-8: a square Gaussian's condition and worse.
TEST(ill_conditioned)
{
    enum { M = 64 };
    static double u[M * M], v[M * M], g[M * M], exact[M * M], e[M * M];
    inputs_fill(g, M, M, "gaussian", 1), svd_polar(u, NULL, g, M, M);
    inputs_fill(g, M, M, "gaussian", 2), svd_polar(v, NULL, g, M, M);
    multiply(exact, u, v, true, M, M, M, 1, 0, NULL);
    for (int i = 0; i < M * M; i++) u[i] *= pow(10, -8.0 * (i % M) / (M - 1));
    multiply(g, u, v, true, M, M, M, 1, 0, NULL);
    const PolarReport report = run(g, e, M, M);
    const double off = distance(g, exact, M * M) / sqrt(M);
    CHECK(report.rank == M && report.residual < 1e-13, "%d, %g", report.rank, report.residual);
    CHECK(off < 1e-7, "%g", off); // 1e-16 times the condition number, and room
    CHECK(report.iterations <= 26, "%d", report.iterations);
}

// What a matrix of rank 20 says nothing about is left out of its factor, whether its values are
// zeros or roundings.
TEST(rank_deficient)
{
    enum { M = 48, N = 80, RANK = 20 };
    static double left[M * RANK], right[RANK * N], g[M * N], exact[M * N], e[M * M], sigma[M];
    inputs_fill(left, RANK, M, "gaussian", 3), inputs_fill(right, RANK, N, "gaussian", 4);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < RANK; k++) sum += left[k * M + i] * right[k * N + j];
            g[i * N + j] = sum;
        }
    svd_polar(exact, sigma, g, M, N);
    // The decomposition gives the lost directions too: what U_r makes of G alone is U_r V_r^T.
    PolarReport report = run(g, e, M, N);
    CHECK(report.rank == RANK && report.residual < 1e-12, "%d, %g", report.rank, report.residual);
    static double restricted[M * N];
    multiply(restricted, e, exact, false, M, N, M, 1, 0, NULL);
    const double off = distance(g, restricted, M * N) / sqrt(RANK);
    CHECK(off < 1e-12, "%g", off);
    static double twice[M * M];
    multiply(twice, e, e, false, M, M, M, 1, 0, NULL);
    CHECK(distance(twice, e, M * M) < 1e-12, "a projection");

    memset(g, 0, sizeof g);
    g[3] = -2; // one row of zeros but for one number
    report = run(g, e, M, N);
    CHECK(report.rank == 1 && fabs(g[3] + 1) < 1e-15 && fabs(distance(g, NULL, M * N) - 1) < 1e-15,
          "%d, %g", report.rank, g[3]);
    g[3] = 0;
    report = run(g, e, M, N);
    CHECK(report.rank == 0 && distance(g, NULL, M * N) == 0 && distance(e, NULL, M * M) == 0);
}

TEST(largest)
{
    enum { M = 24, N = 40 };
    static double g[M * N], exact[M * N], a[M * M], p[M * M], sigma[M];
    for (int i = 0; inputs_name(i); i++)
        for (double factor = 1e-12; factor < 1e13; factor *= 1e12) {
            double most = 0;
            inputs_fill(g, M, N, inputs_name(i), 5);
            scale(g, M * N, factor);
            svd_polar(exact, sigma, g, M, N);
            for (int k = 0; k < M; k++) most = fmax(most, sigma[k]);
            const double ratio = polar_largest(&cpu, g, a, p, M, N) / most;
            CHECK(ratio > 1 - 1e-12 && ratio < 1.0001, "%s: %.17g", inputs_name(i), ratio);
        }
    // All equal is the worst: m^(1/65536).
    identity(g, M);
    CHECK_NEAR(polar_largest(&cpu, g, a, p, M, M), pow(M, 1.0 / 65536), 1e-12);
    memset(g, 0, sizeof g);
    CHECK(polar_largest(&cpu, g, a, p, M, N) == 0);
}

int main(void)
{
    RUN(largest);
    RUN(as_the_decomposition);
    RUN(ill_conditioned);
    RUN(rank_deficient);
    return TEST_SUMMARY();
}
