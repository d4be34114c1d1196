// The two matrix products of Newton-Schulz, batched over equal-shaped matrices that lie
// contiguously, rows contiguous and padded to multiples of 8 numbers. Two implementations with one
// meaning: Hopper's (ns_hopper.cu) and cuBLASLt's (ns_products.cu) for everything else.
#ifndef OPS_CUDA_NS_PRODUCTS_H
#define OPS_CUDA_NS_PRODUCTS_H

#include "cuda.cuh"

constexpr size_t kNsLtBytes = 4 << 20; // scratch of the cuBLASLt products

struct NsProduct {
    DType type; // of all matrices: DT_BF16, DT_F16 or DT_F32; sums are fp32 and round once
    int batch;
    void *scratch; // kNsLtBytes
    cudaStream_t stream;
};

// C = alpha P Q^T + beta P, P and Q (m,k), for C known to be symmetric: one triangle, the lower or
// the `upper`, is computed and mirrored, so that it is so exactly. beta != 0 needs k = m. C is
// neither P nor Q.
void ns_symmetric(const NsProduct &w, void *c, const void *p, const void *q, int m, int k,
                  float alpha, float beta, bool upper);
// Y = P X + beta diag(s) X, P (m,m), X and Y (m,n), Y not X; s (batch,m), or NULL for ones, which
// is all that cuBLASLt can. Sets flags[i] for a matrix whose Y holds a NaN or an infinity, when
// flags is given.
void ns_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n, float beta,
              const float *s, int *flags);
bool ns_apply_takes_factors(DType type);

// For benches and tests: false keeps to cuBLASLt from now on.
extern "C" void ns_use_hopper(bool yes);

// ns_hopper.cu
bool ns_hopper_can(DType type);
void ns_hopper_symmetric(const NsProduct &w, void *c, const void *p, const void *q, int m, int k,
                         float alpha, float beta, bool upper);
void ns_hopper_apply(const NsProduct &w, void *y, const void *p, const void *x, int m, int n,
                     float beta, const float *s, int *flags);

#endif
