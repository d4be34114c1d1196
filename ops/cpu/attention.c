// Attention: QK-norm, rotary and value mix; windowed causal softmax attention over packed
// documents; the output gate (specification 2.4, 3.3).
#include "cpu.h"

enum { MAX_HEAD_DIM = 128, KEY_BLOCK = 64 };
enum { PARALLEL_KEYS = 64 }; // fewer, for one query, are not worth waking threads for

// The loops over a head's channels are written once and compiled for the two widths that recipes
// allow (and once for any): with d a constant they unroll into registers.
#define INLINE static inline __attribute__((always_inline))
#define FOR_HEAD_DIM(d, call)                                                                      \
    do {                                                                                           \
        if ((d) == 64)                                                                             \
            call(64);                                                                              \
        else if ((d) == 128)                                                                       \
            call(128);                                                                             \
        else                                                                                       \
            call(d);                                                                               \
    } while (0)

INLINE real dot(const real *a, const real *b, int d)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < d; j++) sum += a[j] * b[j];
    return sum;
}

INLINE void axpy(real *y, real a, const real *x, int d)
{
#pragma omp simd
    for (int j = 0; j < d; j++) y[j] += a * x[j];
}

// y = rotary(norm(x)) for one head: pairs (j, j + d/2) turn by minus the angle, j < a.
static void norm_rotary(real *y, const real *x, const real *cos, const real *sin, int a, int d,
                        double eps)
{
    const int half = d / 2;
    const real r = (real)(1 / sqrt((double)dot(x, x, d) / d + eps));
    for (int j = 0; j < half; j++) {
        real c = j < a ? cos[j] : 1, s = j < a ? sin[j] : 0;
        real x1 = r * x[j], x2 = r * x[j + half];
        y[j] = x1 * c + x2 * s;
        y[j + half] = x2 * c - x1 * s;
    }
}

// dx from dy: the transposed rotation, then the norm's gradient.
static void norm_rotary_backward(real *dx, const real *dy, const real *x, const real *cos,
                                 const real *sin, int a, int d, double eps)
{
    const int half = d / 2;
    const real r = (real)(1 / sqrt((double)dot(x, x, d) / d + eps));
    real dn[MAX_HEAD_DIM] = {0}; // gradient of the normed head
    for (int j = 0; j < half; j++) {
        real c = j < a ? cos[j] : 1, s = j < a ? sin[j] : 0;
        real dy1 = dy[j], dy2 = dy[j + half];
        dn[j] = dy1 * c - dy2 * s;
        dn[j + half] = dy1 * s + dy2 * c;
    }
    const real mean = r * dot(dn, x, d) / d;
    for (int j = 0; j < d; j++) dx[j] = r * (dn[j] - r * x[j] * mean);
}

void cpu_qkv_forward(void *out, const void *qkv, const void *cos, const void *sin, int a,
                     const void *s, const void *ve, const int32_t *ids, int t, int h, int d,
                     double eps)
{
    const int width = h * d;
    const real s0 = ((const real *)s)[0], s1 = ve ? ((const real *)s)[1] : 0;
#pragma omp parallel for
    for (int p = 0; p < t; p++) {
        real *y = (real *)out + (size_t)p * 3 * width;
        const real *x = (const real *)qkv + (size_t)p * 3 * width;
        const real *c = (const real *)cos + (size_t)p * a, *sn = (const real *)sin + (size_t)p * a;
        for (int i = 0; i < 2 * h; i++) norm_rotary(y + i * d, x + i * d, c, sn, a, d, eps);
        real *v = y + 2 * width;
        for (int j = 0; j < width; j++) v[j] = s0 * x[2 * width + j];
        if (ve) axpy(v, s1, (const real *)ve + (size_t)ids[p] * width, width);
    }
}

void cpu_qkv_backward(void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                      const void *cos, const void *sin, int a, const void *s, const void *ve,
                      const int32_t *ids, int t, int h, int d, double eps)
{
    const int width = h * d;
    const real s0 = ((const real *)s)[0], s1 = ve ? ((const real *)s)[1] : 0;
    double sums[SUM_BLOCKS][2];
#pragma omp parallel for
    for (int b = 0; b < SUM_BLOCKS; b++) {
        sums[b][0] = sums[b][1] = 0;
        for (int p = block_start(b, t); p < block_start(b + 1, t); p++) {
            size_t row = (size_t)p * 3 * width;
            real *dx = (real *)dqkv + row;
            const real *dy = (const real *)dout + row, *x = (const real *)qkv + row;
            const real *c = (const real *)cos + (size_t)p * a,
                       *sn = (const real *)sin + (size_t)p * a;
            for (int i = 0; i < 2 * h; i++)
                norm_rotary_backward(dx + i * d, dy + i * d, x + i * d, c, sn, a, d, eps);
            const real *dv = dy + 2 * width;
            sums[b][0] += (double)dot(dv, x + 2 * width, width);
            if (ve) {
                sums[b][1] += (double)dot(dv, (const real *)ve + (size_t)ids[p] * width, width);
                axpy((real *)dve + (size_t)p * width, s1, dv, width);
            }
            for (int j = 0; j < width; j++) dx[2 * width + j] = s0 * dv[j];
        }
    }
    double total[2] = {0, 0};
    for (int b = 0; b < SUM_BLOCKS; b++)
        for (int i = 0; i < 2; i++) total[i] += sums[b][i];
    ((real *)ds)[0] += (real)total[0];
    if (ve) ((real *)ds)[1] += (real)total[1];
}

