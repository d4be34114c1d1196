// Softmax attention forward on Hopper (ops.h; specification 2.4): FlashAttention-2's online
// softmax, fed by a producing warp (attention_hopper.cuh), with FlashAttention-3's order of
// products.
//
// Tile: 128 queries of one head, 64 of them a warpgroup, and 64 keys at a time, from the span's own
// tokens back to the first key that its first query sees; a warpgroup passes over those that only
// the other's queries see. Queries are left operands in registers, so that both products read one
// operand from shared memory: 64 bytes a cycle of 128, where two of 64 x 64 would take all.
//
// Order: S of the next tile and O += P V of this one are issued behind each other, and softmax of
// the next tile runs under the second. The two warpgroups take turns at issuing, so that one's
// softmax and the rescaling of its O also run under the other's products.
//
// Bound: with short windows memory (8 T H D bytes; 0.047 ms at T = 32768, H = 6, D = 128 and 4.25
// TB/s), with long ones the tensor cores. Measured: docs/performance.md.
#include "attention_hopper.cuh"

namespace
{

constexpr int kStages = 5;

template <int D> constexpr int kBytes = (kOwnSets * kConsumers + 2 * kStages) * kTileBytes<D>;

#if ON_HOPPER

// The warpgroups take turns at issuing products, the first one first. Each has a barrier, on which
// the other's warps arrive to pass the turn on; tiles that a warpgroup passes over are turns too,
// so that both have the same number of them.
struct Turns {
    uint64_t *own, *other;
    uint32_t phase; // the first warpgroup's first wait is for the phase before all: free

