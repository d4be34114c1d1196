// cpu_matmul_own against OpenBLAS (where built with it) on the products of training.
//
//   bench/matmul_bench [seconds per shape, 0.5 when left out]
//
// Prints GFLOP/s of the best of interleaved repetitions, ours over OpenBLAS, and the largest error
// of sampled elements in units of eps sum|a||b|; then the ratio's geometric mean and least value.
// OMP_NUM_THREADS sets the threads of both. Built with -DREAL_DOUBLE it measures double.
#include "../ops/cpu/cpu.h"

#include <float.h>
#include <stdio.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef USE_OPENBLAS
#include <cblas.h>
#endif

typedef struct {
    const char *what;
    MatmulKind kind;
    int m, n, k;
    double beta;
    int batch; // > 1: that many products inside a parallel loop, each on one thread
} Case;

static const Case cases[] = {
    {"small qkv", MM_NT, 1024, 384, 128, 0, 1},
    {"small mlp up", MM_NT, 1024, 512, 128, 0, 1},
    {"small mlp down", MM_NT, 1024, 128, 512, 0, 1},
    {"small dx", MM_NN, 1024, 128, 384, 0, 1},
    {"small dw", MM_TN, 384, 128, 1024, 1, 1},
    {"qkv", MM_NT, 2048, 2304, 768, 0, 1},
    {"attention out", MM_NT, 2048, 768, 768, 0, 1},
    {"mlp up", MM_NT, 4096, 3072, 768, 0, 1},
    {"mlp down", MM_NN, 4096, 768, 3072, 0, 1},
    {"dx of mlp up", MM_NN, 1024, 768, 3072, 0, 1},
    {"dw of mlp", MM_TN, 768, 3072, 4096, 1, 1},
    {"dw of qkv", MM_TN, 2304, 768, 1024, 1, 1},
    {"head, narrow", MM_NT, 1024, 50304, 64, 0, 1},
    {"head", MM_NT, 256, 50304, 768, 0, 1},
    {"head dx", MM_NN, 256, 768, 50304, 0, 1},
    {"head dw", MM_TN, 50304, 768, 256, 1, 1},
    {"few rows", MM_NT, 16, 768, 768, 0, 1},
    {"one row", MM_NT, 1, 50304, 768, 0, 1},
    {"odd", MM_NN, 127, 1000, 333, 0, 1},
    {"Newton-Schulz gram", MM_NT, 128, 128, 512, 0, 24},
    {"Newton-Schulz square", MM_NN, 128, 128, 128, 1, 24},
    {"Newton-Schulz apply", MM_NN, 128, 512, 128, 1, 24},
    {"Newton-Schulz 768", MM_NT, 768, 768, 3072, 0, 1},
};

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static real *numbers(size_t n, uint64_t seed)
{
    real *x = malloc(n * sizeof(real));
    if (!x) {
        fprintf(stderr, "matmul_bench: no memory for %zu numbers\n", n);
        exit(1);
    }
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (real)((double)(seed >> 11) * 0x1p-52 - 1);
    }
    return x;
}

typedef void Matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta);

#ifdef USE_OPENBLAS
#ifdef REAL_DOUBLE
#define cblas_gemm cblas_dgemm
#else
#define cblas_gemm cblas_sgemm
#endif
static void openblas(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                     double alpha, double beta)
{
    cblas_gemm(CblasRowMajor, kind == MM_TN ? CblasTrans : CblasNoTrans,
               kind == MM_NT ? CblasTrans : CblasNoTrans, m, n, k, (real)alpha, a,
               kind == MM_TN ? m : k, b, kind == MM_NT ? k : n, (real)beta, c, n);
}
#endif

// Each library's idle threads spin for a while before they sleep; the other must not be timed then.
static void let_threads_sleep(void)
{
    nanosleep(&(struct timespec){.tv_nsec = threads() > 1 ? 60000000 : 0}, NULL);
}