// The document of position p: the last one that starts at or before it and is not empty.
static int find_document(const int32_t *cu, int n_docs, int p)
{
    int low = 0, high = n_docs - 1; // cu[low] <= p always
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (cu[middle] <= p)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int max_int(int a, int b) { return a > b ? a : b; }
static int min_int(int a, int b) { return a < b ? a : b; }

// One query and head: running maximum and sum over blocks of keys (online softmax).
INLINE real attend(real *out, const real *q, const real *k, const real *v, size_t stride, int first,
                   int last, real scale, int d)
{
    real max = -INFINITY, sum = 0, weight[KEY_BLOCK], o[MAX_HEAD_DIM] = {0};
    for (int start = first; start <= last; start += KEY_BLOCK) {
        int n = min_int(KEY_BLOCK, last + 1 - start);
        real block_max = max;
        for (int i = 0; i < n; i++) {
            weight[i] = scale * dot(q, k + (size_t)(start + i) * stride, d);
            if (weight[i] > block_max) block_max = weight[i];
        }
        if (block_max > max) {
            real shrink = max == -INFINITY ? 0 : real_exp(max - block_max);
            for (int j = 0; j < d; j++) o[j] *= shrink;
            sum *= shrink;
            max = block_max;
        }
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < n; i++) {
            weight[i] = real_exp(weight[i] - max);
            sum += weight[i];
        }
        for (int i = 0; i < n; i++) axpy(o, weight[i], v + (size_t)(start + i) * stride, d);
    }
    for (int j = 0; j < d; j++) out[j] = o[j] / sum;
    return max + (real)log((double)sum);
}

void cpu_attention_forward(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                           const int32_t *window, const double *scale, int t, int h, int d)
{
    const int width = h * d, w = *window;
    const size_t stride = (size_t)3 * width;
    const real sc = (real)*scale;
#pragma omp parallel for schedule(dynamic, 16)
    for (int p = 0; p < t; p++) {
        const int first = max_int(cu[find_document(cu, n_docs, p)], p - w);
        for (int i = 0; i < h; i++) {
            const real *q = (const real *)qkv + (size_t)p * stride + i * d;
            const real *k = (const real *)qkv + width + i * d;
            real *op = (real *)o + (size_t)p * width + i * d, l = 0;
#define CALL(dim) l = attend(op, q, k, k + width, stride, first, p, sc, dim)
            FOR_HEAD_DIM(d, CALL);
#undef CALL
            ((real *)lse)[(size_t)p * h + i] = l;
        }
    }
}

void cpu_attention_decode(void *o, const void *qkv, int p, int first, const int32_t *window,
                          const double *scale, int h, int d)
{
    const int width = h * d, start = max_int(first, p - *window);
    const size_t stride = (size_t)3 * width;
    const real sc = (real)*scale;
#pragma omp parallel for if (p - start >= PARALLEL_KEYS)
    for (int i = 0; i < h; i++) {
        const real *q = (const real *)qkv + (size_t)p * stride + i * d;
        const real *k = (const real *)qkv + width + i * d;
        real *out = (real *)o + i * d;
#define CALL(dim) attend(out, q, k, k + width, stride, start, p, sc, dim)
        FOR_HEAD_DIM(d, CALL);
#undef CALL
    }
}

// dQ of one query and head: over its keys first .. last.
INLINE void query_gradient(real *dq, const real *q, const real *k, const real *v, const real *d_o,
                           size_t stride, int first, int last, real scale, real lse, real delta,
                           int d)
{
    real sum[MAX_HEAD_DIM] = {0};
    for (int j = first; j <= last; j++) {
        const real *kj = k + (size_t)j * stride;
        real prob = real_exp(scale * dot(q, kj, d) - lse);
        axpy(sum, scale * prob * (dot(d_o, v + (size_t)j * stride, d) - delta), kj, d);
    }
    for (int c = 0; c < d; c++) dq[c] = sum[c];
}

