// What the attention kernels share: tiles of 64 tokens in shared memory, their products in tensor
// cores, and which keys a query sees.
//
// A warpgroup (four warps) owns 64 rows, queries or keys; a portable block is one of them. A tile
// is 64 rows of D bf16, kept as D / 64 panels of 64 rows x 128 bytes whose 16-byte chunks are
// swizzled by chunk ^ (row % 8): the layout that wgmma reads and in which ldmatrix has no bank
// conflicts, so both paths use it. Accumulators of 64 x N are spread as both instructions do it:
// element 4 n + i of a lane is row 16 (warp % 4) + lane / 4 + 8 (i / 2), column 8 n + 2 (lane % 4)
// + i % 2.
#ifndef OPS_CUDA_ATTENTION_CUH
#define OPS_CUDA_ATTENTION_CUH

#include "attention_walk.cuh"
#include "cuda.cuh"
#include "ptx.cuh"

// Host: ops.h's attention on Hopper, with TMA and wgmma (attention_hopper_*.cu).
void attention_hopper_forward(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                              const int32_t *window, const double *scale, int t, int h, int d);
void attention_hopper_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                               const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                               const int32_t *window, const double *scale, int t, int h, int d);

constexpr int kGroup = 128, kPanelBytes = kTile * 128; // threads of a warpgroup
constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
template <int D> constexpr int kTileBytes = kTile *D * 2;

// ---- tiles -------------------------------------------------------------------------------------

// Where chunk c (8 channels) of row r of a tile starts.
__device__ __forceinline__ uint32_t chunk_offset(int r, int c)
{
    return (uint32_t)(c / 8 * kPanelBytes + r * 128 + ((c ^ r) & 7) * 16);
}

// The row of its warpgroup's tile where this thread's accumulators start.
__device__ __forceinline__ int row_of()
{
    return threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / 4;
}

// Starts copying rows first .. first + 63 of a matrix with `stride` numbers a row, by all
// threads of a portable block; zeros from `rows` on.
template <int D>
__device__ __forceinline__ void copy_tile(uint32_t tile, const bf16 *matrix, size_t stride,
                                          int first, int rows)
{
    constexpr int kChunks = D / 8, kStep = kGroup / kChunks; // rows in one pass
    static_assert(kStep % 8 == 0, "a thread keeps its place in the swizzle");
    const int c = threadIdx.x % kChunks, r = threadIdx.x / kChunks;
    const uint32_t to = tile + chunk_offset(r, c);
    const bf16 *from = matrix + (size_t)(first + r) * stride + c * 8;
    const size_t step = kStep * stride;
    if (first + kTile <= rows) {
#pragma unroll
        for (int i = 0; i < kTile; i += kStep, from += step) cp_async16(to + i * 128, from);
    } else {
#pragma unroll
        for (int i = 0; i < kTile; i += kStep, from += step) {
            const bool valid = first + r + i < rows;
            cp_async16(to + i * 128, valid ? from : matrix, valid);
        }
    }
}

// Rounds an accumulator times `scale` (of either row) into this warp's 16 rows of a tile that no
// warp reads any more, and copies those below `rows` to global memory.
template <int D>
__device__ __forceinline__ void store_rows(bf16 *matrix, size_t stride, int first, int rows,
                                           unsigned char *tile, const float (&c)[D / 2],
                                           float scale0, float scale1)
{
    const int warp_row = threadIdx.x % kGroup / kWarp * 16, lane = threadIdx.x % kWarp;
    const int r = warp_row + lane / 4;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const uint32_t at = chunk_offset(r, n) + lane % 4 * 4;
        *(uint32_t *)(tile + at) = pack2(c[4 * n] * scale0, c[4 * n + 1] * scale0);
        *(uint32_t *)(tile + at + 8 * 128) = pack2(c[4 * n + 2] * scale1, c[4 * n + 3] * scale1);
    }
    __syncwarp();
    constexpr int kChunks = D / 8, kStep = kWarp / kChunks;
#pragma unroll
    for (int i = lane / kChunks; i < 16; i += kStep) {
        const int row = warp_row + i, chunk = lane % kChunks;
        if (first + row < rows)
            *(uint4 *)(matrix + (first + row) * stride + chunk * 8) =
                *(const uint4 *)(tile + chunk_offset(row, chunk));
    }
}

// ---- products by mma.sync ----------------------------------------------------------------------

// A 64 x 64 accumulator rounded to bf16 as the left operand of the next product.
__device__ __forceinline__ void round_frags(uint32_t (&a)[4][4], const float (&c)[32])
{
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = pack2(c[8 * k + 2 * i], c[8 * k + 2 * i + 1]);
}

// c (64,64) = A B^T, both tiles.
template <int D>
__device__ __forceinline__ void multiply_rows(float (&c)[32], uint32_t a, uint32_t b)
{
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    // Chunk c + 2 k of a row is chunk c's address with its bits 5 and 6 flipped as k's are set.
    a += chunk_offset(warp * 16 + lane % 16, lane / 16);
    b += chunk_offset(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int i = 0; i < 32; i++) c[i] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t fa[4], fb[4];
        ldmatrix(fa, (a ^ (k % 4 * 32)) + k / 4 * kPanelBytes);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            ldmatrix(fb, (b ^ (k % 4 * 32)) + k / 4 * kPanelBytes + n * 16 * 128);
            mma(c + 8 * n, fa, fb[0], fb[1]);
            mma(c + 8 * n + 4, fa, fb[2], fb[3]);
        }
    }
}

