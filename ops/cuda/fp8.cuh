// fp8 numbers in memory: their codes, one byte each, or, for GPUs whose tensor cores do not
// multiply them, bf16 of the same values (cuda_fp8 in cuda.cuh says which).
#ifndef OPS_CUDA_FP8_CUH
#define OPS_CUDA_FP8_CUH

#include <cuda_fp8.h>

#include "cuda.cuh"

constexpr __nv_fp8_interpretation_t kE4M3 = __NV_E4M3, kE5M2 = __NV_E5M2;

// Two codes, `low` first in memory; to nearest even, saturated.
template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ uint32_t fp8_pair(float low, float high)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, kFormat);
}

template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ uint2 fp8_codes(const float (&x)[8])
{
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pair[i] = fp8_pair<kFormat>(x[2 * i], x[2 * i + 1]);
    return make_uint2(pair[0] | pair[1] << 16, pair[2] | pair[3] << 16);
}

// x rounded to the format and widened again.
template <__nv_fp8_interpretation_t kFormat> __device__ __forceinline__ float fp8_value(float x)
{
    const __nv_fp8_storage_t code = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, kFormat);
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, kFormat)));
}

// Eight fp8 numbers from p on; p is aligned to them.
template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ void store_fp8(uint8_t *p, const float (&x)[8])
{
    *reinterpret_cast<uint2 *>(p) = fp8_codes<kFormat>(x);
}

template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ void store_fp8(bf16 *p, const float (&x)[8])
{
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; i++) y[i] = fp8_value<kFormat>(x[i]);
    store8(p, pack8(y));
}

// One.
template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ void store_fp8(uint8_t *p, float x)
{
    *p = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, kFormat);
}

template <__nv_fp8_interpretation_t kFormat>
__device__ __forceinline__ void store_fp8(bf16 *p, float x)
{
    *p = __float2bfloat16_rn(fp8_value<kFormat>(x));
}

// yt (C,R) = y (R,C)^T of stored fp8 numbers (quantize.cu). R and C are multiples of 16.
void transpose_fp8(void *yt, const void *y, int rows, int cols);

#endif
