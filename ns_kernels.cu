// Newton-Schulz orthogonalisation on the GPU: the sequence of products and passes of each method of
// ns.h. ops/cpu/ns.c states the same plainly; the products are ops/cuda/ns_products.h, the passes
// ops/cuda/ns_passes.h.
//
// Storage is bf16, fp16 or fp32 after every product, sums are fp32. The input's Frobenius norm
// comes first: it gives the exact power of two that keeps half precision in range (or the Frobenius
// normaliser itself), and shows NaNs. Matrices are padded to multiples of 8, which changes nothing.
#include "ops/cuda/ns_passes.h"
#include "ops/cuda/ns_products.h"

namespace
{

// The iterate and room for the next, A, B, and with gram the product of steps and another.
struct Work : NsBatch {
    char *x, *y, *a, *b, *q, *t;
    bool unscaled; // X still lacks diag(s), which its next product brings
    NsProduct product;
};

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
    w->range = reinterpret_cast<double *>(take(2 * b * sizeof(double)));
    w->s = reinterpret_cast<float *>(take(b * w->M * sizeof(float)));
    w->flags = reinterpret_cast<int *>(take(b * sizeof(int)));
    w->product = {w->type, batch, take(kNsLtBytes), nullptr};
    w->x = take(iterate);
    w->y = take(iterate);
    w->a = take(square);
    w->b = take(square);
    if (method->gram) w->q = take(square), w->t = take(square);
    return used;
}

void swap(char *&p, char *&q)
{
    char *const kept = p;
    p = q, q = kept;
}

void symmetric(const Work &w, void *c, const void *p, const void *q, double alpha, double beta,
               bool upper)
{
    ns_symmetric(w.product, c, p, q, w.M, w.M, (float)alpha, (float)beta, upper);
}

// A = R(X X^T).
void gram_matrix(const Work &w) { ns_symmetric(w.product, w.a, w.x, w.x, w.M, w.N, 1, 0, false); }

// B = R(c A^2 + b A).
void polynomial(const Work &w, NsCoeff coeff)
{
    if (coeff.c == 0)
        ns_affine(w, w.b, w.a, coeff.b, 0);
    else
        symmetric(w, w.b, w.a, w.a, coeff.c, coeff.b, false);
}

// X = R(p X + beta X). The last one writes `last` when that is given. An X that lacks its factors
// is p diag(s) X + beta diag(s) X, which spares a pass over X; p is overwritten.
void apply(Work &w, void *p, double beta, void *last, bool flag)
{
    if (w.unscaled) ns_scale_columns(w, p);
    ns_apply(w.product, last ? last : w.y, p, w.x, w.M, w.N, (float)beta,
             w.unscaled ? w.s : nullptr, flag ? w.flags : nullptr);
    w.unscaled = false;
    if (!last) swap(w.x, w.y);
}

void iterate_standard(Work &w, void *out)
{
    const int last = w.method->iterations - 1;
    for (int k = 0; k <= last; k++) {
        if (k > 0) gram_matrix(w);
        polynomial(w, w.method->coeff[k]);
        apply(w, w.b, w.method->coeff[k].a, k == last ? out : nullptr, k == last);
    }
}

// With Z = B: Q <- a Q + Q Z and A <- (a I + Z) A (a I + Z), as products of symmetric matrices that
// commute but for rounding; X is touched only at a restart and at the end. The two sides of A take
// opposite triangles: with the same one twice, the parts that do not commute add up, and the error
// doubles.
void iterate_gram(Work &w, void *out)
{
    const int last = w.method->iterations - 1;
    bool fresh = true; // Q = I
    for (int k = 0; k <= last; k++) {
        const NsCoeff coeff = w.method->coeff[k];
        if (w.method->restarts >> k & 1) {
            apply(w, w.q, 0, nullptr, false);
            gram_matrix(w);
            fresh = true;
        }
        polynomial(w, coeff);
        if (fresh) {
            ns_affine(w, w.q, w.b, 1, coeff.a);
        } else {
            symmetric(w, w.t, w.q, w.b, 1, coeff.a, true);
            swap(w.q, w.t);
        }
        fresh = false;
        if (k == last || w.method->restarts >> (k + 1) & 1) continue; // A is not needed
        symmetric(w, w.t, w.a, w.b, 1, coeff.a, false);
        symmetric(w, w.a, w.t, w.b, 1, coeff.a, true);
    }
    apply(w, w.q, 0, out, true);
}

bool supported(DType t) { return t == DT_F32 || t == DT_BF16 || t == DT_F16; }

} // namespace

extern "C" size_t ns_workspace_size_cuda(const NsMethod *method, int batch, int m, int n)
{
    Work w;
    return lay_out(&w, nullptr, method, batch, m, n);
}

extern "C" double *ns_square_sums_cuda(const NsMethod *method, int batch, int m, int n,
                                       void *workspace, int *parts)
{
    Work w;
    lay_out(&w, static_cast<char *>(workspace), method, batch, m, n);
    *parts = ns_parts((size_t)m * n);
    return w.partial;
}

extern "C" int ns_orthogonalize_to_cuda(const NsMethod *method, void *out, DType out_type,
                                        const void *x, DType type, bool squares_known, int batch,
                                        int m, int n, void *workspace, void *stream)
{
    if (!supported(type) || !supported(out_type) || batch < 1 || m < 1 || n < 1) return -1;
    Work w;
    lay_out(&w, static_cast<char *>(workspace), method, batch, m, n);
    w.stream = w.product.stream = static_cast<cudaStream_t>(stream);
    if (is_small(m, n)) {
        ns_small(w, out, out_type, x, type);
        return 0;
    }
    const size_t size = (size_t)m * n;
    if (!squares_known) ns_square_sums(w, x, type, size);
    ns_range(w, ns_parts(size));
    ns_load(w, w.x, x, type);
    gram_matrix(w);
    if (method->norm == NS_NORM_AOL || method->norm == NS_NORM_SCHATTEN4) {
        // The factors of AOL may exceed what fp16 holds, where a row is almost zero.
        w.unscaled =
            ns_apply_takes_factors(w.type) && !(method->norm == NS_NORM_AOL && w.type == DT_F16);
        ns_normalize(w, w.unscaled ? nullptr : w.x, w.a);
    }

    const bool direct = !w.tall && w.M == w.m && w.N == w.n && out_type == w.type;
    (method->gram ? iterate_gram : iterate_standard)(w, direct ? out : nullptr);
    if (direct)
        ns_poison(w, out);
    else
        ns_store(w, out, out_type, w.x);
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
