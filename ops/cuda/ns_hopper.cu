// Newton-Schulz products on Hopper: persistent blocks of one producer warpgroup, which copies tiles
// to shared memory (TMA, four or three stages), and two consumer warpgroups, which multiply (wgmma)
// 64 rows of a 128-row tile each. Bound by the tensor cores (128 x 128 x 64 takes 512 cycles at
// best) and, close to it, by the L2: two blocks of a cluster work on tiles one above the other, and
// each copies half of Q's tile for both.
//
// Both products add beta times a tile that the sum over k reads anyway: rows i of P at columns j
// for the symmetric product, rows i of X for the apply. The sum over k starts there, and the
// consumers take the addend from the stages in shared memory, so that it costs no traffic.
#include "hopper.cuh"
#include "ns_products.h"

namespace
{

constexpr int kTileM = 128, kTileK = 64, kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;
[[maybe_unused]] constexpr int kConsumers = 2 * kWarpgroup;
constexpr int kChunk = 64;                            // columns of one 128-byte row of a tile
constexpr uint32_t kChunkBytes = kTileM * kChunk * 2; // 128 rows of 64 numbers

constexpr int kPair = 2, kTileN = 256; // of the apply: blocks of a cluster, columns of a tile

constexpr int kSymmetricStages = 5, kApplyStages = 3;
constexpr uint32_t kSymmetricStage = 2 * kChunkBytes, kApplyStage = 3 * kChunkBytes;
// Stages, staging room, and what aligning the start to 1024 bytes may cost.
constexpr uint32_t kSymmetricBytes = kSymmetricStages * kSymmetricStage + 4 * kChunkBytes + 1024;
constexpr uint32_t kApplyBytes = kApplyStages * kApplyStage + 4 * kChunkBytes + 1024;

struct Problem {
    int batch, m, n, k_blocks; // tiles cover C (m,n); k_blocks even
    float alpha, gamma;        // C = alpha (sum + gamma D)
    bool upper;                // the triangle that is computed
    const float *factors;      // (batch,m): of D's rows, or NULL
    int *flags;
};

struct Tile {
    int matrix, row, col; // in tiles
};

// All tiles of one matrix, then the next, so that blocks at work together share rows through the
// L2. The tiles of a triangle: row >= col, or row <= col of the upper one.
struct TriangleSchedule {
    int per_matrix, total;
    bool upper;

    __host__ __device__ explicit TriangleSchedule(const Problem &p) : upper(p.upper)
    {
        const int rows = (p.m + kTileM - 1) / kTileM;
        per_matrix = rows * (rows + 1) / 2;
        total = per_matrix * p.batch;
    }

#if ON_HOPPER
    __device__ Tile tile(int index) const
    {
        const int t = index % per_matrix;
        int row = (int)((sqrtf(8.0f * t + 1) - 1) * 0.5f);
        while (row * (row + 1) / 2 > t) row--;
        while ((row + 1) * (row + 2) / 2 <= t) row++;
        const int col = t - row * (row + 1) / 2;
        return {index / per_matrix, upper ? col : row, upper ? row : col};
    }
#endif
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

#if ON_HOPPER
    __device__ Tile tile(int index, int rank) const
    {
        const int t = index % per_matrix;
        return {index / per_matrix, kPair * (t % pairs) + rank, t / pairs};
    }
#endif
};

#if ON_HOPPER
using namespace hopper;

// Byte of (row, column) in a tile of 64-column chunks with the 128-byte swizzle.
template <int kRows> __device__ __forceinline__ uint32_t swizzled(int row, int col)
{
    return (uint32_t)(col / kChunk * kRows * 128 + row * 128) +
           ((uint32_t)(col % kChunk * 2) ^ (uint32_t)((row & 7) << 4));
}

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<bf16>(float low, float high)
{
    return pack2(low, high);
}
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}
template <typename T> __device__ __forceinline__ float2 unpack(uint32_t u);
template <> __device__ __forceinline__ float2 unpack<bf16>(uint32_t u)
{
    return {low_half(u), high_half(u)};
}
template <> __device__ __forceinline__ float2 unpack<__half>(uint32_t u)
{
    return __half22float2(*reinterpret_cast<const __half2 *>(&u));
}

