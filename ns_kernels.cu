// Newton-Schulz orthogonalisation on the GPU: the sequence of products and passes of each method of
// ns.h. ops/cpu/ns.c states the same plainly; the products are ops/cuda/ns_products.h, the passes
// ops/cuda/ns_passes.h.
//
// Storage is bf16, fp16 or fp32 after every product, sums are fp32. The first product, A = X X^T,
// keeps its sums; normalising rounds them. Its trace is the Frobenius norm, which shows NaNs, and
// whether squares fit into fp32; where a copy of the input has to be made, the norm comes first and
// gives an exact power of two that keeps half precision in range. Matrices are padded to multiples
// of 8, which changes nothing.
#include "ops/cuda/ns_passes.h"
#include "ops/cuda/ns_products.h"
#include "ops/cuda/pointwise.cuh"

namespace
{

// Room for two iterates; the small matrices: A, B, and with gram the product of steps Q, its
// successor, and room for half a step of A. `now` is the iterate, at first perhaps the caller's
// matrices; it has `rows` rows, and the others up to M are zeros. Where it lies transposed it has
// neither padding nor a choice of rows.
struct Work : NsBatch {
    char *x, *y, *a, *b, *q, *r, *t;
    const void *now;
    int rows;
    bool unscaled; // the iterate still lacks diag(s), which its next product brings
    int steps_run;
    bool backwards;
    NsProduct product;
};

constexpr int kMostMatrices = 65535; // of a grid's second dimension
constexpr size_t kAlign = 1024;
size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

bool is_small(int m, int n)
{
    const int rows = m < n ? m : n;
    return rows <= kNsSmallRows && m * (size_t)n <= kNsSmall;
}

// Lays the workspace out; returns its bytes. With base NULL only that.
size_t lay_out(Work *w, char *base, const NsMethod *method, int batch, int m, int n)
{
    size_t used = 0;
    const auto take = [&](size_t bytes) {
        char *at = base ? base + used : nullptr;
        used += aligned(bytes);
        return at;
    };
    *w = {};
    w->method = method;
    w->type = method->storage == DT_F64 ? DT_F32 : method->storage;
    w->batch = batch;
    w->tall = m > n;
    w->m = w->tall ? n : m;
    w->n = w->tall ? m : n;
    w->M = (w->m + 7) / 8 * 8;
    w->N = (w->n + 7) / 8 * 8;
    w->failed = reinterpret_cast<int *>(take(sizeof(int)));
    if (is_small(m, n)) return used;
    const size_t size = dtype_size(w->type), b = (size_t)batch;
    const size_t iterate = b * w->M * w->N * size, square = b * w->M * w->M * size;
    w->partial =
        reinterpret_cast<double *>(take(b * ns_parts((size_t)w->M * w->N) * sizeof(double)));
    w->range = reinterpret_cast<NsRange *>(take(b * sizeof(NsRange)));
    w->s = reinterpret_cast<float *>(take((b * w->M + kNsTail) * sizeof(float)));
    w->flags = reinterpret_cast<int *>(take(2 * b * sizeof(int)));
    w->product = {w->type, batch, take(kNsLtBytes), w->flags + b, nullptr, nullptr, false, nullptr};
    const size_t parts = b * ns_sum_parts(w->product, method->norm, w->M);
    w->gram.norm = method->norm;
    if (method->norm == NS_NORM_AOL)
        w->gram.row_sums = reinterpret_cast<float *>(take(parts * w->M * sizeof(float)));
    if (method->norm == NS_NORM_SCHATTEN4)
        w->gram.squares = reinterpret_cast<double *>(take(parts * sizeof(double)));
    const size_t traces = b * ns_trace_parts(w->product, w->M);
    w->gram.trace = reinterpret_cast<float *>(take(traces * sizeof(float)));
    w->x = take(iterate);
    w->a = take(square);
    // A in fp32 comes before anything is in Y and B, and needs no room of its own.
    const size_t wide = b * w->M * w->M * sizeof(float), both = aligned(iterate) + aligned(square);
    w->y = take(both > wide ? both : wide);
    w->b = w->y + aligned(iterate);
    w->gram.a = reinterpret_cast<float *>(w->y);
    if (method->gram) w->q = take(square), w->r = take(square), w->t = take(square);
    return used;
}

// X = R(p X + beta X). The last one writes `last` when that is given.
void apply(Work &w, const void *p, double beta, void *last, bool flag)
{
    void *const to = last ? last : w.now == w.y ? w.x : w.y;
    ns_apply(w.product, to, p, w.now, w.rows, w.M, w.N, (float)beta, w.unscaled ? w.s : nullptr,
             flag ? w.flags : nullptr);
    w.now = to;
    w.rows = w.M;
    w.unscaled = false;
}

// Places of the small matrices in a chain, beside kNsX.
enum { A, B, Q, R, T };

NsChain empty_chain(const Work &w) { return {{w.a, w.b, w.q, w.r, w.t}, nullptr, 0, {}}; }

// A = R(X X^T) of a later iterate.
void gram_matrix(const Work &w)
{
    NsChain chain = empty_chain(w);
    chain.matrix[kNsX] = const_cast<void *>(w.now);
    chain.step[chain.count++] = {kNsX, kNsX, A, kNsNone, 0, 1, 0, 0, false};
    ns_chain(w.product, chain, w.M, w.N);
}

void run(const Work &w, NsChain *chain)
{
    if (chain->count) ns_chain(w.product, *chain, w.M, w.M);
    chain->count = 0;
}

void add(NsChain *chain, NsStep step) { chain->step[chain->count++] = step; }

// An X that lacks its factors is B diag(s) X + a diag(s) X, which spares a pass over X.
void iterate_standard(Work &w, void *out)
{
    const int last = w.method->iterations - 1;
    for (int k = 0; k <= last; k++) {
        const NsCoeff coeff = w.method->coeff[k];
        if (k > 0) gram_matrix(w);
        NsChain chain = empty_chain(w);
        chain.factors = w.unscaled ? w.s : nullptr;
        if ((float)coeff.c == 0)
            ns_affine(w.product, w.b, w.a, w.M, (float)coeff.b, 0, chain.factors);
        else
            add(&chain, {A, A, B, kNsNone, 0, (float)coeff.c, (float)coeff.b, 0, false});
        run(w, &chain);
        apply(w, w.b, coeff.a, k == last ? out : nullptr, k == last);
    }
}

// With Z = B: Q <- a Q + Z Q and A <- (a I + Z) A (a I + Z), as products of symmetric matrices that
// commute but for rounding; X is touched only at a restart and at the end. The two sides of A take
// opposite triangles: with the same one twice, the parts that do not commute add up, and the error
// doubles. The last Q has diag(s) in its columns where X lacks that.
void iterate_gram(Work &w, void *out)
{
    const int last = w.method->iterations - 1;
    NsChain chain = empty_chain(w);
    int q = Q, next = R;
    bool fresh = true; // Q = I
    for (int k = 0; k <= last; k++) {
        const NsCoeff coeff = w.method->coeff[k];
        const float a = (float)coeff.a;
        const bool ends = k == last || (w.method->restarts >> (k + 1) & 1); // then Q is applied
        if (w.method->restarts >> k & 1) {
            apply(w, chain.matrix[q], 0, nullptr, false);
            gram_matrix(w);
            fresh = true;
        }
        if ((float)coeff.c == 0) {
            run(w, &chain);
            ns_affine(w.product, w.b, w.a, w.M, (float)coeff.b, 0, nullptr);
            if (fresh)
                ns_affine(w.product, chain.matrix[q], w.b, w.M, 1, a,
                          ends && w.unscaled ? w.s : nullptr);
        } else {
            add(&chain, {A, A, B, fresh ? q : kNsNone, chain.count, (float)coeff.c, (float)coeff.b,
                         a, false});
        }
        const int z = chain.count;
        if (!fresh) {
            add(&chain, {B, q, next, kNsNone, z, 1, a, 0, false});
            const int kept = q;
            q = next, next = kept;
        }
        fresh = false;
        if (ends) {
            chain.factors = w.unscaled ? w.s : nullptr;
            run(w, &chain);
            chain.factors = nullptr;
            continue; // A is not needed
        }
        add(&chain, {B, A, T, kNsNone, z, 1, a, 0, true});
        add(&chain, {B, T, A, kNsNone, chain.count, 1, a, 0, false});
    }
    apply(w, chain.matrix[q], 0, out, true);
}

// The first product reads the caller's matrices as they are, and so does the apply in bf16, which
// has the range: then nothing is copied. (Unless the one apply would overwrite what it reads.)
void start_with_input(Work &w, const void *x, DType type, const void *last)
{
    const bool once = w.method->gram ? w.method->restarts == 0 : w.method->iterations == 1;
    const bool in_place = w.type == DT_BF16 && type == DT_BF16 && !(once && last == x);
    ns_gram(w.product, w.gram, x, type, w.m, w.M, w.N);
    const int parts = ns_sum_parts(w.product, w.method->norm, w.M);
    ns_range_of_gram(w, x, type, ns_trace_parts(w.product, w.M), parts);
    ns_normalize(w, w.a, parts, in_place, ns_turn(w.product));
    if (!in_place) ns_load(w, w.x, x, type, w.s);
    w.now = in_place ? x : w.x;
    w.rows = in_place ? w.m : w.M;
    w.unscaled = in_place && w.method->norm != NS_NORM_NONE;
}

// A copy in the storage's type, scaled by a power of two.
void start_with_copy(Work &w, const void *x, DType type, bool squares_known)
{
    const size_t size = (size_t)w.m * w.n;
    if (!squares_known) ns_square_sums(w, x, type, size);
    ns_range(w, ns_parts(size));
    ns_load(w, w.x, x, type, nullptr);
    ns_gram(w.product, w.gram, w.x, w.type, w.M, w.M, w.N);
    ns_normalize(w, w.a, ns_sum_parts(w.product, w.method->norm, w.M), false, ns_turn(w.product));
    w.now = w.x;
    w.rows = w.M;
    if (w.method->norm == NS_NORM_NONE) return;
    // The factors of AOL may exceed what fp16 holds, where a row is almost zero.
    w.unscaled =
        ns_apply_takes_factors(w.type) && !(w.method->norm == NS_NORM_AOL && w.type == DT_F16);
    if (!w.unscaled) ns_load(w, w.x, x, type, w.s);
}

bool supported(DType t) { return t == DT_F32 || t == DT_BF16 || t == DT_F16; }

} // namespace

