// What ns_bench measures errors with: the random matrices made on the GPU against the CPU's, and
// the reference in fp64 against decompositions and against factors that are known.
#include <string.h>

#include "../../ablate/inputs.h"
#include "../../ablate/svd.h"
#include "../../bench/polar_cuda.h"
#include "../test.h"
#include "ns_data.h"

static double *host_copy(const double *gpu, size_t n)
{
    double *host = malloc(sizeof(double) * n);
    MUST(cudaMemcpy(host, gpu, sizeof(double) * n, cudaMemcpyDeviceToHost));
    return host;
}

static double far(const double *x, const double *y, size_t n) // relative to y
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) off += (x[i] - y[i]) * (x[i] - y[i]), all += y[i] * y[i];
    return sqrt(off / all);
}

TEST(the_same_random_matrices)
{
    enum { M = 48, N = 80 };
    static double g[M * N];
    double *gpu = device_room(sizeof g);
    for (int i = 0; inputs_name(i); i++) {
        CHECK(inputs_fill(g, M, N, inputs_name(i), 5));
        CHECK(inputs_fill_cuda(gpu, M, N, inputs_name(i), 5));
        double *made = host_copy(gpu, M * N);
        // Functions within a few units of the last place; tails of Levy's take powers of those.
        CHECK(far(made, g, M * N) < 1e-12, "%s: %g", inputs_name(i), far(made, g, M * N));
        free(made);
    }
    CHECK(!inputs_fill_cuda(gpu, M, N, "none", 5));
    MUST(cudaFree(gpu));
}

// g (m,n) on the host becomes its polar factor by the GPU.
static PolarReport run(double *g, int m, int n)
{
    const size_t size = (size_t)m * n, square = (size_t)m * m, bytes = sizeof(double) * size;
    double *x = device_copy(g, bytes), *y = device_room(bytes);
    double *room[3];
    for (int i = 0; i < 3; i++) room[i] = device_room(sizeof(double) * square);
    const PolarReport report = polar_factor(&polar_cuda, x, room[0], y, room[1], room[2], m, n);
    MUST(cudaMemcpy(g, x, bytes, cudaMemcpyDeviceToHost));
    MUST(cudaFree(x));
    MUST(cudaFree(y));
    for (int i = 0; i < 3; i++) MUST(cudaFree(room[i]));
    return report;
}

TEST(as_the_decomposition)
{
    static const struct {
        int m, n;
    } shape[] = {{1, 5}, {33, 47}, {128, 128}, {256, 300}, {1024, 1024}};
    for (int s = 0; s < 5; s++)
        for (int i = 0; inputs_name(i); i++) {
            const int m = shape[s].m, n = shape[s].n;
            if (m == 1024 && strcmp(inputs_name(i), "gaussian") != 0) continue; // 3 s each
            const size_t size = (size_t)m * n;
            double *g = malloc(sizeof(double) * size), *exact = malloc(sizeof(double) * size),
                   *sigma = malloc(sizeof(double) * m), most = 0, least = INFINITY;
            inputs_fill(g, m, n, inputs_name(i), 9);
            svd_polar(exact, sigma, g, m, n);
            for (int k = 0; k < m; k++) most = fmax(most, sigma[k]), least = fmin(least, sigma[k]);
            const PolarReport report = run(g, m, n);
            CHECK(far(g, exact, size) < 1e-15 * (100 + 10 * most / least),
                  "%dx%d %s: %g, condition %g", m, n, inputs_name(i), far(g, exact, size),
                  most / least);
            CHECK(report.rank == m && report.residual < 1e-12, "%dx%d %s: rank %d, residual %g", m,
                  n, inputs_name(i), report.rank, report.residual);
            free(g), free(exact), free(sigma);
        }
}

// 1024 x 1024 with singular values from 1 to 1e-6 between orthogonal matrices that are known:
// products of two reflections each, I - 2 v v^T.
TEST(large_and_ill_conditioned)
{
    enum { M = 1024 };
    static double v[4][M], g[M][M], exact[M][M];
    for (int k = 0; k < 4; k++) {
        float *x = gaussians((uint64_t)k, M);
        double square = 0;
        for (int i = 0; i < M; i++) v[k][i] = x[i], square += v[k][i] * v[k][i];
        for (int i = 0; i < M; i++) v[k][i] /= sqrt(square);
        free(x);
    }
    for (int i = 0; i < M; i++) g[i][i] = pow(10, -6.0 * i / (M - 1)), exact[i][i] = 1;
    for (int k = 0; k < 4; k++) // from the left, then from the right
        for (int which = 0; which < 2; which++)
            for (int r = 0; r < M; r++) {
                double(*x)[M] = which ? exact : g, dot = 0;
                for (int i = 0; i < M; i++) dot += v[k][i] * (k < 2 ? x[i][r] : x[r][i]);
                for (int i = 0; i < M; i++) *(k < 2 ? &x[i][r] : &x[r][i]) -= 2 * dot * v[k][i];
            }
    const PolarReport report = run(&g[0][0], M, M);
    CHECK(report.rank == M && report.residual < 1e-12, "%d, %g", report.rank, report.residual);
    CHECK(far(&g[0][0], &exact[0][0], (size_t)M * M) < 1e-8, "%g",
          far(&g[0][0], &exact[0][0], (size_t)M * M));
    printf("1024 x 1024, condition 1e6: error %.1e, residual %.1e, %d iterations\n",
           far(&g[0][0], &exact[0][0], (size_t)M * M), report.residual, report.iterations);
}

int main(void)
{
    find_gpu();
    RUN(the_same_random_matrices);
    RUN(as_the_decomposition);
    RUN(large_and_ill_conditioned);
    return TEST_SUMMARY();
}
