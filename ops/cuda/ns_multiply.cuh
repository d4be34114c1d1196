// How a consumer of ns_hopper.cuh multiplies a tile. For that file alone.
#ifndef OPS_CUDA_NS_MULTIPLY_CUH
#define OPS_CUDA_NS_MULTIPLY_CUH

#include "ns_problem.cuh"

#if ON_HOPPER
namespace
{

// d += the rows' block times the columns' blocks of a stage, both in shared memory.
template <typename T, int kTransA, int kTransB, bool kNarrow, int kCount>
__device__ __forceinline__ void multiply_stage(float (&d)[kCount], uint32_t rows, uint32_t cols)
{
    const uint64_t first_a = wgmma_matrix(rows, 0);
    const uint64_t first_b = wgmma_matrix(cols, kTransB ? kBlockBytes : 0);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBlock / 16; k++) { // addresses in descriptors count 16 bytes
        const uint64_t a = first_a + k * (kTransA ? 2048 : 32) / 16;
        const uint64_t b = first_b + k * (kTransB ? 2048 : 32) / 16;
        if constexpr (kNarrow)
            wgmma_narrow<T, kTransA, kTransB>(d, a, b);
        else
            wgmma<T, kTransA, kTransB>(d, a, b);
    }
    wgmma_commit();
}

// A tile's k-blocks, from the stages on. `ahead` is called while the last one is on its way.
template <typename T, typename Lies, bool kNarrow, typename S, int kCount, typename Ahead>
__device__ __forceinline__ void
multiply_tile(float (&d)[kCount], int k_blocks, uint32_t base, uint32_t rows_at, uint32_t cols_at,
              const Barriers &bar, Ring<S::kStages> &stage, Ahead ahead)
{
    const bool leader = threadIdx.x % kWarpgroup == 0;
    const auto release = [&](uint32_t at) { // for those who copy into it, both of a pair
        if (!leader) return;
        barrier_arrive(bar.empty + at * kBarrier);
        if (S::kPaired) barrier_arrive_at(bar.empty + at * kBarrier, cluster_rank() ^ 1);
    };
    const auto multiply = [&] {
        const uint32_t from = base + stage.at * S::kStage;
        barrier_wait(bar.full + stage.at * kBarrier, stage.phase);
        multiply_stage<T, Lies::kRows, Lies::kCols, kNarrow>(d, from + rows_at, from + cols_at);
    };
    hold(d);
    multiply();
    uint32_t previous = stage.at;
    stage.advance();
    for (int b = 1; b < k_blocks; b++) {
        multiply();
        wgmma_wait<1>(); // leaves these products running: the stage before has been read
        release(previous);
        previous = stage.at;
        stage.advance();
    }
    ahead();
    wgmma_wait<0>();
    hold(d);
    release(previous);
}

// The addend of a consumer's rows of a tile that is zero so far, from the stages that it begins
// with.
template <typename T, Product kProduct, NsTiles kTiles, bool kTall>
__device__ __forceinline__ void add_addend(float *d, const Problem &problem, const NsStep &step,
                                           const NsTile &t, int row, uint32_t base,
                                           uint32_t rows_at, uint32_t cols_at, const Barriers &bar,
                                           Ring<Shape<kTiles>::kStages> stage)
{
    using S = Shape<kTiles>;
    float gamma[2] = {step.beta / step.alpha, step.beta / step.alpha};
    if constexpr (kProduct == APPLY && kTall) { // k-blocks of the rows, one after the other
#pragma unroll
        for (int g = 0; g < S::kBlocks; g++) {
            const int col = t.col + g;
            if (col >= problem.k_blocks) continue;
            barrier_wait(bar.full + stage.at * kBarrier, stage.phase);
            float *const block = d + g * kAccumulators;
            add_block<T, false>(block, base + stage.at * S::kStage + rows_at, gamma);
            if (problem.factors)
                scale_columns(block, problem.factors + (size_t)t.matrix * problem.n + col * kBlock,
                              problem.n - col * kBlock);
            stage.advance();
        }
    } else {
        for (int k = first_block<kProduct, kTiles, kTall>(step, t); k < row; k++) stage.advance();
        if (kProduct == APPLY && problem.factors)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int r = row * kBlock + lane_row() + 8 * i;
                if (r < problem.m) gamma[i] *= problem.factors[(size_t)t.matrix * problem.m + r];
            }
        barrier_wait(bar.full + stage.at * kBarrier, stage.phase);
        const uint32_t from = base + stage.at * S::kStage + cols_at;
#pragma unroll
        for (int g = 0; g < S::kBlocks; g++)
            if (g < t.blocks)
                add_block<T, kProduct != APPLY>(d + g * kAccumulators, from + g * kBlockBytes,
                                                gamma);
    }
}

} // namespace
#endif

#endif
