// The products of Newton-Schulz on Hopper, one persistent kernel for the three of them: chains of
// symmetric products, the first one with what normalises it, and the apply.
//
// A block of the grid is a warpgroup of helpers, one thread of which copies tiles of the operands
// to shared memory (TMA) and one for each consumer copies results back, and warpgroups of
// consumers, which multiply (wgmma) 64 rows of a tile each. A tile is 128 x 256 for two consumers:
// then a k-block of 64 takes the tensor cores 1024 cycles, moves 128 KB through shared memory, all
// that it can, and 48 KB from the L2. Where it pays two blocks, a cluster, work on tiles below each
// other in step, and each copies half of the columns' blocks to both: 32 KB. Or a tile is 64 x 64
// for one consumer, where big ones would leave multiprocessors idle; of those blocks two share a
// multiprocessor, and each works while the other waits.
//
// A warp's number is told to be the same in all its lanes (uniform), and one elected lane copies:
// else what ptxas reckons for addresses takes longer than a small tile's products.
//
// Results leave block by block of 64 x 64 through slots of each consumer.
//
// A launch runs a chain of products. Its tiles form one list (ns_schedule.cuh); a tile that needs
// the results of earlier steps waits until a counter of its matrix says that their tiles are all
// stored. Nothing waits for something later in the list, except a tile for the other of its pair,
// which waits for the same; and all blocks of the grid run at once, so the chain cannot lock up.
//
// Addends cost no traffic: what is added to a consumer's rows of the tile is a k-block of the
// second operand, transposed where that is symmetric, or, where X lies transposed, k-blocks of the
// first one. They come first, and the consumers take the addend from the stages.
//
// The sources that include this launch it: ns_hopper_product.cu and ns_hopper_gram.cu.
#ifndef OPS_CUDA_NS_HOPPER_CUH
#define OPS_CUDA_NS_HOPPER_CUH

#include "ns_multiply.cuh"
#include "ns_results.cuh"

#include <algorithm>

