// Softmax attention backward (ops.h; specification 3.3) for any GPU since sm_80; on Hopper
// attention_hopper_backward.cu runs instead. Two kernels recompute the probabilities from lse: dQ
// (and delta = dO . O) over a query's keys, dK and dV over a key's queries. Seven products of tiles
// instead of five, and in exchange no atomics and no order to keep: every output has one writer,
// which adds in a fixed order.
//
// Tiles are 64 x 64 as in the forward kernel, and those outside window or document are not visited.
// The block's own two tiles stay in shared memory; of the two that it walks over there is one
// buffer each: another block on the multiprocessor is worth more than a second. Everything else is
// in registers: dS^T (not dS) in the second kernel, so that it is the left operand of both its
// products.
#include "attention.cuh"

// Asks for the block's rows of o, 128 bytes a thread, so that sum_delta finds them in the L2 cache.
template <int D>
__device__ __forceinline__ void prefetch_rows(const bf16 *o, int first, int t, int h)
{
    constexpr int kLines = D / 64;
    const int r = min(first + (int)threadIdx.x / kLines, t - 1), line = threadIdx.x % kLines;
    if (threadIdx.x < kTile * kLines) prefetch_l2(o + (size_t)r * h * D + line * 64);
}

// delta of the block's rows: D / 8 lanes add one row. Also left in shared memory. All loads start
// before the first use; rows past the end read the last one.
template <int D>
__device__ __forceinline__ void sum_delta(float *shared_delta, float *delta, const bf16 *d_o,
                                          const bf16 *o, int first, int t, int h)
{
    constexpr int kChunks = D / 8, kRows = kGroup / kChunks, kPasses = kTile / kRows;
    const int c = threadIdx.x % kChunks, r0 = threadIdx.x / kChunks;
    Vec8 grad[kPasses], out[kPasses];
#pragma unroll
    for (int i = 0; i < kPasses; i++) {
        const size_t at = (size_t)min(first + r0 + i * kRows, t - 1) * h * D + c * 8;
        grad[i] = load8(d_o + at);
        out[i] = load8(o + at);
    }
#pragma unroll
    for (int i = 0; i < kPasses; i++) {
        const int r = r0 + i * kRows;
        float x[8], y[8], sum = 0;
        unpack8(x, grad[i]);
        unpack8(y, out[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += x[j] * y[j];
#pragma unroll
        for (int lanes = kChunks / 2; lanes > 0; lanes /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
        if (c == 0) {
            shared_delta[r] = sum;
            if (first + r < t) delta[(size_t)(first + r) * h] = sum;
        }
    }
}

template <int D>
__global__ void __launch_bounds__(kGroup, D == 128 ? 2 : 3)
    query_gradient_kernel(bf16 *dqkv, float *delta, const bf16 *d_o, const bf16 *o,
                          const float *lse, const bf16 *qkv, const int32_t *cu, int n_docs,
                          const int32_t *window, const double *scale_ptr, int t, int h)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ float row_delta[kTile];
    const uint32_t q_tile = shared_address(shared), do_tile = q_tile + kTileBytes<D>,
                   k_tile = do_tile + kTileBytes<D>, v_tile = k_tile + kTileBytes<D>;
    const int first = (int)blockIdx.x * kTile, head = (int)blockIdx.y;
    const int row = row_of();
    const int column = threadIdx.x % 4 * 2;
    const size_t width = (size_t)h * D, stride = 3 * width;
    const bf16 *q = qkv + head * D, *k = q + width, *v = k + width;
    const int w = *window;
    const float scale = (float)*scale_ptr, scale2 = scale * kLog2e;

    const auto copy_keys = [&](int from) {
        copy_tile<D>(k_tile, k, stride, from, t);
        copy_tile<D>(v_tile, v, stride, from, t);
        cp_async_commit();
    };
    int key = first; // from its own tokens back
    copy_tile<D>(q_tile, q, stride, first, t);
    copy_tile<D>(do_tile, d_o + head * D, width, first, t);
    copy_keys(key);
    prefetch_rows<D>(o + head * D, first, t, h);
    const Documents docs = find_documents(cu, n_docs, first, t);
    const int begin0 = docs.first_key(row, w), begin1 = docs.first_key(row + 8, w);
    const int begin_last = docs.first_key(kTile - 1, w);
    const int last = docs.first_key(0, w) - kTile; // tiles from there down are not seen
    const float *l = lse + (size_t)(first + row) * h + head;
    const float lse0 = first + row < t ? l[0] * kLog2e : 0;
    const float lse1 = first + row + 8 < t ? l[(size_t)8 * h] * kLog2e : 0;
    sum_delta<D>(row_delta, delta + head, d_o + head * D, o + head * D, first, t, h);
    __syncthreads();
    const float delta0 = row_delta[row], delta1 = row_delta[row + 8];

    float s[32], dp[32], dq[D / 2];
#pragma unroll
    for (int i = 0; i < D / 2; i++) dq[i] = 0;
    for (; key > last; key -= kTile) {
        cp_async_wait<0>();
        __syncthreads(); // the keys have arrived
        multiply_rows<D>(s, q_tile, k_tile);
        multiply_rows<D>(dp, do_tile, v_tile);
#pragma unroll
        for (int i = 0; i < 32; i++)
            s[i] = exp2_approx(fmaf(s[i], scale2, i % 4 < 2 ? -lse0 : -lse1));
        if (key == first || key < begin_last) {
            const int at = key + column; // of this lane's first key
            const int high = first + row - at;
            mask(s, begin0 - at, high, begin1 - at, high + 8, 0);
        }
#pragma unroll
        for (int i = 0; i < 32; i++) s[i] *= dp[i] - (i % 4 < 2 ? delta0 : delta1);
        uint32_t ds[4][4];
        round_frags(ds, s);
        multiply_frags<D>(dq, ds, k_tile);
        __syncthreads(); // nobody reads them any more
        if (key - kTile > last) copy_keys(key - kTile);
    }
    store_rows<D>(dqkv + head * D, stride, first, t, shared, dq, scale, scale);
}

// Starts copying lse and delta of 64 tokens; zeros past the end.
__device__ __forceinline__ void copy_statistics(uint32_t to, const float *lse, const float *delta,
                                                int first, int t, int h)
{
    const int r = threadIdx.x % kTile;
    const bool valid = first + r < t;
    const float *from = threadIdx.x < kTile ? lse : delta;
    cp_async4(to + threadIdx.x * 4, from + (valid ? (size_t)(first + r) * h : 0), valid);
}

template <int D>
__global__ void __launch_bounds__(kGroup, 2)
    key_gradient_kernel(bf16 *dqkv, const bf16 *d_o, const float *lse, const float *delta,
                        const bf16 *qkv, const int32_t *cu, int n_docs, const int32_t *window,
                        const double *scale_ptr, int t, int h)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ __align__(8) float statistics[2 * kTile]; // lse of 64 queries, then delta
    const uint32_t k_tile = shared_address(shared), v_tile = k_tile + kTileBytes<D>,
                   q_tile = v_tile + kTileBytes<D>, do_tile = q_tile + kTileBytes<D>;
    const int first = (int)blockIdx.x * kTile, head = (int)blockIdx.y;
    const int row = row_of();
    const int column = threadIdx.x % 4 * 2;
    const size_t width = (size_t)h * D, stride = 3 * width;
    const bf16 *q = qkv + head * D, *k = q + width, *v = k + width;
    d_o += head * D, lse += head, delta += head;
    const int w = *window;
    const float scale = (float)*scale_ptr, scale2 = scale * kLog2e;

    copy_tile<D>(k_tile, k, stride, first, t);
    copy_tile<D>(v_tile, v, stride, first, t);
    int query = first; // its own keys are the first queries
    const auto copy_queries = [&](int from) {
        copy_tile<D>(q_tile, q, stride, from, t);
        copy_tile<D>(do_tile, d_o, width, from, t);
        copy_statistics(shared_address(statistics), lse, delta, from, t, h);
        cp_async_commit();
    };
    copy_queries(query);
    const Documents docs = find_documents(cu, n_docs, first, t);
    // The last query that sees a key, of this lane's rows, of the first row and of the last.
    const int last0 = docs.last_query(row, w), last1 = docs.last_query(row + 8, w);
    const int last_of_first = docs.last_query(0, w);
    const int last = docs.last_query(min(kTile, t - first) - 1, w);

    float s[32], dp[32], dk[D / 2], dv[D / 2];
#pragma unroll
    for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
    for (; query <= last; query += kTile) {
        cp_async_wait<0>();
        __syncthreads(); // the queries have arrived
        multiply_rows<D>(s, k_tile, q_tile);
        multiply_rows<D>(dp, v_tile, do_tile);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 l = *(const float2 *)(statistics + n * 8 + column);
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[4 * n + i] =
                    exp2_approx(fmaf(s[4 * n + i], scale2, -kLog2e * (i % 2 ? l.y : l.x)));
        }
        if (query == first || query + kTile - 1 > last_of_first) {
            const int at = query + column; // of this lane's first query
            const int low = first + row - at;
            mask(s, low, last0 - at, low + 8, last1 - at, 0);
        }
        uint32_t p[4][4], ds[4][4];
        round_frags(p, s);
        multiply_frags<D>(dv, p, do_tile);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 l = *(const float2 *)(statistics + kTile + n * 8 + column);
#pragma unroll
            for (int i = 0; i < 4; i++) s[4 * n + i] *= dp[4 * n + i] - (i % 2 ? l.y : l.x);
        }
        round_frags(ds, s);
        multiply_frags<D>(dk, ds, q_tile);
        __syncthreads(); // nobody reads them any more
        if (query + kTile <= last) copy_queries(query + kTile);
    }
    bf16 *dk_rows = dqkv + width + head * D;
    store_rows<D>(dk_rows, stride, first, t, shared, dk, scale, scale);
    store_rows<D>(dk_rows + width, stride, first, t, shared + kTileBytes<D>, dv, 1, 1);
}

