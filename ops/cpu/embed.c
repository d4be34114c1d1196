// Token embedding with smear and norm, and the gradient of embedding tables
// (specification 2.2, 3.3).
#include "cpu.h"

// sigmoid(gate . e[0..c))
static real smear_gate(const real *gate, const real *e, int c)
{
    real z = 0;
    for (int j = 0; j < c; j++) z += gate[j] * e[j];
    return sigmoid(z);
}

void cpu_embed_forward(void *x0, void *r, const int32_t *ids, const void *embed, const void *gate,
                       const void *mu, int t, int d, int c, double eps)
{
#pragma omp parallel for
    for (int p = 0; p < t; p++) {
        const real *e = (const real *)embed + (size_t)ids[p] * d;
        const real *before = p > 0 ? (const real *)embed + (size_t)ids[p - 1] * d : e;
        const real m = p > 0 ? *(const real *)mu * smear_gate(gate, e, c) : 0;
        real *x = (real *)x0 + (size_t)p * d, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < d; j++) {
            x[j] = e[j] + m * before[j];
            sum += x[j] * x[j];
        }
        real rp = (real)(1 / sqrt((double)sum / d + eps));
#pragma omp simd
        for (int j = 0; j < d; j++) x[j] *= rp;
        ((real *)r)[p] = rp;
    }
}

// Row p of the table's gradient gathers from two rows of dx: its own, and the next one through the
// smear. The gradient of x before the norm is recomputed for both, so that rows are independent.
void cpu_embed_backward(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                        const void *r, const int32_t *ids, const void *embed, const void *gate,
                        const void *mu, int t, int d, int c)
{
    const real *w = embed, *g = gate, *y = x0, *dy = dx0;
    const real m = *(const real *)mu;
    double dmu_sum[SUM_BLOCKS];
    double dgate_sum[SUM_BLOCKS][MAX_GATE_CHANNELS];
#pragma omp parallel for
    for (int b = 0; b < SUM_BLOCKS; b++) {
        dmu_sum[b] = 0;
        for (int j = 0; j < c; j++) dgate_sum[b][j] = 0;
        for (int p = block_start(b, t); p < block_start(b + 1, t); p++) {
            real *dep = (real *)de + (size_t)p * d;
            const real *e = w + (size_t)ids[p] * d;
            for (int next = 0; next < 2 && p + next < t; next++) { // dx of row p, then of row p + 1
                size_t row = (size_t)(p + next) * d;
                const real *dyp = dy + row, *yp = y + row;
                const real rp = ((const real *)r)[p + next];
                real mean = 0;
#pragma omp simd reduction(+ : mean)
                for (int j = 0; j < d; j++) mean += dyp[j] * yp[j];
                mean /= d;
                if (next) {
                    real weight = m * smear_gate(g, w + (size_t)ids[p + 1] * d, c);
#pragma omp simd
                    for (int j = 0; j < d; j++) dep[j] += weight * rp * (dyp[j] - yp[j] * mean);
                    continue;
                }
#pragma omp simd
                for (int j = 0; j < d; j++) dep[j] = rp * (dyp[j] - yp[j] * mean);
                if (p == 0) continue;
                const real *before = w + (size_t)ids[p - 1] * d;
                real s = smear_gate(g, e, c), gamma = 0; // gamma = dx . e_{p-1}
#pragma omp simd reduction(+ : gamma)
                for (int j = 0; j < d; j++) gamma += dep[j] * before[j];
                real dz = m * s * (1 - s) * gamma;
                dmu_sum[b] += (double)(s * gamma);
                for (int j = 0; j < c; j++) {
                    dgate_sum[b][j] += (double)(dz * e[j]);
                    dep[j] += dz * g[j];
                }
            }
        }
    }
    double total = 0;
    for (int b = 0; b < SUM_BLOCKS; b++) total += dmu_sum[b];
    *(real *)dmu += (real)total;
    for (int j = 0; j < c; j++) {
        total = 0;
        for (int b = 0; b < SUM_BLOCKS; b++) total += dgate_sum[b][j];
        ((real *)dgate)[j] += (real)total;
    }
}

void cpu_embed_scatter(void *grad, DType dtype, const void *de, const int32_t *ids,
                       const int32_t *order, int t, int d)
{
#pragma omp parallel for schedule(dynamic, 64)
    for (int first = 0; first < t; first++) {
        int id = ids[order[first]];
        if (first > 0 && ids[order[first - 1]] == id) continue; // inside a run of equal ids
        int end = first + 1;
        while (end < t && ids[order[end]] == id) end++;
        for (int j = 0; j < d; j++) {
            real sum = 0;
            for (int i = first; i < end; i++) sum += ((const real *)de)[(size_t)order[i] * d + j];
            size_t at = (size_t)id * d + j;
            store_rounded(grad, dtype, at, load_stored(grad, dtype, at) + round_stored(sum, dtype));
        }
    }
}

void cpu_gather_rows(void *out, const void *table, DType dtype, const int32_t *rows, double scale,
                     int n, int d)
{
#pragma omp parallel for
    for (int i = 0; i < n; i++)
        for (int j = 0; j < d; j++)
            store_rounded(out, dtype, (size_t)i * d + j,
                          (real)scale * load_stored(table, dtype, (size_t)rows[i] * d + j));
}
