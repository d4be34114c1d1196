// Arrays that live on the GPU and, as doubles of the same values, on the host: what a test of one
// operation needs to run it twice, compare the bits, and judge its error against the double device.
//
// The rule: with E the exact result from the same inputs, our error is at most twice that of
// rounding E to the stored type, plus twice the rounding of `depth` fp32 operations on numbers of
// E's size. Both in the Frobenius norm.
#ifndef TESTS_GPU_GPU_CHECK_H
#define TESTS_GPU_GPU_CHECK_H

#include <stdlib.h>
#include <string.h>

#include "../../ops/cuda/device.h"
#include "../../ops/ops.h"
#include "../test.h"

typedef struct {
    const char *name;
    void *gpu;
    DType type;
    size_t n, bytes;
    void *initial, *result; // stored numbers before the operation and after it
    double *exact;          // the double device works on these
} Array;

enum { MAX_ARRAYS = 32 };
static Array arrays[MAX_ARRAYS];
static int n_arrays;
static const Ops *cuda;

static uint64_t random_state = 1;
static inline double random_uniform(void) // in (-1, 1)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-52 - 1;
}

static inline double random_normal(void)
{
    double x = 0;
    for (int i = 0; i < 6; i++) x += random_uniform();
    return x / sqrt(2.0);
}

// A new array of n numbers: normal, of the given size.
static inline Array *array(const char *name, DType type, size_t n, double size)
{
    if (n_arrays == MAX_ARRAYS) abort();
    Array *a = &arrays[n_arrays++];
    *a = (Array){.name = name, .type = type, .n = n, .bytes = n * dtype_size(type)};
    a->gpu = cuda->mem_alloc(a->bytes);
    a->initial = calloc(n + 1, dtype_size(type));
    a->result = calloc(n + 1, dtype_size(type));
    a->exact = calloc(n + 1, sizeof(double));
    if (!a->gpu || !a->initial || !a->result || !a->exact) abort();
    for (size_t i = 0; i < n; i++) {
        dtype_set(a->initial, type, i, size * random_normal());
        a->exact[i] = dtype_get(a->initial, type, i);
    }
    return a;
}

static inline void set_number(Array *a, size_t i, double x)
{
    dtype_set(a->initial, a->type, i, x);
    a->exact[i] = dtype_get(a->initial, a->type, i);
}

static inline void free_arrays(void)
{
    for (int i = 0; i < n_arrays; i++) {
        cuda->mem_free(arrays[i].gpu);
        free(arrays[i].initial);
        free(arrays[i].result);
        free(arrays[i].exact);
    }
    n_arrays = 0;
}

static inline void put_arrays(void)
{
    for (int i = 0; i < n_arrays; i++)
        cuda->mem_put(arrays[i].gpu, arrays[i].initial, arrays[i].bytes);
}

// After the second run: the bits of all arrays must be those of the first.
static inline void get_arrays(int run)
{
    for (int i = 0; i < n_arrays; i++) {
        Array *a = &arrays[i];
        void *again = run == 0 ? a->result : malloc(a->bytes + 1);
        cuda->mem_get(again, a->gpu, a->bytes);
        if (run == 0) continue;
        CHECK(!memcmp(again, a->result, a->bytes), "two runs differ in %s", a->name);
        free(again);
    }
}

#define RUN_TWICE(...)                                                                             \
    for (int run_ = 0; run_ < 2; run_++) {                                                         \
        put_arrays();                                                                              \
        __VA_ARGS__;                                                                               \
        get_arrays(run_);                                                                          \
    }

static inline double norm_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static inline void check_array_at(const Array *a, int depth, const char *file, int line)
{
    double error = 0, rounding = 0, size = norm_of(a->exact, a->n);
    for (size_t i = 0; i < a->n; i++) {
        double got = dtype_get(a->result, a->type, i), stored;
        dtype_set(&stored, a->type, 0, a->exact[i]);
        stored = dtype_get(&stored, a->type, 0);
        error += (got - a->exact[i]) * (got - a->exact[i]);
        rounding += (stored - a->exact[i]) * (stored - a->exact[i]);
    }
    error = sqrt(error), rounding = sqrt(rounding);
    const double allowed = 2 * (rounding + depth * 0x1p-24 * size);
    if (error <= allowed) return;
    checks_failed++;
    fprintf(stderr, "%s:%d: %s: error %.3g of %.3g, allowed %.3g\n", file, line, a->name, error,
            size, allowed);
}
#define CHECK_ARRAY(a, depth) check_array_at(a, depth, __FILE__, __LINE__)

// A sum of products whose absolute values add up to at most `size`, along a chain of `depth`
// additions.
static inline void check_sum_at(const Array *a, size_t i, double size, int depth, const char *file,
                                int line)
{
    const double error = fabs(dtype_get(a->result, a->type, i) - a->exact[i]);
    const double allowed = 2 * depth * 0x1p-24 * (size + fabs(a->exact[i]));
    if (error <= allowed) return;
    checks_failed++;
    fprintf(stderr, "%s:%d: %s[%zu] = %.9g, expected %.9g within %.3g\n", file, line, a->name, i,
            dtype_get(a->result, a->type, i), a->exact[i], allowed);
}
#define CHECK_SUM(a, i, size, depth) check_sum_at(a, i, size, depth, __FILE__, __LINE__)

// Integers on the GPU, freed with cuda->mem_free.
static inline int32_t *put_ints(const int32_t *x, size_t n)
{
    int32_t *p = cuda->mem_alloc(n * sizeof *p);
    if (!p) abort();
    cuda->mem_put(p, x, n * sizeof *p);
    return p;
}

// First statement of main: finds the GPU, or ends the program as a skip or, where TEST_GPU is set,
// as a failure. TEST_KERNELS=portable tests the kernels that need no Hopper.
static inline void find_gpu(void)
{
    Error err;
    char description[256];
    const char *kernels = getenv("TEST_KERNELS");
    ops_cuda_configure(&(CudaConfig){.portable = kernels && !strcmp(kernels, "portable")});
    if (ops_cuda_find(&cuda, description, sizeof description, &err)) {
        printf("GPU: %s\n", description);
        return;
    }
    printf("skip: %s\n0 passed, %d failed\n", err.text, getenv("TEST_GPU") ? 1 : 0);
    exit(getenv("TEST_GPU") ? 1 : 0);
}

#endif
