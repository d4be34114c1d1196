// The head's fp8 operands, each with its transpose: Hopper's fp8 products read both operands along
// the summed dimension (specification 2.7).
//
// A block takes a tile of 128 x 128 numbers. Bound by memory: x is read and y and yt are written
// once, in rows of at least 128 bytes.
#include "fp8.cuh"

namespace
{

constexpr int kTile = 128, kThreads = 256;

// ---- codes of one byte -------------------------------------------------------------------------

// Sixteen codes from number `at` on: what a thread loads.
struct Codes {
    const uint8_t *y;
    __device__ __forceinline__ uint4 operator()(size_t at) const
    {
        return *reinterpret_cast<const uint4 *>(y + at);
    }
};

template <__nv_fp8_interpretation_t kFormat> struct Quotients {
    uint8_t *y;
    const bf16 *x;
    float inverse;
    __device__ __forceinline__ uint4 operator()(size_t at) const
    {
        uint2 codes[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float v[8];
            unpack8(v, load8(x + at + 8 * half));
#pragma unroll
            for (int i = 0; i < 8; i++) v[i] *= inverse;
            codes[half] = fp8_codes<kFormat>(v);
        }
        const uint4 sixteen = make_uint4(codes[0].x, codes[0].y, codes[1].x, codes[1].y);
        *reinterpret_cast<uint4 *>(y + at) = sixteen;
        return sixteen;
    }
};

// Four words, each four bytes of a row, become four words, each four bytes of a column.
__device__ __forceinline__ void transpose_words(uint32_t (&w)[4])
{
    const uint32_t low01 = __byte_perm(w[0], w[1], 0x5140), low23 = __byte_perm(w[2], w[3], 0x5140);
    const uint32_t top01 = __byte_perm(w[0], w[1], 0x7362), top23 = __byte_perm(w[2], w[3], 0x7362);
    w[0] = __byte_perm(low01, low23, 0x5410);
    w[1] = __byte_perm(low01, low23, 0x7632);
    w[2] = __byte_perm(top01, top23, 0x5410);
    w[3] = __byte_perm(top01, top23, 0x7632);
}

// The tile in shared memory has 32 words a row, those of rows 16 g to 16 g + 15 turned by 4 g, so
// that a warp that reads 4 words of one row in each of 8 groups meets 32 banks.
__device__ __forceinline__ int tile_word(int row, int word)
{
    return row * (kTile / 4) + (word + row / 16 * 4) % (kTile / 4);
}

template <typename Load>
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(uint8_t *yt, Load load, int rows, int cols)
{
    __shared__ alignas(16) uint32_t tile[kTile * kTile / 4];
    constexpr int kVecs = kTile / 16, kStep = kThreads / kVecs; // vectors of a row; rows at a time
    const int row0 = (int)blockIdx.y * kTile, col0 = (int)blockIdx.x * kTile;
    const int vec = (int)threadIdx.x % kVecs, lead = (int)threadIdx.x / kVecs;
    uint4 loaded[kTile / kStep] = {};
#pragma unroll
    for (int i = 0; i < kTile / kStep; i++) {
        const int row = row0 + lead + i * kStep, col = col0 + 16 * vec;
        if (row < rows && col < cols) loaded[i] = load((size_t)row * cols + col);
    }
#pragma unroll
    for (int i = 0; i < kTile / kStep; i++)
        *reinterpret_cast<uint4 *>(&tile[tile_word(lead + i * kStep, 4 * vec)]) = loaded[i];
    __syncthreads();

    // A thread: 16 rows of 4 columns, that is 16 bytes of each of 4 rows of yt.
    const int group = (int)threadIdx.x % (kTile / 16), word = (int)threadIdx.x / (kTile / 16);
    uint32_t w[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++) w[i / 4][i % 4] = tile[tile_word(16 * group + i, word)];
#pragma unroll
    for (int i = 0; i < 4; i++) transpose_words(w[i]);
    const int row = row0 + 16 * group, col = col0 + 4 * word;
    if (row >= rows || col >= cols) return;
#pragma unroll
    for (int j = 0; j < 4; j++)
        *reinterpret_cast<uint4 *>(yt + (size_t)(col + j) * rows + row) =
            make_uint4(w[0][j], w[1][j], w[2][j], w[3][j]);
}

template <typename Load> void launch_transpose(void *yt, Load load, int rows, int cols)
{
    const dim3 grid((unsigned)ceil_div((size_t)cols, kTile),
                    (unsigned)ceil_div((size_t)rows, kTile));
    if (rows == 0 || cols == 0) return;
    transpose_kernel<<<grid, kThreads, 0, cuda_stream()>>>((uint8_t *)yt, load, rows, cols);
    CHECK_LAUNCH();
}

// ---- codes held in bf16 ------------------------------------------------------------------------

struct HeldCodes {
    const bf16 *y;
    __device__ __forceinline__ bf16 operator()(size_t at) const { return y[at]; }
};

template <__nv_fp8_interpretation_t kFormat> struct HeldQuotients {
    bf16 *y;
    const bf16 *x;
    float inverse;
    __device__ __forceinline__ bf16 operator()(size_t at) const
    {
        return y[at] = __float2bfloat16_rn(fp8_value<kFormat>(__bfloat162float(x[at]) * inverse));
    }
};

constexpr int kHeldTile = 32;

template <typename Load>
__global__ void __launch_bounds__(kThreads)
    transpose_held_kernel(bf16 *yt, Load load, int rows, int cols)
{
    __shared__ bf16 tile[kHeldTile][kHeldTile + 2];
    const int row0 = (int)blockIdx.y * kHeldTile, col0 = (int)blockIdx.x * kHeldTile;
    const int lane = (int)threadIdx.x % kHeldTile, lead = (int)threadIdx.x / kHeldTile;
    for (int i = lead; i < kHeldTile; i += kThreads / kHeldTile)
        if (row0 + i < rows && col0 + lane < cols)
            tile[i][lane] = load((size_t)(row0 + i) * cols + col0 + lane);
    __syncthreads();
    for (int i = lead; i < kHeldTile; i += kThreads / kHeldTile)
        if (row0 + lane < rows && col0 + i < cols)
            yt[(size_t)(col0 + i) * rows + row0 + lane] = tile[lane][i];
}

template <typename Load> void launch_held(void *yt, Load load, int rows, int cols)
{
    const dim3 grid((unsigned)ceil_div((size_t)cols, kHeldTile),
                    (unsigned)ceil_div((size_t)rows, kHeldTile));
    if (rows == 0 || cols == 0) return;
    transpose_held_kernel<<<grid, kThreads, 0, cuda_stream()>>>((bf16 *)yt, load, rows, cols);
    CHECK_LAUNCH();
}

template <__nv_fp8_interpretation_t kFormat>
void quantize(void *y, void *yt, const void *x, float inverse, int rows, int cols)
{
    if (cuda_fp8())
        launch_transpose(yt, Quotients<kFormat>{(uint8_t *)y, (const bf16 *)x, inverse}, rows,
                         cols);
    else
        launch_held(yt, HeldQuotients<kFormat>{(bf16 *)y, (const bf16 *)x, inverse}, rows, cols);
}

} // namespace

void transpose_fp8(void *yt, const void *y, int rows, int cols)
{
    if (cuda_fp8())
        launch_transpose(yt, Codes{(const uint8_t *)y}, rows, cols);
    else
        launch_held(yt, HeldCodes{(const bf16 *)y}, rows, cols);
}

void cuda_quantize(void *y, void *yt, const void *x, Fp8Format format, double scale, int rows,
                   int cols)
{
    const float inverse = (float)(1 / scale); // the compiled reference multiplies by the reciprocal
    if (format == FP8_E4M3)
        quantize<kE4M3>(y, yt, x, inverse, rows, cols);
    else
        quantize<kE5M2>(y, yt, x, inverse, rows, cols);
}
