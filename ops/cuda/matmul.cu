// Matrix products of the model: bf16 operands, fp32 sums, C in bf16 or, for the gradients of
// matrices, in fp32; and the head's, of fp8 operands. By cuBLASLt (lt.cuh), or for one row of bf16
// by gemv.cu.
#include "lt.cuh"

namespace
{

void multiply(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
              double alpha, double beta, cudaDataType_t type)
{
    const LtProduct product = {kind, m, n, k, 1, CUDA_R_16BF, CUDA_R_16BF, type, beta != 0, false};
    lt_matmul(product, c, a, b, c, (float)alpha, (float)beta, lt_work());
}

} // namespace

void cuda_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                 double alpha, double beta)
{
    if (m == 1 && cuda_gemv(c, a, b, kind, n, k, alpha, beta)) return;
    multiply(c, a, b, kind, m, n, k, alpha, beta, CUDA_R_16BF);
}

void cuda_matmul_grad(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                      double alpha, double beta)
{
    multiply(c, a, b, kind, m, n, k, alpha, beta, CUDA_R_32F);
}

// Hopper multiplies fp8 in this form alone: both operands along the sum. The forward's product sums
// fast, as the reference's does (specification 2.7, 3.2).
void cuda_matmul_fp8(void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                     Fp8Format b_format, int m, int n, int k, double alpha, double beta)
{
    if (!cuda_fp8()) {
        multiply(c, a, b, MM_NT, m, n, k, alpha, beta, c_is_acc ? CUDA_R_32F : CUDA_R_16BF);
        return;
    }
    const bool a_is_e5m2 = a_format == FP8_E5M2, b_is_e5m2 = b_format == FP8_E5M2;
    const LtProduct product = {MM_NT,
                               m,
                               n,
                               k,
                               1,
                               a_is_e5m2 ? CUDA_R_8F_E5M2 : CUDA_R_8F_E4M3,
                               b_is_e5m2 ? CUDA_R_8F_E5M2 : CUDA_R_8F_E4M3,
                               c_is_acc ? CUDA_R_32F : CUDA_R_16BF,
                               beta != 0,
                               !a_is_e5m2 && !b_is_e5m2};
    lt_matmul(product, c, a, b, c, (float)alpha, (float)beta, lt_work());
}
