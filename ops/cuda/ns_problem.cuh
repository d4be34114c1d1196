// What a launch of ns_hopper.cuh is given, how it divides its shared memory, and what all of
// its warps know of the tiles. For that file alone.
#ifndef OPS_CUDA_NS_PROBLEM_CUH
#define OPS_CUDA_NS_PROBLEM_CUH

#include "ns_schedule.cuh"
#include "ns_tile.cuh"

namespace
{

// What a launch makes: C = alpha P Q^T + beta Q of a chain, the last one's columns times factors or
// not; the lower triangle of X X^T in fp32, with sums of it or without; P X + beta diag(factors) X.
// Where X lies transposed, as `kTall` says below, the last is X^T P^T + beta X^T diag(factors).
enum Product { SYMMETRIC, SCALED, GRAM, GRAM_ROW_SUMS, GRAM_SQUARES, APPLY };
__host__ __device__ constexpr bool is_chain(Product p) { return p == SYMMETRIC || p == SCALED; }

template <NsTiles kTiles> struct Shape {
    static constexpr bool kBig = kTiles != SMALL, kPaired = kTiles == PAIRED;
    static constexpr int kConsumers = kBig ? 2 : 1; // blocks of rows in a tile
    static constexpr int kBlocks = kBig ? 4 : 1;    // blocks of columns
    static constexpr int kStages = kBig ? 4 : 5, kSlots = kBig ? 2 : 3;
    static constexpr int kResident = kBig ? 1 : 2; // blocks of the grid on a multiprocessor
    static constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
    // A stage has the blocks of the rows, then those of the columns.
    static constexpr uint32_t kStage = (kConsumers + kBlocks) * kBlockBytes;
    static constexpr uint32_t kSlotsAt = kStages * kStage; // where the slots of the results begin
    // Addends are taken from up to so many stages before the first of them is given back.
    static_assert(kBlocks <= kStages, "an addend would wait for a stage that it holds");
    // With what aligning the start to 1024 bytes may cost.
    static constexpr uint32_t kBytes = kSlotsAt + kSlots * kConsumers * kBlockBytes + 1024;
    // Beside them there are the barriers, and 1024 bytes of the system's own.
    static_assert(kResident * (kBytes + 2048) <= 228 * 1024, "more than a multiprocessor has");
};

// The operands' matrices are in `map`, and NsStep names them.
struct Problem {
    CUtensorMap map[kNsMatrices];
    int batch, m, n, k_blocks, group; // matrices whose steps alternate
    bool joined;                      // of narrow tiles are items
    bool backwards;                   // the last matrix comes first
    int count, done;                  // steps; and those that `progress` counted before
    int *progress;
    float *gram, *row_sums; // (batch,m,m); (batch,blocks of a row,m)
    float *trace;           // (batch,blocks of a row,4)
    double *squares;        // (batch,tiles of the triangle,consumers)
    const float *factors;   // (batch,m): of the last C's columns, or of the apply's addend; or NULL
    int *flags;             // (batch): set where a result is not finite; or NULL
    NsStep step[kNsSteps];
};

// The tiles of the apply go along X's shorter side first, since those share what they read of it,
// in bands (NsRectangle).
template <Product kProduct, NsTiles kTiles, bool kTall> struct ScheduleOf {
    using Type = NsTriangles<kTiles>;
};
template <NsTiles kTiles, bool kTall> struct ScheduleOf<APPLY, kTiles, kTall> {
    using Type = NsRectangle<kTall>;
};

#if ON_HOPPER
using namespace hopper;

constexpr int kOwn = 1; // the named barriers of the consumers' own threads

constexpr int kBarrier = sizeof(uint64_t); // bytes of an mbarrier

// Addresses of mbarriers: of the stages (kStages), and of one consumer's slots (kSlots).
struct Barriers {
    uint32_t full, empty, staged, drained;
};

// A place in a ring, and the parity of its turn.
template <int kSize> struct Ring {
    uint32_t at = 0, phase = 0;
    __device__ __forceinline__ void advance()
    {
        if (++at == kSize) at = 0, phase ^= 1;
    }
};

// The tiles of this block of the grid, one after the other.
template <typename Schedule> struct Cursor {
    int index, part;
    NsItem item;
    NsTile tile;

    __device__ __forceinline__ bool start(const Problem &problem, const Schedule &schedule, int at)
    {
        index = at, part = 0;
        if (index >= schedule.total) return false;
        item = schedule.item(problem, index);
        tile = schedule.tile(problem, item, 0);
        return true;
    }
    __device__ __forceinline__ bool advance(const Problem &problem, const Schedule &schedule)
    {
        if (++part == item.tiles) return start(problem, schedule, index + gridDim.x);
        tile = schedule.tile(problem, item, part);
        return true;
    }
};

// Whether the rows' blocks are among the columns' and need no copies of their own.
template <Product kProduct>
__device__ __forceinline__ bool shares_rows(const NsStep &step, const NsTile &t)
{
    return kProduct != APPLY && step.p == step.q && t.row >= t.col && t.row < t.col + t.blocks;
}

// The first k-block of a tile: the one with the first addend, where there is one, of the tile or of
// the pair.
template <Product kProduct, NsTiles kTiles, bool kTall>
__device__ __forceinline__ int first_block(const NsStep &step, const NsTile &t)
{
    const int first = kProduct == APPLY && kTall ? t.col : t.row;
    return step.beta == 0 ? 0 : kTiles == PAIRED ? first / 4 * 4 : first;
}

// How many of the columns' blocks that a stage has come before those of a tile. A pair has four, of
// which the last two are a narrow tile's, in an upper triangle.
template <NsTiles kTiles> __device__ __forceinline__ int skipped_blocks(const NsTile &t)
{
    return kTiles == PAIRED ? t.col % 4 : 0;
}

// Whether what is summed over runs down the columns of an operand as it lies, and not along its
// rows: then wgmma takes its blocks transposed.
template <Product kProduct, bool kTall> struct Turned {
    static constexpr bool kRows = kTall && kProduct != APPLY;
    static constexpr bool kCols = kTall != (kProduct == APPLY);
};

// Whether block (row, col) of a tile belongs to the triangle.
template <Product kProduct>
__device__ __forceinline__ bool is_wanted(const NsStep &step, int row, int col)
{
    return kProduct == APPLY || (step.upper ? row <= col : row >= col);
}
#endif

} // namespace

#endif
