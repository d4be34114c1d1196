// The attention's output gate (ops.h; specification 2.4, 3.3): y = sigmoid(gate_h . a) o per head.
//
// A warp takes four tokens at a time: their gates in parallel, a lane to a (token, head), then
// their channels, 16 bytes a lane. Memory-bound: forward reads and writes 2 T D bytes each,
// backward reads 4 T D and writes 2 T D. dgate is summed by the block over its tokens, 32 at a
// time, in the scratch memory; a second kernel adds the blocks in order.
#include "cuda.cuh"

namespace
{

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kTokens = 4, kRows = kWarps * kTokens;
constexpr int kMaxHeads = 64, kMaxChannels = 64; // gpt/recipe.c's bounds

// gates[n][i] of `tokens` tokens whose normed inputs start at a.
__device__ __forceinline__ void find_gates(float (*gates)[kMaxHeads], const bf16 *gate,
                                           const bf16 *a, int tokens, int h, int c, int width)
{
    for (int i = threadIdx.x % kWarp; i < tokens * h; i += kWarp) {
        const int n = i / h, head = i % h;
        float z = 0;
        for (int j = 0; j < c; j++)
            z += __bfloat162float(gate[head * c + j]) * __bfloat162float(a[(size_t)n * width + j]);
        gates[n][head] = sigmoidf(z);
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    gate_forward_kernel(bf16 *y, const bf16 *o, const bf16 *a, const bf16 *gate, int t, int h,
                        int c)
{
    __shared__ float gates[kWarps][kTokens][kMaxHeads];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, width = h * D;
    const int p = ((int)blockIdx.x * kWarps + warp) * kTokens, tokens = min(kTokens, t - p);
    if (tokens <= 0) return;
    const size_t row = (size_t)p * width;
    for (int at = lane * 8; at - lane * 8 < width; at += kWarp * 8) {
        Vec8 in[kTokens] = {};
#pragma unroll
        for (int n = 0; n < kTokens; n++)
            if (n < tokens && at < width) in[n] = load8(o + row + n * width + at);
        if (at == lane * 8) { // under the first loads
            find_gates(gates[warp], gate, a + row, tokens, h, c, width);
            __syncwarp();
        }
#pragma unroll
        for (int n = 0; n < kTokens; n++) {
            if (n >= tokens || at >= width) continue;
            float x[8];
            unpack8(x, in[n]);
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] *= gates[warp][n][at / D];
            store8(y + row + n * width + at, pack8(x));
        }
    }
}

// Each block takes the tokens [begin, end), kRows at a time.
template <int D>
__global__ void __launch_bounds__(kThreads, 3)
    gate_backward_kernel(bf16 *d_o, bf16 *da, float *partial, const bf16 *dy, const bf16 *o,
                         const bf16 *a, const bf16 *gate, int t, int h, int c)
{
    __shared__ float gates[kRows][kMaxHeads], dz[kRows][kMaxHeads], inputs[kRows][kMaxChannels];
    const int first = threadIdx.x / kWarp * kTokens, lane = threadIdx.x % kWarp, width = h * D;
    const int begin = (int)((long)blockIdx.x * t / gridDim.x);
    const int end = (int)((long)(blockIdx.x + 1) * t / gridDim.x);
    partial += (size_t)blockIdx.x * h * c;
    for (int p0 = begin; p0 < end; p0 += kRows) {
        const int tokens = min(kTokens, end - p0 - first);
        const size_t row = (size_t)(p0 + first) * width;
        for (int at = lane * 8; at - lane * 8 < width && tokens > 0; at += kWarp * 8) {
            Vec8 grad[kTokens] = {}, out[kTokens] = {};
#pragma unroll
            for (int n = 0; n < kTokens; n++) {
                if (n >= tokens || at >= width) continue;
                grad[n] = load8(dy + row + n * width + at);
                out[n] = load8(o + row + n * width + at);
            }
            if (at == lane * 8) { // under the first loads
                find_gates(gates + first, gate, a + row, tokens, h, c, width);
                for (int i = lane; i < tokens * c; i += kWarp)
                    inputs[first + i / c][i % c] = __bfloat162float(a[row + i / c * width + i % c]);
                __syncwarp();
            }
#pragma unroll
            for (int n = 0; n < kTokens; n++) {
                const bool valid = n < tokens && at < width;
                const float g = valid ? gates[first + n][at / D] : 0;
                float x[8], y[8], dot = 0;
                unpack8(x, grad[n]);
                unpack8(y, out[n]);
#pragma unroll
                for (int i = 0; i < 8; i++) dot += x[i] * y[i], x[i] *= g;
#pragma unroll
                for (int lanes = D / 16; lanes > 0; lanes /= 2)
                    dot += __shfl_xor_sync(0xffffffffu, dot, lanes);
                if (!valid) continue;
                if (at % D == 0) dz[first + n][at / D] = g * (1 - g) * dot;
                store8(d_o + row + n * width + at, pack8(x));
            }
        }
        __syncwarp();
        for (int i = lane; i < tokens * c; i += kWarp) {
            const int n = i / c, j = i % c;
            const size_t at = row + n * width + j;
            float sum = __bfloat162float(da[at]);
            for (int k = 0; k < h; k++) sum += dz[first + n][k] * __bfloat162float(gate[k * c + j]);
            da[at] = __float2bfloat16_rn(sum);
        }
        __syncthreads();
        const int rows = min(kRows, end - p0);
        for (int i = threadIdx.x; i < h * c; i += kThreads) {
            float sum = p0 == begin ? 0 : partial[i];
            for (int r = 0; r < rows; r++) sum += dz[r][i / c] * inputs[r][i % c];
            partial[i] = sum;
        }
        __syncthreads();
    }
}

// dgate += the blocks' sums: a warp to a number.
__global__ void __launch_bounds__(kThreads)
    gate_sum_kernel(float *dgate, const float *partial, int n, int blocks)
{
    const int i = (int)blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (i >= n) return;
    double sum = 0;
    for (int b = threadIdx.x % kWarp; b < blocks; b += kWarp)
        sum += (double)partial[(size_t)b * n + i];
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) dgate[i] += (float)sum;
}

} // namespace

