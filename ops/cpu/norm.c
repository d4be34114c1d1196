// RMS norm and the residual stream around it: lambda-mix, skip, backout
// (specification 2.1, 2.3, 2.6).
#include "cpu.h"

// r = rsqrt(mean x^2 + eps) of one row, and y = r x.
static real norm_row(real *y, const real *x, int d, double eps)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < d; j++) sum += x[j] * x[j];
    real r = (real)(1 / sqrt((double)sum / d + eps));
#pragma omp simd
    for (int j = 0; j < d; j++) y[j] = r * x[j];
    return r;
}

static real dot(const real *a, const real *b, int d)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < d; j++) sum += a[j] * b[j];
    return sum;
}

void cpu_norm_forward(void *y, void *r, const void *x, int t, int d, double eps)
{
#pragma omp parallel for
    for (int p = 0; p < t; p++)
        ((real *)r)[p] =
            norm_row((real *)y + (size_t)p * d, (const real *)x + (size_t)p * d, d, eps);
}

void cpu_norm_backward(void *dx, const void *dy, const void *y, const void *r, int t, int d)
{
#pragma omp parallel for
    for (int p = 0; p < t; p++) {
        size_t row = (size_t)p * d;
        real *dxp = (real *)dx + row;
        const real *dyp = (const real *)dy + row, *yp = (const real *)y + row;
        real rp = ((const real *)r)[p], mean = dot(dyp, yp, d) / d;
#pragma omp simd
        for (int j = 0; j < d; j++) dxp[j] += rp * (dyp[j] - yp[j] * mean);
    }
}

void cpu_mix_norm_forward(void *x, void *y, void *r, const void *x_in, const void *skip,
                          const void *skip_gate, const void *x0, const void *lambda, int t, int d,
                          double eps)
{
    const real l0 = ((const real *)lambda)[0], l1 = ((const real *)lambda)[1];
    const real g = skip ? sigmoid(*(const real *)skip_gate) : 0;
#pragma omp parallel for
    for (int p = 0; p < t; p++) {
        size_t row = (size_t)p * d;
        real *xp = (real *)x + row;
        const real *in = (const real *)x_in + row, *x0p = (const real *)x0 + row;
        const real *sp = skip ? (const real *)skip + row : in; // with g = 0 any row will do
#pragma omp simd
        for (int j = 0; j < d; j++) xp[j] = l0 * (in[j] + g * sp[j]) + l1 * x0p[j];
        ((real *)r)[p] = norm_row((real *)y + row, xp, d, eps);
    }
}

void cpu_mix_norm_backward(void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                           const void *dy, const void *y, const void *r, const void *x_in,
                           const void *skip, const void *skip_gate, const void *x0,
                           const void *lambda, int t, int d)
{
    const real l0 = ((const real *)lambda)[0], l1 = ((const real *)lambda)[1];
    const real g = skip ? sigmoid(*(const real *)skip_gate) : 0;
    double sums[SUM_BLOCKS][3]; // of G x_in, G x0, G skip
#pragma omp parallel for
    for (int b = 0; b < SUM_BLOCKS; b++) {
        double *s = sums[b];
        s[0] = s[1] = s[2] = 0;
        for (int p = block_start(b, t); p < block_start(b + 1, t); p++) {
            size_t row = (size_t)p * d;
            real *dxp = (real *)dx + row, *dx0p = (real *)dx0 + row;
            const real *dyp = (const real *)dy + row, *yp = (const real *)y + row;
            const real *in = (const real *)x_in + row, *x0p = (const real *)x0 + row;
            real rp = ((const real *)r)[p], mean = dot(dyp, yp, d) / d;
#pragma omp simd
            for (int j = 0; j < d; j++) dxp[j] += rp * (dyp[j] - yp[j] * mean);
            s[0] += (double)dot(dxp, in, d);
            s[1] += (double)dot(dxp, x0p, d);
#pragma omp simd
            for (int j = 0; j < d; j++) dx0p[j] += l1 * dxp[j];
            if (skip) {
                real *dsp = (real *)dskip + row;
                s[2] += (double)dot(dxp, (const real *)skip + row, d);
#pragma omp simd
                for (int j = 0; j < d; j++) dsp[j] = l0 * g * dxp[j];
            }
#pragma omp simd
            for (int j = 0; j < d; j++) dxp[j] *= l0;
        }
    }
    double total[3] = {0, 0, 0};
    for (int b = 0; b < SUM_BLOCKS; b++)
        for (int i = 0; i < 3; i++) total[i] += sums[b][i];
    ((real *)dlambda)[0] += (real)(total[0] + (double)g * total[2]);
    ((real *)dlambda)[1] += (real)total[1];
    if (skip) *(real *)dskip_gate += (real)((double)(l0 * g * (1 - g)) * total[2]);
}

void cpu_backout_norm_forward(void *y, void *r, const void *x, const void *x_back, const void *beta,
                              int t, int d, double eps)
{
    const real b = *(const real *)beta;
#pragma omp parallel for
    for (int p = 0; p < t; p++) {
        size_t row = (size_t)p * d;
        real *yp = (real *)y + row;
        const real *xp = (const real *)x + row, *back = (const real *)x_back + row;
#pragma omp simd
        for (int j = 0; j < d; j++) yp[j] = xp[j] - b * back[j];
        ((real *)r)[p] = norm_row(yp, yp, d, eps);
    }
}

void cpu_backout_norm_backward(void *dx, void *dx_back, void *dbeta, const void *dy, const void *y,
                               const void *r, const void *x_back, const void *beta, int t, int d)
{
    const real beta0 = *(const real *)beta;
    double sums[SUM_BLOCKS];
#pragma omp parallel for
    for (int b = 0; b < SUM_BLOCKS; b++) {
        sums[b] = 0;
        for (int p = block_start(b, t); p < block_start(b + 1, t); p++) {
            size_t row = (size_t)p * d;
            real *dxp = (real *)dx + row, *dbp = (real *)dx_back + row;
            const real *dyp = (const real *)dy + row, *yp = (const real *)y + row;
            real rp = ((const real *)r)[p], mean = dot(dyp, yp, d) / d;
#pragma omp simd
            for (int j = 0; j < d; j++) {
                dxp[j] = rp * (dyp[j] - yp[j] * mean);
                dbp[j] = -beta0 * dxp[j];
            }
            sums[b] += (double)dot(dxp, (const real *)x_back + row, d);
        }
    }
    double total = 0;
    for (int b = 0; b < SUM_BLOCKS; b++) total += sums[b];
    *(real *)dbeta -= (real)total;
}

void cpu_add(void *dst, const void *src, size_t n)
{
    real *a = dst;
    const real *b = src;
#pragma omp parallel for simd
    for (size_t i = 0; i < n; i++) a[i] += b[i];
}
