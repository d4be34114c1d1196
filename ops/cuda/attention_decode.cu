// Attention of one query over the keys and values that generation keeps (ops.h).
//
// A block takes kKeys keys of one head: scores by groups of D / 8 lanes, a group to a key, then the
// weighted values, a lane to 8 channels of every kGroups-th key, summed over the groups in shared
// memory. It leaves its maximum, sum and unnormalised output in the scratch; a second kernel, a
// block to a head, adds the blocks up in order. So the bits depend on the keys alone.
//
// Bound by latency for a few hundred keys, by memory beyond: it reads 4 D bytes a key and head.
#include "cuda.cuh"

namespace
{

constexpr int kThreads = 128, kKeys = 64;

struct Keys { // those that the query at position p sees
    int begin, end;
};

__device__ __forceinline__ Keys visible(int p, int first, int window)
{
    const int begin = window < p ? p - window : 0;
    return Keys{begin > first ? begin : first, p + 1};
}

// Where block `part` of head `head` leaves D outputs, then its maximum and its sum.
template <int D> __device__ __forceinline__ float *part_of(float *scratch, int head, int part)
{
    return scratch + ((size_t)part * gridDim.x + head) * (D + 2);
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(float *scratch, const bf16 *qkv, int p, int first, const int32_t *window,
                  const double *scale, int h)
{
    constexpr int kLanes = D / 8, kGroups = kThreads / kLanes;
    __shared__ float weight[kKeys], room[kThreads / kWarp], values[kGroups][D];
    const int head = (int)blockIdx.x, group = (int)threadIdx.x / kLanes;
    const int at = (int)threadIdx.x % kLanes * 8;
    const Keys keys = visible(p, first, *window);
    const int begin = keys.begin + (int)blockIdx.y * kKeys, n = min(kKeys, keys.end - begin);
    if (n <= 0) return; // the grid has blocks for a window without end
    const size_t stride = (size_t)3 * h * D;
    const bf16 *k = qkv + (size_t)begin * stride + (size_t)(h + head) * D + at;
    const bf16 *v = k + (size_t)h * D;
    const float factor = (float)*scale;

    float q[8];
    unpack8(q, load8(qkv + (size_t)p * stride + (size_t)head * D + at));
    for (int i = group; i - group < n; i += kGroups) { // whole warps, for the shuffles
        float x[8], dot = 0;
        unpack8(x, i < n ? load8(k + (size_t)i * stride) : Vec8{make_uint4(0, 0, 0, 0)});
#pragma unroll
        for (int j = 0; j < 8; j++) dot += q[j] * x[j];
#pragma unroll
        for (int lanes = kLanes / 2; lanes > 0; lanes /= 2)
            dot += __shfl_xor_sync(0xffffffffu, dot, lanes);
        if (at == 0 && i < n) weight[i] = factor * dot;
    }
    __syncthreads();
    float largest = -INFINITY;
    for (int i = 0; i < n; i++) largest = fmaxf(largest, weight[i]);
    __syncthreads(); // all have read the scores
    const float mine = (int)threadIdx.x < n ? __expf(weight[threadIdx.x] - largest) : 0;
    if ((int)threadIdx.x < n) weight[threadIdx.x] = mine;
    const float sum = block_sum<kThreads>(mine, room); // its barriers show the weights too

    float out[8] = {};
    for (int i = group; i < n; i += kGroups) {
        float x[8];
        unpack8(x, load8(v + (size_t)i * stride));
#pragma unroll
        for (int j = 0; j < 8; j++) out[j] += weight[i] * x[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) values[group][at + j] = out[j];
    __syncthreads();
    float *part = part_of<D>(scratch, head, (int)blockIdx.y);
    for (int j = (int)threadIdx.x; j < D; j += kThreads) {
        float total = 0;
#pragma unroll
        for (int g = 0; g < kGroups; g++) total += values[g][j];
        part[j] = total;
    }
    if (threadIdx.x == 0) part[D] = largest, part[D + 1] = sum;
}

// The parts of one head, a thread to a channel.
template <int D>
__global__ void __launch_bounds__(D)
    combine_kernel(bf16 *o, float *scratch, int p, int first, const int32_t *window)
{
    const int head = (int)blockIdx.x, j = (int)threadIdx.x;
    const Keys keys = visible(p, first, *window);
    const int parts = (keys.end - keys.begin + kKeys - 1) / kKeys;
    float largest = -INFINITY, sum = 0, total = 0;
    for (int i = 0; i < parts; i++) largest = fmaxf(largest, part_of<D>(scratch, head, i)[D]);
    for (int i = 0; i < parts; i++) {
        const float *part = part_of<D>(scratch, head, i), shrink = __expf(part[D] - largest);
        sum += shrink * part[D + 1];
        total += shrink * part[j];
    }
    o[head * D + j] = __float2bfloat16_rn(total / sum);
}

template <int D>
void decode(bf16 *o, const bf16 *qkv, int p, int first, const int32_t *window, const double *scale,
            int h)
{
    float *scratch = (float *)cuda_scratch();
    const dim3 grid((unsigned)h, (unsigned)ceil_div((size_t)(p - first + 1), kKeys));
    if ((size_t)grid.x * grid.y * (D + 2) * sizeof(float) > kScratchBytes)
        cuda_fail("too many keys for the scratch memory", "shorten the sequence", "decode",
                  __FILE__, __LINE__);
    decode_kernel<D>
        <<<grid, kThreads, 0, cuda_stream()>>>(scratch, qkv, p, first, window, scale, h);
    CHECK_LAUNCH();
    combine_kernel<D><<<h, D, 0, cuda_stream()>>>(o, scratch, p, first, window);
    CHECK_LAUNCH();
}

} // namespace

void cuda_attention_decode(void *o, const void *qkv, int p, int first, const int32_t *window,
                           const double *scale, int h, int d)
{
    const auto run = d == 64 ? decode<64> : decode<128>;
    run((bf16 *)o, (const bf16 *)qkv, p, first, window, scale, h);
}
