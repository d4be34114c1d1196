// How a consumer of ns_hopper.cuh leaves a tile's results. For that file alone.
#ifndef OPS_CUDA_NS_RESULTS_CUH
#define OPS_CUDA_NS_RESULTS_CUH

#include "ns_problem.cuh"

#if ON_HOPPER
namespace
{

// A tile's rows of one consumer, block by block into its slots: as they are, mirrored, and on the
// diagonal one triangle of them to both places.
template <typename T, Product kProduct, NsTiles kTiles>
__device__ __forceinline__ void put_tile(const Problem &problem, const NsStep &step,
                                         const NsTile &t, int row, const float *d, char *slots,
                                         uint32_t staged, uint32_t drained,
                                         Ring<Shape<kTiles>::kSlots> &slot, int barrier)
{
    const bool last = t.step + 1 == problem.count;
    const float *const factors =
        kProduct == SCALED && last ? problem.factors + (size_t)t.matrix * problem.m : nullptr;
    uint32_t met = 0; // NaN where a number is not finite
    const auto take = [&] {
        barrier_wait(drained + slot.at * kBarrier, slot.phase ^ 1);
        return slots + slot.at * kBlockBytes;
    };
    const auto give = [&] {
        async_proxy_fence();
        barrier_arrive(staged + slot.at * kBarrier);
        slot.advance();
    };
#pragma unroll
    for (int g = 0; g < Shape<kTiles>::kBlocks; g++) {
        const int col = t.col + g;
        if (g >= t.blocks || !is_wanted<kProduct>(step, row, col)) continue;
        const float *const block = d + g * kAccumulators;
        if (kProduct == SCALED && factors && row != col) {
            stage_scaled<T, false>(block, shared_address(take()), step.alpha,
                                   factors + col * kBlock);
            give();
            stage_scaled<T, true>(block, shared_address(take()), step.alpha,
                                  factors + row * kBlock);
            give();
            continue;
        }
        uint32_t packed[kAccumulators / 2];
        pack_block<T>(packed, block, kProduct == APPLY ? 1 : step.alpha);
        if (kProduct == APPLY) met = add_zero_times<T>(packed, met);
        char *const to = take();
        stage_block<false>(packed, shared_address(to));
        if (kProduct == APPLY || row != col) {
            give();
            if (kProduct == APPLY) continue;
            stage_block<true>(packed, shared_address(take()));
            give();
            continue;
        }
        named_barrier(barrier, kWarpgroup);
        mirror_block<T>(to, step.upper);
        named_barrier(barrier, kWarpgroup);
        if (kProduct == SCALED && factors) finish_block<T>(to, to, 0, factors + col * kBlock);
        give();
        if (step.copy == kNsNone) continue;
        finish_block<T>(take(), to, step.diagonal, nullptr);
        give();
    }
    if (kProduct == APPLY && problem.flags) {
        const float2 sums = unpack<T>(met);
        if (!(sums.x == 0 && sums.y == 0)) problem.flags[t.matrix] = 1;
    }
}

// A tile's rows of X X^T in fp32, and what normalises it.
template <Product kProduct, NsTiles kTiles>
__device__ __forceinline__ void leave_gram(const Problem &problem, int blocks_of_row, int tiles,
                                           const NsTile &t, int consumer, const float *d,
                                           char *room)
{
    const int m = problem.m, row = t.row + consumer;
    if constexpr (kProduct != GRAM)
        named_barrier(kOwn + consumer, kWarpgroup); // `room` of the tile before has been read
    float *const sums = problem.row_sums + (size_t)t.matrix * blocks_of_row * m;
    double squares = 0;
#pragma unroll
    for (int g = 0; g < Shape<kTiles>::kBlocks; g++) {
        const int col = t.col + g;
        if (g >= t.blocks || row < col) continue;
        const float *const block = d + g * kAccumulators;
        if (row == col) {
            const float trace = diagonal_of_block(block);
            const int warp = threadIdx.x % kWarpgroup / kWarp;
            if (threadIdx.x % kWarp == 0)
                problem.trace[((size_t)t.matrix * blocks_of_row + row) * 4 + warp] = trace;
        }
        write_block(block, problem.gram + (size_t)t.matrix * m * m, m, row * kBlock, col * kBlock);
        if constexpr (kProduct == GRAM_ROW_SUMS)
            sum_block(block, sums + (size_t)col * m + row * kBlock, m - row * kBlock,
                      row == col ? nullptr : sums + (size_t)row * m + col * kBlock,
                      m - col * kBlock, reinterpret_cast<float *>(room) + g * 4 * kBlock,
                      kOwn + consumer);
        if constexpr (kProduct == GRAM_SQUARES)
            squares += (row == col ? 1 : 2) * squares_of_block(block);
    }
    if constexpr (kProduct == GRAM_SQUARES) {
        double *const parts = reinterpret_cast<double *>(room);
        squares = warp_sum(squares);
        if (threadIdx.x % kWarp == 0) parts[threadIdx.x % kWarpgroup / kWarp] = squares;
        named_barrier(kOwn + consumer, kWarpgroup);
        if (threadIdx.x % kWarpgroup == 0)
            problem
                .squares[((size_t)t.matrix * tiles + t.id) * Shape<kTiles>::kConsumers + consumer] =
                (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }
}

} // namespace
#endif

#endif
