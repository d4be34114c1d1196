// What the Hopper attention kernels share: one warp that copies tiles ahead (TMA) and two
// warpgroups that multiply them (wgmma).
//
// A block stays on its multiprocessor and takes one span of 128 tokens and a head after another, as
// long as there are any. Shared memory holds two sets of a span's own tiles (of the queries, in the
// forward kernel) and a ring of kStages pairs of tiles that are walked over. Every buffer has two
// mbarriers: `full`, on which the copies complete, and `empty`, on which the eight warps arrive
// when they are done with it. So the next span's tiles arrive while this one's are multiplied. The
// results leave through the span's own tiles, which nobody reads any more.
//
// Which span a block takes next is decided as it becomes free, by a counter, since documents make
// them unequal; an output is computed by one warpgroup and in one order, whichever block that is
// in, so its bits do not depend on it.
#ifndef OPS_CUDA_ATTENTION_HOPPER_CUH
#define OPS_CUDA_ATTENTION_HOPPER_CUH

#include "attention.cuh"
#include "hopper.cuh"

constexpr int kConsumers = 2, kHopperThreads = (1 + kConsumers) * kGroup, kOwnSets = 2;
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

// One block on each multiprocessor, or one for each span where those are fewer.
template <typename... Params, typename... Args>
void launch_persistent(void (*kernel)(Params...), int shared_bytes, int t, int h, Args... args)
{
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    const int blocks = min(span_count(t, h), multiprocessors());
    kernel<<<blocks, kHopperThreads, shared_bytes, cuda_stream()>>>(args...);
    CHECK_LAUNCH();
}

// Spans handed out beyond the first of each block. All blocks ask until there are none left, and
// the last to ask leaves it at zero for the next launch. One launch at a time: all are on
// cuda_stream().
static __device__ int spans_taken;

#if ON_HOPPER

using hopper::uniform;

__device__ __forceinline__ int group_of() { return uniform((int)threadIdx.x / kGroup); }

__device__ __forceinline__ int take_span(int total)
{
    const int taken = atomicAdd(&spans_taken, 1);
    if (taken == total - 1) spans_taken = 0;
    return (int)gridDim.x + taken;
}

// ---- documents ---------------------------------------------------------------------------------

// By all lanes of a warp: cu is read once, in parallel.
__device__ __forceinline__ Span find_span(int index, const int32_t *cu, int n_docs, int t, int h)
{
    const int first = span_first(index, h);
    int start = 0, end = t;
    uint64_t starts[kConsumers] = {};
    for (int i = threadIdx.x % kWarp; i <= n_docs; i += kWarp) {
        const int at = cu[i];
        if (at <= first) start = max(start, at);
        if (at >= first + kSpan) end = min(end, at);
#pragma unroll
        for (int g = 0; g < kConsumers; g++) {
            const int r = at - first - g * kTile;
            if (r >= (g == 0) && r < kTile) starts[g] |= 1ull << r;
        }
    }
#pragma unroll
    for (int g = 0; g < kConsumers; g++) {
        const uint32_t low = __reduce_or_sync(0xffffffffu, (uint32_t)starts[g]);
        const uint32_t high = __reduce_or_sync(0xffffffffu, (uint32_t)(starts[g] >> 32));
        starts[g] = low | (uint64_t)high << 32;
    }
    return {first,
            span_head(index, h),
            __reduce_max_sync(0xffffffffu, start),
            __reduce_min_sync(0xffffffffu, end),
            {starts[0], starts[1]}};
}

// ---- the pipeline ------------------------------------------------------------------------------

template <int kStages> struct Pipeline {
    uint64_t own_full[kOwnSets], own_empty[kOwnSets], full[kStages], empty[kStages];
    Span span[kOwnSets]; // whose own tiles these are
};

// All threads. `copies`: arrivals that fill a stage.
template <int kStages>
__device__ __forceinline__ void pipeline_init(Pipeline<kStages> &p, int copies)
{
    constexpr int kWarps = kConsumers * kGroup / kWarp;
    if (threadIdx.x == 0) {
        for (int i = 0; i < kOwnSets; i++) {
            hopper::barrier_init(&p.own_full[i], 1);
            hopper::barrier_init(&p.own_empty[i], kWarps);
        }
        for (int i = 0; i < kStages; i++) {
            hopper::barrier_init(&p.full[i], copies);
            hopper::barrier_init(&p.empty[i], kWarps);
        }
        hopper::barrier_init_fence();
    }
    __syncthreads();
}

// This warp is done with what the barrier guards.
__device__ __forceinline__ void release(uint64_t *empty)
{
    __syncwarp();
    if (threadIdx.x % kWarp == 0) hopper::barrier_arrive(empty);
}

