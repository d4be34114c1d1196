// The MLP's activation, sums of streams, the head's fp8 operands, and the softcapped cross-entropy
// (specification 2.5 to 2.7 and 3.1, 3.2).
#include <cuda_fp8.h>

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

// Every fp8 value is a bf16, so that a product of such operands in bf16 is the fp8 product.
template <__nv_fp8_interpretation_t kFormat> struct Quantize {
    bf16 *y;
    const bf16 *x;
    float inverse;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float v[Count::kCount];
        load_points<Count>(v, x, i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) {
            const __nv_fp8_storage_t q =
                __nv_cvt_float_to_fp8(v[j] * inverse, __NV_SATFINITE, kFormat);
            v[j] = __half2float(__half(__nv_cvt_fp8_to_halfraw(q, kFormat)));
        }
        store_points<Count>(y, i, v);
    }
};

__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / (1 + 2^x) to a few units in the last place, without the special-function unit's quotient,
// which would cost as much as a second exponential: a guess from the bits, 12 % off at most, and
// two steps that cube the error. x is kept below 100, where the quotient is 0 for every purpose; a
// NaN passes.
__device__ __forceinline__ float inverse_one_plus_exp2(float x)
{
    asm("min.NaN.f32 %0, %0, 0f42C80000;" : "+f"(x));
    const float sum = 1.0f + exp2_approx(x);
    float y = __uint_as_float(0x7ef311c7u - __float_as_uint(sum));
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float rest = fmaf(-sum, y, 1.0f);
        y = fmaf(y, fmaf(rest, rest, rest), y);
    }
    return y;
}

constexpr float kLog2E = 1.44269504f;

// One block a row. With s = sigmoid(u/div): loss = log sum exp(cap s) - cap s_target, and the
// gradient d loss/du = (cap/div) s (1 - s) (softmax - onehot). The row is read once; each thread
// keeps its own vectors in shared memory, as bf16, until it has the sum, so that two blocks fit on
// a multiprocessor and one computes while the other reads. The exponent is taken from the row's
// maximum. What bounds it: the issue of 43 instructions an element, four of them exponentials; it
// takes 2.1 times as long as its memory traffic (H200, 4096 rows of 50304).
template <int kThreads>
__global__ void __launch_bounds__(kThreads, 2048 / kThreads)
    softcap_loss_kernel(float *loss, bf16 *logits, const int32_t *targets, float grad_scale, int v,
                        float cap, float div)
{
    extern __shared__ uint4 kept[]; // the row; a thread reads only what it wrote
    __shared__ float room[kThreads / kWarp];
    bf16 *u = logits + (size_t)blockIdx.x * v;
    const int target = targets[blockIdx.x], vecs = v / 8;
    const float slope_of_x = -kLog2E / div, slope_of_s = kLog2E * cap;
    const auto squash = [slope_of_x](float x) { return inverse_one_plus_exp2(slope_of_x * x); };
    const float hit = squash(__bfloat162float(u[target]));

    float largest = -INFINITY;
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < vecs; i += kThreads) {
        const Vec8 row = load8(u + 8 * i);
        float x[8];
        kept[i] = row.bits;
        unpack8(x, row);
#pragma unroll
        for (int j = 0; j < 8; j++) largest = fmaxf(largest, x[j]);
    }
    largest = warp_max(largest);
    if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = largest;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kThreads / kWarp; i++) largest = fmaxf(largest, room[i]);
    const float top = squash(largest), offset = -slope_of_s * top;

    float sum = 0;
    for (int i = (int)threadIdx.x; i < vecs; i += kThreads) {
        float x[8];
        unpack8(x, Vec8{kept[i]});
#pragma unroll
        for (int j = 0; j < 8; j++) sum += exp2_approx(fmaf(slope_of_s, squash(x[j]), offset));
    }
    sum = block_sum<kThreads>(sum, room);
    if (threadIdx.x == 0) loss[blockIdx.x] = logf(sum) + cap * (top - hit);
    if (grad_scale == 0) return;

    const float g = grad_scale * cap / div, scale = g / sum;
    for (int i = (int)threadIdx.x; i < vecs; i += kThreads) {
        float x[8];
        unpack8(x, Vec8{kept[i]});
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float s = squash(x[j]);
            const float e = exp2_approx(fmaf(slope_of_s, s, offset));
            x[j] = fmaf(-s, s, s) * (scale * e);
        }
        if (i == target / 8) { // before the rounding: softmax - 1 may be small
            const float slope = fmaf(-hit, hit, hit);
#pragma unroll
            for (int j = 0; j < 8; j++)
                if (j == target % 8) x[j] -= g * slope;
        }
        store8(u + 8 * i, pack8(x));
    }
}

constexpr int kTotalThreads = 1024;

__global__ void __launch_bounds__(kTotalThreads)
    total_kernel(double *total, const float *x, size_t n)
{
    __shared__ double room[kTotalThreads / kWarp];
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += kTotalThreads) sum += (double)x[i];
    sum = block_sum<kTotalThreads>(sum, room);
    if (threadIdx.x == 0) *total = sum;
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

void cuda_quantize(void *y, const void *x, Fp8Format format, double scale, bool via_bf16, size_t n)
{
    (void)via_bf16; // x is bf16
    const float inverse = (float)(1 / scale);
    const bool aligned = aligned16(y) && aligned16(x);
    if (format == FP8_E4M3)
        launch_points(n, aligned, Quantize<__NV_E4M3>{(bf16 *)y, (const bf16 *)x, inverse});
    else if (format == FP8_E5M2)
        launch_points(n, aligned, Quantize<__NV_E5M2>{(bf16 *)y, (const bf16 *)x, inverse});
    else if (y != x)
        CUDA_CHECK(
            cudaMemcpyAsync(y, x, n * sizeof(bf16), cudaMemcpyDeviceToDevice, cuda_stream()));
}

void cuda_softcap_loss(void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                       double cap, double div)
{
    constexpr int kMost = 65536; // ids are 16 bits wide
    const int threads = v > 4096 ? 1024 : 256, bytes = v * (int)sizeof(bf16);
    const auto kernel = threads == 1024 ? softcap_loss_kernel<1024> : softcap_loss_kernel<256>;
    if (v % 8 != 0 || v > kMost)
        cuda_fail("rows of logits are a multiple of 8 wide and at most 65536", "pad the vocabulary",
                  "cuda_softcap_loss", __FILE__, __LINE__);
    if (t == 0) return;
    if (bytes > 48 << 10) { // more has to be asked for, and room for two blocks as well
        CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                        cudaSharedmemCarveoutMaxShared));
    }
    kernel<<<t, threads, bytes, cuda_stream()>>>((float *)loss, (bf16 *)u, targets,
                                                 (float)grad_scale, v, (float)cap, (float)div);
    CHECK_LAUNCH();
}

double cuda_sum(const void *x, size_t n)
{
    double *total = (double *)cuda_scratch(), host;
    total_kernel<<<1, kTotalThreads, 0, cuda_stream()>>>(total, (const float *)x, n);
    CHECK_LAUNCH();
    CUDA_CHECK(cudaMemcpyAsync(&host, total, sizeof host, cudaMemcpyDeviceToHost, cuda_stream()));
    CUDA_CHECK(cudaStreamSynchronize(cuda_stream()));
    return host;
}
