// QK-norm, rotary and value mix in one pass (ops.h; specification 2.4, 3.3).
//
// One warp per token. D / 16 lanes hold one head: a lane 8 channels of its first half and the 8
// they turn with, so a token's rotary table is read once, into registers. Memory-bound: forward
// reads and writes 2 x 6 T D bytes (and 2 T D of ve), backward reads 12 T D and writes 6 T D (and 6
// T D for ve). ds is summed per warp over its tokens, per block, then over blocks in order.
#include "cuda.cuh"

namespace
{

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kBatch = 3; // vectors in flight per lane

// Eight angles' cos and sin from channel j on; 1 and 0 past the a active ones.
struct Turn {
    float cos[8], sin[8];
};

__device__ __forceinline__ Turn load_turn(const float *cos, const float *sin, int a, int p, int j)
{
    Turn turn;
    const size_t row = (size_t)p * a;
    if (a % 4 == 0) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const bool on = j + i < a;
            const float4 c = on ? *(const float4 *)(cos + row + j + i) : make_float4(1, 1, 1, 1);
            const float4 s = on ? *(const float4 *)(sin + row + j + i) : make_float4(0, 0, 0, 0);
            turn.cos[i] = c.x, turn.cos[i + 1] = c.y, turn.cos[i + 2] = c.z, turn.cos[i + 3] = c.w;
            turn.sin[i] = s.x, turn.sin[i + 1] = s.y, turn.sin[i + 2] = s.z, turn.sin[i + 3] = s.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            turn.cos[i] = j + i < a ? cos[row + j + i] : 1;
            turn.sin[i] = j + i < a ? sin[row + j + i] : 0;
        }
    }
    return turn;
}

// The sum over the kLanes lanes of a head.
template <int kLanes> __device__ __forceinline__ float head_sum(float x)
{
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    qkv_forward_kernel(bf16 *out, const bf16 *qkv, const float *cos, const float *sin, int a,
                       const float *s, const bf16 *ve, const int32_t *ids, int t, int h, float eps)
{
    constexpr int kLanes = D / 16, kHeads = kWarp / kLanes;
    const int p = (int)blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (p >= t) return;
    const int width = h * D, j = lane % kLanes * 8;
    const bf16 *x = qkv + (size_t)p * 3 * width;
    bf16 *y = out + (size_t)p * 3 * width;
    const Turn turn = load_turn(cos, sin, a, p, j);
    for (int head0 = lane / kLanes; head0 - lane / kLanes < 2 * h; head0 += kBatch * kHeads) {
        Vec8 in[kBatch][2] = {};
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
            const int head = head0 + b * kHeads;
            if (head >= 2 * h) continue;
            in[b][0] = load8(x + head * D + j);
            in[b][1] = load8(x + head * D + D / 2 + j);
        }
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
            const int head = head0 + b * kHeads;
            float x1[8], x2[8], y1[8], y2[8], squares = 0;
            unpack8(x1, in[b][0]);
            unpack8(x2, in[b][1]);
#pragma unroll
            for (int i = 0; i < 8; i++) squares += x1[i] * x1[i] + x2[i] * x2[i];
            const float r = rsqrtf(head_sum<kLanes>(squares) / D + eps);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                y1[i] = r * (x1[i] * turn.cos[i] + x2[i] * turn.sin[i]);
                y2[i] = r * (x2[i] * turn.cos[i] - x1[i] * turn.sin[i]);
            }
            if (head >= 2 * h) continue;
            store8(y + head * D + j, pack8(y1));
            store8(y + head * D + D / 2 + j, pack8(y2));
        }
    }
    const float s0 = s[0], s1 = ve ? s[1] : 0;
    const bf16 *e = ve ? ve + (size_t)ids[p] * width : nullptr;
    for (int c0 = lane * 8; c0 < width; c0 += kBatch * kWarp * 8) {
        Vec8 v[kBatch] = {}, mix[kBatch] = {};
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
            const int c = c0 + b * kWarp * 8;
            if (c >= width) continue;
            v[b] = load8(x + 2 * width + c);
            if (e) mix[b] = load8(e + c);
        }
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
            const int c = c0 + b * kWarp * 8;
            if (c >= width) continue;
            float vf[8], ef[8];
            unpack8(vf, v[b]);
            unpack8(ef, mix[b]);
