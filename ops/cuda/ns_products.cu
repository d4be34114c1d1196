// Newton-Schulz products through cuBLASLt: full products, then the mirror.
#include "ns_products.h"

#include <cublasLt.h>

namespace
{

// C (m,n) = alpha P op(Q) + beta D: everything a plan depends on.
struct Shape {
    DType type;
    int batch, m, n, k;
    bool transposed, adds; // Q is (n,k); beta != 0

    bool operator==(const Shape &o) const
    {
        return type == o.type && batch == o.batch && m == o.m && n == o.n && k == o.k &&
               transposed == o.transposed && adds == o.adds;
    }
};

// What cuBLASLt needs to run a shape. cuBLASLt counts columns first, so its A is our Q, its B our
// P.
struct Plan {
    Shape shape;
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t p, q, c;
    cublasLtMatmulAlgo_t algo;
};

void check(cublasStatus_t status, const char *call, const char *file, int line)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        cuda_fail(cublasLtGetStatusString(status), "a matrix product of the orthogonalisation",
                  call, file, line);
}
#define LT_CHECK(call) check((call), #call, __FILE__, __LINE__)

cudaDataType_t lt_type(DType t)
{
    return t == DT_BF16 ? CUDA_R_16BF : t == DT_F16 ? CUDA_R_16F : CUDA_R_32F;
}

cublasLtHandle_t lt_handle()
{
    static cublasLtHandle_t handle = [] {
        cublasLtHandle_t made;
        LT_CHECK(cublasLtCreate(&made));
        return made;
    }();
    return handle;
}

cublasLtMatrixLayout_t layout(const Shape &s, int rows, int cols)
{
    cublasLtMatrixLayout_t made;
    const int64_t stride = (int64_t)rows * cols;
    LT_CHECK(
        cublasLtMatrixLayoutCreate(&made, lt_type(s.type), (uint64_t)cols, (uint64_t)rows, cols));
    LT_CHECK(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &s.batch,
                                              sizeof s.batch));
    LT_CHECK(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof stride));
    return made;
}

// The first heuristic, so that the bits do not depend on timings.
Plan make_plan(const Shape &s)
{
    Plan plan = {s, nullptr, nullptr, nullptr, nullptr, {}};
    const cublasOperation_t op = s.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_CHECK(cublasLtMatmulDescCreate(&plan.what, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_CHECK(
        cublasLtMatmulDescSetAttribute(plan.what, CUBLASLT_MATMUL_DESC_TRANSA, &op, sizeof op));
    plan.p = layout(s, s.m, s.k);
    plan.q = s.transposed ? layout(s, s.n, s.k) : layout(s, s.k, s.n);
    plan.c = layout(s, s.m, s.n);
    cublasLtMatmulPreference_t preference;
    const size_t bytes = kNsLtBytes;
    LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    LT_CHECK(cublasLtMatmulAlgoGetHeuristic(lt_handle(), plan.what, plan.q, plan.p, plan.c, plan.c,
                                            preference, 1, &found, &count));
    if (!count)
        cuda_fail("no algorithm", "cuBLASLt refuses this shape", "heuristic", __FILE__, __LINE__);
    plan.algo = found.algo;
    LT_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    return plan;
}

// Plans are made at the first call of a shape and kept; the calls come from one thread.
const Plan *find_plan(const Shape &s)
{
    constexpr int kMost = 256;
    static Plan plans[kMost];
    static int count = 0;
    for (int i = 0; i < count; i++)
        if (plans[i].shape == s) return &plans[i];
    if (count == kMost)
        cuda_fail("too many shapes", "one process orthogonalises at most 256", "", __FILE__,
                  __LINE__);
    plans[count] = make_plan(s);
    return &plans[count++];
}

void product(const NsProduct &w, void *c, const void *p, const void *q, const void *d,
             bool transposed, int m, int n, int k, float alpha, float beta)
{
    const Plan &plan = *find_plan({w.type, w.batch, m, n, k, transposed, beta != 0});
    LT_CHECK(cublasLtMatmul(lt_handle(), plan.what, &alpha, q, plan.q, p, plan.p, &beta, d, plan.c,
                            c, plan.c, &plan.algo, w.scratch, kNsLtBytes, w.stream));
}

// ---- what the products leave to do
// -----------------------------------------------------------------

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

} // namespace

extern "C" void ns_use_hopper(bool yes) { use_hopper = yes; }

void ns_symmetric(const NsProduct &w, void *c, const void *p, const void *q, int m, int k,
                  float alpha, float beta, bool upper)
{
    if (use_hopper && ns_hopper_can(w.type)) {
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

bool ns_apply_takes_factors(DType type) { return use_hopper && ns_hopper_can(type); }

void ns_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n, float beta,
              const float *s, int *flags)
{
    if (use_hopper && ns_hopper_can(w.type)) {
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
