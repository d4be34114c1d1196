// The symmetric products of Newton-Schulz on Hopper: persistent blocks of one producer warpgroup,
// which copies tiles to shared memory (TMA), and two consumer warpgroups, which multiply (wgmma) a
// tile of the result each, in turn: while one stores its tile, the other's products keep the tensor
// cores busy. Bound by the tensor cores (128 x 128 x 64 takes 512 cycles at best) and, close to it,
// by the L2.
//
// A launch runs a chain of products. Its tiles form one list, and a block takes every gridDim-th of
// it; a tile that needs the results of earlier steps waits until a counter of its matrix says that
// their tiles are all stored. Nothing waits for something later in the list, and all blocks run at
// once, so the chain cannot lock up. With enough matrices no tile ever waits, and no step of the
// chain leaves multiprocessors idle at its end.
//
// Adding beta P costs no traffic: rows i of P at columns j are a tile that the sum over k reads
// anyway. The sum starts there, and the consumers take the addend from the stages.
#include "ns_tile.cuh"

#include <algorithm>

namespace
{

template <int kTile> struct Shape {
    static constexpr int kHalves = kTile / 64; // of 64 rows, what one wgmma makes
    static constexpr int kStages = kTile == 128 ? 4 : 11; // with the sums' room, all that fits
    static constexpr uint32_t kChunkBytes = kTile * kChunk * 2; // kTile rows of 64 numbers
    static constexpr uint32_t kStage = 2 * kChunkBytes, kStaging = kTile * kTile * 2;
    // Stages, staging room, and what aligning the start to 1024 bytes may cost.
    static constexpr uint32_t kBytes = kStages * kStage + 2 * kStaging + 1024;
};

// What a launch leaves besides its result: nothing, or sums of it.
enum Extra { PLAIN, ROW_SUMS, SQUARES };

struct Chain {
    CUtensorMap map[kNsMatrices];
    int batch, m, k_blocks, group; // matrices whose steps alternate
    int count, done;               // steps; and those that `progress` counted before
    int *progress;
    float *sums;
    NsStep step[kNsSteps];
};

struct Item {
    int matrix, step, row, col; // in tiles
};

// Groups of matrices; steps of a group; its matrices; tiles of a triangle, row >= col, or row <=
// col of the upper one. So blocks at work together share rows through the L2.
template <int kTile> struct Schedule {
    int per_matrix, total;

    __host__ __device__ explicit Schedule(const Chain &c)
    {
        const int rows = (c.m + kTile - 1) / kTile;
        per_matrix = rows * (rows + 1) / 2;
        total = per_matrix * c.batch * c.count;
    }

    __device__ Item item(const Chain &c, int index) const
    {
        const int group = index / (c.group * c.count * per_matrix), first = group * c.group;
        const int matrices = min(c.group, c.batch - first);
        index -= first * c.count * per_matrix;
        const int step = index / (matrices * per_matrix), rest = index % (matrices * per_matrix);
        const int t = rest % per_matrix;
        int row = (int)((sqrtf(8.0f * t + 1) - 1) * 0.5f);
        while (row * (row + 1) / 2 > t) row--;
        while ((row + 1) * (row + 2) / 2 <= t) row++;
        const int col = t - row * (row + 1) / 2;
        const bool upper = c.step[step].upper;
        return {first + rest / per_matrix, step, upper ? col : row, upper ? row : col};
    }
};

#if ON_HOPPER
using namespace hopper;

// Named barriers: 1 and 2 of each consumer's own threads, 3 and 4 where it waits for its turn.
constexpr int kTurn = 3;

// Sums of |C| over the tile's columns for its rows, and, off the diagonal, over its rows for the
// mirrored ones. `room`: 4 x kTile numbers.
template <int kTile>
__device__ __forceinline__ void leave_row_sums(const float (&d)[kTile / 64][kTile / 2],
                                               const Chain &chain, const Item &t, int row,
                                               int consumer, float (*room)[kTile])
{
    constexpr int kHalves = kTile / 64;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x % kWarpgroup / kWarp;
    const int tiles = (chain.m + kTile - 1) / kTile;
    float *const sums = chain.sums + (size_t)t.matrix * tiles * chain.m;
#pragma unroll
    for (int h = 0; h < kHalves; h++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < kTile / 8; j++)
                sum += fabsf(d[h][4 * j + 2 * i]) + fabsf(d[h][4 * j + 2 * i + 1]);
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const int at = t.row * kTile + 64 * h + row + 8 * i + lane / 4;
            if (lane % 4 == 0 && at < chain.m) sums[(size_t)t.col * chain.m + at] = sum;
        }
    if (t.row == t.col) return;
#pragma unroll
    for (int j = 0; j < kTile / 8; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float sum = 0;
#pragma unroll
            for (int h = 0; h < kHalves; h++)
                sum += fabsf(d[h][4 * j + e]) + fabsf(d[h][4 * j + 2 + e]);
#pragma unroll
            for (int offset = 4; offset < kWarp; offset *= 2)
                sum += __shfl_xor_sync(0xffffffffu, sum, offset);
            if (lane < 4) room[warp][8 * j + 2 * lane + e] = sum;
        }
    named_barrier(1 + consumer, kWarpgroup);
    const int c = threadIdx.x % kWarpgroup, at = t.col * kTile + c;
    if (c < kTile && at < chain.m)
        sums[(size_t)t.row * chain.m + at] = (room[0][c] + room[1][c]) + (room[2][c] + room[3][c]);
}

