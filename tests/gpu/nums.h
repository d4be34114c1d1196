// What the tests of attention and of the operations around it share: the same numbers for the GPU,
// for the double device and for plain fp32, and which kernels run.
#ifndef TESTS_GPU_NUMS_H
#define TESTS_GPU_NUMS_H

#include <stdlib.h>
#include <string.h>

#include "../../ops/cuda/device.h"
#include "../test.h"

static const Ops *gpu;
static bool portable, only_portable; // which kernels run; whether no others may (TEST_KERNELS)

// path 0: the GPU's best kernels; 1: the portable ones.
static inline void use_path(int path)
{
    portable = path > 0 || only_portable;
    ops_cuda_configure(&(CudaConfig){.portable = portable});
}

static inline double random_number(void) // uniform in [-1, 1)
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 40) * 0x1p-23 - 1;
}

// ---- buffers -----------------------------------------------------------------------------------

typedef struct {
    size_t n;
    DType type; // on the GPU
    void *on_gpu;
    double *exact;
    float *plain;
    double *got; // from the GPU, after fetch
} Nums;

static Nums *pool[32];
static int pool_size;

static inline void put(Nums *x) // exact, rounded to the GPU's type, to all three
{
    char *stored = malloc(x->n * dtype_size(x->type) + 1);
    for (size_t i = 0; i < x->n; i++) {
        dtype_set(stored, x->type, i, x->exact[i]);
        x->exact[i] = dtype_get(stored, x->type, i);
        x->plain[i] = (float)x->exact[i];
    }
    gpu->mem_put(x->on_gpu, stored, x->n * dtype_size(x->type));
    free(stored);
}

static inline Nums *nums(size_t n, DType type, double scale) // NaN when scale is: for outputs
{
    Nums *x = malloc(sizeof *x);
    *x = (Nums){.n = n, .type = type, .on_gpu = gpu->mem_alloc(n * dtype_size(type))};
    x->exact = malloc(n * sizeof(double)), x->got = malloc(n * sizeof(double));
    x->plain = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) x->exact[i] = scale * random_number();
    put(x);
    return pool[pool_size++] = x;
}

static inline void fetch(Nums *x)
{
    char *stored = malloc(x->n * dtype_size(x->type) + 1);
    gpu->mem_get(stored, x->on_gpu, x->n * dtype_size(x->type));
    for (size_t i = 0; i < x->n; i++) x->got[i] = dtype_get(stored, x->type, i);
    free(stored);
}

static inline void *bytes_of(const Nums *x)
{
    void *bytes = malloc(x->n * dtype_size(x->type) + 1);
    gpu->mem_get(bytes, x->on_gpu, x->n * dtype_size(x->type));
    return bytes;
}

static inline bool same_bytes(const Nums *x, const void *bytes)
{
    void *now = bytes_of(x);
    const bool same = memcmp(now, bytes, x->n * dtype_size(x->type)) == 0;
    free(now);
    return same;
}

static inline void poison(Nums *x) // on the GPU
{
    void *bytes = malloc(x->n * dtype_size(x->type) + 1);
    memset(bytes, 0xff, x->n * dtype_size(x->type));
    gpu->mem_put(x->on_gpu, bytes, x->n * dtype_size(x->type));
    free(bytes);
}

static inline void free_all(void)
{
    while (pool_size > 0) {
        Nums *x = pool[--pool_size];
        gpu->mem_free(x->on_gpu);
        free(x->exact), free(x->plain), free(x->got), free(x);
    }
}

static inline int32_t *gpu_ints(const int32_t *x, size_t n)
{
    int32_t *p = gpu->mem_alloc(n * 4);
    gpu->mem_put(p, x, n * 4);
    return p;
}

// ---- the GPU -----------------------------------------------------------------------------------

// Finds the GPU. -1, or the status to end with where there is none.
static inline int open_gpu(void)
{
    char description[256];
    Error err;
    const char *kernels = getenv("TEST_KERNELS");
    only_portable = kernels && !strcmp(kernels, "portable");
    use_path(0);
    if (ops_cuda_find(&gpu, description, sizeof description, &err)) return -1;
    printf("skip: %s\n0 passed, %d failed\n", err.text, getenv("TEST_GPU") ? 1 : 0);
    return getenv("TEST_GPU") ? 1 : 0;
}

// Whether only what a sanitizer has the time for is asked for.
static inline bool is_quick(int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], "--quick") == 0;
}

#endif
