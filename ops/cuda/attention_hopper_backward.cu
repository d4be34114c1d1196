// Softmax attention backward on Hopper (ops.h; specification 3.3) in two kernels that recompute the
// probabilities from lse: dQ (and delta = dO . O) over a query's keys, dK and dV over a key's
// queries; seven products of tiles, but every output has one writer, which adds in a fixed order.
// A producing warp feeds both (attention_hopper.cuh).
//
// Tile: 128 queries (keys) of one head, 64 a warpgroup, against 64 keys (queries) at a time. The
// first kernel issues S and dP of the next tile and dQ += dS K of this one behind each other, so
// that its exponentials run under products of its own; the second, whose accumulators leave no room
// for that, issues S^T of the next tile behind the last product of this one. It computes dS^T, not
// dS, since that is the left operand of dK.
//
// Bound: with short windows memory (12 T H D bytes for dQ, 12 for dK and dV: 0.14 ms at T = 32768,
// H = 6, D = 128), with long ones the tensor cores. Measured: docs/performance.md.
#include "attention_hopper.cuh"

namespace
{

// Sets of own tiles hold two of each warpgroup.
constexpr int kStages = 3, kOwnTiles = 2 * kConsumers;

template <int D> constexpr int kBytes = (kOwnSets * kOwnTiles + 2 * kStages) * kTileBytes<D>;

#if ON_HOPPER

// Starts the copies of both warpgroups' tiles from two matrices to a set of own tiles.
template <int D>
__device__ __forceinline__ void load_own(unsigned char *to, uint64_t *full, const Span &b,
                                         const CUtensorMap *map0, int x0, const CUtensorMap *map1,
                                         int x1)
{
    hopper::barrier_expect(full, kOwnTiles * kTileBytes<D>);
    for (int g = 0; g < kConsumers; g++) {
        load_tile<D>(to + g * kTileBytes<D>, map0, full, x0, b.first + g * kTile);
        load_tile<D>(to + (kConsumers + g) * kTileBytes<D>, map1, full, x1, b.first + g * kTile);
    }
}

// The same of one tile of each to a stage.
template <int D>
__device__ __forceinline__ void load_pair(unsigned char *to, uint64_t *full, int y,
                                          const CUtensorMap *map0, int x0, const CUtensorMap *map1,
                                          int x1)
{
    hopper::barrier_expect(full, 2 * kTileBytes<D>);
    load_tile<D>(to, map0, full, x0, y);
    load_tile<D>(to + kTileBytes<D>, map1, full, x1, y);
}

// Asks for the span's rows of o, 128 bytes at a time, so that its warps find them in the L2 cache.
template <int D>
__device__ __forceinline__ void prefetch_rows(const bf16 *o, const Span &b, int t, int h)
{
    constexpr int kLines = D / 64;
#pragma unroll 1
    for (int i = threadIdx.x % kWarp; i < kSpan * kLines; i += kWarp) {
        const int r = min(b.first + i / kLines, t - 1);
        prefetch_l2(o + ((size_t)r * h + b.head) * D + i % kLines * 64);
    }
}

// delta of this warp's 16 rows: D / 8 lanes add one row of dO, in shared memory, times O.
template <int D> struct Delta {
    static constexpr int kChunks = D / 8, kRows = kWarp / kChunks, kPasses = 16 / kRows;
    Vec8 out[kPasses];

    __device__ __forceinline__ static int row(int i) // of this lane in pass i, of the tile
    {
        return threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / kChunks + i * kRows;
    }

    // Starts reading O; rows past the end read the last one.
    __device__ __forceinline__ void load(const bf16 *o, int first, int t, int h)
    {
#pragma unroll
        for (int i = 0; i < kPasses; i++)
            out[i] =
                load8(o + (size_t)min(first + row(i), t - 1) * h * D + threadIdx.x % kChunks * 8);
    }

    // To `room`, 64 numbers of this warpgroup, and to delta.
    __device__ __forceinline__ void sum(float *room, float *delta, const unsigned char *do_tile,
                                        int first, int t, int h) const
    {
        const int c = threadIdx.x % kChunks;
#pragma unroll
        for (int i = 0; i < kPasses; i++) {
            const int r = row(i);
            float x[8], y[8], sum = 0;
            unpack8(x, Vec8{*(const uint4 *)(do_tile + chunk_offset(r, c))});
            unpack8(y, out[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += x[j] * y[j];
#pragma unroll
            for (int lanes = kChunks / 2; lanes > 0; lanes /= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
            if (c == 0) {
                room[r] = sum;
                if (first + r < t) delta[(size_t)(first + r) * h] = sum;
            }
        }
        __syncwarp();
    }
};

#endif

template <int D>
__global__ void __launch_bounds__(kHopperThreads, 1)
    query_gradient_kernel(bf16 *dqkv, float *delta, const __grid_constant__ CUtensorMap do_map,
                          const __grid_constant__ CUtensorMap qkv_map, const bf16 *o,
                          const float *lse, const int32_t *cu, int n_docs, const int32_t *window,
                          const double *scale_ptr, int t, int h)
{
#if ON_HOPPER
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ Pipeline<kStages> pipeline;
    __shared__ float row_delta[kSpan];
    constexpr int kBytesOf = kTileBytes<D>;
    unsigned char *const kv = shared + kOwnSets * kOwnTiles * kBytesOf;
    const int width = h * D, w = *window;
    pipeline_init(pipeline, 1);

    if (group_of() == 0) { // producer
        hopper::registers_give<kProducerRegisters>();
        if (threadIdx.x >= kWarp) return;
        produce(
            pipeline, cu, n_docs, t, h,
            [&](int set, const Span &b) {
                if (threadIdx.x == 0)
                    load_own<D>(shared + set * kOwnTiles * kBytesOf, &pipeline.own_full[set], b,
                                &qkv_map, b.head * D, &do_map, b.head * D);
                prefetch_rows<D>(o, b, t, h);
            },
            [&](const Span &b) { return key_tiles(b, w); },
            [&](int stage, const Span &b, int i) {
                if (threadIdx.x == 0)
                    load_pair<D>(kv + stage * 2 * kBytesOf, &pipeline.full[stage], key_tile(b, i),
                                 &qkv_map, width + b.head * D, &qkv_map, 2 * width + b.head * D);
            });
        return;
    }

    hopper::registers_take<kConsumerRegisters>();
    const int group = group_of() - 1, row = row_of(), column = threadIdx.x % 4 * 2;
    const uint32_t kv_at = shared_address(kv);
    const float scale = (float)*scale_ptr, scale2 = scale * kLog2e;
    Ring<kOwnSets> set;
    Ring<kStages> ring;

    for (;; set.next()) {
        hopper::barrier_wait(&pipeline.own_full[set.stage], set.phase);
        const Span &span = pipeline.span[set.stage];
        if (span.first < 0) break;
        const int head = span.head;
        unsigned char *const q_tile = shared + (set.stage * kOwnTiles + group) * kBytesOf;
        unsigned char *const do_tile = q_tile + kConsumers * kBytesOf;
        const uint32_t do_at = shared_address(do_tile);
        const Documents docs = span.documents(group);
        const int first = docs.first;
        Delta<D> rows;
        rows.load(o + head * D, first, t, h);
        const float *l = lse + (size_t)(first + row) * h + head;
        const float lse0 = first + row < t ? l[0] * kLog2e : 0;
        const float lse1 = first + row + 8 < t ? l[(size_t)8 * h] * kLog2e : 0;
        uint32_t q[D / 16][4], ds[4][4];
        load_frags<D>(q, shared_address(q_tile));
        const Share share = key_share(docs, group, w, key_tiles(span, w));
        const int begin0 = docs.first_key(row, w), begin1 = docs.first_key(row + 8, w);
        const int begin_last = docs.first_key(kTile - 1, w), tiles = uniform(share.tiles);

        float s[32], dp[32], dq[D / 2], delta0, delta1;
#pragma unroll
        for (int i = 0; i < D / 2; i++) dq[i] = 0;
        const auto multiply_keys = [&](int stage) { // S, and dP
            const uint32_t k_tile = kv_at + stage * 2 * kBytesOf;
            start_rows<D>(s, q, k_tile);
            start_rows<D>(dp, do_at, k_tile + kBytesOf);
        };
        const auto multiply_gradient = [&](int stage) { // dQ += dS K
            start_frags<D>(dq, ds, kv_at + stage * 2 * kBytesOf);
        };
        // P from S.
        const auto recompute = [&](int key) {
#pragma unroll
            for (int i = 0; i < 32; i++)
                s[i] = exp2_approx(fmaf(s[i], scale2, i % 4 < 2 ? -lse0 : -lse1));
            if (key == first || key < begin_last) {
                const int at = key + column; // of this lane's first key
                const int high = first + row - at;
                mask(s, begin0 - at, high, begin1 - at, high + 8, 0);
            }
        };
        // dS, to s.
        const auto differentiate = [&] {
#pragma unroll
            for (int i = 0; i < 32; i++) s[i] *= dp[i] - (i % 4 < 2 ? delta0 : delta1);
        };

        for (int i = 0; i < share.before; i++) pass_over(pipeline, ring);
        hopper::barrier_wait(&pipeline.full[ring.stage], ring.phase);
        multiply_keys(ring.stage);
        rows.sum(row_delta + group * kTile, delta + head, do_tile, first, t, h);
        delta0 = row_delta[group * kTile + row], delta1 = row_delta[group * kTile + row + 8];
        wgmma_wait<1>();
        pin(s);
        recompute(first);
        wgmma_wait<0>();
        pin(dp);
        differentiate();
        round_frags(ds, s);
        Ring<kStages> ahead = ring; // the next tile's stage
        const auto wait_ahead = [&](int tile) {
            ahead.next();
            if (tile < tiles) hopper::barrier_wait(&pipeline.full[ahead.stage], ahead.phase);
        };
        wait_ahead(1);
        for (int i = 1; i < tiles; i++) {
            multiply_keys(ahead.stage);
            multiply_gradient(ring.stage);
            wgmma_wait<2>();
            pin(s);
            recompute(first - i * kTile);
            wgmma_wait<1>();
            pin(dp);
            differentiate();
            const int done = ring.stage;
            ring = ahead;
            wait_ahead(i + 1); // before the wait for dQ, as in the forward kernel
            wgmma_wait<0>();
            pin(dq);
            release(&pipeline.empty[done]);
            round_frags(ds, s);
        }
        multiply_gradient(ring.stage);
        wgmma_wait<0>();
        pin(dq);
        release(&pipeline.empty[ring.stage]);
        ring.next();
        for (int i = 0; i < share.after; i++) pass_over(pipeline, ring);
        store_rows<D>(dqkv + head * D, 3 * width, first, t, q_tile, dq, scale, scale);
        release_written(&pipeline.own_empty[set.stage]);
    }
#endif
}

#if ON_HOPPER

// Starts copying lse and delta of 64 tokens, zeros past the end, by all lanes of a warp, each of
// which arrives on `full` when its own are there.
__device__ __forceinline__ void load_statistics(float *to, uint64_t *full, const float *lse,
                                                const float *delta, int first, int t, int h)
{
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = lane + i * kWarp;
        const bool valid = first + r < t;
        const size_t at = valid ? (size_t)(first + r) * h : 0;
        cp_async4(shared_address(to + r), lse + at, valid);
        cp_async4(shared_address(to + kTile + r), delta + at, valid);
    }
    cp_async_arrive(shared_address(full));
}

#endif

template <int D>
__global__ void __launch_bounds__(kHopperThreads, 1)
    key_gradient_kernel(bf16 *dqkv, const __grid_constant__ CUtensorMap do_map,
                        const __grid_constant__ CUtensorMap qkv_map, const float *lse,
                        const float *delta, const int32_t *cu, int n_docs, const int32_t *window,
                        const double *scale_ptr, int t, int h)
{
#if ON_HOPPER
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ Pipeline<kStages> pipeline;
    __shared__ __align__(8) float statistics[kStages][2 * kTile]; // lse of 64 queries, then delta
    constexpr int kBytesOf = kTileBytes<D>;
    unsigned char *const queries = shared + kOwnSets * kOwnTiles * kBytesOf;
    const int width = h * D, w = *window;
    pipeline_init(pipeline, 1 + kWarp);

    if (group_of() == 0) { // producer
        hopper::registers_give<kProducerRegisters>();
        if (threadIdx.x >= kWarp) return;
        produce(
            pipeline, cu, n_docs, t, h,
            [&](int set, const Span &b) {
                if (threadIdx.x == 0)
                    load_own<D>(shared + set * kOwnTiles * kBytesOf, &pipeline.own_full[set], b,
                                &qkv_map, width + b.head * D, &qkv_map, 2 * width + b.head * D);
            },
            [&](const Span &b) { return query_tiles(b, w, t); },
            [&](int stage, const Span &b, int i) {
                uint64_t *full = &pipeline.full[stage];
                const int query = query_tile(b, i), x = b.head * D;
                if (threadIdx.x == 0)
                    load_pair<D>(queries + stage * 2 * kBytesOf, full, query, &qkv_map, x, &do_map,
                                 x);
                load_statistics(statistics[stage], full, lse + b.head, delta + b.head, query, t, h);
            });
        return;
    }

    hopper::registers_take<kConsumerRegisters>();
    const int group = group_of() - 1, row = row_of(), column = threadIdx.x % 4 * 2;
    const uint32_t queries_at = shared_address(queries);
    const float scale = (float)*scale_ptr, scale2 = scale * kLog2e;
    Ring<kOwnSets> set;
    Ring<kStages> ring;

    for (;; set.next()) {
        hopper::barrier_wait(&pipeline.own_full[set.stage], set.phase);
        const Span &span = pipeline.span[set.stage];
        if (span.first < 0) break;
        const int head = span.head;
        unsigned char *const k_tile = shared + (set.stage * kOwnTiles + group) * kBytesOf;
        unsigned char *const v_tile = k_tile + kConsumers * kBytesOf;
        const uint32_t k_at = shared_address(k_tile), v_at = shared_address(v_tile);
        const Documents docs = span.documents(group);
        const int first = docs.first;
        const Share share = query_share(docs, group, w, t, query_tiles(span, w, t));
        const int last0 = docs.last_query(row, w), last1 = docs.last_query(row + 8, w);
        const int last_of_first = docs.last_query(0, w), tiles = uniform(share.tiles);

        float s[32], dp[32], dk[D / 2], dv[D / 2];
        uint32_t p[4][4], ds[4][4];
#pragma unroll
        for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
        // S^T of this stage's queries, once they have arrived.
        const auto start_stage = [&] {
            hopper::barrier_wait(&pipeline.full[ring.stage], ring.phase);
            start_rows<D>(s, k_at, queries_at + ring.stage * 2 * kBytesOf);
        };
        // P^T from S^T.
        const auto recompute = [&](int query) {
            const float *lse_tile = statistics[ring.stage];
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float2 x = *(const float2 *)(lse_tile + n * 8 + column);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    s[4 * n + i] =
                        exp2_approx(fmaf(s[4 * n + i], scale2, -kLog2e * (i % 2 ? x.y : x.x)));
            }
            if (query == first || query + kTile - 1 > last_of_first) {
                const int at = query + column; // of this lane's first query
                const int low = first + row - at;
                mask(s, low, last0 - at, low + 8, last1 - at, 0);
            }
        };
        // dS^T, to s.
        const auto differentiate = [&] {
            const float *delta_tile = statistics[ring.stage] + kTile;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float2 x = *(const float2 *)(delta_tile + n * 8 + column);
#pragma unroll
                for (int i = 0; i < 4; i++) s[4 * n + i] *= dp[4 * n + i] - (i % 2 ? x.y : x.x);
            }
        };

        for (int i = 0; i < share.before; i++) pass_over(pipeline, ring);
        if (tiles > 0) {
            start_stage();
            for (int i = 0;;) {
                const int stage = ring.stage;
                const uint32_t q_tile = queries_at + stage * 2 * kBytesOf,
                               do_tile = q_tile + kBytesOf;
                start_rows<D>(dp, v_at, do_tile);
                wgmma_wait<1>();
                pin(s);
                recompute(first + i * kTile);
                round_frags(p, s);
                wgmma_wait<0>();
                pin(dp);
                start_frags<D>(dv, p, do_tile);
                differentiate();
                round_frags(ds, s);
                start_frags<D>(dk, ds, q_tile);
                ring.next();
                if (++i == tiles) {
                    wgmma_wait<0>();
                    pin(dv);
                    pin(dk);
                    release(&pipeline.empty[stage]);
                    break;
                }
                start_stage();
                wgmma_wait<1>();
                pin(dv);
                pin(dk);
                release(&pipeline.empty[stage]);
            }
        }
        for (int i = 0; i < share.after; i++) pass_over(pipeline, ring);
        hopper::named_barrier(1 + group, kGroup); // the other warps' products read these tiles
        bf16 *dk_rows = dqkv + width + head * D;
        store_rows<D>(dk_rows, 3 * width, first, t, k_tile, dk, scale, scale);
        store_rows<D>(dk_rows + width, 3 * width, first, t, v_tile, dv, 1, 1);
        release_written(&pipeline.own_empty[set.stage]);
    }
#endif
}

template <int D>
void backward(bf16 *dqkv, float *delta, const CUtensorMap &do_map, const CUtensorMap &qkv_map,
              const bf16 *o, const float *lse, const int32_t *cu, int n_docs, const int32_t *window,
              const double *scale, int t, int h)
{
    launch_persistent(query_gradient_kernel<D>, kBytes<D>, t, h, dqkv, delta, do_map, qkv_map, o,
                      lse, cu, n_docs, window, scale, t, h);
    launch_persistent(key_gradient_kernel<D>, kBytes<D>, t, h, dqkv, do_map, qkv_map, lse,
                      (const float *)delta, cu, n_docs, window, scale, t, h);
}

} // namespace

void attention_hopper_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                               const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                               const int32_t *window, const double *scale, int t, int h, int d)
{
    const auto run = d == 64 ? backward<64> : backward<128>;
    run((bf16 *)dqkv, (float *)delta, tensor_map(DT_BF16, d_o, 1, t, h * d),
        tensor_map(DT_BF16, qkv, 1, t, 3 * h * d), (const bf16 *)o, (const float *)lse, cu, n_docs,
        window, scale, t, h);
}
