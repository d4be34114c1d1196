// Inputs of the orthogonalisation's GPU tests, and the CPU's results to compare with.
#ifndef TESTS_GPU_NS_DATA_H
#define TESTS_GPU_NS_DATA_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ns.h"

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

static void *device_copy(const void *host, size_t bytes)
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

static float *gaussians(uint64_t seed, size_t n)
{
    float *x = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double u = (double)(random_bits(&seed) >> 11) * 0x1p-53;
        double v = (double)(random_bits(&seed) >> 11) * 0x1p-53;
        x[i] = (float)(sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v));
    }
    return x;
}

#endif
