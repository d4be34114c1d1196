// The MLP's activation, the head's fp8 operands, and the softcapped cross-entropy
// (specification 2.5 to 2.7 and 3.1, 3.2).
#include "cpu.h"

void cpu_relu2_forward(void *r, const void *h, size_t n)
{
    real *y = r;
    const real *x = h;
#pragma omp parallel for simd
    for (size_t i = 0; i < n; i++) {
        real positive = x[i] < 0 ? 0 : x[i]; // a NaN stays
        y[i] = positive * positive;
    }
}

void cpu_relu2_backward(void *dh, const void *dr, const void *h, size_t n)
{
    real *dx = dh;
    const real *dy = dr, *x = h;
#pragma omp parallel for simd
    for (size_t i = 0; i < n; i++) dx[i] = 2 * (x[i] < 0 ? 0 : x[i]) * dy[i];
}

void cpu_quantize(void *y, const void *x, Fp8Format format, double scale, bool via_bf16, size_t n)
{
    real *out = y;
    const real *in = x;
    const float inverse = (float)(1 / scale); // the compiled reference multiplies by the reciprocal
#pragma omp parallel for
    for (size_t i = 0; i < n; i++) {
        real v = via_bf16 ? (real)round_bf16((float)in[i]) : in[i];
        out[i] = format == FP8_E4M3   ? (real)round_e4m3((float)v * inverse)
                 : format == FP8_E5M2 ? (real)round_e5m2((float)v * inverse)
                                      : v;
    }
}

// One row: s = sigmoid(u/div) replaces u, then the log-sum-exp of cap s, then the gradient replaces
// s: d loss/du = (cap/div) s (1 - s) (softmax - onehot).
static real softcap_row(real *u, int target, real grad_scale, int v, real cap, real div)
{
    real max = 0, sum = 0; // sigmoid is never below 0
    const real inverse = 1 / div;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < v; j++) {
        u[j] = sigmoid(u[j] * inverse);
        max = u[j] > max ? u[j] : max;
    }
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < v; j++) sum += real_exp(cap * (u[j] - max));
    const real hit = u[target], loss = (real)log((double)sum) + cap * (max - hit);
    if (grad_scale != 0) {
        const real g = grad_scale * cap / div, scale = g / sum;
#pragma omp simd
        for (int j = 0; j < v; j++) u[j] = scale * real_exp(cap * (u[j] - max)) * u[j] * (1 - u[j]);
        u[target] -= g * hit * (1 - hit);
    }
    return loss;
}

void cpu_softcap_loss(void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                      double cap, double div)
{
#pragma omp parallel for
    for (int p = 0; p < t; p++)
        ((real *)loss)[p] = softcap_row((real *)u + (size_t)p * v, targets[p], (real)grad_scale, v,
                                        (real)cap, (real)div);
}

double cpu_sum(const void *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)((const real *)x)[i];
    return sum;
}
