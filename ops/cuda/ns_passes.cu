// The passes of ns_passes.h. All of them are bound by memory, or tiny.
#include "ns_range.cuh"
#include "pointwise.cuh"

namespace
{

constexpr int kTile = 32, kLanes = 8;
constexpr int kSide = 64; // rows and columns of a tile that a block normalises

// Grid (parts, batch). Double holds the square of every float; NaN and infinity show in the sum.
template <typename T, typename Count>
__global__ void square_sums_kernel(double *partial, const T *x, size_t size, Count)
{
    __shared__ double room[kBlock / kWarp];
    const T *matrix = x + blockIdx.y * size;
    double sum = 0;
    for (size_t i = (blockIdx.x * kBlock + threadIdx.x) * (size_t)Count::kCount; i < size;
         i += (size_t)gridDim.x * kBlock * Count::kCount) {
        float v[Count::kCount];
        load_points<Count>(v, matrix, i);
#pragma unroll
        for (int e = 0; e < Count::kCount; e++) sum += (double)v[e] * v[e];
    }
    sum = block_sum<kBlock>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

__device__ double sum_partials(const double *partial, int parts, double *room)
{
    double sum = 0;
    for (int i = threadIdx.x; i < parts; i += kBlock) sum += partial[i];
    return block_sum<kBlock>(sum, room);
}

struct Range {
    NsNorm norm;
    double delta, eps;
    bool relative;
};

Range range_of(const NsBatch &w)
{
    return {w.method->norm, w.method->delta, w.method->eps, w.method->relative};
}

__device__ __forceinline__ void leave_range(NsRange *range, const NsRange &found, int *flags,
                                            int *failed, int matrix, int batch)
{
    range[matrix] = found;
    flags[matrix] = flags[batch + matrix] = 0;
    if (matrix == 0) *failed = 0;
}

__global__ void range_kernel(NsRange *range, int *flags, int *failed, const double *partial,
                             int parts, Range rule)
{
    __shared__ double room[kBlock / kWarp];
    const double square = sum_partials(partial + (size_t)blockIdx.x * parts, parts, room);
    if (threadIdx.x) return;
    const double factor = rule.norm == NS_NORM_NONE ? 1 : power_for(square);
    leave_range(range, find_range(square, factor, rule.delta, rule.eps, rule.relative), flags,
                failed, blockIdx.x, gridDim.x);
}

// x times a factor of any size, which takes a double only where a float cannot hold it.
__device__ __forceinline__ float scaled(float x, double factor, bool fits)
{
    return fits ? x * (float)factor : (float)(x * factor);
}
__device__ __forceinline__ bool fits_float(double factor)
{
    return factor > 0x1p-120 && factor < 0x1p120;
}

// Row `row` of A = X X^T, X = factor x, or x^T when `tall`, by a block, each number by a warp; its
// sum of magnitudes, and of squares, to all threads.
template <typename T>
__device__ void gram_row(float *a, double *magnitudes, double *squares, const T *x, bool tall,
                         double factor, int row, int m, int n, int M, double *room)
{
    const size_t of_row = tall ? 1 : n, of_k = tall ? m : 1;
    const bool fits = fits_float(factor);
    double sum = 0, square = 0;
    for (int col = threadIdx.x / kWarp; col < M; col += kBlock / kWarp) {
        float dot = 0;
        if (row < m && col < m)
            for (int k = threadIdx.x % kWarp; k < n; k += kWarp)
                dot += scaled(load_stored(x, row * of_row + k * of_k), factor, fits) *
                       scaled(load_stored(x, col * of_row + k * of_k), factor, fits);
        dot = warp_sum(dot);
        if (threadIdx.x % kWarp) continue;
        if (col <= row) a[(size_t)row * M + col] = dot;
        sum += fabsf(dot), square += (double)dot * dot;
    }
    *magnitudes = block_sum<kBlock>(sum, room);
    *squares = block_sum<kBlock>(square, room);
}

// Grid (blocks of kSide rows, batch). Squares of numbers far from 1 leave fp32's range: then each
// block sums |G|_F^2 again, as for zeros, NaN and infinity, and A and its sums are computed once
// more, of factor G. No block reads what another one writes, and there are at least as many parts
// of squares as blocks.
template <typename T>
__global__ void range_of_gram_kernel(NsRange *range, int *flags, int *failed, const NsGram gram,
                                     int traces, int parts, const T *input, bool tall, int m, int n,
                                     int M, Range rule)
{
    __shared__ double room[kBlock / kWarp];
    const int matrix = blockIdx.y;
    const T *const x = input + (size_t)matrix * m * n;
    double square = 0, factor = 1;
    for (int p = threadIdx.x; p < traces; p += kBlock)
        square += gram.trace[(size_t)matrix * traces + p];
    square = block_sum<kBlock>(square, room);
    if (rule.norm != NS_NORM_NONE && !(square > 0x1p-60 && square < 0x1p100)) {
        double sum = 0;
        for (size_t i = threadIdx.x; i < (size_t)m * n; i += kBlock) {
            const double v = load_stored(x, i);
            sum += v * v;
        }
        square = block_sum<kBlock>(sum, room);
        if (isfinite(square)) factor = power_for(square); // 1 for zeros
    }
    if (blockIdx.x == 0 && threadIdx.x == 0)
        leave_range(range, find_range(square, factor, rule.delta, rule.eps, rule.relative), flags,
                    failed, matrix, gridDim.y);
    if (factor == 1) return;
    float *const a = gram.a + (size_t)matrix * M * M;
    double squares = 0;
    for (int row = blockIdx.x * kSide; row < min(M, (int)(blockIdx.x + 1) * kSide); row++) {
        double magnitudes, square;
        gram_row(a, &magnitudes, &square, x, tall, factor, row, m, n, M, room);
        squares += square;
        if (gram.row_sums)
            for (int p = threadIdx.x; p < parts; p += kBlock)
                gram.row_sums[((size_t)matrix * parts + p) * M + row] = p ? 0 : (float)magnitudes;
    }
    if (gram.squares)
        for (int p = blockIdx.x + gridDim.x * threadIdx.x; p < parts; p += gridDim.x * kBlock)
            gram.squares[(size_t)matrix * parts + p] = p == (int)blockIdx.x ? squares : 0;
}

// Grid (parts, batch): rows of N numbers from rows of n; s are factors of rows, or of columns.
template <typename T, typename S>
__global__ void load_kernel(T *x, const S *source, const NsRange *range, const float *s,
                            bool of_cols, int m, int n, int M, int N)
{
    const double factor = range[blockIdx.y].factor;
    const bool fits = fits_float(factor);
    const S *from = source + (size_t)blockIdx.y * m * n;
    T *to = x + (size_t)blockIdx.y * M * N;
    const size_t count = (size_t)M * N / 8;
    const bool whole = n == N; // then rows of the source are aligned as well
    for (size_t i = blockIdx.x * kBlock + threadIdx.x; i < count; i += (size_t)gridDim.x * kBlock) {
        const int row = (int)(8 * i / N), col = (int)(8 * i % N);
        float v[8] = {};
        if (row < m) {
            if (whole)
                load_points<Whole>(v, from, (size_t)row * n + col);
            else
                for (int e = 0; e < 8; e++)
                    v[e] = col + e < n ? load_stored(from, (size_t)row * n + col + e) : 0;
            const float *const of = s ? s + (size_t)blockIdx.y * (of_cols ? N : M) : nullptr;
#pragma unroll
            for (int e = 0; e < 8; e++)
                v[e] = scaled(v[e], factor, fits) * (of ? of[of_cols ? col + e : row] : 1);
        }
        store_points<Whole>(to, 8 * i, v);
    }
}

// Grid (tiles of N, tiles of M, batch): x (M,N) from source (n,m).
template <typename T, typename S>
__global__ void load_tall_kernel(T *x, const S *source, const NsRange *range, const float *s, int m,
                                 int n, int M, int N)
{
    __shared__ float tile[kTile][kTile + 1];
    const double factor = range[blockIdx.z].factor;
    const bool fits = fits_float(factor);
    const S *from = source + (size_t)blockIdx.z * m * n;
    const int from_row = blockIdx.x * kTile, from_col = blockIdx.y * kTile, c = threadIdx.x;
    for (int r = threadIdx.y; r < kTile; r += kLanes) {
        const bool inside = from_row + r < n && from_col + c < m;
        tile[r][c] = inside ? load_stored(from, (size_t)(from_row + r) * m + from_col + c) : 0;
    }
    __syncthreads();
    for (int r = threadIdx.y; r < kTile; r += kLanes) {
        const int row = from_col + r, col = from_row + c;
        if (row < M && col < N)
            store_rounded(x + (size_t)blockIdx.z * M * N, (size_t)row * N + col,
                          scaled(tile[c][r], factor, fits) *
                              (s ? s[(size_t)blockIdx.z * M + row] : 1));
    }
}

// What normalises row `at` of A.
__device__ float row_factor(const NsGram &gram, int parts, int M, int matrix, int at,
                            const NsRange &range, double delta, double *room)
{
    if (gram.norm == NS_NORM_NONE) return 1;
    if (gram.norm == NS_NORM_FROBENIUS) return (float)range.frobenius;
    double sum = 0;
    if (gram.norm == NS_NORM_SCHATTEN4) {
        for (int p = threadIdx.x; p < parts; p += kBlock)
            sum += gram.squares[(size_t)matrix * parts + p];
        sum = sqrt(block_sum<kBlock>(sum, room));
    } else {
        float magnitudes = 0;
        for (int p = 0; p < parts && at < M; p++)
            magnitudes += gram.row_sums[((size_t)matrix * parts + p) * M + at];
        sum = magnitudes;
    }
    return (float)inverse_root((1 + delta) * sum + range.eps);
}

// A tile (row, col) of the lower triangle, times the factors in an order that keeps the symmetry
// exact, to both places; those on the diagonal leave s. Grid (tiles of kSide of the triangle,
// batch).
template <typename T>
__global__ void normalize_kernel(T *a, float *s, const NsGram gram, int parts,
                                 const NsRange *ranges, int M, double delta, bool of_input,
                                 bool backwards)
{
    constexpr int kFour = 4, kAcross = kSide / kFour;
    __shared__ float factors[2][kSide];
    __shared__ T tile[kSide][kSide + 2];
    __shared__ double room[kBlock / kWarp];
    const int matrix = backwards ? gridDim.y - 1 - blockIdx.y : blockIdx.y, t = blockIdx.x;
    const NsRange range = ranges[matrix];
    int row = (int)((sqrtf(8.0f * t + 1) - 1) * 0.5f);
    while (row * (row + 1) / 2 > t) row--;
    while ((row + 1) * (row + 2) / 2 <= t) row++;
    const int first_row = row * kSide, first_col = (t - row * (row + 1) / 2) * kSide;
    const bool diagonal = first_row == first_col;

    const int side = threadIdx.x / kSide, of = threadIdx.x % kSide;
    const int at = side > 1 ? M : (side ? first_col : first_row) + of;
    const float factor = row_factor(gram, parts, M, matrix, at, range, delta, room);
    if (side < 2) factors[side][of] = factor;
    if (diagonal && side == 0 && at < M)
        s[(size_t)matrix * M + at] = of_input ? (float)(factor * range.factor) : factor;
    __syncthreads();

    const float *const from = gram.a + (size_t)matrix * M * M;
    for (int i = threadIdx.x; i < kSide * kAcross; i += kBlock) {
        const int r = i / kAcross, c = i % kAcross * kFour;
        if (first_row + r >= M || first_col + c >= M) continue;
        const float4 v =
            *reinterpret_cast<const float4 *>(from + (size_t)(first_row + r) * M + first_col + c);
        const float x[kFour] = {v.x, v.y, v.z, v.w}, mine = factors[0][r];
#pragma unroll
        for (int e = 0; e < kFour; e++) {
            const float other = factors[1][c + e];
            store_rounded(&tile[r][c + e], 0, x[e] * fmaxf(mine, other) * fminf(mine, other));
        }
    }
    __syncthreads();

    struct alignas(kFour * sizeof(T)) Four {
        T x[kFour];
    };
    T *const to = a + (size_t)matrix * M * M;
    for (int i = threadIdx.x; i < kSide * kAcross; i += kBlock) {
        const int r = i / kAcross, c = i % kAcross * kFour;
        Four straight, mirrored;
#pragma unroll
        for (int e = 0; e < kFour; e++) {
            mirrored.x[e] = tile[c + e][r];
            straight.x[e] = diagonal && r < c + e ? mirrored.x[e] : tile[r][c + e];
        }
        if (first_row + r < M && first_col + c < M)
            *reinterpret_cast<Four *>(to + (size_t)(first_row + r) * M + first_col + c) = straight;
        if (!diagonal && first_col + r < M && first_row + c < M)
            *reinterpret_cast<Four *>(to + (size_t)(first_col + r) * M + first_row + c) = mirrored;
    }
}

// Grid (tiles of the caller's columns, tiles of its rows, batch).
template <typename D, typename T>
__global__ void store_kernel(D *out, const T *x, const int *flags, int *failed, int rows, int cols,
                             int M, int N, bool tall)
{
    __shared__ float tile[kTile][kTile + 1];
    const bool bad = flags[blockIdx.z];
    const T *from = x + (size_t)blockIdx.z * M * N;
    const int row0 = blockIdx.y * kTile, col0 = blockIdx.x * kTile, c = threadIdx.x;
    if (bad && !row0 && !col0 && !c && !threadIdx.y) atomicAdd(failed, 1);
    for (int r = threadIdx.y; r < kTile; r += kLanes) {
        const int row = tall ? col0 + r : row0 + r, col = tall ? row0 + c : col0 + c;
        tile[r][c] = row < M && col < N ? load_stored(from, (size_t)row * N + col) : 0;
    }
    __syncthreads();
    for (int r = threadIdx.y; r < kTile; r += kLanes)
        if (row0 + r < rows && col0 + c < cols)
            store_rounded(out, ((size_t)blockIdx.z * rows + row0 + r) * cols + col0 + c,
                          bad    ? poison()
                          : tall ? tile[c][r]
                                 : tile[r][c]);
}

template <typename T>
__global__ void poison_kernel(T *out, const int *flags, int *failed, size_t size)
{
    if (!flags[blockIdx.y]) return;
    if (blockIdx.x == 0 && threadIdx.x == 0) atomicAdd(failed, 1);
    for (size_t i = blockIdx.x * kBlock + threadIdx.x; i < size; i += (size_t)gridDim.x * kBlock)
        store_rounded(out + blockIdx.y * size, i, poison());
}

// Blocks for `size` numbers of each matrix, eight to a thread.
dim3 parts_of(const NsBatch &w, size_t size) { return dim3(ceil_div(size, 8 * kBlock), w.batch); }

} // namespace

void ns_square_sums(const NsBatch &w, const void *x, DType type, size_t size)
{
    with_dtype(type, [&](auto *t) {
        const auto *from = static_cast<decltype(t)>(const_cast<void *>(x));
        const dim3 grid(ns_parts(size), w.batch);
        if (size % 8 == 0 && aligned16(x))
            square_sums_kernel<<<grid, kBlock, 0, w.stream>>>(w.partial, from, size, Whole());
        else
            square_sums_kernel<<<grid, kBlock, 0, w.stream>>>(w.partial, from, size, One());
    });
    CHECK_LAUNCH();
}

void ns_range(const NsBatch &w, int parts)
{
    range_kernel<<<w.batch, kBlock, 0, w.stream>>>(w.range, w.flags, w.failed, w.partial, parts,
                                                   range_of(w));
    CHECK_LAUNCH();
}

void ns_range_of_gram(const NsBatch &w, const void *input, DType type, int traces, int parts)
{
    const dim3 grid(ceil_div((size_t)w.M, kSide), w.batch);
    with_dtype(type, [&](auto *t) {
        range_of_gram_kernel<<<grid, kBlock, 0, w.stream>>>(
            w.range, w.flags, w.failed, w.gram, traces, parts,
            static_cast<decltype(t)>(const_cast<void *>(input)), w.tall, w.m, w.n, w.M,
            range_of(w));
    });
    CHECK_LAUNCH();
}

void ns_load(const NsBatch &w, void *x, const void *source, DType type, const float *s)
{
    with_dtype(w.type, [&](auto *t) {
        with_dtype(type, [&](auto *u) {
            auto *to = static_cast<decltype(t)>(x);
            auto *from = static_cast<decltype(u)>(const_cast<void *>(source));
            if (w.transposed)
                load_kernel<<<parts_of(w, (size_t)w.M * w.N), kBlock, 0, w.stream>>>(
                    to, from, w.range, s, true, w.n, w.m, w.N, w.M);
            else if (w.tall)
                load_tall_kernel<<<dim3(ceil_div(w.N, kTile), ceil_div(w.M, kTile), w.batch),
                                   dim3(kTile, kLanes), 0, w.stream>>>(to, from, w.range, s, w.m,
                                                                       w.n, w.M, w.N);
            else
                load_kernel<<<parts_of(w, (size_t)w.M * w.N), kBlock, 0, w.stream>>>(
                    to, from, w.range, s, false, w.m, w.n, w.M, w.N);
        });
    });
    CHECK_LAUNCH();
}

void ns_normalize(const NsBatch &w, void *a, int parts, bool of_input, bool backwards)
{
    const int rows = ceil_div((size_t)w.M, kSide);
    with_dtype(w.type, [&](auto *t) {
        normalize_kernel<<<dim3(rows * (rows + 1) / 2, w.batch), kBlock, 0, w.stream>>>(
            static_cast<decltype(t)>(a), w.s, w.gram, parts, w.range, w.M, w.method->delta,
            of_input, backwards);
    });
    CHECK_LAUNCH();
}

void ns_store(const NsBatch &w, void *out, DType type, const void *x)
{
    const int rows = w.tall ? w.n : w.m, cols = w.tall ? w.m : w.n;
    const int M = w.transposed ? w.N : w.M, N = w.transposed ? w.M : w.N;
    with_dtype(type, [&](auto *d) {
        with_dtype(w.type, [&](auto *t) {
            store_kernel<<<dim3(ceil_div(cols, kTile), ceil_div(rows, kTile), w.batch),
                           dim3(kTile, kLanes), 0, w.stream>>>(
                static_cast<decltype(d)>(out), static_cast<decltype(t)>(const_cast<void *>(x)),
                w.flags, w.failed, rows, cols, M, N, w.tall && !w.transposed);
        });
    });
    CHECK_LAUNCH();
}

void ns_poison(const NsBatch &w, void *out)
{
    with_dtype(w.type, [&](auto *t) {
        poison_kernel<<<dim3(4, w.batch), kBlock, 0, w.stream>>>(
            static_cast<decltype(t)>(out), w.flags, w.failed, (size_t)w.m * w.n);
    });
    CHECK_LAUNCH();
}