__device__ __forceinline__ uint32_t load_shared(uint32_t address)
{
    uint32_t u;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(u) : "r"(address) : "memory");
    return u;
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t low_16_bits)
{
    asm volatile("st.shared.b16 [%0], %1;" ::"r"(address), "h"((unsigned short)low_16_bits)
                 : "memory");
}

// Accumulators of one consumer thread: row 8i + lane/4 of its warp's 16, columns 8j + 2(lane%4),
// +1, at d[4j + 2i], d[4j + 2i + 1].

// d += gamma[i] times the addend's row 8i + .., whose columns lie in chunks of kRows rows of 64
// columns.
template <typename T, int kRows, int kCount>
__device__ __forceinline__ void add_tile(float (&d)[kCount], uint32_t first_chunk,
                                         uint32_t chunk_stride, int row, const float (&gamma)[2])
{
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int j = 0; j < kCount / 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int col = 8 * j + 2 * (lane % 4);
            const float2 v =
                unpack<T>(load_shared(first_chunk + (uint32_t)(col / kChunk) * chunk_stride +
                                      swizzled<kRows>(row + 8 * i + lane / 4, col % kChunk)));
            d[4 * j + 2 * i] += gamma[i] * v.x;
            d[4 * j + 2 * i + 1] += gamma[i] * v.y;
        }
}

// 64 rows of a tile as 16-bit numbers to `out`, or transposed. `row`: the warp's first row in the
// tile.
template <typename T, bool kTransposed, int kCount>
__device__ __forceinline__ void stage_rows(const float (&d)[kCount], uint32_t out, int row,
                                           float alpha)
{
    const int lane = threadIdx.x % kWarp, r = row + (lane / 8 & 1) * 8;
#pragma unroll
    for (int j = 0; j < kCount / 4; j += 2) {
        const uint32_t v[4] = {pack<T>(alpha * d[4 * j], alpha * d[4 * j + 1]),
                               pack<T>(alpha * d[4 * j + 2], alpha * d[4 * j + 3]),
                               pack<T>(alpha * d[4 * j + 4], alpha * d[4 * j + 5]),
                               pack<T>(alpha * d[4 * j + 6], alpha * d[4 * j + 7])};
        const int c = 8 * j + lane / 16 * 8;
        if (kTransposed)
            store_blocks_transposed(out + swizzled<kTileM>(c + lane % 8, r), v);
        else
            store_blocks(out + swizzled<kTileM>(r + lane % 8, c), v);
    }
}

// Of a tile on the diagonal, one triangle goes to both places: 16 x 16 blocks beside the diagonal
// as they are and transposed, those on it number by number.
template <typename T>
__device__ __forceinline__ void stage_diagonal(const float (&d)[64], uint32_t out, int row,
                                               float alpha, bool upper)
{
    const int lane = threadIdx.x % kWarp, r = row + (lane / 8 & 1) * 8;
#pragma unroll
    for (int j = 0; j < 16; j += 2) {
        if (upper ? row > 8 * j : row < 8 * j) continue;
        const uint32_t v[4] = {pack<T>(alpha * d[4 * j], alpha * d[4 * j + 1]),
                               pack<T>(alpha * d[4 * j + 2], alpha * d[4 * j + 3]),
                               pack<T>(alpha * d[4 * j + 4], alpha * d[4 * j + 5]),
                               pack<T>(alpha * d[4 * j + 6], alpha * d[4 * j + 7])};
        if (row != 8 * j) {
            const int c = 8 * j + lane / 16 * 8;
            store_blocks(out + swizzled<kTileM>(r + lane % 8, c), v);
            store_blocks_transposed(out + swizzled<kTileM>(c + lane % 8, r), v);
            continue;
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int at = row + (e / 2 & 1) * 8 + lane / 4;
            const int c = 8 * j + e / 4 * 8 + 2 * (lane % 4) + e % 2;
            if (upper ? at > c : at < c) continue;
            const uint32_t number = v[e / 2] >> 16 * (e % 2);
            store_shared(out + swizzled<kTileM>(at, c), number);
            store_shared(out + swizzled<kTileM>(c, at), number);
        }
    }
}
#endif

