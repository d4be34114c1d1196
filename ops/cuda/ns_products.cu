// Newton-Schulz products: Hopper's where they can be, else through cuBLASLt, full products and then
// the mirror; and the pass that is no product.
#include "ns_products.h"

#include "lt.cuh"
#include "pointwise.cuh"

#include <type_traits>

namespace
{

cudaDataType_t lt_type(DType type)
{
    return type == DT_BF16 ? CUDA_R_16BF : type == DT_F16 ? CUDA_R_16F : CUDA_R_32F;
}

// C (m,n) of type `out` = alpha P op(Q) + beta D, Q (n,k) when transposed.
void product(const NsProduct &w, void *c, cudaDataType_t out, const void *p, const void *q,
             const void *d, bool transposed, int m, int n, int k, float alpha, float beta)
{
    const cudaDataType_t in = lt_type(w.type);
    const MatmulKind kind = transposed ? MM_NT : MM_NN;
    const LtProduct product = {kind, m, n, k, w.batch, in, in, out, beta != 0, false};
    lt_matmul(product, c, p, q, d, alpha, beta, {w.scratch, kNsLtBytes, w.stream});
}

// ---- what the products leave to do -------------------------------------------------------------

constexpr int kTile = 32, kLanes = 8, kSumThreads = 256, kSquareParts = 64;

// One triangle = the other (the `upper` is kept, or the lower), by tiles of 32x32; grid (tiles,
// tiles, batch).
template <typename T> __global__ void mirror_kernel(T *a, int m, bool upper)
{
    __shared__ T tile[kTile][kTile + 1];
    if (upper ? blockIdx.x < blockIdx.y : blockIdx.x > blockIdx.y) return;
    T *matrix = a + (size_t)blockIdx.z * m * m;
    const int from_row = blockIdx.y * kTile, from_col = blockIdx.x * kTile, x = threadIdx.x;
    for (int y = threadIdx.y; y < kTile; y += kLanes)
        if (from_row + y < m && from_col + x < m)
            tile[y][x] = matrix[(size_t)(from_row + y) * m + from_col + x];
    __syncthreads();
    for (int y = threadIdx.y; y < kTile; y += kLanes) {
        const int row = from_col + y, col = from_row + x;
        if (row < m && col < m && (upper ? row > col : row < col))
            matrix[(size_t)row * m + col] = tile[x][y];
    }
}

// flags[i] = 1 when matrix i of `size` numbers holds a NaN or an infinity; grid (parts, batch).
template <typename T> __global__ void flag_kernel(int *flags, const T *y, size_t size)
{
    const T *matrix = y + blockIdx.y * size;
    bool bad = false;
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (size_t)gridDim.x * blockDim.x)
        bad |= !isfinite(load_stored(matrix, i));
    if (bad) flags[blockIdx.y] = 1; // every writer writes the same
}

template <typename T> void mirror(const NsProduct &w, void *c, int m, bool upper)
{
    const dim3 grid(ceil_div(m, kTile), ceil_div(m, kTile), w.batch);
    mirror_kernel<<<grid, dim3(kTile, kLanes), 0, w.stream>>>(static_cast<T *>(c), m, upper);
    CHECK_LAUNCH();
}

template <typename T> void find_bad(const NsProduct &w, int *flags, const void *y, size_t size)
{
    const int parts = ceil_div(size, 8192);
    const dim3 grid(parts < 64 ? parts : 64, w.batch);
    flag_kernel<<<grid, 256, 0, w.stream>>>(flags, static_cast<const T *>(y), size);
    CHECK_LAUNCH();
}

// sums = of |a| over each row of (batch,m,m): a warp to a row; grid (rows / 8, batch).
__global__ void row_sums_kernel(float *sums, const float *a, int m)
{
    const int row = blockIdx.x * kLanes + threadIdx.y;
    if (row >= m) return;
    const float *from = a + ((size_t)blockIdx.y * m + row) * m;
    float sum = 0;
    for (int j = threadIdx.x; j < m; j += kWarp) sum += fabsf(from[j]);
    sum = warp_sum(sum);
    if (threadIdx.x == 0) sums[(size_t)blockIdx.y * m + row] = sum;
}

// sums = of squares over part of a matrix; grid (parts, batch).
__global__ void square_sums_kernel(double *sums, const float *a, size_t size)
{
    __shared__ double room[kSumThreads / kWarp];
    const float *matrix = a + blockIdx.y * size;
    double sum = 0;
    for (size_t i = blockIdx.x * kSumThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kSumThreads)
        sum += (double)matrix[i] * matrix[i];
    sum = block_sum<kSumThreads>(sum, room);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// out = (factor in + diagonal I) diag(s) on (batch,m,m), s NULL for ones; grid (parts, batch).
template <typename T>
__global__ void affine_kernel(T *out, const T *in, int m, float factor, float diagonal,
                              const float *s)
{
    const size_t size = (size_t)m * m, base = blockIdx.y * size;
    for (size_t i = 8 * (blockIdx.x * (size_t)blockDim.x + threadIdx.x); i < size;
         i += 8 * (size_t)gridDim.x * blockDim.x) {
        const int row = (int)(i / m), col = (int)(i % m);
        float v[8];
        load_points<Whole>(v, in, base + i);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            v[e] = v[e] * factor + (row == col + e ? diagonal : 0);
            if (s) v[e] *= s[blockIdx.y * (size_t)m + col + e];
        }
        store_points<Whole>(out, base + i, v);
    }
}