// The same after writing there what the warp then read again: the copies come after it.
__device__ __forceinline__ void release_written(uint64_t *empty)
{
    hopper::async_proxy_fence();
    release(empty);
}

// A stage that only the other warpgroup needs: waits for it all the same, so that this one's
// arrival counts for this use of the stage and no earlier one.
template <int kStages>
__device__ __forceinline__ void pass_over(Pipeline<kStages> &p, Ring<kStages> &ring)
{
    hopper::barrier_wait(&p.full[ring.stage], ring.phase);
    release(&p.empty[ring.stage]);
    ring.next();
}

// The producing warp: `own(set, span)` starts the copies of a span's own tiles, to complete on
// own_full[set]; `count(span)` is the number of tiles to walk over, and `step(stage, span, i)`
// starts the copies of the i-th, to complete on full[stage].
template <int kStages, typename Own, typename Count, typename Step>
__device__ __forceinline__ void produce(Pipeline<kStages> &p, const int32_t *cu, int n_docs, int t,
                                        int h, Own own, Count count, Step step)
{
    const int lane = threadIdx.x % kWarp, total = span_count(t, h);
    Ring<kOwnSets> set;
    Ring<kStages> ring;
    for (int index = (int)blockIdx.x; index < total; set.next()) {
        const int next = lane == 0 ? take_span(total) : 0;
        const Span span = find_span(index, cu, n_docs, t, h);
        hopper::barrier_wait(&p.own_empty[set.stage], set.phase ^ 1);
        __syncwarp();
        if (lane == 0) p.span[set.stage] = span;
        own(set.stage, span);
        const int tiles = count(span);
        for (int i = 0; i < tiles; i++, ring.next()) {
            hopper::barrier_wait(&p.empty[ring.stage], ring.phase ^ 1);
            __syncwarp();
            step(ring.stage, span, i);
        }
        index = __shfl_sync(0xffffffffu, next, 0);
    }
    hopper::barrier_wait(&p.own_empty[set.stage], set.phase ^ 1);
    if (lane == 0) {
        p.span[set.stage].first = -1;
        hopper::barrier_arrive(&p.own_full[set.stage]);
    }
}

// A tile of 64 rows of D columns from column x, row y on.
template <int D>
__device__ __forceinline__ void load_tile(unsigned char *to, const CUtensorMap *map, uint64_t *full,
                                          int x, int y)
{
#pragma unroll
    for (int i = 0; i < D / 64; i++)
        hopper::tma_load(to + i * kPanelBytes, map, full, x + i * 64, y, 0);
}

// ---- products ----------------------------------------------------------------------------------

// Accumulators that asynchronous products write: keeps the compiler from moving their use.
template <int N> __device__ __forceinline__ void pin(float (&c)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i])::"memory");
}

// The products below start, and run until wgmma_wait; what wgmma reads further on in a tile is its
// description plus a constant: made from addresses, they cost as many instructions as the products
// take cycles.

// c (64,64) = A B^T, both tiles.
template <int D> __device__ __forceinline__ void start_rows(float (&c)[32], uint32_t a, uint32_t b)
{
    const uint64_t ma = wgmma_matrix(a, 0), mb = wgmma_matrix(b, 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        const int at = (k / 4 * kPanelBytes + k % 4 * 32) / 16;
        wgmma_rows(c, ma + at, mb + at, k > 0);
    }
    wgmma_commit();
}

// This warp's 16 rows of a tile as left operands, 16 columns each.
template <int D> __device__ __forceinline__ void load_frags(uint32_t (&a)[D / 16][4], uint32_t tile)
{
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x % kGroup / kWarp;
    const uint32_t at = tile + chunk_offset(warp * 16 + lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < D / 16; k++) ldmatrix(a[k], (at ^ (k % 4 * 32)) + k / 4 * kPanelBytes);
}

// The same with A (64,D) in registers: half the reads of shared memory.
template <int D>
__device__ __forceinline__ void start_rows(float (&c)[32], const uint32_t (&a)[D / 16][4],
                                           uint32_t b)
{
    const uint64_t matrix = wgmma_matrix(b, 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        wgmma_rows(c, a[k], matrix + (k / 4 * kPanelBytes + k % 4 * 32) / 16, k > 0);
    wgmma_commit();
}

// c (64,D) += A B, A (64,64) in registers, B a tile.
template <int D>
__device__ __forceinline__ void start_frags(float (&c)[D / 2], const uint32_t (&a)[4][4],
                                            uint32_t b)
{
    const uint64_t matrix = wgmma_matrix(b, kPanelBytes);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_frags(c, a[k], matrix + k * 16 * 128 / 16);
    wgmma_commit();
}

#endif
#endif
