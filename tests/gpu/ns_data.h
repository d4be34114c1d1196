// Inputs of the orthogonalisation's GPU tests, the GPU's results, and the CPU's to compare with.
#ifndef TESTS_GPU_NS_DATA_H
#define TESTS_GPU_NS_DATA_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ns.h"
#include "../test.h"

static void must(cudaError_t status, const char *call)
{
    if (status == cudaSuccess) return;
    fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(status));
    exit(1);
}
#define MUST(call) must((call), #call)

// First statement of main: ends the program as a skip where there is no GPU, or, where TEST_GPU is
// set, as a failure.
static void find_gpu(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count) return;
    printf("skip: no GPU\n0 passed, %d failed\n", getenv("TEST_GPU") ? 1 : 0);
    exit(getenv("TEST_GPU") ? 1 : 0);
}

static void *device_room(size_t bytes)
{
    void *p;
    MUST(cudaMalloc(&p, bytes));
    MUST(cudaMemset(p, 0xa5, bytes)); // what a kernel forgets to write shows
    return p;
}

static inline void *device_copy(const void *host, size_t bytes)
{
    void *p = device_room(bytes);
    MUST(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice));
    return p;
}

static uint64_t random_bits(uint64_t *state) // SplitMix64
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline float *gaussians(uint64_t seed, size_t n)
{
    float *x = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double u = (double)(random_bits(&seed) >> 11) * 0x1p-53;
        double v = (double)(random_bits(&seed) >> 11) * 0x1p-53;
        x[i] = (float)(sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v));
    }
    return x;
}

// A named method, with a storage of its own unless that is NULL.
static inline NsMethod method_with(const char *name, const char *storage)
{
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    if (storage) CHECK(ns_method_set_storage(&method, storage, &err), "%s", err.text);
    return method;
}

enum { GUARD = 64 }; // bytes after a result and a workspace that nothing may write to

static inline void check_guard(const char *gpu, size_t bytes, const char *of)
{
    unsigned char guard[GUARD];
    MUST(cudaMemcpy(guard, gpu + bytes, GUARD, cudaMemcpyDeviceToHost));
    int written = 0;
    for (int i = 0; i < GUARD; i++) written += guard[i] != 0xa5;
    CHECK(!written, "written past the %s", of);
}

static inline void *stored(DType dtype, const float *x, size_t n)
{
    void *to = malloc(n * dtype_size(dtype));
    for (size_t i = 0; i < n; i++) dtype_set(to, dtype, i, x[i]);
    return to;
}

// y = the method on x by the GPU, which is given x as `in` and returns it as `out`, into the same
// memory if in_place (then both are one dtype); the number of NaN matrices.
static inline int run_gpu_to(float *y, DType out, const NsMethod *m, const float *x, DType in,
                             bool in_place, int batch, int rows, int cols)
{
    const size_t n = (size_t)batch * rows * cols, in_bytes = n * dtype_size(in),
                 out_bytes = n * dtype_size(out),
                 work_bytes = ns_workspace_size_cuda(m, batch, rows, cols);
    void *host = stored(in, x, n), *back = malloc(in_bytes > out_bytes ? in_bytes : out_bytes);
    char *source = device_room(in_bytes + GUARD), *work = device_room(work_bytes + GUARD),
         *result = in_place ? source : device_room(out_bytes + GUARD);
    MUST(cudaMemcpy(source, host, in_bytes, cudaMemcpyHostToDevice));
    CHECK(!(in_place ? ns_orthogonalize_cuda(m, source, in, batch, rows, cols, work, NULL)
                     : ns_orthogonalize_to_cuda(m, result, out, source, in, false, batch, rows,
                                                cols, work, NULL)));
    const int failed = ns_failed_cuda(work, NULL);
    MUST(cudaMemcpy(back, result, out_bytes, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++) y[i] = (float)dtype_get(back, out, i);
    check_guard(work, work_bytes, "workspace");
    check_guard(result, out_bytes, "result");
    if (!in_place) {
        MUST(cudaMemcpy(back, source, in_bytes, cudaMemcpyDeviceToHost));
        CHECK(!memcmp(back, host, in_bytes), "the input was changed");
        MUST(cudaFree(result));
    }
    MUST(cudaFree(source));
    MUST(cudaFree(work));
    free(host), free(back);
    return failed;
}

static inline int run_gpu(float *y, const NsMethod *m, const float *x, DType dtype, int batch,
                          int rows, int cols)
{
    return run_gpu_to(y, dtype, m, x, dtype, true, batch, rows, cols);
}

static inline size_t count_differing(const float *x, const float *y, size_t n)
{
    size_t differing = 0;
    for (size_t i = 0; i < n; i++) differing += memcmp(x + i, y + i, sizeof *x) != 0;
    return differing;
}

static inline double distance(const float *x, const float *y, size_t n) // relative to y
{
    double off = 0, size = 0;
    for (size_t i = 0; i < n; i++) off += pow((double)x[i] - y[i], 2), size += pow((double)y[i], 2);
    return sqrt(off / size);
}

// Matrices at a time on the CPU: where they are few, the products take the cores.
static inline int at_once(int batch) { return batch < 8 ? 1 : 8; }

static inline void run_f32(float *y, const NsMethod *m, const float *x, int batch, int rows,
                           int cols)
{
    void *work = malloc(ns_workspace_size(m, at_once(batch), rows, cols, sizeof(float)));
    memcpy(y, x, (size_t)batch * rows * cols * sizeof(float));
    ns_orthogonalize_f32(m, y, batch, rows, cols, work, at_once(batch));
    free(work);
}

static inline double *run_exact(const NsMethod *m, const float *x, int batch, int rows, int cols)
{
    NsMethod exact = *m;
    exact.storage = DT_F64;
    size_t n = (size_t)batch * rows * cols;
    double *y = malloc(n * sizeof(double));
    for (size_t i = 0; i < n; i++) y[i] = x[i];
    void *work = malloc(ns_workspace_size(&exact, at_once(batch), rows, cols, sizeof(double)));
    ns_orthogonalize_f64(&exact, y, batch, rows, cols, work, at_once(batch));
    free(work);
    return y;
}

static inline float *rounded(DType dtype, const float *x, size_t n)
{
    float *y = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        y[i] = dtype == DT_BF16 ? round_bf16(x[i]) : dtype == DT_F16 ? round_f16(x[i]) : x[i];
    return y;
}

// The root of the mean square of the matrices' relative distances from the exact result.
static inline double mean_error(const float *x, const double *exact, int batch, size_t size)
{
    double sum = 0;
    for (int k = 0; k < batch; k++, x += size, exact += size) {
        double off = 0, all = 0;
        for (size_t i = 0; i < size; i++) {
            off += (x[i] - exact[i]) * (x[i] - exact[i]);
            all += exact[i] * exact[i];
        }
        sum += off / all;
    }
    return sqrt(sum / batch);
}

#endif
