// The softcapped cross-entropy and its gradient (specification 2.6, 3.1, 3.2).
#include "fp8.cuh"

namespace
{

__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float reciprocal_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// y = 1/a for four numbers of 1 to 2^31.9 with one instruction of the special-function unit, to a
// few units in the last place.
__device__ __forceinline__ void invert4(float (&y)[4], const float (&a)[4])
{
    const float first = a[0] * a[1], second = a[2] * a[3];
    const float inverse = reciprocal_approx(first * second);
    const float of_first = inverse * second, of_second = inverse * first;
    y[0] = of_first * a[1], y[1] = of_first * a[0];
    y[2] = of_second * a[3], y[3] = of_second * a[2];
}

constexpr float kLog2E = 1.44269504f;
// Logits are kept above the one whose sigmoid is 2^-31, which is 0 for every purpose: invert4's
// product of four stays finite.
constexpr float kMostExponent = 31;
// Up to this cap every exponential and their sum fit fp32 with a constant offset of cap / 2.
constexpr float kSmallCap = 128;

// What becomes of the row's gradient: nothing, bf16, or e5m2 of its bf16 times 1/scale.
struct NoGradient {
    typedef bf16 T;
};
struct Gradient {
    typedef bf16 T;
    static __device__ __forceinline__ void store(bf16 *p, const float (&x)[8], float)
    {
        store8(p, pack8(x));
    }
    static __device__ __forceinline__ void store1(bf16 *p, float x, float)
    {
        *p = __float2bfloat16_rn(x);
    }
};
template <typename Stored> struct Fp8Gradient {
    typedef Stored T;
    static __device__ __forceinline__ void store(Stored *p, const float (&x)[8], float inverse)
    {
        float y[8];
        unpack8(y, pack8(x)); // the gradient is a bf16 before it is an e5m2
#pragma unroll
        for (int j = 0; j < 8; j++) y[j] *= inverse;
        store_fp8<kE5M2>(p, y);
    }
    static __device__ __forceinline__ void store1(Stored *p, float x, float inverse)
    {
        store_fp8<kE5M2>(p, __bfloat162float(__float2bfloat16_rn(x)) * inverse);
    }
};

// Eight logits, clamped, to their sigmoids s.
__device__ __forceinline__ void squash8(float (&s)[8], Vec8 row, __nv_bfloat162 least, float slope)
{
    uint32_t u[4] = {row.bits.x, row.bits.y, row.bits.z, row.bits.w};
    float x[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __nv_bfloat162 pair = *reinterpret_cast<__nv_bfloat162 *>(&u[i]);
        pair = __hmax2_nan(pair, least);
        u[i] = *reinterpret_cast<uint32_t *>(&pair);
    }
    unpack8(x, Vec8{make_uint4(u[0], u[1], u[2], u[3])});
#pragma unroll
    for (int half = 0; half < 8; half += 4) {
        float a[4], y[4];
#pragma unroll
        for (int j = 0; j < 4; j++) a[j] = 1.0f + exp2_approx(slope * x[half + j]);
        invert4(y, a);
#pragma unroll
        for (int j = 0; j < 4; j++) s[half + j] = y[j];
    }
}

struct Softcap {
    float *loss;
    const bf16 *u;
    const int32_t *targets;
    float grad_scale, inverse, cap, div; // inverse: of the gradient's fp8 scale
    int v;
};

// One block a row. With s = sigmoid(u/div): loss = log sum exp(cap s) - cap s_target, and the
// gradient d loss/du = (cap/div) s (1 - s) (softmax - onehot).
//
// The row is read once. The sum's pass leaves exp(cap s - offset) s (1 - s) of each column in
// shared memory, as bf16, which its row's factor turns into the gradient; two blocks fit on a
// multiprocessor, and one computes while the other reads. The target's column is computed anew, as
// softmax - 1 may be small. Softcapped logits lie in [0, cap], so that the offset is a constant;
// only a large cap asks for the row's maximum.
template <typename Out, int kThreads>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads)
    softcap_loss_kernel(typename Out::T *gradient, Softcap op)
{
    constexpr bool kTrains = !std::is_same_v<Out, NoGradient>;
    extern __shared__ uint4 kept[]; // the row; a thread reads only what it wrote
    __shared__ float room[kThreads / kWarp];
    const bf16 *u = op.u + (size_t)blockIdx.x * op.v;
    const int target = op.targets[blockIdx.x], vecs = op.v / 8;
    const float slope_of_u = -kLog2E / op.div, slope_of_s = kLog2E * op.cap;
    const __nv_bfloat162 least = __float2bfloat162_rn(kMostExponent / slope_of_u);
    const auto squash = [=](float x) {
        return 1.0f / (1.0f + exp2_approx(slope_of_u * fmaxf(x, __low2float(least))));
    };
    float top = 0.5f; // the sigmoid that the exponents count from
    if (op.cap > kSmallCap) {
        float largest = -INFINITY;
        for (int i = (int)threadIdx.x; i < op.v; i += kThreads)
            largest = fmaxf(largest, __bfloat162float(u[i]));
        largest = warp_max(largest);
        if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = largest;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kThreads / kWarp; i++) largest = fmaxf(largest, room[i]);
        top = squash(largest);
    }
    const float offset = -slope_of_s * top;
    const float hit = squash(__bfloat162float(u[target]));

    float sum = 0;
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < vecs; i += kThreads) {
        float s[8], e[8];
        squash8(s, load8(u + 8 * i), least, slope_of_u);
#pragma unroll
        for (int j = 0; j < 8; j++) e[j] = exp2_approx(fmaf(slope_of_s, s[j], offset));
        sum += ((e[0] + e[1]) + (e[2] + e[3])) + ((e[4] + e[5]) + (e[6] + e[7]));
        if constexpr (kTrains) {
#pragma unroll
            for (int j = 0; j < 8; j++) e[j] *= fmaf(-s[j], s[j], s[j]);
            kept[i] = pack8(e).bits;
        }
    }
    sum = block_sum<kThreads>(sum, room);
    if (threadIdx.x == 0) op.loss[blockIdx.x] = logf(sum) + op.cap * (top - hit);

    if constexpr (kTrains) {
        typename Out::T *row = gradient + (size_t)blockIdx.x * op.v;
        const float g = op.grad_scale * op.cap / op.div, scale = g / sum;
        for (int i = (int)threadIdx.x; i < vecs; i += kThreads) {
            float x[8];
            unpack8(x, Vec8{kept[i]});
#pragma unroll
            for (int j = 0; j < 8; j++) x[j] *= scale;
            Out::store(row + 8 * i, x, op.inverse);
        }
        if ((int)threadIdx.x == target / 8 % kThreads) { // it has written the rest of that vector
            const float softmax = exp2_approx(fmaf(slope_of_s, hit, offset)) / sum;
            Out::store1(row + target, g * fmaf(-hit, hit, hit) * (softmax - 1), op.inverse);
        }
    }
}