extern "C" void cuda_gate_forward(void *y, const void *o, const void *a, const void *gate, int t,
                                  int h, int d, int c)
{
    const auto kernel = d == 64 ? gate_forward_kernel<64> : gate_forward_kernel<128>;
    kernel<<<ceil_div((size_t)t, kRows), kThreads, 0, cuda_stream()>>>(
        (bf16 *)y, (const bf16 *)o, (const bf16 *)a, (const bf16 *)gate, t, h, c);
    CHECK_LAUNCH();
}

extern "C" void cuda_gate_backward(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                                   const void *a, const void *gate, int t, int h, int d, int c)
{
    const auto kernel = d == 64 ? gate_backward_kernel<64> : gate_backward_kernel<128>;
    const int n = h * c, needed = ceil_div((size_t)t, kRows);
    int blocks = (int)(kScratchBytes / sizeof(float)) / n;
    if (blocks > kSumBlocks) blocks = kSumBlocks;
    if (blocks > needed) blocks = needed;
    float *partial = (float *)cuda_scratch();
    kernel<<<blocks, kThreads, 0, cuda_stream()>>>((bf16 *)d_o, (bf16 *)da, partial,
                                                   (const bf16 *)dy, (const bf16 *)o,
                                                   (const bf16 *)a, (const bf16 *)gate, t, h, c);
    CHECK_LAUNCH();
    gate_sum_kernel<<<ceil_div((size_t)n, kWarps), kThreads, 0, cuda_stream()>>>(
        (float *)dgate, partial, n, blocks);
    CHECK_LAUNCH();
}