extern "C" size_t ns_workspace_size_cuda(const NsMethod *method, int batch, int m, int n)
{
    const NsMethod chosen = ns_method_for(method, m, n);
    Work w;
    return lay_out(&w, nullptr, &chosen, batch, m, n);
}

extern "C" double *ns_square_sums_cuda(const NsMethod *method, int batch, int m, int n,
                                       void *workspace, int *parts)
{
    const NsMethod chosen = ns_method_for(method, m, n);
    Work w;
    lay_out(&w, static_cast<char *>(workspace), &chosen, batch, m, n);
    *parts = ns_parts((size_t)m * n);
    return w.partial;
}

extern "C" int ns_orthogonalize_to_cuda(const NsMethod *method, void *out, DType out_type,
                                        const void *x, DType type, bool squares_known, int batch,
                                        int m, int n, void *workspace, void *stream)
{
    if (!supported(type) || !supported(out_type) || batch < 1 || batch > kMostMatrices || m < 1 ||
        n < 1)
        return -1;
    const NsMethod chosen = ns_method_for(method, m, n);
    Work w;
    lay_out(&w, static_cast<char *>(workspace), &chosen, batch, m, n);
    w.stream = w.product.stream = static_cast<cudaStream_t>(stream);
    w.product.steps_run = &w.steps_run;
    w.product.backwards = &w.backwards;
    if (is_small(m, n)) {
        ns_small(w, out, out_type, x, type);
        return 0;
    }
    const bool as_it_lies = w.type != DT_F32 && ns_takes(type, x, n);
    if (as_it_lies && w.tall) {
        w.transposed = w.product.tall = true;
        w.N = w.n;
    }
    const bool kept = out_type == w.type && (w.transposed || !w.tall) && w.M == w.m && w.N == w.n &&
                      aligned16(out);
    void *const last = kept ? out : nullptr; // where the last product can write the result
    if (as_it_lies)
        start_with_input(w, x, type, last);
    else
        start_with_copy(w, x, type, squares_known);
    (chosen.gram ? iterate_gram : iterate_standard)(w, last);
    if (last)
        ns_poison(w, out);
    else
        ns_store(w, out, out_type, w.now);
    return 0;
}

extern "C" int ns_orthogonalize_cuda(const NsMethod *method, void *x, DType type, int batch, int m,
                                     int n, void *workspace, void *stream)
{
    return ns_orthogonalize_to_cuda(method, x, type, x, type, false, batch, m, n, workspace,
                                    stream);
}

extern "C" int ns_failed_cuda(const void *workspace, void *stream)
{
    int failed;
    CUDA_CHECK(cudaMemcpyAsync(&failed, workspace, sizeof failed, cudaMemcpyDeviceToHost,
                               static_cast<cudaStream_t>(stream)));
    CUDA_CHECK(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
    return failed;
}