// Named barriers: 1 and 2 of each consumer's own threads, 3 and 4 where it waits for its turn.
[[maybe_unused]] constexpr int kTurn = 3;

// C = alpha (P Q^T + gamma P), one triangle and its mirror. The consumers work on a 128 x 128 tile
// each, in turn: while one stores its tile, the other's products keep the tensor cores busy. C and
// its mirror go through the same staging room, one after the other. All maps have boxes of 128
// x 64.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    symmetric_kernel(const __grid_constant__ CUtensorMap p_map,
                     const __grid_constant__ CUtensorMap q_map,
                     const __grid_constant__ CUtensorMap c_map, const Problem problem)
{
#if ON_HOPPER
    extern __shared__ char shared[];
    __shared__ uint64_t full[kSymmetricStages], empty[kSymmetricStages];
    char *const base = shared + (1024 - (shared_address(shared) & 1023)) % 1024;
    const TriangleSchedule schedule(problem);
    const int group = threadIdx.x / kWarpgroup, blocks = problem.k_blocks;

    if (threadIdx.x == 0) {
        for (int s = 0; s < kSymmetricStages; s++) {
            barrier_init(&full[s], 1);
            barrier_init(&empty[s], 1);
        }
        barrier_init_fence();
    }
    __syncthreads();

    if (group == 0) { // producer
        registers_give<40>();
        if (threadIdx.x) return;
        uint32_t stage = 0, phase = 0;
        for (int index = blockIdx.x; index < schedule.total; index += gridDim.x) {
            const Tile t = schedule.tile(index);
            for (int b = 0; b < blocks; b++) { // the two that hold the addend come first
                const int k = (2 * t.col + b) % blocks * kTileK;
                char *const p = base + stage * kSymmetricStage;
                barrier_wait(&empty[stage], phase ^ 1);
                barrier_expect(&full[stage], kSymmetricStage);
                tma_load(p, &p_map, &full[stage], k, t.row * kTileM, t.matrix);
                tma_load(p + kChunkBytes, &q_map, &full[stage], k, t.col * kTileM, t.matrix);
                if (++stage == kSymmetricStages) stage = 0, phase ^= 1;
            }
        }
        return;
    }
    registers_take<232>();
    const int consumer = group - 1, row = threadIdx.x % kWarpgroup / kWarp * 16;
    const bool leader = threadIdx.x % kWarpgroup == 0;
    char *const out = base + kSymmetricStages * kSymmetricStage + consumer * 2 * kChunkBytes;
    const uint32_t staging = shared_address(out);
    float low[64], high[64]; // rows 0 to 63 and 64 to 127

    for (int turn = consumer; blockIdx.x + turn * gridDim.x < schedule.total; turn += 2) {
        const Tile t = schedule.tile(blockIdx.x + turn * gridDim.x);
        const uint32_t position = (uint32_t)turn * blocks; // among all stages ever filled
        uint32_t stage = position % kSymmetricStages, phase = position / kSymmetricStages & 1;
#pragma unroll
        for (int i = 0; i < 64; i++) low[i] = high[i] = 0;
        // A barrier's parity tells apart two fills of a stage, not more: wait until the other
        // consumer has seen all its own.
        if (turn > 0) named_barrier(kTurn + consumer, kConsumers);
        if (problem.gamma != 0) {
            const uint32_t next = stage + 1 == kSymmetricStages ? 0 : stage + 1;
            const float gamma[2] = {problem.gamma, problem.gamma};
            barrier_wait(&full[stage], phase);
            barrier_wait(&full[next], next ? phase : phase ^ 1);
            const uint32_t here = shared_address(base + stage * kSymmetricStage);
            const uint32_t there = shared_address(base + next * kSymmetricStage);
            add_tile<T, kTileM>(low, here, there - here, row, gamma);
            add_tile<T, kTileM>(high, here, there - here, row + 64, gamma);
        }
        // The wait leaves a stage's products running: what has been read is the stage before.
        const auto multiply = [&] {
            barrier_wait(&full[stage], phase);
            const char *p = base + stage * kSymmetricStage;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kTileK / 16; k++) {
                const uint64_t q = tile_descriptor(p + kChunkBytes + 32 * k, 0);
                wgmma<T, 0>(low, tile_descriptor(p + 32 * k, 0), q);
                wgmma<T, 0>(high, tile_descriptor(p + 64 * 128 + 32 * k, 0), q);
            }
            wgmma_commit();
        };
        uint32_t previous = stage;
        hold(low), hold(high);
        multiply();
        if (++stage == kSymmetricStages) stage = 0, phase ^= 1;
        for (int b = 1; b < blocks; b++) {
            multiply();
            wgmma_wait<1>();
            if (leader) barrier_arrive(&empty[previous]);
            previous = stage;
            if (++stage == kSymmetricStages) stage = 0, phase ^= 1;
        }
        if (blockIdx.x + (turn + 1) * gridDim.x < schedule.total)
            named_barrier_arrive(kTurn + 1 - consumer, kConsumers);
        wgmma_wait<0>();
        hold(low), hold(high);
        if (leader) barrier_arrive(&empty[previous]);

        const bool diagonal = t.row == t.col;
        const auto store = [&](int x, int y) { // what all threads have staged
            async_proxy_fence();
            named_barrier(1 + consumer, kWarpgroup);
            if (!leader) return;
            for (int c = 0; c < kTileM / kChunk; c++)
                tma_store(&c_map, out + c * kChunkBytes, x * kTileM + c * kChunk, y * kTileM,
                          t.matrix);
            tma_store_commit();
        };
        const auto wait_for_room = [&] {
            if (leader) tma_store_wait_read();
            named_barrier(1 + consumer, kWarpgroup);
        };
        wait_for_room();
        if (diagonal) {
            stage_diagonal<T>(low, staging, row, problem.alpha, problem.upper);
            stage_diagonal<T>(high, staging, row + 64, problem.alpha, problem.upper);
        } else {
            stage_rows<T, false>(low, staging, row, problem.alpha);
            stage_rows<T, false>(high, staging, row + 64, problem.alpha);
        }
        store(t.col, t.row);
        if (diagonal) continue;
        wait_for_room();
        stage_rows<T, true>(low, staging, row, problem.alpha);
        stage_rows<T, true>(high, staging, row + 64, problem.alpha);
        store(t.row, t.col);
    }
    if (leader) tma_store_wait();
