// Newton-Schulz products through cuBLASLt: full products, then the mirror.
#include "ns_products.h"

#include "lt.cuh"

namespace
{

// C (m,n) = alpha P op(Q) + beta D, Q (n,k) when transposed.
void product(const NsProduct &w, void *c, const void *p, const void *q, const void *d,
             bool transposed, int m, int n, int k, float alpha, float beta)
{
    const cudaDataType_t type = w.type == DT_BF16  ? CUDA_R_16BF
                                : w.type == DT_F16 ? CUDA_R_16F
                                                   : CUDA_R_32F;
    const MatmulKind kind = transposed ? MM_NT : MM_NN;
    const LtProduct product = {kind, m, n, k, w.batch, type, type, type, beta != 0, false};
    lt_matmul(product, c, p, q, d, alpha, beta, {w.scratch, kNsLtBytes, w.stream});
}

// ---- what the products leave to do -------------------------------------------------------------

constexpr int kTile = 32, kLanes = 8;

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

bool use_hopper = true;

bool hopper(DType type) { return use_hopper && !cuda_portable() && ns_hopper_can(type); }

} // namespace

extern "C" void ns_use_hopper(bool yes) { use_hopper = yes; }

void ns_symmetric(const NsProduct &w, void *c, const void *p, const void *q, int m, int k,
                  float alpha, float beta, bool upper)
{
    if (hopper(w.type)) {
        ns_hopper_symmetric(w, c, p, q, m, k, alpha, beta, upper);
        return;
    }
    product(w, c, p, q, beta != 0 ? p : c, true, m, m, k, alpha, beta);
    if (w.type == DT_BF16)
        mirror<bf16>(w, c, m, upper);
    else if (w.type == DT_F16)
        mirror<__half>(w, c, m, upper);
    else
        mirror<float>(w, c, m, upper);
}

bool ns_apply_takes_factors(DType type) { return hopper(type); }

void ns_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n, float beta,
              const float *s, int *flags)
{
    if (hopper(w.type)) {
        ns_hopper_apply(w, y, p, x, m, n, beta, s, flags);
        return;
    }
    product(w, y, p, x, beta != 0 ? x : y, false, m, n, m, 1, beta);
    if (!flags) return;
    const size_t size = (size_t)m * n;
    if (w.type == DT_BF16)
        find_bad<bf16>(w, flags, y, size);
    else if (w.type == DT_F16)
        find_bad<__half>(w, flags, y, size);
    else
        find_bad<float>(w, flags, y, size);
}