// c (64,D) += A B, A (64,64) in registers, B a tile.
template <int D>
__device__ __forceinline__ void multiply_frags(float (&c)[D / 2], const uint32_t (&a)[4][4],
                                               uint32_t b)
{
    const int lane = threadIdx.x % kWarp;
    b += chunk_offset(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t fb[4];
            ldmatrix_transposed(fb, (b ^ (n % 4 * 32)) + n / 4 * kPanelBytes + k * 16 * 128);
            mma(c + 8 * n, a[k], fb[0], fb[1]);
            mma(c + 8 * n + 4, a[k], fb[2], fb[3]);
        }
}

// ---- visibility --------------------------------------------------------------------------------

// Of the 64 tokens from `first` on. All threads of a portable block call it. cu is read once, in
// parallel: no search, whose loads would wait for one another.
__device__ __forceinline__ Documents find_documents(const int32_t *cu, int n_docs, int first, int t)
{
    constexpr int kWarps = kGroup / kWarp;
    __shared__ int32_t room[kWarps][4];
    const int warp = threadIdx.x / kWarp;
    int start = 0, end = t;
    uint64_t starts = 0;
    for (int i = threadIdx.x; i <= n_docs; i += kGroup) {
        const int at = cu[i], r = at - first;
        if (r <= 0) start = max(start, at);
        if (r >= kTile) end = min(end, at);
        if (r >= 1 && r < kTile) starts |= 1ull << r;
    }
    start = __reduce_max_sync(0xffffffffu, start);
    end = __reduce_min_sync(0xffffffffu, end);
    const uint32_t low = __reduce_or_sync(0xffffffffu, (uint32_t)starts);
    const uint32_t high = __reduce_or_sync(0xffffffffu, (uint32_t)(starts >> 32));
    if (threadIdx.x % kWarp == 0) {
        room[warp][0] = start, room[warp][1] = end;
        room[warp][2] = (int32_t)low, room[warp][3] = (int32_t)high;
    }
    __syncthreads();
    start = 0, end = t, starts = 0;
#pragma unroll
    for (int i = 0; i < kWarps; i++) {
        start = max(start, room[i][0]);
        end = min(end, room[i][1]);
        starts |= (uint32_t)room[i][2] | (uint64_t)(uint32_t)room[i][3] << 32;
    }
    return {first, start, end, starts};
}

// What lies outside low <= column <= high, of a lane's two rows, becomes `value`; columns are those
// of the accumulators from this lane's first on.
__device__ __forceinline__ void mask(float (&s)[32], int low0, int high0, int low1, int high1,
                                     float value)
{
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int j = i / 4 * 8 + i % 2;
        if (i % 4 < 2 ? j < low0 || j > high0 : j < low1 || j > high1) s[i] = value;
    }
}

// ---- softmax -----------------------------------------------------------------------------------

// The running softmax of a lane's two rows.
struct Softmax {
    float scale; // of logits, times log2 e
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, shrink[2] = {};

    // Logits become probabilities relative to the new maximum; `shrink` is what the sums so far,
    // and O, are worth relative to it.
    __device__ __forceinline__ void add(float (&s)[32])
    {
        float now[2] = {top[0], top[1]}, base[2];
#pragma unroll
        for (int i = 0; i < 32; i += 4) {
            now[0] = fmaxf(now[0], fmaxf(s[i], s[i + 1]));
            now[1] = fmaxf(now[1], fmaxf(s[i + 2], s[i + 3]));
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int lanes = 1; lanes < 4; lanes *= 2) // the four lanes of a row
                now[r] = fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], lanes));
            base[r] = now[r] * scale;
            shrink[r] = exp2_approx(fmaf(top[r], scale, -base[r]));
            top[r] = now[r], sum[r] *= shrink[r];
        }
#pragma unroll
        for (int i = 0; i < 32; i++) {
            s[i] = exp2_approx(fmaf(s[i], scale, -base[i / 2 % 2]));
            sum[i / 2 % 2] += s[i];
        }
    }

    __device__ __forceinline__ void finish()
    {
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int lanes = 1; lanes < 4; lanes *= 2)
                sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], lanes);
    }

    __device__ __forceinline__ float lse(int r) const
    {
        return (top[r] * scale + log2f(sum[r])) * kLn2;
    }
};

// ---- launch ------------------------------------------------------------------------------------

// One block per 64 tokens and head.
template <typename... Params, typename... Args>
void launch_tiles(void (*kernel)(Params...), int shared_bytes, int t, int h, Args... args)
{
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
    const dim3 grid((unsigned)ceil_div((size_t)t, kTile), (unsigned)h);
    kernel<<<grid, kGroup, shared_bytes, cuda_stream()>>>(args...);
    CHECK_LAUNCH();
}

#endif