#endif
}

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
    constexpr int kStages = kApplyStages;
    constexpr uint32_t kBox = kTileK * kChunk * 2; // bytes of one box of X
    extern __shared__ char shared[];
    __shared__ uint64_t full[kStages], empty[kStages];
    char *const base = shared + (1024 - (shared_address(shared) & 1023)) % 1024;
    char *const out = base + kStages * kApplyStage;
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
                    char *const p = base + stage * kApplyStage, *const q = p + kChunkBytes;
                    barrier_wait(&empty[stage], phase ^ 1);
                    barrier_expect(&full[stage], kApplyStage);
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
            const char *p = base + stage * kApplyStage + consumer * 64 * 128;
            const char *q = base + stage * kApplyStage + kChunkBytes;
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
                add_tile<T, kTileK>(d, shared_address(base + stage * kApplyStage + kChunkBytes),
                                    kBox, 16 * warp, gamma);
            }
            multiply_range(done, blocks);

            if (leader) tma_store_wait_read(); // the previous tile has left the staging room
            named_barrier(1, kConsumers);
            stage_rows<T, false>(d, staging, row, problem.alpha);
            if (problem.flags) {
                float poison = 0; // 0 times anything finite is 0
#pragma unroll
                for (int i = 0; i < kTileN / 2; i++)
                    poison += unpack<T>(pack<T>(problem.alpha * d[i], 0)).x * 0;
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

typedef CUresult EncodeTiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                             const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                             const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                             CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's encoder, asked for at run time: nothing links the driver's library.
EncodeTiled *encoder()
{
    static EncodeTiled *found = [] {
        void *symbol = nullptr;
        cudaDriverEntryPointQueryResult result;
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                    cudaEnableDefault, &result));
        return reinterpret_cast<EncodeTiled *>(symbol);
    }();
    return found;
}