template <int D>
static void backward(bf16 *dqkv, float *delta, const bf16 *d_o, const bf16 *o, const float *lse,
                     const bf16 *qkv, const int32_t *cu, int n_docs, const int32_t *window,
                     const double *scale, int t, int h)
{
    launch_tiles(query_gradient_kernel<D>, 4 * kTileBytes<D>, t, h, dqkv, delta, d_o, o, lse, qkv,
                 cu, n_docs, window, scale, t, h);
    launch_tiles(key_gradient_kernel<D>, 4 * kTileBytes<D>, t, h, dqkv, d_o, lse,
                 (const float *)delta, qkv, cu, n_docs, window, scale, t, h);
}

extern "C" void cuda_attention_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                                        const void *lse, const void *qkv, const int32_t *cu,
                                        int n_docs, const int32_t *window, const double *scale,
                                        int t, int h, int d)
{
    if (!cuda_portable()) {
        attention_hopper_backward(dqkv, delta, d_o, o, lse, qkv, cu, n_docs, window, scale, t, h,
                                  d);
        return;
    }
    const auto run = d == 64 ? backward<64> : backward<128>;
    run((bf16 *)dqkv, (float *)delta, (const bf16 *)d_o, (const bf16 *)o, (const float *)lse,
        (const bf16 *)qkv, cu, n_docs, window, scale, t, h);
}