namespace
{

#if ON_HOPPER
// ---- helpers: one thread each
// ----------------------------------------------------------------------

template <Product kProduct, NsTiles kTiles, bool kTall, typename Schedule>
__device__ __forceinline__ void load(const Problem &problem, const Schedule &schedule,
                                     uint32_t base, const Barriers &bar)
{
    using S = Shape<kTiles>;
    using Lies = Turned<kProduct, kTall>;
    Ring<S::kStages> stage;
    Cursor<Schedule> at;
    for (bool more = at.start(problem, schedule, blockIdx.x); more;
         more = at.advance(problem, schedule)) {
        const NsTile t = at.tile;
        const NsStep &step = problem.step[t.step];
        const CUtensorMap *rows = &problem.map[step.p], *cols = &problem.map[step.q];
        const bool shares = shares_rows<kProduct>(step, t);
        const int first_col = t.col - skipped_blocks<kTiles>(t);
        const int blocks = S::kPaired ? S::kBlocks : t.blocks;
        int k = first_block<kProduct, kTiles, kTall>(step, t) * kBlock;
        if constexpr (is_chain(kProduct))
            if (step.after)
                counter_wait(problem.progress + t.matrix,
                             (problem.done + step.after) * schedule.triangle.tiles * S::kConsumers);
        for (int b = 0; b < problem.k_blocks; b++) {
            const uint32_t to = base + stage.at * S::kStage;
            const uint32_t second = to + S::kConsumers * kBlockBytes;
            const uint32_t full = bar.full + stage.at * kBarrier;
            barrier_wait(bar.empty + stage.at * kBarrier, stage.phase ^ 1);
            barrier_expect(full, (blocks + (shares ? 0 : S::kConsumers)) * kBlockBytes);
            if (!shares)
#pragma unroll
                for (int r = 0; r < S::kConsumers; r++) {
                    const int along = (t.row + r) * kBlock;
                    tma_load(to + r * kBlockBytes, rows, full, Lies::kRows ? along : k,
                             Lies::kRows ? k : along, t.matrix);
                }
#pragma unroll
            for (int c = 0; c < S::kBlocks; c++) {
                const int along = (first_col + c) * kBlock;
                const int x = Lies::kCols ? along : k, y = Lies::kCols ? k : along;
                const uint32_t block = second + c * kBlockBytes;
                if constexpr (S::kPaired) {
                    if (c / 2 == (int)cluster_rank())
                        tma_load_both(block, cols, full, x, y, t.matrix);
                } else if (c < blocks) {
                    tma_load(block, cols, full, x, y, t.matrix);
                }
            }
            stage.advance();
            k += kBlock;
            if (k == problem.k_blocks * kBlock) k = 0;
        }
    }
}

// Sends what a consumer puts into its slots, in the same order (put_tile).
template <Product kProduct, NsTiles kTiles, typename Schedule>
__device__ __forceinline__ void store(const Problem &problem, const Schedule &schedule,
                                      uint32_t slots, const Barriers &bar, int consumer)
{
    using S = Shape<kTiles>;
    constexpr int kPending = S::kSlots - 1; // stores that may not have read their slot yet
    Ring<S::kSlots> slot, read;
    int pending = 0;
    const auto send = [&](const CUtensorMap *map, const CUtensorMap *copy, int row, int col,
                          int matrix) {
        const uint32_t from = slots + slot.at * kBlockBytes;
        barrier_wait(bar.staged + slot.at * kBarrier, slot.phase);
        tma_store(map, from, col * kBlock, row * kBlock, matrix);
        if (copy) tma_store(copy, from, col * kBlock, row * kBlock, matrix);
        tma_store_commit();
        slot.advance();
        if (++pending <= kPending) return;
        tma_store_wait_read<kPending>();
        barrier_arrive(bar.drained + read.at * kBarrier);
        read.advance();
        pending--;
    };
    Cursor<Schedule> at;
    for (bool more = at.start(problem, schedule, blockIdx.x); more;
         more = at.advance(problem, schedule)) {
        const NsTile t = at.tile;
        const NsStep &step = problem.step[t.step];
        const CUtensorMap *const map = &problem.map[step.c];
        const CUtensorMap *const copy = step.copy == kNsNone ? nullptr : &problem.map[step.copy];
        const int row = t.row + consumer;
        for (int col = t.col; col < t.col + t.blocks; col++) {
            if (!is_wanted<kProduct>(step, row, col)) continue;
            if (kProduct == APPLY) {
                send(map, nullptr, row, col, t.matrix);
            } else if (row == col) {
                send(map, nullptr, row, col, t.matrix);
                if (copy) send(copy, nullptr, row, col, t.matrix);
            } else {
                send(map, copy, row, col, t.matrix);
                send(map, copy, col, row, t.matrix);
            }
        }
        if (pending) tma_store_wait_read<0>();
        for (; pending; pending--, read.advance()) barrier_arrive(bar.drained + read.at * kBarrier);
        if (is_chain(kProduct) && problem.count > 1) {
            tma_store_wait();
            counter_add(problem.progress + t.matrix);
        }
    }
    tma_store_wait();
}

// ---- consumers
// -------------------------------------------------------------------------------------

template <typename T, Product kProduct, NsTiles kTiles, bool kTall, typename Schedule>
__device__ __forceinline__ void consume(const Problem &problem, const Schedule &schedule,
                                        uint32_t stages, char *slots, const Barriers &bar,
                                        int consumer)
{
    using S = Shape<kTiles>;
    using Lies = Turned<kProduct, kTall>;
    Ring<S::kStages> stage;
    Ring<S::kSlots> slot;
    float d[S::kBlocks * kAccumulators];

    Cursor<Schedule> at;
    bool more = at.start(problem, schedule, blockIdx.x);
    while (more) {
        const NsTile t = at.tile;
        const NsStep &step = problem.step[t.step];
        const int row = t.row + consumer;
        stage.at = uniform((int)stage.at); // or ptxas no longer knows, where tiles come in pairs
        // Where in a stage its operands are.
        const uint32_t cols_at = (S::kConsumers + skipped_blocks<kTiles>(t)) * kBlockBytes;
        const uint32_t rows_at = shares_rows<kProduct>(step, t)
                                     ? cols_at + (row - t.col) * kBlockBytes
                                     : consumer * kBlockBytes;
#pragma unroll
        for (int i = 0; i < S::kBlocks * kAccumulators; i++) d[i] = 0;
        if (step.beta != 0)
            add_addend<T, kProduct, kTiles, kTall>(d, problem, step, t, row, stages, rows_at,
                                                   cols_at, bar, stage);
        const auto ahead = [&] { more = at.advance(problem, schedule); };
        if (S::kBig && kProduct != APPLY && t.blocks == 2) {
            if constexpr (S::kBig)
                multiply_tile<T, Lies, true, S>(d, problem.k_blocks, stages, rows_at, cols_at, bar,
                                                stage, ahead);
        } else {
            multiply_tile<T, Lies, false, S>(d, problem.k_blocks, stages, rows_at, cols_at, bar,
                                             stage, ahead);
        }

        if constexpr (is_chain(kProduct) || kProduct == APPLY)
            put_tile<T, kProduct, kTiles>(problem, step, t, row, d, slots, bar.staged, bar.drained,
                                          slot, kOwn + consumer);
        else
            leave_gram<kProduct, kTiles>(problem, schedule.triangle.blocks(),
                                         schedule.triangle.tiles, t, consumer, d, slots);
    }
}
#endif

template <typename T, Product kProduct, NsTiles kTiles, bool kTall>
__global__ void __launch_bounds__(Shape<kTiles>::kThreads, Shape<kTiles>::kResident)
    product_kernel(const __grid_constant__ Problem problem)
{
#if ON_HOPPER
    using S = Shape<kTiles>;
    extern __shared__ char shared[];
    __shared__ uint64_t full[S::kStages], empty[S::kStages];
    __shared__ uint64_t staged[S::kSlots * S::kConsumers], drained[S::kSlots * S::kConsumers];
    char *const base = shared + (1024 - (shared_address(shared) & 1023)) % 1024;
    const auto address = [](const void *p) { return (uint32_t)uniform((int)shared_address(p)); };
    const uint32_t stages = address(base);
    Barriers bar = {address(full), address(empty), address(staged), address(drained)};
    const typename ScheduleOf<kProduct, kTiles, kTall>::Type schedule(problem);
    constexpr bool kStores = is_chain(kProduct) || kProduct == APPLY;

    if (threadIdx.x == 0) {
        for (int s = 0; s < S::kStages; s++) {
            barrier_init(&full[s], 1);
            barrier_init(&empty[s], (S::kPaired ? 2 : 1) * S::kConsumers);
        }
        for (int s = 0; s < S::kSlots * S::kConsumers; s++) {
            barrier_init(&staged[s], kWarpgroup);
            barrier_init(&drained[s], 1);
        }
        barrier_init_fence();
    }
    if (S::kPaired)
        cluster_barrier();
    else
        __syncthreads();

    const int warp = uniform((int)threadIdx.x / kWarp);
    const int consumer = warp / (kWarpgroup / kWarp) - 1;
    const auto give_slots_of = [&](int of) { // once: their barriers, and where they begin
        bar.staged += S::kSlots * of * kBarrier;
        bar.drained += S::kSlots * of * kBarrier;
        return S::kSlotsAt + S::kSlots * of * kBlockBytes;
    };
    if (consumer < 0) {
        registers_give<56>();
        if (!elected()) return;
        if (warp == 0) load<kProduct, kTiles, kTall>(problem, schedule, stages, bar);
        if (kStores && warp > 0 && warp <= S::kConsumers) {
            const uint32_t slots = stages + give_slots_of(warp - 1);
            store<kProduct, kTiles>(problem, schedule, slots, bar, warp - 1);
        }
        return;
    }
    if (S::kBig) registers_take<224>();
    char *const slots = base + give_slots_of(consumer);
    consume<T, kProduct, kTiles, kTall>(problem, schedule, stages, slots, bar, consumer);
    if (S::kPaired) cluster_barrier(); // the other's consumers arrive at barriers here to the end
#endif
}

// ---- host
// ------------------------------------------------------------------------------------------

typedef void Kernel(Problem);

// Blocks of the grid, and so tiles, that are worked on at once.
template <typename S> int at_once() { return S::kResident * multiprocessors(); }

// How often the grid goes round for one step.
template <NsTiles kTiles> int rounds(int batch, int m, bool joined)
{
    return ceil_div((size_t)batch * NsTriangle<kTiles>(m, joined).items, at_once<Shape<kTiles>>());
}

// Big tiles in pairs where they have a row for each.
inline NsTiles big_tiles(int m) { return ceil_div((size_t)m, 128) % 2 ? BIG : PAIRED; }

// The tiles of a triangle: small ones while all of them are at most twice what runs at once, below
// 2048 rows, as measured (docs/performance.md). A narrow tile waits for the other of its pair, so
// that these pay where narrow ones are few.
inline NsTiles choose_tiles(int batch, int m)
{
    if (m < 2048 && rounds<SMALL>(batch, m, false) <= 2) return SMALL;
    const int without = std::min(rounds<BIG>(batch, m, false), rounds<BIG>(batch, m, true));
    return m >= 2048 && rounds<PAIRED>(batch, m, false) <= without ? big_tiles(m) : BIG;
}

// Calls f with a triangle of such tiles.
template <typename F> auto with_triangle(NsTiles tiles, int m, F f)
{
    if (tiles == SMALL) return f(NsTriangle<SMALL>(m, false));
    return tiles == BIG ? f(NsTriangle<BIG>(m, false)) : f(NsTriangle<PAIRED>(m, false));
}

// Matrices that go through the chain together: enough that a step is stored long before the next
// one needs it, and no more, because what they work on should stay in the L2.
template <NsTiles kTiles> int group_of(int batch, int items)
{
    const int enough = ceil_div((size_t)7 * at_once<Shape<kTiles>>() / 4, items);
    const int groups = batch / enough;
    return groups > 1 ? ceil_div((size_t)batch, groups) : batch;
}

template <Kernel *kernel, typename S>
void launch(const Problem &problem, int items, cudaStream_t stream)
{
    // A chain's blocks wait for each other: cooperative, so that none starts before all can run.
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeCooperative;
    attributes[0].val.cooperative = problem.count > 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {S::kPaired ? 2 : 1, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = multiprocessors() / 2 * 2; // for the question below
    config.blockDim = S::kThreads;
    config.dynamicSmemBytes = S::kBytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = S::kPaired ? 2 : 1;
    static const int most = [&config] { // blocks that run at once
        CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
        if (!S::kPaired) return at_once<S>();
        int clusters;
        CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
        return 2 * clusters;
    }();
    if (most < 1)
        cuda_fail("no two multiprocessors share memory here", "use all of the GPU",
                  "cudaOccupancyMaxActiveClusters", __FILE__, __LINE__);
    config.gridDim = std::min(items, most);
    CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, problem));
}

