#include "polar.h"

#include <math.h>

#include "polynomial.h"

typedef struct {
    const PolarDevice *device;
    double *x, *y, *a, *p; // x and y change places at each step
    int m, n;
} Work;

static void gram(Work *w)
{
    w->device->multiply(w->a, w->x, w->x, true, w->m, w->m, w->n, 1, 0, NULL);
}

static void swap(double **x, double **y)
{
    double *const kept = *x;
    *x = *y, *y = kept;
}

// X <- c.a X + (c.b A + c.c A^2) X for A = X X^T in a.
static void step(Work *w, NsCoeff c)
{
    const PolarDevice *d = w->device;
    d->multiply(w->p, w->a, w->a, false, w->m, w->m, w->m, c.c, c.b, w->a);
    d->multiply(w->y, w->p, w->x, false, w->m, w->n, w->m, 1, c.a, w->x);
    swap(&w->x, &w->y);
    gram(w);
}

// McWeeny's purification E <- 3 E^2 - 2 E^3 takes the eigenvalues of A, all in [0, 1.01], to 0
// below a half and to 1 above. Returns the rank.
static int purify(Work *w, double *e)
{
    const PolarDevice *d = w->device;
    const size_t square = (size_t)w->m * (size_t)w->m;
    double *from = w->a, *to = e;
    for (int i = 0; i < 60; i++) {
        d->multiply(w->p, from, from, false, w->m, w->m, w->m, 1, 0, NULL);
        if (i && d->distance(w->p, from, square) < 1e-12 * w->m) break;
        d->multiply(to, w->p, from, false, w->m, w->m, w->m, -2, 3, w->p);
        swap(&from, &to);
    }
    if (from != e) { // an even number of steps: one product more, by I
        d->identity(w->p, w->m);
        d->multiply(e, from, w->p, false, w->m, w->m, w->m, 1, 0, NULL);
    }
    return (int)lround(pow(d->distance(e, NULL, square), 2));
}

// The best polynomial on all of [low, high] brings one value between them down to almost nothing,
// and roundings would take its direction. On [0.05 high, high] it takes none below a fifth of the
// largest, and makes what is smaller grow as fast. Beyond its interval a value would run away, so
// that is a hundredth longer than it need be.
static const double kShallow = 0.05;

PolarReport polar_factor(const PolarDevice *device, double *x, double *e, double *y, double *a,
                         double *p, int m, int n)
{
    static const NsCoeff last = {15.0 / 8, -10.0 / 8, 3.0 / 8}; // p(1) = 1, p' = p'' = 0 there
    const size_t size = (size_t)m * (size_t)n, square = (size_t)m * (size_t)m;
    Work w = {device, x, y, a, p, m, n};
    PolarReport report = {.rank = m};
    device->identity(e, m);
    gram(&w);
    const double schatten4 = sqrt(device->distance(a, NULL, square));
    if (!(schatten4 > 0)) {
        device->scale(e, square, 0);
        report.rank = 0;
        return report;
    }
    device->scale(x, size, 1 / schatten4);
    device->scale(a, square, 1 / (schatten4 * schatten4));
    for (double low = POLAR_SMALLEST, high = 1; high - low > 2e-3; report.iterations++) {
        NsCoeff c;
        const double error = polynomial_minimax(&c, fmax(low, kShallow * high), 1.01 * high);
        step(&w, c);
        low = fmin(polynomial_at(c, low), 1 - error), high = 1 + error;
    }
    if (device->distance(a, e, square) > 0.5) { // some value is still far from 1
        report.rank = purify(&w, e);
        device->multiply(w.y, e, w.x, false, m, n, m, 1, 0, NULL);
        swap(&w.x, &w.y);
        gram(&w);
    }
    report.residual = INFINITY;
    for (int i = 0; i < 20; i++, report.iterations++) {
        const double residual = device->distance(a, e, square) / sqrt(report.rank);
        if (!(residual < 0.5 * report.residual)) break; // as near as roundings allow
        report.residual = residual;
        step(&w, last);
    }
    if (w.x != x) { // by I once more, into the caller's x
        device->identity(p, m);
        device->multiply(x, p, w.x, false, m, n, m, 1, 0, NULL);
    }
    return report;
}

double polar_largest(const PolarDevice *device, const double *x, double *a, double *p, int m, int n)
{
    enum { SQUARINGS = 14 };
    const size_t square = (size_t)m * (size_t)m;
    device->multiply(a, x, x, true, m, m, n, 1, 0, NULL);
    double norm = device->distance(a, NULL, square), logarithm = log(norm); // of |A^q|_F
    if (!(norm > 0)) return 0;
    for (int k = 0; k < SQUARINGS; k++) {
        device->scale(a, square, 1 / norm); // A^q over its norm
        device->multiply(p, a, a, false, m, m, m, 1, 0, NULL);
        swap(&a, &p);
        norm = device->distance(a, NULL, square);
        logarithm = 2 * logarithm + log(norm);
    }
    return exp(logarithm / (2 << SQUARINGS));
}
