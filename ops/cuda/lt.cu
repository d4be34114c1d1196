// Plans of matrix products: how they are made, chosen, kept and told.
//
// cuBLASLt counts in columns: our row-major D = op(A) op(B) is its D^T = op(B)^T op(A)^T, so that
// its A is our B and its column counts are our row lengths.
#include "lt.cuh"

#include <algorithm>
#include <vector>

#include "../plans.h"
#include "device.h"

namespace
{

constexpr int kBuckets = 1024;
static_assert(sizeof(cublasLtMatmulAlgo_t) == PLAN_BYTES, "an algorithm is kept as its bytes");

struct Key {
    int32_t number[PLAN_NUMBERS];
    bool operator==(const Key &o) const { return !memcmp(number, o.number, sizeof number); }
    size_t bucket() const
    {
        uint64_t h = 0;
        for (int32_t x : number) h = (h ^ (uint64_t)x) * 0x9e3779b97f4a7c15u;
        return (h >> 40) % kBuckets;
    }
};

struct Plan {
    Key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c; // as cuBLASLt sees them
    cublasLtMatmulAlgo_t algorithm;
};

// One call's operands, also as cuBLASLt sees them.
struct Call {
    void *d;
    const void *a, *b, *c;
    float alpha, beta;
    LtWork work;
};

struct Library {
    cublasLtHandle_t handle;
    void *workspace;
    std::vector<Plan> plans[kBuckets];
    bool tuning;
    Plans chosen, restored; // while tuning; by an earlier run
} library;

void check(cublasStatus_t status, const char *call, const char *file, int line)
{
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cuda_fail(cublasLtGetStatusString(status),
              "if it is a shape, report it; if it is memory, leave the library some", call, file,
              line);
}
#define LT_CHECK(call) check((call), #call, __FILE__, __LINE__)

cublasLtHandle_t handle()
{
    if (!library.handle) LT_CHECK(cublasLtCreate(&library.handle));
    return library.handle;
}

// The largest power of two up to 256 that divides an address; the heuristics may count on it.
int alignment(const void *p)
{
    const uintptr_t bits = (uintptr_t)p | 256;
    return (int)(bits & (~bits + 1));
}

Key make_key(const LtProduct &p, const Call &call)
{
    const int d = alignment(call.d), c = p.adds ? alignment(call.c) : d;
    return {{p.m, p.n, p.k, p.batch, p.kind, p.a, p.b, p.c, p.adds, p.fast_sums, alignment(call.b),
             alignment(call.a), c < d ? c : d, (int32_t)call.work.bytes}};
}

// ---- descriptors -------------------------------------------------------------------------------

cublasLtMatrixLayout_t make_layout(cudaDataType_t type, uint64_t rows, uint64_t cols, int batch)
{
    cublasLtMatrixLayout_t made;
    const int64_t stride = (int64_t)(rows * cols);
    LT_CHECK(cublasLtMatrixLayoutCreate(&made, type, rows, cols, (int64_t)rows));
    LT_CHECK(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                              sizeof batch));
    LT_CHECK(cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof stride));
    return made;
}

template <typename T>
void set_operation(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name, T value)
{
    LT_CHECK(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value));
}

// All of a plan but its algorithm. Row-major X (R,S) is column-major (S,R); what is not in the
// product's order is transposed.
Plan describe(const LtProduct &p, const Key &key)
{
    Plan plan = {key, nullptr, nullptr, nullptr, nullptr, {}};
    const uint64_t m = (uint64_t)p.m, n = (uint64_t)p.n, k = (uint64_t)p.k;
    const bool b_transposed = p.kind == MM_NT, a_transposed = p.kind == MM_TN;
    LT_CHECK(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set_operation(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                  b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_operation(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB,
                  a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_operation(plan.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, (int8_t)p.fast_sums);
    plan.a = make_layout(p.b, b_transposed ? k : n, b_transposed ? n : k, p.batch);
    plan.b = make_layout(p.a, a_transposed ? m : k, a_transposed ? k : m, p.batch);
    plan.c = make_layout(p.c, n, m, p.batch);
    return plan;
}

// Up to `most` of the library's suggestions, the likely fastest first.
std::vector<cublasLtMatmulAlgo_t> suggest(const Plan &plan, size_t workspace, int most)
{
    const int32_t *align = plan.key.number + 10; // of cuBLASLt's A, B, and of C and D
    // Without a reduction there is no split of a sum over blocks.
    const uint32_t reductions =
        cuda_deterministic() ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_MASK;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t value;
    } settings[] = {
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint32_t)align[0]},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint32_t)align[1]},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint32_t)align[2]},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint32_t)align[2]},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions},
    };
    cublasLtMatmulPreference_t preference;
    LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    for (const auto &s : settings)
        LT_CHECK(
            cublasLtMatmulPreferenceSetAttribute(preference, s.name, &s.value, sizeof s.value));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    std::vector<cublasLtMatmulHeuristicResult_t> found(most);
    int count = 0;
    LT_CHECK(cublasLtMatmulAlgoGetHeuristic(handle(), plan.operation, plan.a, plan.b, plan.c,
                                            plan.c, preference, most, found.data(), &count));
    LT_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(found[i].algo);
    if (algorithms.empty())
        cuda_fail("no algorithm for this matrix product", "report its shape and types",
                  "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__);
    return algorithms;
}