template <typename Out> void launch_softcap(void *gradient, const Softcap &op, int t)
{
    constexpr int kMost = 65536; // ids are 16 bits wide
    constexpr bool kTrains = !std::is_same_v<Out, NoGradient>;
    const bool wide = op.v > 4096;
    const int threads = wide ? 512 : 256, bytes = kTrains ? op.v * (int)sizeof(bf16) : 0;
    const auto kernel = wide ? softcap_loss_kernel<Out, 512> : softcap_loss_kernel<Out, 256>;
    if (op.v % 8 != 0 || op.v > kMost)
        cuda_fail("rows of logits are a multiple of 8 wide and at most 65536", "pad the vocabulary",
                  "softcap_loss", __FILE__, __LINE__);
    if (t == 0) return;
    if (bytes > 48 << 10) { // more has to be asked for, and room for two blocks as well
        CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                        cudaSharedmemCarveoutMaxShared));
    }
    kernel<<<t, threads, bytes, cuda_stream()>>>((typename Out::T *)gradient, op);
    CHECK_LAUNCH();
}

} // namespace

void cuda_softcap_loss(void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                       double cap, double div)
{
    const Softcap op = {(float *)loss, (const bf16 *)u, targets, (float)grad_scale, 1,
                        (float)cap,    (float)div,      v};
    if (grad_scale == 0)
        launch_softcap<NoGradient>(nullptr, op, t);
    else
        launch_softcap<Gradient>(u, op, t);
}

void cuda_softcap_loss_fp8(void *loss, void *g, void *gt, void *u, const int32_t *targets,
                           double grad_scale, double scale, int t, int v, double cap, double div)
{
    const Softcap op = {(float *)loss,      (const bf16 *)u, targets,    (float)grad_scale,
                        (float)(1 / scale), (float)cap,      (float)div, v};
    if (cuda_fp8())
        launch_softcap<Fp8Gradient<uint8_t>>(g, op, t);
    else
        launch_softcap<Fp8Gradient<bf16>>(g, op, t);
    transpose_fp8(gt, g, t, v);
}
