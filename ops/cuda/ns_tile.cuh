// Blocks of 64 x 64 numbers, of which the tiles of the Newton-Schulz products on Hopper consist: in
// shared memory (64 rows of 128 bytes, swizzled as the copy engine does it), in the accumulators of
// a warpgroup, and their way between the two and to global memory.
#ifndef OPS_CUDA_NS_TILE_CUH
#define OPS_CUDA_NS_TILE_CUH

#include "hopper.cuh"
#include "ns_products.h"

constexpr int kBlock = 64, kWarpgroup = 128; // rows and columns of a block; threads
constexpr uint32_t kBlockBytes = kBlock * kBlock * 2;
constexpr int kAccumulators = kBlock * kBlock / kWarpgroup; // a thread's, of one block

#if ON_HOPPER
namespace hopper
{

// Byte of (row, column) in a block.
__device__ __forceinline__ uint32_t in_block(int row, int col)
{
    return (uint32_t)(row * 128) + ((uint32_t)(col * 2) ^ (uint32_t)((row & 7) << 4));
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

// Where a thread's accumulators lie in a block: d[4j + 2i + e] at row 16 warp + 8i + lane / 4 and
// column 8j + 2 (lane % 4) + e.
__device__ __forceinline__ int lane_row()
{
    return threadIdx.x % kWarpgroup / kWarp * 16 + threadIdx.x % kWarp / 4;
}
__device__ __forceinline__ int lane_col() { return 2 * (threadIdx.x % 4); }

// Byte in a block that a lane names for ldmatrix and stmatrix: of four 8x8 blocks of the warp's
// part of it, or of its transpose, lane l names row l % 8 of number l / 8: two in a column, two
// columns. Those of the next two columns are 32 bytes on, before swizzling, and of the transpose 16
// rows on.
template <bool kTransposed> __device__ __forceinline__ uint32_t own_part()
{
    const uint32_t lane = threadIdx.x % kWarp;
    const int r = threadIdx.x % kWarpgroup / kWarp * 16 + (lane / 8 & 1) * 8, c = lane / 16 * 8;
    return kTransposed ? in_block(c + lane % 8, r) : in_block(r + lane % 8, c);
}

// d += gamma[i] times a block in shared memory, or times its transpose.
template <typename T, bool kTransposed>
__device__ __forceinline__ void add_block(float *d, uint32_t block, const float (&gamma)[2])
{
    const uint32_t first = block + own_part<kTransposed>();
#pragma unroll
    for (int j = 0; j < kBlock / 8; j += 2) {
        uint32_t v[4];
        if (kTransposed)
            ldmatrix_transposed(v, first + 1024 * j);
        else
            ldmatrix(v, first ^ 16 * j);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 x = unpack<T>(v[e]);
            d[4 * j + 2 * e] += gamma[e & 1] * x.x;
            d[4 * j + 2 * e + 1] += gamma[e & 1] * x.y;
        }
    }
}

// d diag(factors), where those are of the block's columns, of which there are `count`.
__device__ __forceinline__ void scale_columns(float *d, const float *factors, int count)
{
#pragma unroll
    for (int i = 0; i < kAccumulators; i++) {
        const int col = 8 * (i / 4) + lane_col() + i % 2;
        if (col < count) d[i] *= factors[col];
    }
}

// alpha d in 16-bit numbers: v[2j + i] has those of row i and columns 8j ...
template <typename T>
__device__ __forceinline__ void pack_block(uint32_t (&v)[kAccumulators / 2], const float *d,
                                           float alpha)
{
    if (alpha == 1)
#pragma unroll
        for (int i = 0; i < kAccumulators / 2; i++) v[i] = pack<T>(d[2 * i], d[2 * i + 1]);
    else
#pragma unroll
        for (int i = 0; i < kAccumulators / 2; i++)
            v[i] = pack<T>(alpha * d[2 * i], alpha * d[2 * i + 1]);
}

// `met`, a pair of 16-bit numbers, plus 0 times each number, which is NaN where one is not finite.
template <typename T>
__device__ __forceinline__ uint32_t add_zero_times(const uint32_t (&v)[kAccumulators / 2],
                                                   uint32_t met)
{
    using Pair = std::conditional_t<std::is_same<T, bf16>::value, __nv_bfloat162, __half2>;
    const uint32_t zeros = 0;
    Pair sum = reinterpret_cast<const Pair &>(met);
#pragma unroll
    for (int i = 0; i < kAccumulators / 2; i++)
        sum = __hfma2(reinterpret_cast<const Pair &>(v[i]), reinterpret_cast<const Pair &>(zeros),
                      sum);
    return reinterpret_cast<const uint32_t &>(sum);
}

// A packed block to shared memory, or its transpose.
template <bool kTransposed>
__device__ __forceinline__ void stage_block(const uint32_t (&v)[kAccumulators / 2], uint32_t block)
{
    const uint32_t first = block + own_part<kTransposed>();
#pragma unroll
    for (int j = 0; j < kBlock / 8; j += 2) {
        const uint32_t four[4] = {v[2 * j], v[2 * j + 1], v[2 * j + 2], v[2 * j + 3]};
        if (kTransposed)
            store_blocks_transposed(first + 1024 * j, four);
        else
            store_blocks(first ^ 16 * j, four);
    }
}

// alpha d diag(factors) to shared memory, or alpha d^T diag(factors); `factors` are those of the 64
// columns that it is written to.
template <typename T, bool kTransposed>
__device__ __forceinline__ void stage_scaled(const float *d, uint32_t block, float alpha,
                                             const float *factors)
{
    float scaled[kAccumulators];
    const float of_rows[2] = {factors[lane_row()], factors[lane_row() + 8]};
#pragma unroll
    for (int j = 0; j < kBlock / 8; j++) {
        const float2 of_cols = *reinterpret_cast<const float2 *>(factors + 8 * j + lane_col());
#pragma unroll
        for (int i = 4 * j; i < 4 * j + 4; i++)
            scaled[i] = d[i] * (kTransposed ? of_rows[i / 2 % 2] : i % 2 ? of_cols.y : of_cols.x);
    }
    uint32_t packed[kAccumulators / 2];
    pack_block<T>(packed, scaled, alpha);
    stage_block<kTransposed>(packed, block);
}

// One triangle of a block on the diagonal becomes the mirror of the other; the `upper` is kept, or
// the lower. All of a warpgroup calls it between barriers.
template <typename T> __device__ __forceinline__ void mirror_block(char *block, bool upper)
{
    const int row = threadIdx.x % kWarpgroup / 2;
    for (int col = threadIdx.x % 2; col < row; col += 2) {
        T *const low = reinterpret_cast<T *>(block + in_block(row, col));
        T *const high = reinterpret_cast<T *>(block + in_block(col, row));
        if (upper)
            *low = *high;
        else
            *high = *low;
    }
}

// A block (block + diagonal I) diag(factors), factors of its 64 columns or NULL, in the same place
// or another.
template <typename T>
__device__ __forceinline__ void finish_block(char *to, const char *from, float diagonal,
                                             const float *factors)
{
    const int row = threadIdx.x % kWarpgroup / 2;
    for (int col = threadIdx.x % 2; col < kBlock; col += 2) {
        const float x = load_stored(reinterpret_cast<const T *>(from + in_block(row, col)), 0);
        store_rounded(reinterpret_cast<T *>(to + in_block(row, col)), 0,
                      (x + (row == col ? diagonal : 0)) * (factors ? factors[col] : 1));
    }
}

// The block to (rows from `row` on, columns from `col` on) of an fp32 matrix (m,m).
__device__ __forceinline__ void write_block(const float *d, float *matrix, int m, int row, int col)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = row + lane_row() + 8 * i;
        if (r >= m) continue;
#pragma unroll
        for (int j = 0; j < kBlock / 8; j++) {
            const int c = col + 8 * j + lane_col();
            if (c < m)
                *reinterpret_cast<float2 *>(matrix + (size_t)r * m + c) =
                    make_float2(d[4 * j + 2 * i], d[4 * j + 2 * i + 1]);
        }
    }
}