// The sum of C's squares over the tile and its mirror. `room`: 4 numbers.
template <int kTile>
__device__ __forceinline__ void leave_squares(const float (&d)[kTile / 64][kTile / 2],
                                              const Chain &chain, const Item &t, int per_matrix,
                                              int consumer, float *room)
{
    float sum = 0;
#pragma unroll
    for (int h = 0; h < kTile / 64; h++)
#pragma unroll
        for (int i = 0; i < kTile / 2; i++) sum += d[h][i] * d[h][i];
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) room[threadIdx.x % kWarpgroup / kWarp] = sum;
    named_barrier(1 + consumer, kWarpgroup);
    if (threadIdx.x % kWarpgroup) return;
    sum = (room[0] + room[1]) + (room[2] + room[3]);
    chain.sums[(size_t)t.matrix * per_matrix + t.row * (t.row + 1) / 2 + t.col] =
        t.row == t.col ? sum : 2 * sum;
}

// P's and Q's tiles of every k-block of every item. Where both are the same tile, one will do.
template <int kTile>
__device__ __forceinline__ void produce(const Chain &chain, const Schedule<kTile> &schedule,
                                        char *base, uint64_t *full, uint64_t *empty)
{
    using S = Shape<kTile>;
    const int blocks = chain.k_blocks;
    uint32_t stage = 0, phase = 0;
    for (int index = blockIdx.x; index < schedule.total; index += gridDim.x) {
        const Item t = schedule.item(chain, index);
        const NsStep &step = chain.step[t.step];
        const CUtensorMap *p_map = &chain.map[step.p], *q_map = &chain.map[step.q];
        const bool one = step.p == step.q && t.row == t.col;
        if (step.after)
            counter_wait(chain.progress + t.matrix,
                         (chain.done + step.after) * schedule.per_matrix);
        for (int b = 0; b < blocks; b++) { // those that hold the addend come first
            const int k = (S::kHalves * t.col + b) % blocks * kTileK;
            char *const p = base + stage * S::kStage;
            barrier_wait(&empty[stage], phase ^ 1);
            barrier_expect(&full[stage], one ? S::kChunkBytes : S::kStage);
            tma_load(p, p_map, &full[stage], k, t.row * kTile, t.matrix);
            if (!one) tma_load(p + S::kChunkBytes, q_map, &full[stage], k, t.col * kTile, t.matrix);
            if (++stage == S::kStages) stage = 0, phase ^= 1;
        }
    }
}

// What one consumer warpgroup knows of its place.
struct Consumer {
    int id, row; // 0 or 1; the warp's first row in each half of a tile
    bool leader;
    char *staging;
};

