// What Newton-Schulz does between its products: reading and scaling the input, the normalisers,
// writing the result, and whole small matrices. All batched; every sum has a fixed order.
#ifndef OPS_CUDA_NS_PASSES_H
#define OPS_CUDA_NS_PASSES_H

#include "cuda.cuh"

// A batch at work. The iterate is (M,N), M <= N, padded with zeros to multiples of 8 from (m,n);
// the caller's matrices are (m,n), or (n,m) when `tall`.
struct NsBatch {
    const NsMethod *method;
    DType type; // storage: DT_BF16, DT_F16 or DT_F32
    int batch, m, n, M, N;
    bool tall;
    cudaStream_t stream;
    double *partial; // (batch, ns_parts(larger of M N and M M)): sums of squares
    double *range;   // (batch,2): factor of the input, and eps in the units of A after it
    float *s;        // (batch,M): factors of the rows
    float *sums;     // what ns_gram left of A
    int *flags;      // (2,batch): 1 where a NaN or an infinity was met; progress of products
    int *failed;     // matrices that came back NaN in this call
};

// Into how many partial sums the squares of one matrix of `size` numbers are divided.
inline int ns_parts(size_t size)
{
    const size_t parts = (size + 8191) / 8192;
    return parts < 512 ? (int)parts : 512;
}

// partial = sums of squares of x, (batch,size) of any type.
void ns_square_sums(const NsBatch &w, const void *x, DType type, size_t size);
// range from the first `parts` partial sums of each matrix: the factor normalises already for
// Frobenius, is 1 for none, and otherwise the power of two that brings |G|_F to [8, 16). NaN where
// the input has one. Clears flags and failed.
void ns_range(const NsBatch &w, int parts);
// X = R(factor source), transposed if tall.
void ns_load(const NsBatch &w, void *x, const void *source, DType type);
// s from the `parts` sums that ns_gram left of A = X X^T (AOL or Schatten-4), then
// A = R(diag(s) A diag(s)).
void ns_normalize(const NsBatch &w, void *a, int parts);
// X = R(diag(s) X).
void ns_scale_rows(const NsBatch &w, void *x);
// out (batch, the caller's shape) = x, transposed if tall; NaN where flagged.
void ns_store(const NsBatch &w, void *out, DType type, const void *x);
// NaN over the flagged matrices of out, which the last product wrote.
void ns_poison(const NsBatch &w, void *out);

// Matrices of at most kNsSmallRows rows and kNsSmall numbers, each orthogonalised by one block from
// start to end in shared memory. out may be source.
constexpr int kNsSmallRows = 32, kNsSmall = 2048;
void ns_small(const NsBatch &w, void *out, DType out_type, const void *source, DType type);

#endif