// dK and dV of one key and head: over its queries first .. last, h rows apart in lse and delta.
INLINE void key_gradient(real *dk, real *dv, const real *k, const real *v, const real *q,
                         const real *d_o, const real *lse, const real *delta, size_t stride, int h,
                         int first, int last, real scale, int d)
{
    real sum_k[MAX_HEAD_DIM] = {0}, sum_v[MAX_HEAD_DIM] = {0};
    for (int p = first; p <= last; p++) {
        const real *qp = q + (size_t)p * stride, *dop = d_o + (size_t)p * (size_t)(h * d);
        real prob = real_exp(scale * dot(qp, k, d) - lse[(size_t)p * h]);
        axpy(sum_v, prob, dop, d);
        axpy(sum_k, scale * prob * (dot(dop, v, d) - delta[(size_t)p * h]), qp, d);
    }
    for (int c = 0; c < d; c++) dk[c] = sum_k[c], dv[c] = sum_v[c];
}

// dQ gathers over a query's keys; dK and dV over a key's queries. The probabilities are recomputed
// from lse in both, twice the work of one pass, and in exchange every output row has one writer.
void cpu_attention_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                            const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                            const int32_t *window, const double *scale, int t, int h, int d)
{
    const int width = h * d, w = *window;
    const size_t stride = (size_t)3 * width;
    const real sc = (real)*scale, *l = lse, *in = qkv, *grad = d_o;
    real *out = dqkv, *del = delta;
#pragma omp parallel for schedule(dynamic, 16)
    for (int p = 0; p < t; p++) { // delta and dQ
        const int first = max_int(cu[find_document(cu, n_docs, p)], p - w);
        for (int i = 0; i < h; i++) {
            const size_t row = (size_t)p * stride + i * d, ph = (size_t)p * h + i;
            const real *k = in + width + i * d, *dop = grad + (size_t)p * width + i * d;
            del[ph] = dot(dop, (const real *)o + (size_t)p * width + i * d, d);
#define CALL(dim)                                                                                  \
    query_gradient(out + row, in + row, k, k + width, dop, stride, first, p, sc, l[ph], del[ph],   \
                   dim)
            FOR_HEAD_DIM(d, CALL);
#undef CALL
        }
    }
#pragma omp parallel for schedule(dynamic, 16)
    for (int j = 0; j < t; j++) { // dK and dV
        const int end = cu[find_document(cu, n_docs, j) + 1] - 1;
        const int last = j + min_int(end - j, w);
        for (int i = 0; i < h; i++) {
            const size_t row = (size_t)j * stride + width + i * d;
            const real *k = in + row;
            real *dk = out + row;
#define CALL(dim)                                                                                  \
    key_gradient(dk, dk + width, k, k + width, in + i * d, grad + i * d, l + i, del + i, stride,   \
                 h, j, last, sc, dim)
            FOR_HEAD_DIM(d, CALL);
#undef CALL
        }
    }
}

// sigmoid(gate_row . a[0..c))
static real head_gate(const real *gate_row, const real *a, int c)
{
    real z = 0;
    for (int j = 0; j < c; j++) z += gate_row[j] * a[j];
    return sigmoid(z);
}

void cpu_gate_forward(void *y, const void *o, const void *a, const void *gate, int t, int h, int d,
                      int c)
{
    const int width = h * d;
#pragma omp parallel for
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            const size_t at = (size_t)p * width + i * d;
            const real g =
                head_gate((const real *)gate + i * c, (const real *)a + (size_t)p * width, c);
            for (int j = 0; j < d; j++) ((real *)y)[at + j] = g * ((const real *)o)[at + j];
        }
}

void cpu_gate_backward(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                       const void *a, const void *gate, int t, int h, int d, int c)
{
    const int width = h * d;
    for (int i = 0; i < h; i++) { // head by head, so that the blocks' sums stay small
        double sums[SUM_BLOCKS][MAX_GATE_CHANNELS];
#pragma omp parallel for
        for (int b = 0; b < SUM_BLOCKS; b++) {
            for (int j = 0; j < c; j++) sums[b][j] = 0;
            for (int p = block_start(b, t); p < block_start(b + 1, t); p++) {
                const real *ap = (const real *)a + (size_t)p * width,
                           *row = (const real *)gate + i * c;
                const size_t at = (size_t)p * width + i * d;
                const real g = head_gate(row, ap, c);
                const real dz = g * (1 - g) * dot((const real *)dy + at, (const real *)o + at, d);
                for (int j = 0; j < d; j++) ((real *)d_o)[at + j] = g * ((const real *)dy)[at + j];
                for (int j = 0; j < c; j++) {
                    sums[b][j] += (double)(dz * ap[j]);
                    ((real *)da)[(size_t)p * width + j] += dz * row[j];
                }
            }
        }
        for (int j = 0; j < c; j++) {
            double total = 0;
            for (int b = 0; b < SUM_BLOCKS; b++) total += sums[b][j];
            ((real *)dgate)[i * c + j] += (real)total;
        }
    }
}
