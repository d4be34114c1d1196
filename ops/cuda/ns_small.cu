// Small matrices: Newton-Schulz from start to end by one block for each, in shared memory. The same
// steps as ns_kernels.cu and ops/cpu/ns.c.
#include "ns_range.cuh"
#include "pointwise.cuh"

namespace
{

struct SmallMethod {
    NsNorm norm;
    double delta, eps;
    bool relative;
    int iterations;
    float a[NS_MAX_ITERATIONS], b[NS_MAX_ITERATIONS], c[NS_MAX_ITERATIONS];
    bool gram;
    unsigned restarts;
    DType type;
};

__device__ __forceinline__ float round_to(float x, DType t)
{
    return t == DT_BF16  ? __bfloat162float(__float2bfloat16_rn(x))
           : t == DT_F16 ? __half2float(__float2half_rn(x))
                         : x;
}

// One matrix and its workspace in shared memory; the functions below are called by a whole block.
struct Small {
    float x[kNsSmall], y[kNsSmall];
    float a[kNsSmallRows * kNsSmallRows], b[kNsSmallRows * kNsSmallRows];
    float q[kNsSmallRows * kNsSmallRows], t[kNsSmallRows * kNsSmallRows], s[kNsSmallRows];
    double room[kBlock / kWarp];
    NsRange range;
};

// c = R(alpha p q^T + beta p), p and q (m,k), one triangle computed and mirrored.
__device__ void small_symmetric(float *c, const float *p, const float *q, int m, int k, float alpha,
                                float beta, DType type, bool upper)
{
    for (int e = threadIdx.x; e < m * m; e += kBlock) {
        const int i = e / m, j = e % m;
        if (upper ? i > j : i < j) continue;
        float sum = 0;
        for (int l = 0; l < k; l++) sum += p[i * k + l] * q[j * k + l];
        c[i * m + j] = c[j * m + i] =
            round_to(alpha * sum + (beta != 0 ? beta * p[i * k + j] : 0), type);
    }
    __syncthreads();
}

// x = R(p x + beta x) by way of y.
__device__ void small_apply(Small &w, const float *p, int m, int n, float beta, DType type)
{
    for (int e = threadIdx.x; e < m * n; e += kBlock) {
        const int i = e / n, j = e % n;
        float sum = beta != 0 ? beta * w.x[e] : 0;
        for (int l = 0; l < m; l++) sum += p[i * m + l] * w.x[l * n + j];
        w.y[e] = round_to(sum, type);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < m * n; e += kBlock) w.x[e] = w.y[e];
    __syncthreads();
}

__device__ double small_squares(Small &w, const float *x, int size)
{
    double sum = 0;
    for (int e = threadIdx.x; e < size; e += kBlock) sum += (double)x[e] * x[e];
    return block_sum<kBlock>(sum, w.room);
}

__device__ void small_normalize(Small &w, const SmallMethod &method, int m, int n)
{
    small_symmetric(w.a, w.x, w.x, m, n, 1, 0, method.type, false);
    if (method.norm != NS_NORM_AOL && method.norm != NS_NORM_SCHATTEN4) return;
    const double square = method.norm == NS_NORM_SCHATTEN4 ? small_squares(w, w.a, m * m) : 0;
    if (threadIdx.x < m) {
        float sum = 0;
        for (int j = 0; j < m; j++) sum += fabsf(w.a[threadIdx.x * m + j]);
        const double size = method.norm == NS_NORM_SCHATTEN4 ? sqrt(square) : sum;
        w.s[threadIdx.x] = (float)inverse_root((1 + method.delta) * size + w.range.eps);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < m * n; e += kBlock)
        w.x[e] = round_to(w.x[e] * w.s[e / n], method.type);
    for (int e = threadIdx.x; e < m * m; e += kBlock) {
        const float row = w.s[e / m], col = w.s[e % m];
        w.a[e] = round_to(w.a[e] * fmaxf(row, col) * fminf(row, col), method.type);
    }
    __syncthreads();
}

// b = R(c a a + b a) of iteration k.
__device__ void small_polynomial(Small &w, const SmallMethod &method, int k, int m)
{
    if (method.c[k] != 0) {
        small_symmetric(w.b, w.a, w.a, m, m, method.c[k], method.b[k], method.type, false);
        return;
    }
    for (int e = threadIdx.x; e < m * m; e += kBlock)
        w.b[e] = round_to(method.b[k] * w.a[e], method.type);
    __syncthreads();
}

__device__ void small_gram(Small &w, const SmallMethod &method, int m, int n)
{
    float *q = w.q, *t = w.t;
    bool fresh = true; // q = I
    for (int k = 0; k < method.iterations; k++) {
        if (method.restarts >> k & 1) {
            small_apply(w, q, m, n, 0, method.type);
            small_symmetric(w.a, w.x, w.x, m, n, 1, 0, method.type, false);
            fresh = true;
        }
        small_polynomial(w, method, k, m);
        if (fresh) {
            for (int e = threadIdx.x; e < m * m; e += kBlock)
                q[e] = round_to(w.b[e] + (e % (m + 1) ? 0 : method.a[k]), method.type);
            __syncthreads();
        } else {
            small_symmetric(t, q, w.b, m, m, 1, method.a[k], method.type, true);
            float *const swap = q;
            q = t, t = swap;
        }
        fresh = false;
        if (k == method.iterations - 1 || method.restarts >> (k + 1) & 1) continue;
        small_symmetric(t, w.a, w.b, m, m, 1, method.a[k], method.type, false);
        small_symmetric(w.a, t, w.b, m, m, 1, method.a[k], method.type, true);
    }
    small_apply(w, q, m, n, 0, method.type);
}

// One block of kBlock threads to a matrix.
template <typename D, typename S>
__global__ void small_kernel(D *out, const S *source, int *failed, SmallMethod method, int m, int n,
                             bool tall)
{
    extern __shared__ double memory[];
    Small &w = *reinterpret_cast<Small *>(memory);
    const int size = m * n;
    const size_t base = (size_t)blockIdx.x * size;
    for (int e = threadIdx.x; e < size; e += kBlock)
        w.x[e] = load_stored(source, base + (tall ? e % n * m + e / n : e));
    __syncthreads();
    const double square = small_squares(w, w.x, size);
    if (threadIdx.x == 0)
        w.range = find_range(square, method.norm == NS_NORM_NONE ? 1 : power_for(square),
                             method.delta, method.eps, method.relative);
    __syncthreads();
    const double factor =
        w.range.factor * (method.norm == NS_NORM_FROBENIUS ? w.range.frobenius : 1);
    for (int e = threadIdx.x; e < size; e += kBlock)
        w.x[e] = round_to((float)(w.x[e] * factor), method.type);
    __syncthreads();
    small_normalize(w, method, m, n);
    if (method.gram)
        small_gram(w, method, m, n);
    else
        for (int k = 0; k < method.iterations; k++) {
            if (k > 0) small_symmetric(w.a, w.x, w.x, m, n, 1, 0, method.type, false);
            small_polynomial(w, method, k, m);
            small_apply(w, w.b, m, n, method.a[k], method.type);
        }
    const bool bad = !isfinite(small_squares(w, w.x, size));
    for (int e = threadIdx.x; e < size; e += kBlock)
        store_rounded(out, base + (tall ? e % n * m + e / n : e), bad ? poison() : w.x[e]);
    if (bad && threadIdx.x == 0) atomicAdd(failed, 1);
}

} // namespace

void ns_small(const NsBatch &w, void *out, DType out_type, const void *source, DType type)
{
    SmallMethod method = {};
    method.norm = w.method->norm;
    method.delta = w.method->delta, method.eps = w.method->eps;
    method.relative = w.method->relative;
    method.iterations = w.method->iterations;
    method.gram = w.method->gram, method.restarts = w.method->restarts;
    method.type = w.type;
    for (int k = 0; k < method.iterations; k++) {
        method.a[k] = (float)w.method->coeff[k].a;
        method.b[k] = (float)w.method->coeff[k].b;
        method.c[k] = (float)w.method->coeff[k].c;
    }
    CUDA_CHECK(cudaMemsetAsync(w.failed, 0, sizeof(int), w.stream));
    with_dtype(out_type, [&](auto *d) {
        with_dtype(type, [&](auto *s) {
            small_kernel<<<w.batch, kBlock, sizeof(Small), w.stream>>>(
                static_cast<decltype(d)>(out), static_cast<decltype(s)>(const_cast<void *>(source)),
                w.failed, method, w.m, w.n, w.tall);
        });
    });
    CHECK_LAUNCH();
}
