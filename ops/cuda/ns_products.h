// The matrix products of Newton-Schulz, batched over equal-shaped matrices that lie contiguously,
// rows contiguous and padded to multiples of 8 numbers. Two implementations with one meaning:
// Hopper's (ns_hopper.cuh) and cuBLASLt's (ns_products.cu) for
// everything else.
#ifndef OPS_CUDA_NS_PRODUCTS_H
#define OPS_CUDA_NS_PRODUCTS_H

#include "cuda.cuh"

constexpr size_t kNsLtBytes = 4 << 20; // scratch of the cuBLASLt products

struct NsProduct {
    DType type; // of all matrices: DT_BF16, DT_F16 or DT_F32; sums are fp32 and round once
    int batch;
    void *scratch; // kNsLtBytes
    // Of chains of several steps, all with one m; may be NULL where there are none.
    int *progress;  // (batch): zeros at first; counts finished tiles from then on
    int *steps_run; // on the host: how many steps `progress` counts, zero at first
    cudaStream_t stream;
    bool tall; // X, and Y of ns_apply, lie transposed, (n,m); not for cuBLASLt, and m % 8 == 0
    bool *backwards; // on the host, for ns_turn; NULL: never
};

// Turns round, and returns whether the launch that follows begins with the last matrix: of Hopper's
// products and normalising each goes the other way than the one before, so that it finds in the L2
// what that one has just left there.
inline bool ns_turn(const NsProduct &w) { return w.backwards && (*w.backwards = !*w.backwards); }

// C = alpha P Q^T + beta Q for P, Q, C of an NsChain, C known to be symmetric, and Q too where beta
// is not 0: one triangle, the lower or the `upper`, is computed and mirrored, so that it is so
// exactly. C is neither P nor Q. `copy` gets C + diagonal I too, unless it is kNsNone. Starts when
// the chain's first `after` steps are finished for the matrix.
struct NsStep {
    int p, q, c, copy, after;
    float alpha, beta, diagonal;
    bool upper;
};
constexpr int kNsNone = -1, kNsMatrices = 6, kNsSteps = 4 * NS_MAX_ITERATIONS;
constexpr int kNsX = kNsMatrices - 1; // this one is X, (m,k): P and Q of a chain of one step

// Steps on (batch,m,m) matrices, `after` never less than that of the step before; `factors`
// (batch,m, and 128 more that may be read; at a multiple of 8 bytes) multiply the columns of the
// last C, or of its copy where it has one, unless NULL.
struct NsChain {
    void *matrix[kNsMatrices];
    const float *factors;
    int count;
    NsStep step[kNsSteps];
};

void ns_chain(const NsProduct &w, const NsChain &chain, int m, int k);

// What ns_gram makes of X: the lower triangle of A = X X^T in fp32, (batch,m,m), and from it what
// normalises A, ns_sum_parts of them: for AOL `row_sums`, (batch,parts,m) sums of |A_ij| over a
// part of the columns, for Schatten-4 `squares`, (batch,parts) sums of A_ij^2; nothing for the
// others. On Hopper `trace`, too: (batch,ns_trace_parts) sums over parts of the diagonal.
struct NsGram {
    NsNorm norm;
    float *a, *row_sums, *trace;
    double *squares;
};

// X (batch,rows,n) of `type`; where ns_takes that, it may be another than w's, and rows < m: what
// lacks reads as zeros.
void ns_gram(const NsProduct &w, const NsGram &gram, const void *x, DType type, int rows, int m,
             int n);
int ns_sum_parts(const NsProduct &w, NsNorm norm, int m);
int ns_trace_parts(const NsProduct &w, int m); // 0 where there is none
// Whether ns_gram and ns_apply take matrices of this type that lie here with rows of such a length,
// tall ones included.
bool ns_takes(DType type, const void *x, int length);

// out = R((factor in + diagonal I) diag(s)), (batch,m,m); s may be NULL.
void ns_affine(const NsProduct &w, void *out, const void *in, int m, float factor, float diagonal,
               const float *s);
// Y = P X + beta diag(s) X, P (m,m), X (rows,n) as in ns_gram, Y (m,n) and not X; s (batch,m), or
// NULL for ones, which is all that cuBLASLt can. Sets flags[i] for a matrix whose Y holds a NaN or
// an infinity, when flags is given.
void ns_apply(const NsProduct &w, void *y, const void *p, const void *x, int rows, int m, int n,
              float beta, const float *s, int *flags);
bool ns_apply_takes_factors(DType type);
// How many of its m m numbers a symmetric product computes: more than the triangle, by whole tiles.
double ns_symmetric_area(DType type, int batch, int m);

// For benches and tests: false keeps to cuBLASLt from now on.
extern "C" void ns_use_hopper(bool yes);

// ns_hopper_product.cu, ns_hopper_gram.cu
void ns_hopper_chain(const NsProduct &w, const NsChain &chain, int m, int k);
void ns_hopper_gram(const NsProduct &w, const NsGram &gram, const void *x, DType type, int rows,
                    int m, int n);
int ns_hopper_sum_parts(NsNorm norm, int batch, int m);
int ns_hopper_trace_parts(int batch, int m);
double ns_hopper_area(int batch, int m);
void ns_hopper_apply(const NsProduct &w, void *y, const void *p, const void *x, int rows, int m,
                     int n, float beta, const float *s, int *flags);

#endif
