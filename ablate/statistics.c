#include "statistics.h"

#include <math.h>

double mean_of(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n > 0 ? sum / n : NAN;
}

double deviation_of(const double *x, int n)
{
    const double mean = mean_of(x, n);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : 0;
}

// With t = sqrt(freedom) tan(a) the density becomes cos(a)^(freedom-1): Simpson's rule over the
// angle.
double student_two_sided(double t, double freedom)
{
    enum { STEPS = 2000 };
    const double end = atan(fabs(t) / sqrt(freedom)), h = end / STEPS;
    double sum = 0;
    for (int i = 0; i <= STEPS; i++)
        sum += (i == 0 || i == STEPS ? 1 : i % 2 ? 4 : 2) * pow(cos(i * h), freedom - 1);
    const double inside =
        2 * sum * h / 3 * exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(M_PI);
    return fmin(fmax(1 - inside, 0), 1);
}

double welch(const double *x, int nx, const double *y, int ny)
{
    if (nx < 2 || ny < 2) return 1;
    const double vx = pow(deviation_of(x, nx), 2) / nx, vy = pow(deviation_of(y, ny), 2) / ny;
    const double off = mean_of(x, nx) - mean_of(y, ny);
    if (vx + vy == 0) return off == 0 ? 1 : 0;
    const double freedom = pow(vx + vy, 2) / (vx * vx / (nx - 1) + vy * vy / (ny - 1));
    return student_two_sided(off / sqrt(vx + vy), freedom);
}

// The t that a two-sided p leaves outside.
static double quantile(double p, double freedom)
{
    double low = 0, high = 1e4;
    for (int i = 0; i < 100; i++) {
        const double t = 0.5 * (low + high);
        *(student_two_sided(t, freedom) > p ? &low : &high) = t;
    }
    return low;
}

double detectable_pooled(double deviation, int n, double freedom)
{
    if (n < 2) return INFINITY;
    return (quantile(0.05, freedom) + quantile(0.4, freedom)) * deviation * sqrt(2.0 / n);
}

double detectable(double deviation, int n) { return detectable_pooled(deviation, n, 2 * (n - 1)); }

double pooled_deviation(const double *x, const int *n, int groups, double *freedom)
{
    double square = 0;
    *freedom = 0;
    for (int i = 0; i < groups; x += n[i++]) {
        square += (n[i] - 1) * pow(deviation_of(x, n[i]), 2);
        *freedom += n[i] - 1;
    }
    return *freedom > 0 ? sqrt(square / *freedom) : NAN;
}

double student_below(double t, double freedom)
{
    const double outside = student_two_sided(t, freedom) / 2;
    return t < 0 ? outside : 1 - outside;
}

double student_mean_below(const double *x, int n, double value)
{
    if (n < 2) return 1;
    const double deviation = deviation_of(x, n), off = mean_of(x, n) - value;
    if (deviation == 0) return off < 0 ? 0 : 1;
    return student_below(off / (deviation / sqrt(n)), n - 1);
}

static int rank_of(const double *x, int n, int i) // how many come before the i-th
{
    int before = 0;
    for (int k = 0; k < n; k++) before += x[k] < x[i] || (k < i && x[k] == x[i]);
    return before;
}

double rank_correlation(const double *x, const double *y, int n)
{
    double square = 0;
    for (int i = 0; i < n; i++) square += pow(rank_of(x, n, i) - rank_of(y, n, i), 2);
    return 1 - 6 * square / (n * ((double)n * n - 1));
}

Adaptive adaptive_counts(const double *indicator, const double *before, const double *at,
                         const double *after, int n)
{
    Adaptive a = {rank_correlation(indicator, at, n), mean_of(at, n), 0, INFINITY};
    for (int q = 0; q <= n / 2; q++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            const int rank = rank_of(indicator, n, i);
            sum += rank < q ? after[i] : rank >= n - q ? before[i] : at[i];
        }
        if (q == n / 4) a.quarter = sum / n;
        a.best = fmin(a.best, sum / n);
    }
    return a;
}