// Waits until the staging room may be written again.
__device__ __forceinline__ void wait_for_room(const Consumer &me)
{
    if (me.leader) tma_store_wait_read();
    named_barrier(1 + me.id, kWarpgroup);
}

// Sends what all threads have staged to tile (row, col) of `map`, and of `copy` where that is not
// NULL.
template <int kTile>
__device__ __forceinline__ void send(const Consumer &me, const CUtensorMap *map,
                                     const CUtensorMap *copy, int row, int col, int matrix)
{
    async_proxy_fence();
    named_barrier(1 + me.id, kWarpgroup);
    if (!me.leader) return;
    for (int c = 0; c < Shape<kTile>::kHalves; c++) {
        const char *from = me.staging + c * Shape<kTile>::kChunkBytes;
        tma_store(map, from, col * kTile + c * kChunk, row * kTile, matrix);
        if (copy) tma_store(copy, from, col * kTile + c * kChunk, row * kTile, matrix);
    }
    tma_store_commit();
}

// Stores alpha d and its mirror through the staging room, one after the other.
template <typename T, int kTile>
__device__ __forceinline__ void store_tile(const Consumer &me, const Chain &chain, const Item &t,
                                           const float (&d)[kTile / 64][kTile / 2])
{
    const NsStep &step = chain.step[t.step];
    const CUtensorMap *map = &chain.map[step.c];
    const CUtensorMap *copy = step.copy == kNsNone ? nullptr : &chain.map[step.copy];
    const uint32_t staging = shared_address(me.staging);
    wait_for_room(me);
    if (t.row == t.col) {
#pragma unroll
        for (int h = 0; h < kTile / 64; h++)
            stage_diagonal<T, kTile>(d[h], staging, me.row + 64 * h, step.alpha, 0, step.upper);
        send<kTile>(me, map, nullptr, t.row, t.col, t.matrix);
        if (!copy) return;
        wait_for_room(me);
#pragma unroll
        for (int h = 0; h < kTile / 64; h++)
            stage_diagonal<T, kTile>(d[h], staging, me.row + 64 * h, step.alpha, step.diagonal,
                                     step.upper);
        send<kTile>(me, copy, nullptr, t.row, t.col, t.matrix);
        return;
    }
#pragma unroll
    for (int h = 0; h < kTile / 64; h++)
        stage_rows<T, kTile, false>(d[h], staging, me.row + 64 * h, step.alpha);
    send<kTile>(me, map, copy, t.row, t.col, t.matrix);
    wait_for_room(me);
#pragma unroll
    for (int h = 0; h < kTile / 64; h++)
        stage_rows<T, kTile, true>(d[h], staging, me.row + 64 * h, step.alpha);
    send<kTile>(me, map, copy, t.col, t.row, t.matrix);
}
#endif

