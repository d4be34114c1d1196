// Newton-Schulz orthogonalisation, stated plainly; ns.h describes methods and normalisers.
//
// Storage is emulated: X and every small matrix hold numbers of the storage type in `real`,
// products accumulate in `real` and round once. A power of two, which changes no fraction bits,
// first brings |G|_F to [8, 16), so that nothing leaves the range of the storage type or of `real`;
// eps is translated with it and thus keeps its meaning in the units of G.
#include "cpu.h"

#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    const NsMethod *method;
    int m, n;        // m <= n
    real *x, *y;     // (m,n): the iterate, and room for its copy
    real *a;         // (m,m): X X^T
    real *b, *q, *t; // (m,m): bA + cA^2; with gram the product of steps, and a copy
    double scale;    // X was G times this power of two
} Work;

static void round_all(real *x, size_t n, DType storage)
{
    if (storage == DT_BF16)
        for (size_t i = 0; i < n; i++) x[i] = (real)round_bf16((float)x[i]);
    if (storage == DT_F16)
        for (size_t i = 0; i < n; i++) x[i] = (real)round_f16((float)x[i]);
}

static void transpose(real *restrict out, const real *restrict in, int rows, int cols)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) out[(size_t)j * rows + i] = in[(size_t)i * cols + j];
}

static bool all_finite(const real *x, size_t n)
{
    real poison = 0; // 0 times anything finite is 0
#pragma omp simd reduction(+ : poison)
    for (size_t i = 0; i < n; i++) poison += x[i] * 0;
    return poison == 0;
}

// |factor x|_F.
static double frobenius(const real *x, size_t n, double factor)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += (x[i] * factor) * (x[i] * factor);
    return sqrt(sum);
}

// 2^exponent within what the square of a double can hold.
static double power_of_two(int exponent)
{
    return ldexp(1, exponent > 500 ? 500 : exponent < -500 ? -500 : exponent);
}

// The power of two that brings |x|_F to [8, 16); 1 for zeros.
static double range_scale(const real *x, size_t n)
{
    real largest = 0;
    for (size_t i = 0; i < n; i++) {
        real size = x[i] < 0 ? -x[i] : x[i];
        largest = size > largest ? size : largest;
    }
    if (largest == 0) return 1;
    int exponent, rest;
    frexp((double)largest, &exponent);
    frexp(frobenius(x, n, power_of_two(-exponent)), &rest);
    return power_of_two(4 - exponent - rest);
}

// The upper triangle of an (m,m) product becomes the lower one too, so that symmetry is exact.
static void mirror(real *a, int m)
{
    for (int i = 1; i < m; i++)
        for (int j = 0; j < i; j++) a[(size_t)i * m + j] = a[(size_t)j * m + i];
}

// c = R(alpha a b + beta c) for symmetric (m,m) matrices that commute.
static void multiply_symmetric(const Work *w, real *c, const real *a, const real *b, double alpha,
                               double beta)
{
    cpu_matmul(c, a, b, MM_NN, w->m, w->m, w->m, alpha, beta);
    mirror(c, w->m);
    round_all(c, (size_t)w->m * w->m, w->method->storage);
}

// A = R(X X^T).
static void gram_matrix(const Work *w)
{
    cpu_matmul(w->a, w->x, w->x, MM_NT, w->m, w->m, w->n, 1, 0);
    mirror(w->a, w->m);
    round_all(w->a, (size_t)w->m * w->m, w->method->storage);
}

// X = R(b X + a X).
static void multiply_iterate(const Work *w, const real *b, double a)
{
    size_t size = (size_t)w->m * w->n;
    memcpy(w->y, w->x, size * sizeof(real));
    cpu_matmul(w->x, b, w->y, MM_NN, w->m, w->n, w->m, 1, a);
    round_all(w->x, size, w->method->storage);
}

// B = R(c A^2 + b A).
static void polynomial(const Work *w, NsCoeff coeff)
{
    size_t size = (size_t)w->m * w->m;
    if (coeff.c == 0) {
        for (size_t i = 0; i < size; i++) w->b[i] = (real)coeff.b * w->a[i];
        round_all(w->b, size, w->method->storage);
    } else {
        memcpy(w->b, w->a, size * sizeof(real));
        multiply_symmetric(w, w->b, w->a, w->a, coeff.c, coeff.b);
    }
}

// 1 / root, and 0 where there is nothing to divide by.
static double inverse_root(double square) { return square > 0 ? 1 / sqrt(square) : 0; }

static void scale_all(real *x, size_t n, double factor, DType storage)
{
    for (size_t i = 0; i < n; i++) x[i] = (real)(x[i] * factor);
    round_all(x, n, storage);
}

// X = R(diag(s) X), A = R(diag(s) A diag(s)), with s in real until it is applied.
static void scale_rows(const Work *w, double eps)
{
    const int m = w->m, n = w->n;
    real *s = w->y;
    for (int i = 0; i < m; i++) {
        double sum = 0;
        for (int j = 0; j < m; j++) sum += fabs((double)w->a[(size_t)i * m + j]);
        s[i] = (real)inverse_root((1 + w->method->delta) * sum + eps);
    }
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) w->x[(size_t)i * n + j] *= s[i];
        for (int j = i; j < m; j++) w->a[(size_t)i * m + j] = w->a[(size_t)i * m + j] * s[i] * s[j];
    }
    mirror(w->a, m);
    round_all(w->x, (size_t)m * n, w->method->storage);
    round_all(w->a, (size_t)m * m, w->method->storage);
}

