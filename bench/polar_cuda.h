// What the GPU lends to ablate/polar.h, and the random matrices of ablate/inputs.h made there.
#ifndef BENCH_POLAR_CUDA_H
#define BENCH_POLAR_CUDA_H

#include <stdint.h>

#include "../ablate/polar.h"
#include "../ops/error.h"

// Products by cuBLASLt in double (tensor cores where the GPU has such), sums in a fixed order, on
// the default stream; distance waits for it. Pointers are device memory; errors of CUDA end the
// program.
extern const PolarDevice polar_cuda;

// inputs_fill for g (m,n) in device memory: the same numbers up to the roundings of the GPU's
// functions. False for an unknown name.
bool inputs_fill_cuda(double *g, int m, int n, const char *name, uint64_t seed);

#endif
