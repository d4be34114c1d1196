// The GPU as a PolarDevice: matrix products in double by cuBLASLt, and the passes around them.
// An H100 multiplies doubles at up to 67 TFLOP/s, so a product of 8192 x 8192 takes about 20 ms and
// a reference of about 25 iterations 1.5 s; nothing here need be faster.
#include <cublasLt.h>

#include "../ops/cuda/cuda.cuh"
extern "C" {
#include "polar_cuda.h"
}

namespace
{

constexpr int kThreads = 256;

void check(cublasStatus_t status, const char *call, const char *file, int line)
{
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cuda_fail(cublasLtGetStatusString(status), "report it with the shape", call, file, line);
}
#define LT_CHECK(call) check((call), #call, __FILE__, __LINE__)

cublasLtMatrixLayout_t layout(int rows, int cols) // as cuBLASLt counts: a row of ours is its column
{
    cublasLtMatrixLayout_t made;
    LT_CHECK(cublasLtMatrixLayoutCreate(&made, CUDA_R_64F, cols, rows, cols));
    return made;
}

// Row-major D = A op(B) is cuBLASLt's D^T = op(B)^T A^T.
void multiply(double *d, const double *a, const double *b, bool transposed, int m, int k, int n,
              double alpha, double beta, const double *c)
{
    static cublasLtHandle_t handle;
    if (!handle) LT_CHECK(cublasLtCreate(&handle));
    cublasLtMatmulDesc_t product;
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_CHECK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_64F, CUDA_R_64F));
    LT_CHECK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &operation,
                                            sizeof operation));
    const cublasLtMatrixLayout_t left = transposed ? layout(k, n) : layout(n, k),
                                 right = layout(m, n), out = layout(m, k);
    const double none = 0;
    LT_CHECK(cublasLtMatmul(handle, product, &alpha, b, left, a, right, c ? &beta : &none,
                            c ? c : d, out, d, out, nullptr, nullptr, 0, nullptr));
    for (cublasLtMatrixLayout_t made : {left, right, out})
        LT_CHECK(cublasLtMatrixLayoutDestroy(made));
    LT_CHECK(cublasLtMatmulDescDestroy(product));
}

__global__ void distance_kernel(double *partial, const double *x, const double *y, size_t size)
{
    __shared__ double room[kThreads / kWarp];
    double sum = 0;
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads) {
        const double off = x[i] - (y ? y[i] : 0);
        sum += off * off;
    }
    sum = block_sum<kThreads>(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

double distance(const double *x, const double *y, size_t size)
{
    static double *partial;
    double host[kSumBlocks], sum = 0;
    if (!partial) CUDA_CHECK(cudaMalloc(&partial, sizeof host));
    distance_kernel<<<kSumBlocks, kThreads>>>(partial, x, y, size);
    CHECK_LAUNCH();
    CUDA_CHECK(cudaMemcpy(host, partial, sizeof host, cudaMemcpyDeviceToHost));
    for (double part : host) sum += part;
    return sqrt(sum);
}

__global__ void scale_kernel(double *x, size_t size, double factor)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads)
        x[i] *= factor;
}

void scale(double *x, size_t size, double factor)
{
    scale_kernel<<<kSumBlocks, kThreads>>>(x, size, factor);
    CHECK_LAUNCH();
}

__global__ void identity_kernel(double *x, int m)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < (size_t)m * m;
         i += (size_t)gridDim.x * kThreads)
        x[i] = i % ((size_t)m + 1) == 0;
}

void identity(double *x, int m)
{
    identity_kernel<<<kSumBlocks, kThreads>>>(x, m);
    CHECK_LAUNCH();
}

} // namespace

extern "C" const PolarDevice polar_cuda = {multiply, distance, scale, identity};