bool splits_sums(const cublasLtMatmulAlgo_t &algorithm)
{
    int32_t parts = 1;
    size_t written;
    LT_CHECK(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                                  &parts, sizeof parts, &written));
    return parts > 1;
}

// ---- running and timing ------------------------------------------------------------------------

cublasStatus_t run(const Plan &plan, const cublasLtMatmulAlgo_t &algorithm, const Call &call,
                   void *d)
{
    const float zero = 0;
    return cublasLtMatmul(handle(), plan.operation, &call.alpha, call.a, plan.a, call.b, plan.b,
                          call.c ? &call.beta : &zero, call.c ? call.c : d, plan.c, d, plan.c,
                          &algorithm, call.work.memory, call.work.bytes, call.work.stream);
}

// Milliseconds of one product, after what it reads has been swept from the L2 cache. A large number
// for an algorithm that refuses.
float time_once(const Plan &plan, const cublasLtMatmulAlgo_t &algorithm, const Call &call, void *d,
                void *sweep, size_t sweep_bytes, const cudaEvent_t (&events)[2])
{
    float ms = 1e9f;
    if (sweep) CUDA_CHECK(cudaMemsetAsync(sweep, 0, sweep_bytes, call.work.stream));
    CUDA_CHECK(cudaEventRecord(events[0], call.work.stream));
    const cublasStatus_t status = run(plan, algorithm, call, d);
    CUDA_CHECK(cudaEventRecord(events[1], call.work.stream));
    CUDA_CHECK(cudaEventSynchronize(events[1]));
    if (status == CUBLAS_STATUS_SUCCESS)
        CUDA_CHECK(cudaEventElapsedTime(&ms, events[0], events[1]));
    else
        (void)cudaGetLastError(); // or the next check would find it
    return ms;
}

void *take_quietly(size_t bytes) // NULL when the GPU has none left
{
    void *p = nullptr;
    if (cudaMalloc(&p, bytes) == cudaSuccess) return p;
    (void)cudaGetLastError(); // or the next check would find it
    return nullptr;
}

// The fastest of the candidates by the least of a few times each, which they take in turns so that
// all see the same clocks; an earlier suggestion stays unless a later one is 1 % faster. A product
// that adds is timed into memory of its own, as its C must not change; where there is none, the
// first suggestion stands.
cublasLtMatmulAlgo_t choose_by_time(const Plan &plan, const Call &call, size_t c_bytes,
                                    const std::vector<cublasLtMatmulAlgo_t> &candidates)
{
    constexpr int kRounds = 6, kLeastRounds = 3;
    constexpr float kEnoughMs = 40; // spent on one product: fewer rounds then
    int device = 0, l2_bytes = 0;
    cudaEvent_t events[2];
    void *other = call.c ? take_quietly(c_bytes) : nullptr;
    if (call.c && !other) return candidates[0];
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device));
    void *sweep = take_quietly(2 * (size_t)l2_bytes);
    for (cudaEvent_t &event : events) CUDA_CHECK(cudaEventCreate(&event));

    std::vector<float> best(candidates.size(), 1e9f);
    float spent = 0;
    for (int round = 0; round < kRounds && (round < kLeastRounds || spent < kEnoughMs); round++)
        for (size_t i = 0; i < candidates.size(); i++) {
            const float ms = time_once(plan, candidates[i], call, other ? other : call.d, sweep,
                                       2 * (size_t)l2_bytes, events);
            if (round > 0) best[i] = std::min(best[i], ms); // the first one loads the kernel
            if (ms < 1e9f) spent += ms;
        }
    size_t fastest = 0;
    for (size_t i = 1; i < candidates.size(); i++)
        if (best[i] < 0.99f * best[fastest]) fastest = i;
    for (cudaEvent_t event : events) CUDA_CHECK(cudaEventDestroy(event));
    CUDA_CHECK(cudaFree(sweep));
    CUDA_CHECK(cudaFree(other));
    return candidates[fastest];
}