template <typename T, Product kProduct, NsTiles kTiles, bool kTall>
void launch_with(Problem &problem, cudaStream_t stream)
{
    if constexpr (kProduct != APPLY) {
        const int batch = problem.batch, m = problem.m;
        problem.joined =
            kTiles == BIG && rounds<kTiles>(batch, m, true) < rounds<kTiles>(batch, m, false);
        problem.group = group_of<kTiles>(batch, NsTriangle<kTiles>(m, problem.joined).items);
    }
    const typename ScheduleOf<kProduct, kTiles, kTall>::Type schedule(problem);
    launch<product_kernel<T, kProduct, kTiles, kTall>, Shape<kTiles>>(problem, schedule.total,
                                                                      stream);
}

template <typename T, Product kProduct, bool kTall>
void run_with(NsTiles tiles, Problem &problem, cudaStream_t stream)
{
    if constexpr (kProduct != APPLY)
        if (tiles == SMALL) return launch_with<T, kProduct, SMALL, kTall>(problem, stream);
    if constexpr (kProduct != APPLY || !kTall)
        if (tiles == PAIRED) return launch_with<T, kProduct, PAIRED, kTall>(problem, stream);
    launch_with<T, kProduct, BIG, kTall>(problem, stream);
}

template <Product kProduct, bool kTall = false>
void run(DType type, NsTiles tiles, Problem &problem, cudaStream_t stream)
{
    if (type == DT_BF16)
        run_with<bf16, kProduct, kTall>(tiles, problem, stream);
    else
        run_with<__half, kProduct, kTall>(tiles, problem, stream);
}

// k-blocks that sum over k, whole addends of a tile's rows.
inline int k_blocks(NsTiles tiles, int k)
{
    return tiles == SMALL ? ceil_div((size_t)k, kBlock) : 2 * ceil_div((size_t)k, 2 * kBlock);
}

// Of X (rows,k), or (k,rows) where it lies transposed.
inline CUtensorMap map_of_x(const NsProduct &w, DType type, const void *x, int rows, int k)
{
    return w.tall ? tensor_map(type, x, w.batch, k, rows) : tensor_map(type, x, w.batch, rows, k);
}

// The product of an X.
template <Product kProduct>
void run_of_x(const NsProduct &w, DType type, NsTiles tiles, Problem &problem)
{
    if (w.tall)
        run<kProduct, true>(type, tiles, problem, w.stream);
    else
        run<kProduct>(type, tiles, problem, w.stream);
}

} // namespace

#endif
