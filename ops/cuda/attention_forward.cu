// Softmax attention forward (ops.h; specification 2.4): FlashAttention-2's online softmax.
//
// Tile: kGroups x 64 queries of one head per block, 64 keys at a time, from the block's own tokens
// back to the first key that its first query sees: so the first copies wait for nothing, and every
// query sees a key at once. A warpgroup skips the tiles that only the other's queries see, and
// nobody visits those outside window and document. Data path: cp.async into two buffers of K and V,
// each shared by the block's queries; the copy of the next tiles runs under this one's products and
// softmax, and a second block fills the waits. S and O stay in registers.
//
// Bound: with short windows memory (8 T H D bytes; 0.047 ms at T = 32768, H = 6, D = 128 and 4.25
// TB/s), with long ones the tensor cores. Measured on an H200 there (bench/attention_bench.cu): 57
// % of 4.25 TB/s at a window of 128 tokens; 450 TFLOP/s of visible pairs, 45 % of 989, at 1664.
#include "attention.cuh"

constexpr int kHopperGroups = 2;

template <int D, bool kWgmma, int kGroups>
__global__ void __launch_bounds__(kGroups *kGroup, kWgmma ? 4 / kGroups : 3)
    attention_forward_kernel(bf16 *o, float *lse, const bf16 *qkv, const int32_t *cu, int n_docs,
                             const int32_t *window, const double *scale_ptr, int t, int h)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int kThreads = kGroups * kGroup, kTiles = kTileBytes<D>;
    const int group = group_of();
    const uint32_t q_tile = shared_address(shared) + group * kTiles,
                   kv_tiles = shared_address(shared) + kGroups * kTiles;
    const int block_first = (int)blockIdx.x * kGroups * kTile, head = (int)blockIdx.y;
    const int first = block_first + group * kTile; // of this warpgroup
    const int row = row_of(), column = threadIdx.x % 4 * 2;
    const size_t width = (size_t)h * D, stride = 3 * width;
    const bf16 *q = qkv + head * D, *k = q + width, *v = k + width;
    const int w = *window;
    const float scale = (float)*scale_ptr * kLog2e;
    const auto copy_keys = [&](int stage, int key) {
        const uint32_t to = kv_tiles + stage * 2 * kTiles;
        copy_tile<D, kThreads>(to, k, stride, key, t, threadIdx.x);
        copy_tile<D, kThreads>(to + kTiles, v, stride, key, t, threadIdx.x);
        cp_async_commit();
    };

    int key = block_first + (kGroups - 1) * kTile, stage = 0;
    copy_tile<D, kGroup>(q_tile, q, stride, first, t, threadIdx.x % kGroup);
    copy_keys(0, key);
    const Documents docs = find_documents<kGroups>(cu, n_docs, block_first, t);
    const int begin0 = max(docs.start_of(row), first + row - w); // first keys of this lane's rows
    const int begin1 = max(docs.start_of(row + 8), first + row + 8 - w);
    const int begin_last = max(docs.start_of(kTile - 1), first + kTile - 1 - w);
    const int begin = max(docs.start, first - w);
    __shared__ int block_begin;
    if (threadIdx.x == 0) block_begin = begin;
    __syncthreads();
    const int last = uniform(block_begin) - kTile; // tiles that start there or before are not seen

    float s[32], out[D / 2], top0 = -INFINITY, top1 = -INFINITY, sum0 = 0, sum1 = 0;