// ---- choosing ----------------------------------------------------------------------------------

// The algorithm of an earlier run, if the library still takes it for this product.
bool restore(Plan *plan, size_t workspace)
{
    const PlanChoice *choice = plans_find(&library.restored, plan->key.number);
    cublasLtMatmulHeuristicResult_t checked;
    if (!choice) return false;
    memcpy(&plan->algorithm, choice->algorithm, sizeof plan->algorithm);
    return cublasLtMatmulAlgoCheck(handle(), plan->operation, plan->a, plan->b, plan->c, plan->c,
                                   &plan->algorithm, &checked) == CUBLAS_STATUS_SUCCESS &&
           checked.workspaceSize <= workspace;
}

bool capturing(cudaStream_t stream)
{
    cudaStreamCaptureStatus status;
    CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
    return status != cudaStreamCaptureStatusNone;
}

size_t type_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 1;
}

cublasLtMatmulAlgo_t choose(const LtProduct &p, const Plan &plan, const Call &call)
{
    const auto found = suggest(plan, call.work.bytes, kSuggestions);
    if (cuda_deterministic()) {
        const auto whole = std::find_if_not(found.begin(), found.end(), splits_sums);
        return whole != found.end() ? *whole : found[0];
    }
    if (!library.tuning || found.size() == 1 || capturing(call.work.stream)) return found[0];
    return choose_by_time(plan, call, (size_t)p.batch * p.m * p.n * type_bytes(p.c), found);
}

void remember(const Plan &plan)
{
    PlanChoice choice;
    memcpy(choice.key, plan.key.number, sizeof choice.key);
    memcpy(choice.algorithm, &plan.algorithm, sizeof choice.algorithm);
    if (!plans_put(&library.chosen, &choice))
        cuda_fail("no room for another plan", "a model multiplies at most 4096 shapes", "plans_put",
                  __FILE__, __LINE__);
}

// Plans are made at the first call of a product and kept; the calls come from one thread.
const Plan &find_plan(const LtProduct &p, const Call &call)
{
    const Key key = make_key(p, call);
    std::vector<Plan> &bucket = library.plans[key.bucket()];
    for (const Plan &plan : bucket)
        if (plan.key == key) return plan;
    Plan plan = describe(p, key);
    if (!restore(&plan, call.work.bytes)) plan.algorithm = choose(p, plan, call);
    if (library.tuning) remember(plan);
    bucket.push_back(plan);
    return bucket.back();
}

// The GPU and the library, as a text of plans names them.
void name_owner(char (&owner)[sizeof Plans::owner])
{
    cudaDeviceProp properties;
    int device = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    snprintf(owner, sizeof owner, "%.64s, cuBLASLt %zu", properties.name, cublasLtGetVersion());
}

} // namespace

LtWork lt_work()
{
    if (!library.workspace) CUDA_CHECK(cudaMalloc(&library.workspace, kLtWorkspaceBytes));
    return {library.workspace, kLtWorkspaceBytes, cuda_stream()};
}

void lt_matmul(const LtProduct &product, void *d, const void *a, const void *b, const void *c,
               float alpha, float beta, const LtWork &work)
{
    const Call call = {d, b, a, product.adds ? c : nullptr, alpha, beta, work};
    const Plan &plan = find_plan(product, call);
    LT_CHECK(run(plan, plan.algorithm, call, d));
}

extern "C" void cuda_tune(bool on) { library.tuning = on; }

extern "C" char *cuda_plans_text(void)
{
    name_owner(library.chosen.owner);
    return plans_print(&library.chosen);
}

extern "C" bool cuda_plans_restore(const char *text, Error *err)
{
    char owner[sizeof Plans::owner];
    Plans plans;
    if (!plans_parse(&plans, text, err)) return false;
    name_owner(owner);
    if (strcmp(owner, plans.owner)) {
        fail(err, "they are for %s, and this is %s", plans.owner, owner);
        plans_free(&plans);
        return false;
    }
    bool ok = true;
    for (int i = 0; i < plans.count && ok; i++) ok = plans_put(&library.restored, &plans.choice[i]);
    plans_free(&plans);
    return ok || fail(err, "they are more than %d", PLANS_MOST);
}
