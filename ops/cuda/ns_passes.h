// What Newton-Schulz does between its products: reading and scaling the input, the normalisers,
// writing the result, and whole small matrices. All batched; every sum has a fixed order.
#ifndef OPS_CUDA_NS_PASSES_H
#define OPS_CUDA_NS_PASSES_H

#include "ns_products.h"

// What the input's size |G|_F decides, per matrix.
struct NsRange {
    double factor;    // a power of two that keeps products in range: X is factor G
    double eps;       // in the units of A = X X^T
    double frobenius; // what normalises X for Frobenius
};

// A batch at work. The iterate is (M,N), M <= N, padded with zeros to multiples of 8 from (m,n);
// the caller's matrices are (m,n), or (n,m) when `tall`. When `transposed`, which only tall ones
// are, the iterate lies as they do, (n,m), without padding.
struct NsBatch {
    const NsMethod *method;
    DType type; // storage: DT_BF16, DT_F16 or DT_F32
    int batch, m, n, M, N;
    bool tall, transposed;
    cudaStream_t stream;
    double *partial; // (batch, ns_parts(M N)): sums of squares
    NsRange *range;  // (batch)
    float *s;        // (batch,M) and kNsTail more: factors of the rows
    NsGram gram;     // A in fp32, and sums of it
    int *flags;      // (2,batch): 1 where a NaN or an infinity was met; progress of chains
    int *failed;     // matrices that came back NaN in this call
};
constexpr int kNsTail = 128; // products read factors by whole tiles of 128 rows

// Into how many partial sums the squares of one matrix of `size` numbers are divided.
inline int ns_parts(size_t size)
{
    const size_t parts = (size + 8191) / 8192;
    return parts < 512 ? (int)parts : 512;
}

// partial = sums of squares of x, (batch,size) of any type.
void ns_square_sums(const NsBatch &w, const void *x, DType type, size_t size);
// range from the first `parts` partial sums of each matrix: the factor brings |G|_F to [8, 16), and
// is 1 for the normaliser `none`. NaN where the input has one. Clears flags and failed.
void ns_range(const NsBatch &w, int parts);
// The same from A = G G^T as ns_gram left it of the caller's matrices, whose trace, the sum of
// `traces` parts, is |G|_F^2. The factor is 1, and G was used as it is, unless its squares leave
// the range of fp32: then A and its `parts` sums are computed again, without tensor cores:
// milliseconds for a bank of 22 x 768 x 3072, seconds for one 4096 x 16384, and longer for tall
// ones, where it reads a number from each row. Of zeros, NaN and infinity only the squares are
// summed again. Clears flags and failed, too.
void ns_range_of_gram(const NsBatch &w, const void *x, DType type, int traces, int parts);
// X = R(factor diag(s) source); s may be NULL for ones.
void ns_load(const NsBatch &w, void *x, const void *source, DType type, const float *s);
// s from the `parts` sums that ns_gram left, then a = R(diag(s) A diag(s)). s is for X, or with
// `of_input` for the caller's matrices: it includes the factor. `backwards`: the last matrix first.
void ns_normalize(const NsBatch &w, void *a, int parts, bool of_input, bool backwards);
// out (batch, the caller's shape) = x; NaN where flagged.
void ns_store(const NsBatch &w, void *out, DType type, const void *x);
// NaN over the flagged matrices of out, which the last product wrote.
void ns_poison(const NsBatch &w, void *out);

// Matrices of at most kNsSmallRows rows and kNsSmall numbers, each orthogonalised by one block from
// start to end in shared memory. out may be source.
constexpr int kNsSmallRows = 32, kNsSmall = 2048;
void ns_small(const NsBatch &w, void *out, DType out_type, const void *source, DType type);

#endif