#pragma unroll
            for (int i = 0; i < 8; i++) vf[i] = e ? s0 * vf[i] + s1 * ef[i] : s0 * vf[i];
            store8(y + 2 * width + c, pack8(vf));
        }
    }
}

// dx of one lane's channels of a head from dy: the transposed turn, then the norm's gradient.
template <int D>
__device__ __forceinline__ void head_gradient(Vec8 (&dx)[2], const Vec8 (&dy)[2],
                                              const Vec8 (&x)[2], const Turn &turn, float eps)
{
    float x1[8], x2[8], d1[8], d2[8], squares = 0, product = 0;
    unpack8(x1, x[0]);
    unpack8(x2, x[1]);
    unpack8(d1, dy[0]);
    unpack8(d2, dy[1]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float n1 = d1[i] * turn.cos[i] - d2[i] * turn.sin[i];
        const float n2 = d1[i] * turn.sin[i] + d2[i] * turn.cos[i];
        d1[i] = n1, d2[i] = n2;
        squares += x1[i] * x1[i] + x2[i] * x2[i];
        product += x1[i] * n1 + x2[i] * n2;
    }
    const float r = rsqrtf(head_sum<D / 16>(squares) / D + eps);
    const float mean = r * r * head_sum<D / 16>(product) / D; // mean(dn r x), times r
#pragma unroll
    for (int i = 0; i < 8; i++) {
        d1[i] = r * (d1[i] - x1[i] * mean);
        d2[i] = r * (d2[i] - x2[i] * mean);
    }
    dx[0] = pack8(d1), dx[1] = pack8(d2);
}

template <int D>
__global__ void __launch_bounds__(kThreads, 2)
    qkv_backward_kernel(bf16 *dqkv, float2 *partial, bf16 *dve, const bf16 *dout, const bf16 *qkv,
                        const float *cos, const float *sin, int a, const float *s, const bf16 *ve,
                        const int32_t *ids, int t, int h, float eps)
{
    constexpr int kLanes = D / 16, kHeads = kWarp / kLanes;
    __shared__ float room[kWarps];
    const int lane = threadIdx.x % kWarp, width = h * D, j = lane % kLanes * 8;
    const float s0 = s[0], s1 = ve ? s[1] : 0;
    float ds0 = 0, ds1 = 0;
    for (int p = (int)blockIdx.x * kWarps + threadIdx.x / kWarp; p < t; p += gridDim.x * kWarps) {
        const size_t row = (size_t)p * 3 * width;
        const bf16 *x = qkv + row, *dy = dout + row;
        bf16 *dx = dqkv + row;
        const Turn turn = load_turn(cos, sin, a, p, j);
        for (int head0 = lane / kLanes; head0 - lane / kLanes < 2 * h; head0 += kBatch * kHeads) {
            Vec8 in[kBatch][2] = {}, grad[kBatch][2] = {};
#pragma unroll
            for (int b = 0; b < kBatch; b++) {
                const int at = (head0 + b * kHeads) * D + j;
                if (head0 + b * kHeads >= 2 * h) continue;
                in[b][0] = load8(x + at), in[b][1] = load8(x + at + D / 2);
                grad[b][0] = load8(dy + at), grad[b][1] = load8(dy + at + D / 2);
            }
#pragma unroll
            for (int b = 0; b < kBatch; b++) {
                const int at = (head0 + b * kHeads) * D + j;
                Vec8 result[2];
                head_gradient<D>(result, grad[b], in[b], turn, eps);
                if (head0 + b * kHeads >= 2 * h) continue;
                store8(dx + at, result[0]), store8(dx + at + D / 2, result[1]);
            }
        }
        const size_t e_row = ve ? (size_t)ids[p] * width : 0;
        for (int c0 = lane * 8; c0 < width; c0 += kBatch * kWarp * 8) {
            Vec8 v[kBatch] = {}, grad[kBatch] = {}, mix[kBatch] = {}, sum[kBatch] = {};
#pragma unroll
            for (int b = 0; b < kBatch; b++) {
                const int c = c0 + b * kWarp * 8;
                if (c >= width) continue;
                v[b] = load8(x + 2 * width + c), grad[b] = load8(dy + 2 * width + c);
                if (ve) {
                    mix[b] = load8(ve + e_row + c);
                    sum[b] = load8(dve + (size_t)p * width + c);
                }
            }
#pragma unroll
            for (int b = 0; b < kBatch; b++) {
                const int c = c0 + b * kWarp * 8;
                if (c >= width) continue;
                float vf[8], g[8], e[8], total[8];
                unpack8(vf, v[b]);
                unpack8(g, grad[b]);
                unpack8(e, mix[b]);
                unpack8(total, sum[b]);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    ds0 += g[i] * vf[i];
                    ds1 += g[i] * e[i];
                    total[i] += s1 * g[i];
                    g[i] *= s0;
                }
                store8(dx + 2 * width + c, pack8(g));
                if (ve) store8(dve + (size_t)p * width + c, pack8(total));
            }
        }
    }
    ds0 = block_sum<kThreads>(ds0, room);
    ds1 = block_sum<kThreads>(ds1, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = make_float2(ds0, ds1);
}

