// Newton-Schulz as a plain low-precision program does it, every operation rounding to the storage
// type: the yardstick for the roundings of ops/cpu/ns.c, which are fewer.
#ifndef TESTS_CPU_NS_NAIVE_H
#define TESTS_CPU_NS_NAIVE_H

#include <math.h>
#include <string.h>

#include "../../ns.h"

enum { NAIVE_ROWS = 64, NAIVE_LARGEST = 48 * 192 }; // at most this many rows, and numbers of x

static double naive_norm(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static double round_to(double x, DType t)
{
    return t == DT_F16 ? round_f16((float)x) : round_bf16((float)x);
}

// c (m,n) = a b, or a b^T for b (n,k).
static void naive_product(double *c, const double *a, const double *b, bool nt, int m, int n, int k,
                          DType t)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++) sum += a[i * k + l] * (nt ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = round_to(sum, t);
        }
}

// c = x + y scaled by p and q, n numbers; c may be x or y.
static void naive_sum(double *c, double p, const double *x, double q, const double *y, size_t n,
                      DType t)
{
    for (size_t i = 0; i < n; i++)
        c[i] = round_to(round_to(p * x[i], t) + round_to(q * y[i], t), t);
}

static void naive_normalize(double *x, double *a, const NsMethod *method, int m, int n)
{
    const DType t = method->storage;
    const double w = 1 + method->delta;
    for (int i = 0; i < m * n; i++) x[i] = round_to(x[i], t);
    naive_product(a, x, x, true, m, m, n, t);
    double frobenius = w * naive_norm(x, (size_t)m * n) + method->eps;
    double schatten4 = sqrt(w * naive_norm(a, (size_t)m * m) + method->eps);
    for (int i = 0; i < m; i++) {
        double row = 0;
        for (int j = 0; j < m; j++) row += fabs(a[i * m + j]);
        double by = method->norm == NS_NORM_AOL         ? sqrt(w * row + method->eps)
                    : method->norm == NS_NORM_FROBENIUS ? frobenius
                                                        : schatten4;
        for (int j = 0; j < n; j++) x[i * n + j] = round_to(x[i * n + j] / by, t);
    }
}

// x = q x.
static void naive_apply(double *x, const double *q, int m, int n, DType t)
{
    double y[NAIVE_LARGEST];
    naive_product(y, q, x, false, m, n, m, t);
    memcpy(x, y, sizeof(double) * (size_t)m * n);
}

static void naive(double *x, const NsMethod *method, int m, int n)
{
    static double a[NAIVE_ROWS * NAIVE_ROWS], b[NAIVE_ROWS * NAIVE_ROWS],
        q[NAIVE_ROWS * NAIVE_ROWS], p[NAIVE_ROWS * NAIVE_ROWS], y[NAIVE_LARGEST];
    const DType t = method->storage;
    const size_t square = (size_t)m * m, size = (size_t)m * n;
    naive_normalize(x, a, method, m, n);
    for (int k = 0; k < method->iterations; k++) {
        NsCoeff c = method->coeff[k];
        bool restart = method->restarts >> k & 1;
        if (restart) naive_apply(x, q, m, n, t);
        if (k == 0 || restart || !method->gram) naive_product(a, x, x, true, m, m, n, t);
        naive_product(p, a, a, false, m, m, m, t);
        naive_sum(b, c.b, a, c.c, p, square, t);
        if (!method->gram) {
            naive_product(y, b, x, false, m, n, m, t);
            naive_sum(x, c.a, x, 1, y, size, t);
            continue;
        }
        if (k == 0 || restart)
            for (int i = 0; i < m * m; i++) q[i] = i % (m + 1) ? 0 : 1;
        naive_product(p, q, b, false, m, m, m, t);
        naive_sum(q, c.a, q, 1, p, square, t);
        for (int side = 0; side < 2; side++) {
            naive_product(p, b, a, false, m, m, m, t);
            naive_sum(a, c.a, a, 1, p, square, t);
        }
    }
    if (method->gram) naive_apply(x, q, m, n, t);
}

#endif
