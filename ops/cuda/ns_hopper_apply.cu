// Y = P X + gamma diag(factors) X on Hopper: persistent blocks of one producer warpgroup, which
// copies tiles to shared memory (TMA, three stages), and two consumer warpgroups, which multiply
// (wgmma) 64 rows of a 128 x 256 tile each. Two blocks of a cluster work on tiles one above the
// other, and each copies half of X's tile for both, since the L2 is close to being the limit.
//
// gamma diag(factors) X costs no traffic: it is a tile that the sum over k reads anyway.
#include "ns_tile.cuh"

namespace
{

constexpr int kPair = 2, kTileM = 128,
              kTileN = 256; // blocks of a cluster; rows and columns of a tile
constexpr int kStages = 3;
constexpr uint32_t kChunkBytes = kTileM * kChunk * 2; // 128 rows of 64 numbers
constexpr uint32_t kStage = 3 * kChunkBytes;
// Stages, staging room, and what aligning the start to 1024 bytes may cost.
constexpr uint32_t kBytes = kStages * kStage + 4 * kChunkBytes + 1024;

struct Problem {
    int batch, m, n, k_blocks;
    float gamma;
    const float *factors; // (batch,m): of X's rows, or NULL
    int *flags;
};

struct Tile {
    int matrix, row, col; // in tiles
};

// Pairs of tiles (2r, c), (2r + 1, c) for the two blocks of a cluster; `rank` is a block's place in
// it.
struct PairSchedule {
    int pairs, per_matrix, total;

    __host__ __device__ explicit PairSchedule(const Problem &p)
        : pairs((p.m + kPair * kTileM - 1) / (kPair * kTileM)),
          per_matrix(pairs * ((p.n + kTileN - 1) / kTileN)), total(per_matrix * p.batch)
    {
    }