#pragma unroll
    for (int i = 0; i < D / 2; i++) out[i] = 0;
    for (; key > last; key -= kTile, stage ^= 1) {
        cp_async_wait<0>();
        fence_async_proxy();
        __syncthreads(); // this stage has arrived, and nobody reads the other any more
        const uint32_t k_tile = kv_tiles + stage * 2 * kTiles, v_tile = k_tile + kTiles;
        if (key > first || key + kTile <= begin) { // only the other group's queries see it
            if (key - kTile > last) copy_keys(stage ^ 1, key - kTile);
            continue;
        }
        products_begin<kWgmma>();
        multiply_rows<kWgmma, D>(s, q_tile, k_tile);
        products_commit<kWgmma>();
        if (key - kTile > last) copy_keys(stage ^ 1, key - kTile);
        products_wait<kWgmma, 0>();
        pin(s);
        if (key == first || key < begin_last) {
            const int at = key + column; // of this lane's first key
            const int low0 = begin0 - at, low1 = begin1 - at, high = first + row - at;
#pragma unroll
            for (int i = 0; i < 32; i++) {
                const int j = i / 4 * 8 + i % 2;
                if (i % 4 < 2 ? j < low0 || j > high : j < low1 || j > high + 8) s[i] = -INFINITY;
            }
        }
        float new0 = top0, new1 = top1;
#pragma unroll
        for (int i = 0; i < 32; i += 4) {
            new0 = fmaxf(new0, fmaxf(s[i], s[i + 1]));
            new1 = fmaxf(new1, fmaxf(s[i + 2], s[i + 3]));
        }
#pragma unroll
        for (int lanes = 1; lanes < 4; lanes *= 2) { // the four lanes of a row
            new0 = fmaxf(new0, __shfl_xor_sync(0xffffffffu, new0, lanes));
            new1 = fmaxf(new1, __shfl_xor_sync(0xffffffffu, new1, lanes));
        }
        const float base0 = new0 * scale, base1 = new1 * scale;
        const float shrink0 = exp2_approx(fmaf(top0, scale, -base0));
        const float shrink1 = exp2_approx(fmaf(top1, scale, -base1));
        top0 = new0, top1 = new1, sum0 *= shrink0, sum1 *= shrink1;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            s[i] = exp2_approx(fmaf(s[i], scale, i % 4 < 2 ? -base0 : -base1));
            if (i % 4 < 2)
                sum0 += s[i];
            else
                sum1 += s[i];
        }
#pragma unroll
        for (int i = 0; i < D / 2; i++) out[i] *= i % 4 < 2 ? shrink0 : shrink1;
        uint32_t p[4][4];
        round_frags(p, s);

        products_begin<kWgmma>();
        multiply_frags<kWgmma, D>(out, p, v_tile);
        products_commit<kWgmma>();
        products_wait<kWgmma, 0>();
        pin(out);
    }
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
        sum0 += __shfl_xor_sync(0xffffffffu, sum0, lanes);
        sum1 += __shfl_xor_sync(0xffffffffu, sum1, lanes);
    }
    if (column == 0) {
        float *l = lse + (size_t)(first + row) * h + head;
        if (first + row < t) l[0] = (top0 * scale + log2f(sum0)) * kLn2;
        if (first + row + 8 < t) l[(size_t)8 * h] = (top1 * scale + log2f(sum1)) * kLn2;
    }
    store_rows<D>(o + head * D, width, first, t, shared + group * kTiles, out, __frcp_rn(sum0),
                  __frcp_rn(sum1));
}

bool attention_has_producer = true;

bool attention_has_wgmma(void)
{
    static const bool built = [] {
        cudaFuncAttributes attributes;
        int major = 0, device = 0;
        CUDA_CHECK(cudaGetDevice(&device));
        CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
        CUDA_CHECK(
            cudaFuncGetAttributes(&attributes, attention_forward_kernel<64, true, kHopperGroups>));
        return major == 9 && attributes.ptxVersion >= 90;
    }();
    return built && !cuda_portable();
}

extern "C" void cuda_attention_forward(void *o, void *lse, const void *qkv, const int32_t *cu,
                                       int n_docs, const int32_t *window, const double *scale,
                                       int t, int h, int d)
{
    const bool hopper = attention_has_wgmma();
    if (hopper && attention_has_producer) {
        attention_hopper_forward(o, lse, qkv, cu, n_docs, window, scale, t, h, d);
        return;
    }
    const int groups = hopper ? kHopperGroups : 1;
    const auto kernel = d == 64 ? (hopper ? attention_forward_kernel<64, true, kHopperGroups>
                                          : attention_forward_kernel<64, false, 1>)
                                : (hopper ? attention_forward_kernel<128, true, kHopperGroups>
                                          : attention_forward_kernel<128, false, 1>);
    launch_tiles(kernel, groups, (groups + 4) * kTile * d * 2, t, h, (bf16 *)o, (float *)lse,
                 (const bf16 *)qkv, cu, n_docs, window, scale, t, h);
}