// Seconds of `calls` calls.
static double run(Matmul *matmul, const Case *s, real *c, const real *a, const real *b, int calls)
{
    size_t mk = (size_t)s->m * s->k, kn = (size_t)s->k * s->n, mn = (size_t)s->m * s->n;
    double start = now();
    for (int call = 0; call < calls; call++) {
        if (s->batch == 1) {
            matmul(c, a, b, s->kind, s->m, s->n, s->k, 1, s->beta);
            continue;
        }
#pragma omp parallel for schedule(static)
        for (int i = 0; i < s->batch; i++)
            matmul(c + i * mn, a + i * mk, b + i * kn, s->kind, s->m, s->n, s->k, 1, s->beta);
    }
    return now() - start;
}

// Largest |c - exact| / (eps sum|a||b|) over sampled elements of c = op(a) op(b).
static double error(const Case *s, const real *c, const real *a, const real *b)
{
    double worst = 0;
    for (int sample = 0; sample < 500; sample++) {
        size_t i = sample * 7919u % (unsigned)s->m, j = sample * 104729u % (unsigned)s->n;
        double sum = 0, size = 0;
        for (size_t p = 0; p < (size_t)s->k; p++) {
            double x = s->kind == MM_TN ? a[p * s->m + i] : a[i * s->k + p];
            double y = s->kind == MM_NT ? b[j * s->k + p] : b[p * s->n + j];
            sum += x * y;
            size += fabs(x * y);
        }
        double eps = sizeof(real) == 4 ? FLT_EPSILON : DBL_EPSILON;
        worst = fmax(worst, fabs(c[i * s->n + j] - sum) / (eps * size));
    }
    return worst;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.5, log_sum = 0, least = INFINITY;
    int count = sizeof cases / sizeof *cases;
    printf("%s, %d threads; GFLOP/s\n%-21s %-2s %5s %6s %6s %8s %8s %6s %8s\n",
           sizeof(real) == 4 ? "float" : "double", threads(), "product", "", "M", "N", "K", "ours",
           "OpenBLAS", "ratio", "error");
    for (const Case *s = cases; s < cases + count; s++) {
        size_t batch = (size_t)s->batch;
        real *a = numbers(batch * s->m * s->k, 1), *b = numbers(batch * s->k * s->n, 2);
        real *c = numbers(batch * s->m * s->n, 3);
        double flops = 2.0 * s->m * s->n * s->k * s->batch;
        cpu_matmul_own(c, a, b, s->kind, s->m, s->n, s->k, 1, 0);
        double err = error(s, c, a, b), best[2] = {INFINITY, INFINITY}, spent = 0;
#ifdef USE_OPENBLAS
        Matmul *const both[2] = {cpu_matmul_own, openblas};
        openblas_set_num_threads(s->batch > 1 ? 1 : threads());
#else
        Matmul *const both[2] = {cpu_matmul_own, NULL};
#endif
        int calls = 1;
        while (run(both[0], s, c, a, b, calls) < 0.005) calls *= 2;
        for (int rep = 0; rep < 3 || spent < seconds; rep++)
            for (int which = 0; which < 2 && both[which]; which++) {
                let_threads_sleep();
                run(both[which], s, c, a, b, 1);
                double t = run(both[which], s, c, a, b, calls);
                best[which] = fmin(best[which], t / calls);
                spent += t;
            }
        double ratio = best[1] / best[0];
        log_sum += log(ratio);
        least = fmin(least, ratio);
        printf("%-21s %s %5d %6d %6d %8.1f %8.1f %6.2f %8.2g\n", s->what,
               s->kind == MM_NN   ? "NN"
               : s->kind == MM_NT ? "NT"
                                  : "TN",
               s->m, s->n, s->k, flops / best[0] * 1e-9, both[1] ? flops / best[1] * 1e-9 : NAN,
               both[1] ? ratio : NAN, err);
        fflush(stdout);
        free(a), free(b), free(c);
    }
    if (log_sum < INFINITY)
        printf("ours / OpenBLAS: geometric mean %.2f, least %.2f\n", exp(log_sum / count), least);
    else
        printf("built without OpenBLAS: no ratio\n");
    return 0;
}