    __device__ Tile tile(int index, int rank) const
    {
        const int t = index % per_matrix;
        return {index / per_matrix, kPair * (t % pairs) + rank, t / pairs};
    }
};

#if ON_HOPPER
using namespace hopper;
#endif

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#else
#define CLUSTER(blocks)
#endif

// Y = P X + gamma diag(factors) X, X along its columns, by pairs of blocks; both consumers work on
// one tile of 128 x 256. `p_map` loads boxes of 128 x 64, `x_map` of 64 x 64, `y_map` stores 128
// x 64.
template <typename T>
__global__ void CLUSTER(kPair) __launch_bounds__(kThreads, 1)
    apply_kernel(const __grid_constant__ CUtensorMap p_map,
                 const __grid_constant__ CUtensorMap x_map,
                 const __grid_constant__ CUtensorMap y_map, const Problem problem)
{
#if ON_HOPPER
    constexpr uint32_t kBox = kTileK * kChunk * 2; // bytes of one box of X
    extern __shared__ char shared[];
    __shared__ uint64_t full[kStages], empty[kStages];
    char *const base = shared + (1024 - (shared_address(shared) & 1023)) % 1024;
    char *const out = base + kStages * kStage;
    const PairSchedule schedule(problem);
    const int group = threadIdx.x / kWarpgroup, blocks = problem.k_blocks;
    const int rank = (int)cluster_rank(), first_pair = blockIdx.x / kPair, step = gridDim.x / kPair;

    if (threadIdx.x == 0) {
        for (int s = 0; s < kStages; s++) {
            barrier_init(&full[s], 1);
            barrier_init(&empty[s],
                         2 * kPair); // an arrival of every consumer warpgroup of the pair
        }
        barrier_init_fence();
    }
    cluster_barrier();

    if (group == 0) { // producer
        registers_give<40>();
        if (threadIdx.x == 0) {
            uint32_t stage = 0, phase = 0;
            for (int index = first_pair; index < schedule.total; index += step) {
                const Tile t = schedule.tile(index, rank);
                // The k-blocks that hold the addend come first, rows of either block in turn.
                const int first = 4 * (t.row / kPair);
                for (int b = 0; b < blocks; b++) {
                    const int turn = b == 1 || b == 2 ? 3 - b : b; // 0 2 1 3 4 5 ..
                    const int k = (first + turn) % blocks * kTileK;
                    char *const p = base + stage * kStage, *const q = p + kChunkBytes;
                    barrier_wait(&empty[stage], phase ^ 1);
                    barrier_expect(&full[stage], kStage);
                    tma_load(p, &p_map, &full[stage], k, t.row * kTileM, t.matrix);
                    constexpr int kMine = kTileN / kChunk / kPair; // boxes that this block copies
                    for (int c = rank * kMine; c < (rank + 1) * kMine; c++) {
                        tma_load_shared(q + c * kBox, &x_map, &full[stage],
                                        t.col * kTileN + c * kChunk, k, t.matrix, 3);
                    }
                    if (++stage == kStages) stage = 0, phase ^= 1;
                }
            }
        }
    } else { // consumers
        registers_take<232>();
        const int consumer = group - 1, warp = threadIdx.x % kWarpgroup / kWarp;
        const int row = 64 * consumer + 16 * warp;
        const bool leader = consumer == 0 && threadIdx.x % kWarpgroup == 0;
        const uint32_t staging = shared_address(out);
        uint32_t stage = 0, phase = 0;
        float d[kTileN / 2];

        // The wait leaves a stage's products running: what has been read is the stage before.
        const auto multiply = [&] {
            barrier_wait(&full[stage], phase);
            const char *p = base + stage * kStage + consumer * 64 * 128;
            const char *q = base + stage * kStage + kChunkBytes;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kTileK / 16; k++) {
                const uint64_t pd = tile_descriptor(p + 32 * k, 0);
                wgmma<T, 1>(d, pd, tile_descriptor(q + 2048 * k, kBox));
            }
            wgmma_commit();
        };
        // Threads 0 and 1 tell a block each that the stage is free.
        const auto release = [&](uint32_t which) {
            const uint32_t to = threadIdx.x % kWarpgroup;
            if (to < kPair) barrier_arrive_at(&empty[which], to);
        };
        // k-blocks from..to, all of them finished at the end.
        const auto multiply_range = [&](int from, int to) {
            if (from >= to) return;
            uint32_t previous = stage;
            hold(d);
            multiply();
            if (++stage == kStages) stage = 0, phase ^= 1;
            for (int b = from + 1; b < to; b++) {
                multiply();
                wgmma_wait<1>();
                release(previous);
                previous = stage;
                if (++stage == kStages) stage = 0, phase ^= 1;
            }
            wgmma_wait<0>();
            hold(d);
            release(previous);
        };

        for (int index = first_pair; index < schedule.total; index += step) {
            const Tile t = schedule.tile(index, rank);
#pragma unroll
            for (int i = 0; i < kTileN / 2; i++) d[i] = 0;
            int done = 0;
            if (problem.gamma != 0) {
                float gamma[2] = {problem.gamma, problem.gamma};
                if (problem.factors)
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const int at = t.row * kTileM + row + 8 * i + threadIdx.x % kWarp / 4;
                        if (at < problem.m) gamma[i] *= problem.factors[t.matrix * problem.m + at];
                    }
                // Rows 64 consumer .. of this block's 128 are that k-block of the first four.
                done = 2 * consumer + rank;
                multiply_range(0, done);
                barrier_wait(&full[stage], phase);
                add_tile<T, kTileK>(d, shared_address(base + stage * kStage + kChunkBytes), kBox,
                                    16 * warp, gamma);
            }
            multiply_range(done, blocks);

            if (leader) tma_store_wait_read(); // the previous tile has left the staging room
            named_barrier(1, kConsumers);
            stage_rows<T, kTileM, false>(d, staging, row, 1);
            if (problem.flags) {
                float poison = 0; // 0 times anything finite is 0
#pragma unroll
                for (int i = 0; i < kTileN / 2; i++) poison += unpack<T>(pack<T>(d[i], 0)).x * 0;
                if (poison != 0) problem.flags[t.matrix] = 1;
            }
            async_proxy_fence();
            named_barrier(1, kConsumers);
            if (leader) {
                for (int c = 0; c < kTileN / kChunk; c++)
                    tma_store(&y_map, out + c * kChunkBytes, t.col * kTileN + c * kChunk,
                              t.row * kTileM, t.matrix);
                tma_store_commit();
            }
        }
        if (leader) tma_store_wait();
    }
    cluster_barrier(); // neither block leaves while the other may still reach it
#endif
}

// ---- host
// ------------------------------------------------------------------------------------------

template <typename T>
void launch(const NsProduct &w, const CUtensorMap &p, const CUtensorMap &x, const CUtensorMap &y,
            const Problem &problem)
{
    static const bool ready = [] {
        CUDA_CHECK(cudaFuncSetAttribute(apply_kernel<T>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
        return true;
    }();
    (void)ready;
    const int pairs = PairSchedule(problem).total, most = multiprocessors() / kPair;
    apply_kernel<T>
        <<<kPair *(pairs < most ? pairs : most), kThreads, kBytes, w.stream>>>(p, x, y, problem);
    CHECK_LAUNCH();
}

} // namespace

void ns_hopper_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n,
                     float beta, const float *s, int *flags)
{
    // The sum over k takes whole groups of four blocks, which hold the addend.
    const Problem problem = {w.batch, m, n, 4 * ceil_div((size_t)m, 4 * kTileK), beta, s, flags};
    const CUtensorMap p_map = tensor_map(w.type, p, w.batch, m, m, kTileM);
    const CUtensorMap x_map = tensor_map(w.type, x, w.batch, m, n, kTileK);
    const CUtensorMap y_map = tensor_map(w.type, y, w.batch, m, n, kTileM);
    if (w.type == DT_BF16)
        launch<bf16>(w, p_map, x_map, y_map, problem);
    else
        launch<__half>(w, p_map, x_map, y_map, problem);
}
