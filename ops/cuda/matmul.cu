// Matrix products by cuBLASLt: bf16 operands, fp32 sums, C in bf16 or fp32.
//
// cuBLASLt counts in columns: our row-major C = op(A) op(B) is its C^T = op(B)^T op(A)^T, so that
// its A is our B and its column counts are our row lengths. A plan (descriptors, layouts and the
// algorithm) is made at the first call of a shape and kept, so that later calls only launch and can
// be captured into a graph. The algorithm is the library's first suggestion.
#include <cublasLt.h>

#include <vector>

#include "cuda.cuh"

namespace
{

constexpr size_t kWorkspaceBytes = 64 << 20; // what cuBLAS itself takes on Hopper is 32 MiB

struct Key {
    int m, n, k, kind, out_f32, beta_is_zero, align_a, align_b, align_c;
    bool operator==(const Key &o) const
    {
        return m == o.m && n == o.n && k == o.k && kind == o.kind && out_f32 == o.out_f32 &&
               beta_is_zero == o.beta_is_zero && align_a == o.align_a && align_b == o.align_b &&
               align_c == o.align_c;
    }
    size_t hash() const
    {
        size_t h = 0;
        for (int x : {m, n, k, kind, out_f32, beta_is_zero, align_a, align_b, align_c})
            h = (h ^ (size_t)x) * 0x9e3779b97f4a7c15u;
        return h >> 40;
    }
};

struct Plan {
    Key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c; // as cuBLASLt sees them
    cublasLtMatmulAlgo_t algorithm;
};

struct Library {
    cublasLtHandle_t handle;
    void *workspace;
    std::vector<std::vector<Plan>> plans = std::vector<std::vector<Plan>>(1024);
};

void check(cublasStatus_t status, const char *call, const char *file, int line)
{
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cuda_fail(cublasLtGetStatusString(status),
              "if it is a shape, report it; if it is memory, leave the library some", call, file,
              line);
}
#define LT_CHECK(call) check((call), #call, __FILE__, __LINE__)

Library &library()
{
    static Library *lib = [] {
        Library *l = new Library;
        LT_CHECK(cublasLtCreate(&l->handle));
        CUDA_CHECK(cudaMalloc(&l->workspace, kWorkspaceBytes));
        return l;
    }();
    return *lib;
}

// The largest power of two up to 256 that divides an address; the heuristics may count on it.
int alignment(const void *p)
{
    const uintptr_t bits = (uintptr_t)p | 256;
    return (int)(bits & (~bits + 1));
}

Plan make_plan(const Key &key)
{
    Plan plan = {};
    plan.key = key;
    const cudaDataType_t out = key.out_f32 ? CUDA_R_32F : CUDA_R_16BF;
    const uint64_t m = (uint64_t)key.m, n = (uint64_t)key.n, k = (uint64_t)key.k;
    // Row-major X (R,S) is column-major (S,R); what is not in the product's order is transposed.
    const bool b_transposed = key.kind == MM_NT, a_transposed = key.kind == MM_TN;
    const cublasOperation_t op_a = b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_CHECK(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT_CHECK(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                            sizeof op_a));
    LT_CHECK(cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                            sizeof op_b));
    const uint64_t a_rows = b_transposed ? k : n, a_cols = b_transposed ? n : k;
    const uint64_t b_rows = a_transposed ? m : k, b_cols = a_transposed ? k : m;
    LT_CHECK(cublasLtMatrixLayoutCreate(&plan.a, CUDA_R_16BF, a_rows, a_cols, (int64_t)a_rows));
    LT_CHECK(cublasLtMatrixLayoutCreate(&plan.b, CUDA_R_16BF, b_rows, b_cols, (int64_t)b_rows));
    LT_CHECK(cublasLtMatrixLayoutCreate(&plan.c, out, n, m, (int64_t)n));

    cublasLtMatmulPreference_t preference;
    LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t bytes;
    } alignments[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)key.align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)key.align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)key.align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)key.align_c},
    };
    for (const auto &a : alignments)
        LT_CHECK(
            cublasLtMatmulPreferenceSetAttribute(preference, a.name, &a.bytes, sizeof a.bytes));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference,
                                                  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &kWorkspaceBytes, sizeof kWorkspaceBytes));
    cublasLtMatmulHeuristicResult_t found = {};
    int count = 0;
    LT_CHECK(cublasLtMatmulAlgoGetHeuristic(library().handle, plan.operation, plan.a, plan.b,
                                            plan.c, plan.c, preference, 1, &found, &count));
    LT_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (count == 0)
        cuda_fail("no algorithm for this matrix product", "report its shape",
                  "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__);
    plan.algorithm = found.algo;
    return plan;
}

const Plan &find_plan(const Key &key)
{
    std::vector<Plan> &bucket = library().plans[key.hash() % library().plans.size()];
    for (const Plan &plan : bucket)
        if (plan.key == key) return plan;
    bucket.push_back(make_plan(key));
    return bucket.back();
}

void multiply(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
              double alpha, double beta, bool out_f32)
{
    const float alpha_f = (float)alpha, beta_f = (float)beta;
    const Key key = {m, n, k, kind, out_f32, beta_f == 0, alignment(a), alignment(b), alignment(c)};
    const Plan &plan = find_plan(key);
    LT_CHECK(cublasLtMatmul(library().handle, plan.operation, &alpha_f, b, plan.a, a, plan.b,
                            &beta_f, c, plan.c, c, plan.c, &plan.algorithm, library().workspace,
                            kWorkspaceBytes, cuda_stream()));
}

} // namespace

void cuda_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                 double alpha, double beta)
{
    multiply(c, a, b, kind, m, n, k, alpha, beta, false);
}

void cuda_matmul_grad(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                      double alpha, double beta)
{
    multiply(c, a, b, kind, m, n, k, alpha, beta, true);
}