// Lanes that differ in one bit share out their 2 kKept columns, and add the other's to those they
// keep.
template <int kKept> __device__ __forceinline__ void share_columns(float (&v)[16], int bit)
{
    const bool upper = threadIdx.x & bit;
#pragma unroll
    for (int c = 0; c < kKept; c++) {
        const float keep = upper ? v[c + kKept] : v[c], give = upper ? v[c] : v[c + kKept];
        v[c] = keep + __shfl_xor_sync(0xffffffffu, give, bit);
    }
}

// Sums of |d| over the block's columns, to rows[..] of its 64 rows below `row_limit`, and, with
// `cols`, over its rows. `room`: (4, 64) numbers that nobody else uses before the next barrier;
// `barrier`: of this warpgroup.
__device__ __forceinline__ void sum_block(const float *d, float *rows, int row_limit, float *cols,
                                          int col_limit, float *room, int barrier)
{
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kBlock / 8; j++)
            sum += fabsf(d[4 * j + 2 * i]) + fabsf(d[4 * j + 2 * i + 1]);
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const int r = lane_row() + 8 * i;
        if (lane % 4 == 0 && r < row_limit) rows[r] = sum;
    }
    if (!cols) return;
    float v[16]; // of columns 8j + lane_col() + e at 2j + e: two rows each