// Boxes of 64 columns and `box_rows` rows of (batch, rows, cols); what lies outside reads as zero
// and is not written.
CUtensorMap tensor_map(DType type, const void *data, int batch, int rows, int cols, int box_rows)
{
    CUtensorMap map;
    const cuuint64_t dims[] = {(cuuint64_t)cols, (cuuint64_t)rows, (cuuint64_t)batch};
    const cuuint64_t strides[] = {2 * (cuuint64_t)cols, 2 * (cuuint64_t)cols * (cuuint64_t)rows};
    const cuuint32_t box[] = {kChunk, (cuuint32_t)box_rows, 1}, steps[] = {1, 1, 1};
    const CUresult status = encoder()(
        &map, type == DT_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        3, const_cast<void *>(data), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        cuda_fail("a tensor map was refused", "rows must be multiples of 16 bytes",
                  "cuTensorMapEncodeTiled", __FILE__, __LINE__);
    return map;
}

int multiprocessors()
{
    static const int count = [] {
        int device, value;
        CUDA_CHECK(cudaGetDevice(&device));
        CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
        return value;
    }();
    return count;
}

typedef void Kernel(CUtensorMap, CUtensorMap, CUtensorMap, Problem);

// `units` pieces of work for blocks in clusters of `pair`.
template <Kernel *kernel, uint32_t kBytes>
void launch(const NsProduct &w, const CUtensorMap &p, const CUtensorMap &q, const CUtensorMap &c,
            const Problem &problem, int units, int pair)
{
    static const bool ready = [] {
        CUDA_CHECK(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
        return true;
    }();
    (void)ready;
    const int most = multiprocessors() / pair;
    kernel<<<pair *(units < most ? units : most), kThreads, kBytes, w.stream>>>(p, q, c, problem);
    CHECK_LAUNCH();
}

// Blocks of 64 in k, to the next multiple of `unit` that holds whole addends.
int k_blocks(int k, int unit) { return unit * ceil_div((size_t)k, unit * kTileK); }

} // namespace

bool ns_hopper_can(DType type)
{
    static const bool hopper = [] {
        int device, major;
        CUDA_CHECK(cudaGetDevice(&device));
        CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
        return major == 9;
    }();
    return hopper && type != DT_F32;
}

void ns_hopper_symmetric(const NsProduct &w, void *c, const void *p, const void *q, int m, int k,
                         float alpha, float beta, bool upper)
{
    const Problem problem = {w.batch,      m,     m,       k_blocks(k, 2), alpha,
                             beta / alpha, upper, nullptr, nullptr};
    const CUtensorMap p_map = tensor_map(w.type, p, w.batch, m, k, kTileM);
    const CUtensorMap q_map = tensor_map(w.type, q, w.batch, m, k, kTileM);
    const CUtensorMap c_map = tensor_map(w.type, c, w.batch, m, m, kTileM);
    const int tiles = TriangleSchedule(problem).total;
    if (w.type == DT_BF16)
        launch<symmetric_kernel<bf16>, kSymmetricBytes>(w, p_map, q_map, c_map, problem, tiles, 1);
    else
        launch<symmetric_kernel<__half>, kSymmetricBytes>(w, p_map, q_map, c_map, problem, tiles,
                                                          1);
}

void ns_hopper_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n,
                     float beta, const float *s, int *flags)
{
    const Problem problem = {w.batch, m, n, k_blocks(m, 4), 1, beta, false, s, flags};
    const CUtensorMap p_map = tensor_map(w.type, p, w.batch, m, m, kTileM);
    const CUtensorMap x_map = tensor_map(w.type, x, w.batch, m, n, kTileK);
    const CUtensorMap y_map = tensor_map(w.type, y, w.batch, m, n, kTileM);
    const int pairs = PairSchedule(problem).total;
    if (w.type == DT_BF16)
        launch<apply_kernel<bf16>, kApplyBytes>(w, p_map, x_map, y_map, problem, pairs, kPair);
    else
        launch<apply_kernel<__half>, kApplyBytes>(w, p_map, x_map, y_map, problem, pairs, kPair);
}
