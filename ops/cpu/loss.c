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

static real round_fp8(real x, Fp8Format format, float inverse)
{
    return (real)(format == FP8_E4M3 ? round_e4m3((float)x * inverse)
                                     : round_e5m2((float)x * inverse));
}

// yt (C,R) = y (R,C)^T, in squares that stay in the first cache.
static void transpose(real *yt, const real *y, int rows, int cols)
{
    enum { TILE = 16 };
#pragma omp parallel for
    for (int j0 = 0; j0 < cols; j0 += TILE)
        for (int i0 = 0; i0 < rows; i0 += TILE)
            for (int j = j0; j < cols && j < j0 + TILE; j++)
                for (int i = i0; i < rows && i < i0 + TILE; i++)
                    yt[(size_t)j * rows + i] = y[(size_t)i * cols + j];
}

void cpu_quantize(void *y, void *yt, const void *x, Fp8Format format, double scale, int rows,
                  int cols)
{
    real *out = y;
    const real *in = x;
    const float inverse = (float)(1 / scale); // the compiled reference multiplies by the reciprocal
#pragma omp parallel for
    for (size_t i = 0; i < (size_t)rows * cols; i++) out[i] = round_fp8(in[i], format, inverse);
    transpose(yt, y, rows, cols);
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

void cpu_softcap_loss_fp8(void *loss, void *g, void *gt, void *u, const int32_t *targets,
                          double grad_scale, double scale, int t, int v, double cap, double div)
{
    const real *du = u;
    real *out = g;
    const float inverse = (float)(1 / scale);
    cpu_softcap_loss(loss, u, targets, grad_scale, t, v, cap, div);
#pragma omp parallel for
    for (size_t i = 0; i < (size_t)t * v; i++)
        out[i] = round_fp8((real)round_bf16((float)du[i]), FP8_E5M2, inverse);
    transpose(gt, g, t, v);
}

void cpu_sum(double *total, const void *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)((const real *)x)[i];
    *total += sum;
}