// Blocks for passes over (batch,m,m).
dim3 square_grid(const NsProduct &w, int m)
{
    const int parts = ceil_div((size_t)m * m, 8 * 256);
    return dim3(parts < 2048 ? parts : 2048, w.batch);
}

bool use_hopper = true;
bool hopper(DType type)
{
    return use_hopper && !cuda_portable() && (type == DT_BF16 || type == DT_F16);
}

// One step of a chain.
template <typename T> void run_step(const NsProduct &w, const NsChain &chain, int i, int m, int k)
{
    const NsStep &s = chain.step[i];
    T *const c = static_cast<T *>(chain.matrix[s.c]);
    const void *p = chain.matrix[s.p], *q = chain.matrix[s.q];
    product(w, c, lt_type(w.type), p, q, s.beta != 0 ? q : c, true, m, m, s.p == kNsX ? k : m,
            s.alpha, s.beta);
    mirror<T>(w, c, m, s.upper);
    if (s.copy != kNsNone) ns_affine(w, chain.matrix[s.copy], c, m, 1, s.diagonal, nullptr);
}

} // namespace

extern "C" void ns_use_hopper(bool yes) { use_hopper = yes; }

void ns_chain(const NsProduct &w, const NsChain &chain, int m, int k)
{
    const NsStep &last = chain.step[chain.count - 1];
    if (hopper(w.type)) {
        NsChain fused = chain;
        if (last.copy != kNsNone) fused.factors = nullptr;
        ns_hopper_chain(w, fused, m, k);
        if (last.copy == kNsNone) return;
    } else {
        with_dtype(w.type, [&](auto *t) {
            for (int i = 0; i < chain.count; i++)
                run_step<std::remove_pointer_t<decltype(t)>>(w, chain, i, m, k);
        });
    }
    if (!chain.factors) return;
    void *const c = chain.matrix[last.copy == kNsNone ? last.c : last.copy];
    ns_affine(w, c, c, m, 1, 0, chain.factors);
}

void ns_gram(const NsProduct &w, const NsGram &gram, const void *x, DType type, int rows, int m,
             int n)
{
    if (hopper(w.type)) {
        ns_hopper_gram(w, gram, x, type, rows, m, n);
        return;
    }
    product(w, gram.a, CUDA_R_32F, x, x, gram.a, true, m, m, n, 1, 0);
    if (gram.norm == NS_NORM_AOL)
        row_sums_kernel<<<dim3(ceil_div((size_t)m, kLanes), w.batch), dim3(kWarp, kLanes), 0,
                          w.stream>>>(gram.row_sums, gram.a, m);
    if (gram.norm == NS_NORM_SCHATTEN4)
        square_sums_kernel<<<dim3(kSquareParts, w.batch), kSumThreads, 0, w.stream>>>(
            gram.squares, gram.a, (size_t)m * m);
    CHECK_LAUNCH();
}

int ns_sum_parts(const NsProduct &w, NsNorm norm, int m)
{
    if (hopper(w.type)) return ns_hopper_sum_parts(norm, w.batch, m);
    return norm == NS_NORM_AOL ? 1 : kSquareParts;
}

int ns_trace_parts(const NsProduct &w, int m)
{
    return hopper(w.type) ? ns_hopper_trace_parts(w.batch, m) : 0;
}

double ns_symmetric_area(DType type, int batch, int m)
{
    return hopper(type) ? ns_hopper_area(batch, m) : (double)m * m;
}

bool ns_takes(DType type, const void *x, int length)
{
    return hopper(type) && aligned16(x) && length % 8 == 0;
}

void ns_affine(const NsProduct &w, void *out, const void *in, int m, float factor, float diagonal,
               const float *s)
{
    with_dtype(w.type, [&](auto *t) {
        affine_kernel<<<square_grid(w, m), 256, 0, w.stream>>>(
            static_cast<decltype(t)>(out), static_cast<decltype(t)>(const_cast<void *>(in)), m,
            factor, diagonal, s);
    });
    CHECK_LAUNCH();
}

bool ns_apply_takes_factors(DType type) { return hopper(type); }

void ns_apply(const NsProduct &w, void *y, const void *p, const void *x, int rows, int m, int n,
              float beta, const float *s, int *flags)
{
    if (hopper(w.type)) {
        ns_hopper_apply(w, y, p, x, rows, m, n, beta, s, flags);
        return;
    }
    product(w, y, lt_type(w.type), p, x, beta != 0 ? x : y, false, m, n, m, 1, beta);
    if (!flags) return;
    const size_t size = (size_t)m * n;
    with_dtype(w.type,
               [&](auto *t) { find_bad<std::remove_pointer_t<decltype(t)>>(w, flags, y, size); });
}