    __device__ __forceinline__ static void init(uint64_t *barriers) // thread 0
    {
        for (int g = 0; g < kConsumers; g++) hopper::barrier_init(&barriers[g], kGroup / kWarp);
    }
    __device__ __forceinline__ Turns(uint64_t *barriers, int group)
        : own(&barriers[group]), other(&barriers[group ^ 1]), phase(group == 0)
    {
    }
    __device__ __forceinline__ void wait()
    {
        hopper::barrier_wait(own, phase);
        phase ^= 1;
    }
    __device__ __forceinline__ void pass() const { release(other); }
};

#endif

template <int D>
__global__ void __launch_bounds__(kHopperThreads, 1)
    forward_kernel(bf16 *o, float *lse, const __grid_constant__ CUtensorMap qkv_map,
                   const int32_t *cu, int n_docs, const int32_t *window, const double *scale_ptr,
                   int t, int h)
{
#if ON_HOPPER
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ Pipeline<kStages> pipeline;
    __shared__ uint64_t turn_barriers[kConsumers];
    constexpr int kBytesOf = kTileBytes<D>;
    unsigned char *const kv = shared + kOwnSets * kConsumers * kBytesOf;
    const int width = h * D, w = *window;
    if (threadIdx.x == 0) Turns::init(turn_barriers);
    pipeline_init(pipeline, 1);

    if (group_of() == 0) { // producer
        hopper::registers_give<kProducerRegisters>();
        if (threadIdx.x >= kWarp) return;
        produce(
            pipeline, cu, n_docs, t, h,
            [&](int set, const Span &b) {
                if (threadIdx.x != 0) return;
                uint64_t *full = &pipeline.own_full[set];
                hopper::barrier_expect(full, kConsumers * kBytesOf);
                for (int g = 0; g < kConsumers; g++)
                    load_tile<D>(shared + (set * kConsumers + g) * kBytesOf, &qkv_map, full,
                                 b.head * D, b.first + g * kTile);
            },
            [&](const Span &b) { return key_tiles(b, w); },
            [&](int stage, const Span &b, int i) {
                if (threadIdx.x != 0) return;
                uint64_t *full = &pipeline.full[stage];
                unsigned char *to = kv + stage * 2 * kBytesOf;
                const int x = width + b.head * D, key = key_tile(b, i);
                hopper::barrier_expect(full, 2 * kBytesOf);
                load_tile<D>(to, &qkv_map, full, x, key);
                load_tile<D>(to + kBytesOf, &qkv_map, full, x + width, key);
            });
        return;
    }

    hopper::registers_take<kConsumerRegisters>();
    const int group = group_of() - 1, row = row_of(), column = threadIdx.x % 4 * 2;
    const uint32_t kv_at = shared_address(kv);
    const float scale = (float)*scale_ptr * kLog2e;
    Ring<kOwnSets> set;
    Ring<kStages> ring;
    Turns turns(turn_barriers, group);
    const auto pass_tiles = [&](int tiles) {
        for (int i = 0; i < tiles; i++) {
            turns.wait();
            turns.pass();
            pass_over(pipeline, ring);
        }
    };

    for (;; set.next()) {
        hopper::barrier_wait(&pipeline.own_full[set.stage], set.phase);
        const Span &span = pipeline.span[set.stage];
        if (span.first < 0) break;
        const int head = span.head;
        unsigned char *const q_tile = shared + (set.stage * kConsumers + group) * kBytesOf;
        uint32_t q[D / 16][4], p[4][4];
        load_frags<D>(q, shared_address(q_tile));
        const Documents docs = span.documents(group);
        const Share share = key_share(docs, group, w, key_tiles(span, w));
        const int first = docs.first, begin0 = docs.first_key(row, w);
        const int begin1 = docs.first_key(row + 8, w), begin_last = docs.first_key(kTile - 1, w);
        const int tiles = uniform(share.tiles), after = uniform(share.after);

        float s[32], out[D / 2];
        Softmax softmax = {scale};
#pragma unroll
        for (int i = 0; i < D / 2; i++) out[i] = 0;
        const auto multiply_keys = [&](int stage) { // S
            start_rows<D>(s, q, kv_at + stage * 2 * kBytesOf);
        };
        const auto multiply_values = [&](int stage) { // O += P V
            start_frags<D>(out, p, kv_at + stage * 2 * kBytesOf + kBytesOf);
        };
        const auto rescale = [&] {
#pragma unroll
            for (int i = 0; i < D / 2; i++) out[i] *= softmax.shrink[i / 2 % 2];
        };
        const auto soften = [&](int key) {
            if (key == first || key < begin_last) {
                const int at = key + column; // of this lane's first key
                const int high = first + row - at;
                mask(s, begin0 - at, high, begin1 - at, high + 8, -INFINITY);
            }
            softmax.add(s);
        };

        pass_tiles(uniform(share.before));
        hopper::barrier_wait(&pipeline.full[ring.stage], ring.phase);
        turns.wait();
        multiply_keys(ring.stage);
        turns.pass();
        wgmma_wait<0>();
        pin(s);
        soften(first);
        round_frags(p, s);
        Ring<kStages> ahead = ring; // the next tile's stage
        const auto wait_ahead = [&](int tile) {
            ahead.next();
            if (tile < tiles) hopper::barrier_wait(&pipeline.full[ahead.stage], ahead.phase);
        };
        wait_ahead(1);
        for (int i = 1; i < tiles; i++) {
            turns.wait();
            multiply_keys(ahead.stage);
            multiply_values(ring.stage);
            turns.pass();
            wgmma_wait<1>();
            pin(s);
            soften(first - i * kTile);
            // The wait for O stands behind one that may branch, and packing and rescaling before
            // the end of the loop: else ptxas moves that wait before softmax, and these into the
            // turn, between the products.
            const int done = ring.stage;
            ring = ahead;
            wait_ahead(i + 1);
            wgmma_wait<0>();
            pin(out);
            release(&pipeline.empty[done]);
            round_frags(p, s);
            rescale();
        }
        multiply_values(ring.stage);
        softmax.finish();
        if (column == 0) {
            float *l = lse + (size_t)(first + row) * h + head;
            if (first + row < t) l[0] = softmax.lse(0);
            if (first + row + 8 < t) l[(size_t)8 * h] = softmax.lse(1);
        }
        wgmma_wait<0>();
        pin(out);
        release(&pipeline.empty[ring.stage]);
        ring.next();
        pass_tiles(after);
        store_rows<D>(o + head * D, width, first, t, q_tile, out, __frcp_rn(softmax.sum[0]),
                      __frcp_rn(softmax.sum[1]));
        release_written(&pipeline.own_empty[set.stage]);
    }
#endif
}

} // namespace

void attention_hopper_forward(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                              const int32_t *window, const double *scale, int t, int h, int d)
{
    const CUtensorMap map = tensor_map(DT_BF16, qkv, 1, t, 3 * h * d);
    const auto kernel = d == 64 ? forward_kernel<64> : forward_kernel<128>;
    launch_persistent(kernel, d == 64 ? kBytes<64> : kBytes<128>, t, h, (bf16 *)o, (float *)lse,
                      map, cu, n_docs, window, scale, t, h);
}
