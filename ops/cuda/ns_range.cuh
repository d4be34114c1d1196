// What the size of an input, and of its normaliser, makes of it: for ns_passes.cu and ns_small.cu.
#ifndef OPS_CUDA_NS_RANGE_CUH
#define OPS_CUDA_NS_RANGE_CUH

#include "ns_passes.h"

constexpr int kBlock = 256; // threads

__device__ __forceinline__ float poison() { return __int_as_float(0x7fc00000); }

// 1 / root, 0 where there is nothing to divide by, NaN for NaN.
__device__ __forceinline__ double inverse_root(double square)
{
    return square == 0 ? 0 : 1 / sqrt(square);
}

// 2^e that brings |G|_F to [8, 16); 1 for zeros.
__device__ __forceinline__ double power_for(double square)
{
    int exponent = 4;
    if (square > 0) frexp(sqrt(square), &exponent);
    return ldexp(1.0, 4 - exponent);
}

// From |G|_F^2, with this power of two as the factor.
__device__ __forceinline__ NsRange find_range(double square, double factor, double delta,
                                              double eps, bool relative)
{
    if (!isfinite(square)) return {nan(""), eps, nan("")};
    const double unit = relative ? sqrt(square) : 1; // of eps
    const double size = ((1 + delta) * sqrt(square) + eps * unit) * factor;
    return {factor, square == 0 ? INFINITY : eps * (factor * unit) * (factor * unit), // 0 for zeros
            size > 0 ? 1 / size : 0};
}

#endif