// Normalises X and leaves A = X X^T, which AOL and Schatten-4 know without a second product.
static void normalize(const Work *w)
{
    const NsMethod *method = w->method;
    const size_t size = (size_t)w->m * w->n, square = (size_t)w->m * w->m;
    const double frobenius_norm = frobenius(w->x, size, 1), widen = 1 + method->delta;
    const double unit = method->relative ? frobenius_norm : w->scale; // of eps
    const double eps2 = method->eps * unit * unit;
    if (method->norm == NS_NORM_FROBENIUS) {
        double norm = widen * frobenius_norm + method->eps * unit;
        scale_all(w->x, size, norm > 0 ? 1 / norm : 0, method->storage);
    }
    gram_matrix(w);
    if (method->norm == NS_NORM_AOL) scale_rows(w, eps2);
    if (method->norm == NS_NORM_SCHATTEN4) {
        double factor = inverse_root(widen * frobenius(w->a, square, 1) + eps2);
        scale_all(w->x, size, factor, method->storage);
        scale_all(w->a, square, factor * factor, method->storage);
    }
}

static void iterate_standard(const Work *w)
{
    for (int k = 0; k < w->method->iterations; k++) {
        if (k > 0) gram_matrix(w);
        polynomial(w, w->method->coeff[k]);
        multiply_iterate(w, w->b, w->method->coeff[k].a);
    }
}

// With Z = B: Q <- a Q + Q Z and A <- (a I + Z) A (a I + Z), as two products of commuting symmetric
// matrices; X is touched only at a restart and at the end.
static void iterate_gram(const Work *w)
{
    const size_t square = (size_t)w->m * w->m, bytes = square * sizeof(real);
    const int last = w->method->iterations - 1;
    bool fresh = true; // Q = I
    for (int k = 0; k <= last; k++) {
        NsCoeff coeff = w->method->coeff[k];
        if (w->method->restarts >> k & 1) {
            multiply_iterate(w, w->q, 0);
            gram_matrix(w);
            fresh = true;
        }
        polynomial(w, coeff);
        if (fresh) {
            memcpy(w->q, w->b, bytes);
            for (int i = 0; i < w->m; i++) w->q[(size_t)i * (w->m + 1)] += (real)coeff.a;
            round_all(w->q, square, w->method->storage);
        } else {
            memcpy(w->t, w->q, bytes);
            multiply_symmetric(w, w->q, w->t, w->b, 1, coeff.a);
        }
        fresh = false;
        if (k == last || w->method->restarts >> (k + 1) & 1) continue; // A is not needed
        memcpy(w->t, w->a, bytes);
        multiply_symmetric(w, w->t, w->b, w->a, 1, coeff.a);
        memcpy(w->a, w->t, bytes);
        multiply_symmetric(w, w->a, w->t, w->b, 1, coeff.a);
    }
    multiply_iterate(w, w->q, 0);
}

// One matrix; false when it comes back NaN.
static bool orthogonalize(const NsMethod *method, real *g, int rows, int cols, real *workspace)
{
    const bool tall = rows > cols;
    const size_t size = (size_t)rows * cols;
    Work w = {.method = method, .m = tall ? cols : rows, .n = tall ? rows : cols};
    const size_t square = (size_t)w.m * w.m;
    w.x = tall ? workspace : g; // whichever does not hold X is room for its copy
    w.y = tall ? g : workspace;
    w.a = workspace + size;
    w.b = w.a + square;
    w.q = w.b + square; // q and t exist with gram only
    w.t = w.q + square;

    bool finite = all_finite(g, size);
    if (finite) {
        w.scale = method->norm == NS_NORM_NONE ? 1 : range_scale(g, size);
        if (tall) transpose(w.x, g, rows, cols);
        scale_all(w.x, size, w.scale, method->storage);
        normalize(&w);
        (method->gram ? iterate_gram : iterate_standard)(&w);
        if (tall) transpose(g, w.x, cols, rows);
        finite = all_finite(g, size);
    }
    if (!finite)
        for (size_t i = 0; i < size; i++) g[i] = NAN;
    return finite;
}

int ns_orthogonalize_real(const NsMethod *method, real *x, int batch, int m, int n, void *workspace,
                          int at_once)
{
    const NsMethod chosen = ns_method_for(method, m, n);
    const size_t slot = ns_workspace_size(&chosen, 1, m, n, 1);
    int failed = 0;
#pragma omp parallel for num_threads(at_once) if (at_once > 1 && batch > 1) reduction(+ : failed)
    for (int i = 0; i < batch; i++) {
        int thread = 0;
#ifdef _OPENMP
        thread = omp_get_thread_num();
#endif
        real *work = (real *)workspace + (size_t)thread * slot;
        failed += !orthogonalize(&chosen, x + (size_t)i * m * n, m, n, work);
    }
    (void)at_once; // not read without OpenMP
    return failed;
}
