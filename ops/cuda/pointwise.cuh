// Kernels over n independent numbers: eight to a thread, in 16-byte accesses where every pointer
// allows them, one by one at the end of the arrays. Bound by memory.
#ifndef OPS_CUDA_POINTWISE_CUH
#define OPS_CUDA_POINTWISE_CUH

#include "cuda.cuh"

constexpr int kPointThreads = 256, kPointsPerThread = 8;

template <typename T> struct alignas(16) Pack {
    T x[kPointsPerThread];
};

inline int point_blocks(size_t n) { return ceil_div(n, (size_t)kPointThreads * kPointsPerThread); }

inline bool aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

#ifdef __CUDACC__

// Calls work(first, Whole()) where eight numbers follow `first`, and work(i, One()) for the rest.
struct Whole {
    static constexpr int kCount = kPointsPerThread;
};
struct One {
    static constexpr int kCount = 1;
};

template <typename Work>
__global__ void __launch_bounds__(kPointThreads) point_kernel(size_t n, bool aligned, Work work)
{
    const size_t first =
        ((size_t)blockIdx.x * kPointThreads + threadIdx.x) * (size_t)kPointsPerThread;
    if (aligned && first + kPointsPerThread <= n) {
        work(first, Whole());
        return;
    }
    for (size_t i = first; i < n && i < first + kPointsPerThread; i++) work(i, One());
}

template <typename Work> void launch_points(size_t n, bool aligned, Work work)
{
    if (n == 0) return;
    point_kernel<<<point_blocks(n), kPointThreads, 0, cuda_stream()>>>(n, aligned, work);
    CHECK_LAUNCH();
}

// kCount numbers from p[i] on, widened; and back, rounded.
template <typename Count, typename T>
__device__ __forceinline__ void load_points(float (&x)[Count::kCount], const T *p, size_t i)
{
    if constexpr (Count::kCount == 1) {
        x[0] = load_stored(p, i);
    } else {
        const Pack<T> pack = *reinterpret_cast<const Pack<T> *>(p + i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) x[j] = load_stored(pack.x, (size_t)j);
    }
}

template <typename Count, typename T>
__device__ __forceinline__ void store_points(T *p, size_t i, const float (&x)[Count::kCount])
{
    if constexpr (Count::kCount == 1) {
        store_rounded(p, i, x[0]);
    } else {
        Pack<T> pack;
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) store_rounded(pack.x, (size_t)j, x[j]);
        *reinterpret_cast<Pack<T> *>(p + i) = pack;
    }
}

#endif

// Calls work with a null pointer of the dtype's C type: a number of type T is stored as *tag.
template <typename Work> void with_dtype(DType dtype, Work work)
{
    if (dtype == DT_F32)
        work((float *)nullptr);
    else if (dtype == DT_BF16)
        work((bf16 *)nullptr);
    else if (dtype == DT_F16)
        work((__half *)nullptr);
    else
        cuda_fail("a GPU stores no f64", "use bf16, f16 or f32", "with_dtype", __FILE__, __LINE__);
}

#endif
