// What the files of the CUDA device share: error checks, the stream and the scratch memory, bf16
// vectors of 16 bytes, and reductions whose order is fixed.
#ifndef OPS_CUDA_CUDA_CUH
#define OPS_CUDA_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "device.h"
#include "ops_cuda.h"

typedef __nv_bfloat16 bf16;

// ---- host --------------------------------------------------------------------------------------

// Ends the program with "FILE:LINE: CALL: the error" and a hint. Only for what cannot happen to a
// correct program on a working GPU; memory that cannot be had is mem_alloc's NULL.
[[noreturn]] void cuda_fail(const char *error, const char *hint, const char *call, const char *file,
                            int line);
void cuda_check(cudaError_t status, const char *call, const char *file, int line);
#define CUDA_CHECK(call) cuda_check((call), #call, __FILE__, __LINE__)
// After a kernel<<<...>>>: a refused launch. An error while it runs shows at a later call.
#define CHECK_LAUNCH() CUDA_CHECK(cudaGetLastError())

// Besides the stream (device.h), scratch that any operation may use from its first kernel to its
// last: operations run in call order. Both are made by ops_cuda_find and never move.
void *cuda_scratch(void);
constexpr size_t kScratchBytes = 16 << 20;

// What ops_cuda_configure set (device.h), `portable` also on a GPU that is not Hopper.
bool cuda_portable(void);
bool cuda_deterministic(void);

// Whether the device multiplies fp8. Where it does not, fp8 numbers are held as the bf16 of the same
// value, so that a bf16 product of them is the fp8 product.
inline bool cuda_fp8(void) { return !cuda_portable(); }

constexpr int kWarp = 32;
// Kernels that also sum into a few numbers run as this many blocks at most, whatever the GPU: four
// to each of an H100's 132 multiprocessors. Each block leaves its partial sums in the scratch, and
// a second kernel adds them in order, so that the bits depend on nothing but the input.
constexpr int kSumBlocks = 528;

inline int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }

// ---- device ------------------------------------------------------------------------------------

#ifdef __CUDACC__

// Eight bf16 as they lie in memory, 16 bytes.
struct alignas(16) Vec8 {
    uint4 bits;
};

__device__ __forceinline__ Vec8 load8(const bf16 *p)
{
    return Vec8{*reinterpret_cast<const uint4 *>(p)};
}

__device__ __forceinline__ void store8(bf16 *p, Vec8 v) { *reinterpret_cast<uint4 *>(p) = v.bits; }

// A bf16 is the upper half of a float.
__device__ __forceinline__ float low_half(uint32_t u) { return __uint_as_float(u << 16); }
__device__ __forceinline__ float high_half(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }

__device__ __forceinline__ void unpack8(float (&x)[8], Vec8 v)
{
    const uint32_t u[4] = {v.bits.x, v.bits.y, v.bits.z, v.bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) x[2 * i] = low_half(u[i]), x[2 * i + 1] = high_half(u[i]);
}

__device__ __forceinline__ uint32_t pack2(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

__device__ __forceinline__ Vec8 pack8(const float (&x)[8])
{
    return Vec8{
        make_uint4(pack2(x[0], x[1]), pack2(x[2], x[3]), pack2(x[4], x[5]), pack2(x[6], x[7]))};
}

// Every lane gets the sum (maximum); the butterfly's order is the same for all.
template <typename T> __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

template <typename T> __device__ __forceinline__ T warp_max(T x)
{
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

// Every thread of a block of kThreads gets the sum. `room` holds kThreads / kWarp numbers in shared
// memory and is free again when the next call starts.
template <int kThreads, typename T> __device__ __forceinline__ T block_sum(T x, T *room)
{
    constexpr int kWarps = kThreads / kWarp;
    x = warp_sum(x);
    __syncthreads(); // the previous call's numbers have been read
    if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = x;
    __syncthreads();
    T sum = 0;
#pragma unroll
    for (int i = 0; i < kWarps; i++) sum += room[i];
    return sum;
}

__device__ __forceinline__ float sigmoidf(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Stored numbers of one dtype: widened, and rounded once.
__device__ __forceinline__ float load_stored(const float *p, size_t i) { return p[i]; }
__device__ __forceinline__ float load_stored(const bf16 *p, size_t i)
{
    return __bfloat162float(p[i]);
}
__device__ __forceinline__ float load_stored(const __half *p, size_t i)
{
    return __half2float(p[i]);
}
__device__ __forceinline__ void store_rounded(float *p, size_t i, float x) { p[i] = x; }
__device__ __forceinline__ void store_rounded(bf16 *p, size_t i, float x)
{
    p[i] = __float2bfloat16_rn(x);
}
__device__ __forceinline__ void store_rounded(__half *p, size_t i, float x)
{
    p[i] = __float2half_rn(x);
}

#endif
#endif
