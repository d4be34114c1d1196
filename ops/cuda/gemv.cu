// The product of one row with a matrix (ops.h's matmul with M = 1), as generation needs it: bf16
// operands, fp32 sums in a fixed order, rounded once. cuBLASLt's kernels for it are made for tiles.
//
// B (N,K): a warp to an output, its lanes 16 bytes apart along K. B (K,N): a block to 32 columns, 4
// lanes of 8 columns to a row of B, 64 rows at a time, added up in shared memory. Bound by memory:
// it reads B once, 2 N K bytes.
#include "cuda.cuh"

namespace
{

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kColumns = 32, kLanes = kColumns / 8, kRows = kThreads / kLanes;

__device__ __forceinline__ void write(bf16 *c, int i, float sum, float alpha, float beta)
{
    const float old = beta == 0 ? 0 : beta * __bfloat162float(c[i]);
    c[i] = __float2bfloat16_rn(alpha * sum + old);
}

// c[n] = sum over k of a[k] b[n,k].
__global__ void __launch_bounds__(kThreads)
    gemv_nt_kernel(bf16 *c, const bf16 *a, const bf16 *b, int n, int k, float alpha, float beta)
{
    const int row = (int)blockIdx.x * kWarps + (int)threadIdx.x / kWarp;
    const int lane = (int)threadIdx.x % kWarp;
    if (row >= n) return;
    const bf16 *line = b + (size_t)row * k;
    float sum = 0;
#pragma unroll 6
    for (int at = lane * 8; at < k; at += kWarp * 8) {
        float x[8], y[8];
        unpack8(y, load8(line + at));
        unpack8(x, load8(a + at));
#pragma unroll
        for (int j = 0; j < 8; j++) sum += x[j] * y[j];
    }
    sum = warp_sum(sum);
    if (lane == 0) write(c, row, sum, alpha, beta);
}

// c[n] = sum over k of a[k] b[k,n].
__global__ void __launch_bounds__(kThreads)
    gemv_nn_kernel(bf16 *c, const bf16 *a, const bf16 *b, int n, int k, float alpha, float beta)
{
    __shared__ float part[kRows][kColumns + 1];
    const int row = (int)threadIdx.x / kLanes, column = (int)threadIdx.x % kLanes * 8;
    const int first = (int)blockIdx.x * kColumns, at = first + column;
    float sum[8] = {};
#pragma unroll 4
    for (int i = row; i < k; i += kRows) {
        if (at >= n) break;
        const float x = __bfloat162float(a[i]);
        float y[8];
        unpack8(y, load8(b + (size_t)i * n + at));
#pragma unroll
        for (int j = 0; j < 8; j++) sum[j] += x * y[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) part[row][column + j] = sum[j];
    __syncthreads();
    const int mine = (int)threadIdx.x;
    if (mine >= kColumns || first + mine >= n) return;
    float total = 0;
#pragma unroll 16
    for (int i = 0; i < kRows; i++) total += part[i][mine];
    write(c, first + mine, total, alpha, beta);
}

bool aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

} // namespace

bool cuda_gemv(void *c, const void *a, const void *b, MatmulKind kind, int n, int k, double alpha,
               double beta)
{
    const bool fits = kind == MM_NT ? k % 8 == 0 && aligned(a) : n % 8 == 0;
    if (kind == MM_TN || !fits || !aligned(b) || n <= 0 || k <= 0) return false;
    const auto kernel = kind == MM_NT ? gemv_nt_kernel : gemv_nn_kernel;
    const int blocks = ceil_div((size_t)n, kind == MM_NT ? kWarps : kColumns);
    kernel<<<blocks, kThreads, 0, cuda_stream()>>>((bf16 *)c, (const bf16 *)a, (const bf16 *)b, n,
                                                   k, (float)alpha, (float)beta);
    CHECK_LAUNCH();
    return true;
}
