// What the two Newton-Schulz products on Hopper share: tiles in shared memory and in accumulators,
// their way between the two, and tensor maps and launches on the host.
#ifndef OPS_CUDA_NS_TILE_CUH
#define OPS_CUDA_NS_TILE_CUH

#include "hopper.cuh"
#include "ns_products.h"

constexpr int kTileK = 64, kChunk = 64; // of a stage; columns of one 128-byte row of a tile
constexpr int kWarpgroup = 128, kThreads = 3 * kWarpgroup; // a producer and two consumers
constexpr int kConsumers = 2 * kWarpgroup;

// ---- host
// ------------------------------------------------------------------------------------------

// Boxes of 64 columns and `box_rows` rows of (batch, rows, cols); what lies outside reads as zero
// and is not written.
CUtensorMap tensor_map(DType type, const void *data, int batch, int rows, int cols, int box_rows);
int multiprocessors();

#if ON_HOPPER
namespace hopper
{

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

// Four 8x8 blocks, two beside each other, of alpha d.
template <typename T>
__device__ __forceinline__ void pack_blocks(uint32_t (&v)[4], const float *d, float alpha)
{
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = pack<T>(alpha * d[2 * e], alpha * d[2 * e + 1]);
}

// 64 rows of a tile of kRows rows as 16-bit numbers to `out`, or transposed. `row`: the warp's
// first row in the tile.
template <typename T, int kRows, bool kTransposed, int kCount>
__device__ __forceinline__ void stage_rows(const float (&d)[kCount], uint32_t out, int row,
                                           float alpha)
{
    const int lane = threadIdx.x % kWarp, r = row + (lane / 8 & 1) * 8;
#pragma unroll
    for (int j = 0; j < kCount / 4; j += 2) {
        uint32_t v[4];
        pack_blocks<T>(v, d + 4 * j, alpha);
        const int c = 8 * j + lane / 16 * 8;
        if (kTransposed)
            store_blocks_transposed(out + swizzled<kRows>(c + lane % 8, r), v);
        else
            store_blocks(out + swizzled<kRows>(r + lane % 8, c), v);
    }
}

// Of a tile on the diagonal, one triangle of alpha d + diagonal I goes to both places: 16 x 16
// blocks beside the diagonal as they are and transposed, those on it number by number.
template <typename T, int kRows>
__device__ __forceinline__ void stage_diagonal(const float (&d)[kRows / 2], uint32_t out, int row,
                                               float alpha, float diagonal, bool upper)
{
    const int lane = threadIdx.x % kWarp, r = row + (lane / 8 & 1) * 8;
#pragma unroll
    for (int j = 0; j < kRows / 8; j += 2) {
        if (upper ? row > 8 * j : row < 8 * j) continue;
        if (row != 8 * j) {
            const int c = 8 * j + lane / 16 * 8;
            uint32_t v[4];
            pack_blocks<T>(v, d + 4 * j, alpha);
            store_blocks(out + swizzled<kRows>(r + lane % 8, c), v);
            store_blocks_transposed(out + swizzled<kRows>(c + lane % 8, r), v);
            continue;
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int at = row + (e / 2 & 1) * 8 + lane / 4;
            const int c = 8 * j + e / 4 * 8 + 2 * (lane % 4) + e % 2;
            if (upper ? at > c : at < c) continue;
            const uint32_t number = pack<T>(alpha * d[4 * j + e] + (at == c ? diagonal : 0), 0);
            store_shared(out + swizzled<kRows>(at, c), number);
            store_shared(out + swizzled<kRows>(c, at), number);
        }
    }
}

} // namespace hopper
#endif

#endif
