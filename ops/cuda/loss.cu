// The MLP's activation, sums of streams, and the sum of the losses (specification 2.5).
#include "pointwise.cuh"

namespace
{

struct Relu2Forward {
    bf16 *r;
    const bf16 *h;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float x[Count::kCount];
        load_points<Count>(x, h, i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) {
            const float positive = x[j] < 0 ? 0.0f : x[j]; // a NaN stays
            x[j] = positive * positive;
        }
        store_points<Count>(r, i, x);
    }
};

struct Relu2Backward {
    bf16 *dh;
    const bf16 *dr, *h;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float x[Count::kCount], g[Count::kCount];
        load_points<Count>(x, h, i);
        load_points<Count>(g, dr, i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) g[j] *= 2 * (x[j] < 0 ? 0.0f : x[j]);
        store_points<Count>(dh, i, g);
    }
};

struct Add {
    bf16 *dst;
    const bf16 *src;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float x[Count::kCount], y[Count::kCount];
        load_points<Count>(x, dst, i);
        load_points<Count>(y, src, i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) x[j] += y[j];
        store_points<Count>(dst, i, x);
    }
};

constexpr int kTotalThreads = 1024;

__global__ void __launch_bounds__(kTotalThreads)
    total_kernel(double *total, const float *x, size_t n)
{
    __shared__ double room[kTotalThreads / kWarp];
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += kTotalThreads) sum += (double)x[i];
    sum = block_sum<kTotalThreads>(sum, room);
    if (threadIdx.x == 0) *total += sum;
}

} // namespace

void cuda_relu2_forward(void *r, const void *h, size_t n)
{
    launch_points(n, aligned16(r) && aligned16(h), Relu2Forward{(bf16 *)r, (const bf16 *)h});
}

void cuda_relu2_backward(void *dh, const void *dr, const void *h, size_t n)
{
    launch_points(n, aligned16(dh) && aligned16(dr) && aligned16(h),
                  Relu2Backward{(bf16 *)dh, (const bf16 *)dr, (const bf16 *)h});
}

void cuda_add(void *dst, const void *src, size_t n)
{
    launch_points(n, aligned16(dst) && aligned16(src), Add{(bf16 *)dst, (const bf16 *)src});
}

void cuda_sum(double *total, const void *x, size_t n)
{
    total_kernel<<<1, kTotalThreads, 0, cuda_stream()>>>(total, (const float *)x, n);
    CHECK_LAUNCH();
}