#pragma unroll
    for (int c = 0; c < 16; c++)
        v[c] = fabsf(d[4 * (c / 2) + c % 2]) + fabsf(d[4 * (c / 2) + 2 + c % 2]);
    share_columns<8>(v, 16), share_columns<4>(v, 8), share_columns<2>(v, 4);
    const int j = (lane & 16 ? 4 : 0) + (lane & 8 ? 2 : 0) + (lane & 4 ? 1 : 0);
    float *const mine = room + threadIdx.x % kWarpgroup / kWarp * kBlock + 8 * j + lane_col();
    mine[0] = v[0], mine[1] = v[1];
    named_barrier(barrier, kWarpgroup);
    const int c = threadIdx.x % kWarpgroup;
    if (c < kBlock && c < col_limit)
        cols[c] = (room[c] + room[kBlock + c]) + (room[2 * kBlock + c] + room[3 * kBlock + c]);
}

// The sum of the 16 numbers on the diagonal of the block that a warp has, to all of its lanes.
__device__ __forceinline__ float diagonal_of_block(const float *d)
{
    const int warp = threadIdx.x % kWarpgroup / kWarp, lane = threadIdx.x % kWarp;
    float mine = 0; // of row r and of row r + 8, in columns that the lane r / 2 of each four has
#pragma unroll
    for (int j = 0; j < kBlock / 8; j++)
        if (j / 2 == warp && lane % 4 == lane / 8)
            mine += lane / 4 % 2 ? d[4 * j + j % 2 * 2 + 1] : d[4 * j + j % 2 * 2];
    return warp_sum(mine);
}

// The sum of squares of a thread's part of the block, whatever its size: squares are taken of
// numbers that a power of two has brought near 1.
__device__ __forceinline__ double squares_of_block(const float *d)
{
    float most = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < kAccumulators; i++) most = fmaxf(most, fabsf(d[i]));
    const int exponent = (int)(__float_as_uint(most) >> 23); // + 127
    const float scale = __uint_as_float((uint32_t)(254 - exponent) << 23);
#pragma unroll
    for (int i = 0; i < kAccumulators; i++) sum += (d[i] * scale) * (d[i] * scale);
    return exponent == 0 ? 0 : sum * __hiloint2double((1023 + 2 * (exponent - 127)) << 20, 0);
}

} // namespace hopper
#endif

#endif