// All maps have boxes of kTile x 64.
template <typename T, int kTile, Extra kExtra>
__global__ void __launch_bounds__(kThreads, 1) symmetric_kernel(const __grid_constant__ Chain chain)
{
#if ON_HOPPER
    using S = Shape<kTile>;
    extern __shared__ char shared[];
    __shared__ uint64_t full[S::kStages], empty[S::kStages];
    __shared__ float room[2][4][kExtra == ROW_SUMS || kExtra == SQUARES ? kTile : 1];
    char *const base = shared + (1024 - (shared_address(shared) & 1023)) % 1024;
    const Schedule<kTile> schedule(chain);
    const int group = threadIdx.x / kWarpgroup, blocks = chain.k_blocks;

    if (threadIdx.x == 0) {
        for (int s = 0; s < S::kStages; s++) {
            barrier_init(&full[s], 1);
            barrier_init(&empty[s], 1);
        }
        barrier_init_fence();
    }
    __syncthreads();

    if (group == 0) { // producer
        registers_give<40>();
        if (threadIdx.x == 0) produce(chain, schedule, base, full, empty);
        return;
    }
    registers_take<232>();
    const int id = group - 1;
    const Consumer me = {id, (int)threadIdx.x % kWarpgroup / kWarp * 16,
                         threadIdx.x % kWarpgroup == 0,
                         base + S::kStages * S::kStage + id * S::kStaging};
    float d[S::kHalves][kTile / 2];

    for (int turn = id; blockIdx.x + turn * gridDim.x < schedule.total; turn += 2) {
        const Item t = schedule.item(chain, blockIdx.x + turn * gridDim.x);
        const NsStep &step = chain.step[t.step];
        const uint32_t q_at = step.p == step.q && t.row == t.col ? 0 : S::kChunkBytes;
        const uint32_t position = (uint32_t)turn * blocks; // among all stages ever filled
        uint32_t stage = position % S::kStages, phase = position / S::kStages & 1;
#pragma unroll
        for (int h = 0; h < S::kHalves; h++)
#pragma unroll
            for (int i = 0; i < kTile / 2; i++) d[h][i] = 0;
        // A barrier's parity tells apart two fills of a stage, not more: wait until the other
        // consumer has seen all its own.
        if (turn > 0) named_barrier(kTurn + id, kConsumers);
        if (step.beta != 0) {
            const float gamma[2] = {step.beta / step.alpha, step.beta / step.alpha};
            const uint32_t next = stage + 1 == S::kStages ? 0 : stage + 1;
            barrier_wait(&full[stage], phase);
            if (S::kHalves == 2) barrier_wait(&full[next], next ? phase : phase ^ 1);
            const uint32_t here = shared_address(base + stage * S::kStage);
            const uint32_t there = shared_address(base + next * S::kStage);
#pragma unroll
            for (int h = 0; h < S::kHalves; h++)
                add_tile<T, kTile>(d[h], here, there - here, me.row + 64 * h, gamma);
        }
        // The wait leaves a stage's products running: what has been read is the stage before.
        const auto multiply = [&] {
            barrier_wait(&full[stage], phase);
            const char *p = base + stage * S::kStage;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kTileK / 16; k++) {
                const uint64_t q = tile_descriptor(p + q_at + 32 * k, 0);
#pragma unroll
                for (int h = 0; h < S::kHalves; h++)
                    wgmma<T, 0>(d[h], tile_descriptor(p + h * 64 * 128 + 32 * k, 0), q);
            }
            wgmma_commit();
        };
        uint32_t previous = stage;
        for (int h = 0; h < S::kHalves; h++) hold(d[h]);
        multiply();
        if (++stage == S::kStages) stage = 0, phase ^= 1;
        for (int b = 1; b < blocks; b++) {
            multiply();
            wgmma_wait<1>();
            if (me.leader) barrier_arrive(&empty[previous]);
            previous = stage;
            if (++stage == S::kStages) stage = 0, phase ^= 1;
        }
        if (blockIdx.x + (turn + 1) * gridDim.x < schedule.total)
            named_barrier_arrive(kTurn + 1 - id, kConsumers);
        wgmma_wait<0>();
        for (int h = 0; h < S::kHalves; h++) hold(d[h]);
        if (me.leader) barrier_arrive(&empty[previous]);

        if constexpr (kExtra == ROW_SUMS) leave_row_sums<kTile>(d, chain, t, me.row, id, room[id]);
        if constexpr (kExtra == SQUARES)
            leave_squares<kTile>(d, chain, t, schedule.per_matrix, id, &room[id][0][0]);
        store_tile<T, kTile>(me, chain, t, d);
        if (me.leader && chain.count > 1) {
            tma_store_wait();
            counter_add(chain.progress + t.matrix);
        }
    }
    if (me.leader) tma_store_wait();
#endif
}

// ---- host
// ------------------------------------------------------------------------------------------

typedef void Kernel(Chain);

// Tiles of 64 where those of 128 would leave most of the GPU idle.
template <int kTile> int tiles_of(int batch, int m)
{
    const int rows = ceil_div((size_t)m, kTile);
    return batch * rows * (rows + 1) / 2;
}
bool small_tiles(int batch, int m) { return tiles_of<64>(batch, m) <= 2 * multiprocessors(); }

