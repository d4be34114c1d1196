// Matrix products by cuBLASLt: the one way to it for every file of the device.
//
// A plan (descriptors, layouts and the algorithm) is made at the first call of a product and kept,
// so that later calls only launch and can be captured into a graph. Its algorithm is
//   1. the one that plans_restore (ops.h) named for this product: by an earlier run on this GPU and
//      version of the library, or by the checkpoint that is continued;
//   2. with `deterministic` (device.h), the library's first suggestion that adds each sum in one
//      piece, so that it depends on nothing but the product, the GPU and the library;
//   3. while `tune` (ops.h) is on, the fastest of the library's first kSuggestions, timed there and
//      then on the operands of the call;
//   4. else the library's first suggestion.
#ifndef OPS_CUDA_LT_CUH
#define OPS_CUDA_LT_CUH

#include <cublasLt.h>

#include "cuda.cuh"

// Memory that a product may use while it runs, and the stream it runs on: products that can run at
// the same time need a memory each. The size is part of what a plan depends on.
struct LtWork {
    void *memory;
    size_t bytes;
    cudaStream_t stream;
};
constexpr size_t kLtWorkspaceBytes = 64 << 20; // cuBLAS itself takes 32 MiB on Hopper
LtWork lt_work(); // that of the device's stream; taken at the first call

// D (m,n) = alpha op(A) op(B) + beta C, sums of k in fp32, row-major, rows contiguous, `kind` as in
// ops.h. D may be C, and neither may be A or B. With batch > 1, as many products of matrices that
// lie one behind the other.
struct LtProduct {
    MatmulKind kind;
    int m, n, k, batch;
    cudaDataType_t a, b, c; // c: of C and D
    bool adds;              // beta is not 0; else C is not read
    // fp8 operands only: sums in the tensor cores' narrower accumulators, faster and less exact.
    // fp8 needs MM_NT on Hopper, n and k multiples of 16, and at most one operand in e5m2.
    bool fast_sums;
};
void lt_matmul(const LtProduct &product, void *d, const void *a, const void *b, const void *c,
               float alpha, float beta, const LtWork &work);

constexpr int kSuggestions = 12;

#endif