// ds += the blocks' sums, in a fixed order: each lane's blocks, then the lanes.
__global__ void __launch_bounds__(kWarp)
    qkv_sum_kernel(float *ds, const float2 *partial, int blocks, bool has_ve)
{
    double sum0 = 0, sum1 = 0;
    for (int b = threadIdx.x; b < blocks; b += kWarp)
        sum0 += (double)partial[b].x, sum1 += (double)partial[b].y;
    sum0 = warp_sum(sum0), sum1 = warp_sum(sum1);
    if (threadIdx.x == 0) {
        ds[0] += (float)sum0;
        if (has_ve) ds[1] += (float)sum1;
    }
}

} // namespace

extern "C" void cuda_qkv_forward(void *out, const void *qkv, const void *cos, const void *sin,
                                 int a, const void *s, const void *ve, const int32_t *ids, int t,
                                 int h, int d, double eps)
{
    const auto kernel = d == 64 ? qkv_forward_kernel<64> : qkv_forward_kernel<128>;
    kernel<<<ceil_div((size_t)t, kWarps), kThreads, 0, cuda_stream()>>>(
        (bf16 *)out, (const bf16 *)qkv, (const float *)cos, (const float *)sin, a, (const float *)s,
        (const bf16 *)ve, ids, t, h, (float)eps);
    CHECK_LAUNCH();
}

extern "C" void cuda_qkv_backward(void *dqkv, void *ds, void *dve, const void *dout,
                                  const void *qkv, const void *cos, const void *sin, int a,
                                  const void *s, const void *ve, const int32_t *ids, int t, int h,
                                  int d, double eps)
{
    const auto kernel = d == 64 ? qkv_backward_kernel<64> : qkv_backward_kernel<128>;
    const int needed = ceil_div((size_t)t, kWarps),
              blocks = needed < kSumBlocks ? needed : kSumBlocks;
    float2 *partial = (float2 *)cuda_scratch();
    kernel<<<blocks, kThreads, 0, cuda_stream()>>>(
        (bf16 *)dqkv, partial, (bf16 *)dve, (const bf16 *)dout, (const bf16 *)qkv,
        (const float *)cos, (const float *)sin, a, (const float *)s, (const bf16 *)ve, ids, t, h,
        (float)eps);
    CHECK_LAUNCH();
    qkv_sum_kernel<<<1, kWarp, 0, cuda_stream()>>>((float *)ds, partial, blocks, ve != nullptr);
    CHECK_LAUNCH();
}