// Matrices that go through the chain together: enough that a step is stored long before the next
// one needs it, and no more, because what they work on should stay in the L2.
template <int kTile> int group_of(int batch, int m)
{
    const int enough = ceil_div((size_t)5 * multiprocessors() / 2, tiles_of<kTile>(1, m));
    const int groups = batch / enough;
    return groups > 1 ? ceil_div((size_t)batch, groups) : batch;
}

template <Kernel *kernel, int kTile> void launch(Chain &chain, cudaStream_t stream)
{
    constexpr uint32_t kBytes = Shape<kTile>::kBytes;
    static const bool ready = [] {
        CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
        return true;
    }();
    (void)ready;
    chain.group = group_of<kTile>(chain.batch, chain.m);
    // A chain's blocks wait for each other: cooperative, so that none starts before all can run.
    cudaLaunchAttribute cooperative = {};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = chain.count > 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = std::min(Schedule<kTile>(chain).total, multiprocessors());
    config.blockDim = kThreads;
    config.dynamicSmemBytes = kBytes;
    config.stream = stream;
    config.attrs = &cooperative;
    config.numAttrs = 1;
    CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, chain));
}

template <typename T, int kTile> void launch_with(Chain &chain, Extra extra, cudaStream_t stream)
{
    if (extra == ROW_SUMS)
        launch<symmetric_kernel<T, kTile, ROW_SUMS>, kTile>(chain, stream);
    else if (extra == SQUARES)
        launch<symmetric_kernel<T, kTile, SQUARES>, kTile>(chain, stream);
    else
        launch<symmetric_kernel<T, kTile, PLAIN>, kTile>(chain, stream);
}

// k summed over, in blocks of 64 to the next multiple that holds whole addends.
void run(const NsProduct &w, Chain &chain, int k, Extra extra)
{
    const bool small = small_tiles(w.batch, chain.m);
    const int unit = small ? 1 : 2;
    chain.batch = w.batch;
    chain.k_blocks = unit * ceil_div((size_t)k, unit * kTileK);
    chain.progress = w.progress;
    chain.done = *w.steps_run;
    if (chain.count > 1) *w.steps_run += chain.count;
    if (w.type == DT_BF16 && small)
        launch_with<bf16, 64>(chain, extra, w.stream);
    else if (w.type == DT_BF16)
        launch_with<bf16, 128>(chain, extra, w.stream);
    else if (small)
        launch_with<__half, 64>(chain, extra, w.stream);
    else
        launch_with<__half, 128>(chain, extra, w.stream);
}

} // namespace

void ns_hopper_chain(const NsProduct &w, const NsChain &steps, int m)
{
    Chain chain = {};
    chain.m = m;
    chain.count = steps.count;
    for (int i = 0; i < steps.count; i++) chain.step[i] = steps.step[i];
    for (int i = 0; i < kNsMatrices; i++)
        if (steps.matrix[i])
            chain.map[i] = tensor_map(w.type, steps.matrix[i], w.batch, m, m,
                                      small_tiles(w.batch, m) ? 64 : 128);
    run(w, chain, m, PLAIN);
}

void ns_hopper_gram(const NsProduct &w, void *a, const void *x, int m, int n, NsNorm norm,
                    float *sums)
{
    Chain chain = {};
    const int box = small_tiles(w.batch, m) ? 64 : 128;
    chain.m = m;
    chain.count = 1;
    chain.sums = sums;
    chain.map[0] = tensor_map(w.type, x, w.batch, m, n, box);
    chain.map[1] = tensor_map(w.type, a, w.batch, m, m, box);
    chain.step[0] = {0, 0, 1, kNsNone, 0, 1, 0, 0, false};
    run(w, chain, n, norm == NS_NORM_AOL ? ROW_SUMS : norm == NS_NORM_SCHATTEN4 ? SQUARES : PLAIN);
}

int ns_hopper_sum_parts(NsNorm norm, int batch, int m)
{
    const bool small = small_tiles(batch, m);
    if (norm == NS_NORM_AOL) return ceil_div((size_t)m, small ? 64 : 128);
    return small ? tiles_of<64>(1, m) : tiles_of<128>(1, m);
}
