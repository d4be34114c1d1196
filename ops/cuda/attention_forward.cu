// Softmax attention forward (ops.h; specification 2.4): FlashAttention-2's online softmax, for any
// GPU since sm_80; on Hopper attention_hopper_forward.cu runs instead.
//
// Tile: 64 queries of one head per block, 64 keys at a time, from the block's own tokens back to
// the first key that its first query sees: so the first copies wait for nothing, and every query
// sees a key at once. Nobody visits tiles outside window and document. Data path: cp.async into two
// buffers of K and V; the copy of the next tiles runs under this one's products and softmax, and
// two more blocks fill the waits. S and O stay in registers.
#include "attention.cuh"

template <int D>
__global__ void __launch_bounds__(kGroup, 3)
    attention_forward_kernel(bf16 *o, float *lse, const bf16 *qkv, const int32_t *cu, int n_docs,
                             const int32_t *window, const double *scale_ptr, int t, int h)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t q_tile = shared_address(shared), kv_tiles = q_tile + kTileBytes<D>;
    const int first = (int)blockIdx.x * kTile, head = (int)blockIdx.y;
    const int row = row_of(), column = threadIdx.x % 4 * 2;
    const size_t width = (size_t)h * D, stride = 3 * width;
    const bf16 *q = qkv + head * D, *k = q + width, *v = k + width;
    const int w = *window;
    const auto copy_keys = [&](int stage, int key) {
        const uint32_t to = kv_tiles + stage * 2 * kTileBytes<D>;
        copy_tile<D>(to, k, stride, key, t);
        copy_tile<D>(to + kTileBytes<D>, v, stride, key, t);
        cp_async_commit();
    };

    int key = first, stage = 0;
    copy_tile<D>(q_tile, q, stride, first, t);
    copy_keys(0, key);
    const Documents docs = find_documents(cu, n_docs, first, t);
    const int begin0 = docs.first_key(row, w), begin1 = docs.first_key(row + 8, w);
    const int begin_last = docs.first_key(kTile - 1, w);
    const int last = docs.first_key(0, w) - kTile; // tiles that start there or before are not seen

    float s[32], out[D / 2];
    Softmax softmax = {(float)*scale_ptr * kLog2e};
#pragma unroll
    for (int i = 0; i < D / 2; i++) out[i] = 0;
    for (; key > last; key -= kTile, stage ^= 1) {
        const uint32_t k_tile = kv_tiles + stage * 2 * kTileBytes<D>;
        cp_async_wait<0>();
        __syncthreads(); // this stage has arrived, and nobody reads the other any more
        if (key - kTile > last) copy_keys(stage ^ 1, key - kTile);
        multiply_rows<D>(s, q_tile, k_tile);
        if (key == first || key < begin_last) {
            const int at = key + column; // of this lane's first key
            const int high = first + row - at;
            mask(s, begin0 - at, high, begin1 - at, high + 8, -INFINITY);
        }
        softmax.add(s);
#pragma unroll
        for (int i = 0; i < D / 2; i++) out[i] *= softmax.shrink[i / 2 % 2];
        uint32_t p[4][4];
        round_frags(p, s);
        multiply_frags<D>(out, p, k_tile + kTileBytes<D>);
    }
    softmax.finish();
    if (column == 0) {
        float *l = lse + (size_t)(first + row) * h + head;
        if (first + row < t) l[0] = softmax.lse(0);
        if (first + row + 8 < t) l[(size_t)8 * h] = softmax.lse(1);
    }
    store_rows<D>(o + head * D, width, first, t, shared, out, __frcp_rn(softmax.sum[0]),
                  __frcp_rn(softmax.sum[1]));
}

extern "C" void cuda_attention_forward(void *o, void *lse, const void *qkv, const int32_t *cu,
                                       int n_docs, const int32_t *window, const double *scale,
                                       int t, int h, int d)
{
    if (!cuda_portable()) {
        attention_hopper_forward(o, lse, qkv, cu, n_docs, window, scale, t, h, d);
        return;
    }
    const auto kernel = d == 64 ? attention_forward_kernel<64> : attention_forward_kernel<128>;
    launch_tiles(kernel, 5 * kTile * d * 2, t, h, (bf16 *)o, (float *)lse, (const bf16 *)qkv, cu,
                 n_docs, window, scale, t, h);
}
