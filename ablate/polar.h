// The polar factor in double by Newton-Schulz iteration, on whatever multiplies matrices: the
// reference for matrices that are too large for a decomposition (svd.h).
#ifndef ABLATE_POLAR_H
#define ABLATE_POLAR_H

#include <stdbool.h>
#include <stddef.h>

// Matrices of doubles, row-major, in the device's memory.
typedef struct {
    // d (m,k) = alpha a (m,n) op(b) + beta c; op(b) is b (n,k), or with `transposed` the transpose
    // of b (k,n). d is none of the others; c may be NULL for nothing.
    void (*multiply)(double *d, const double *a, const double *b, bool transposed, int m, int k,
                     int n, double alpha, double beta, const double *c);
    // |x - y|_F; y NULL is zero.
    double (*distance)(const double *x, const double *y, size_t size);
    void (*scale)(double *x, size_t size, double factor);
    void (*identity)(double *x, int m); // x (m,m) = I
} PolarDevice;

typedef struct {
    int rank;        // directions that the input determines, m unless singular values are too small
    int iterations;  // of three products each
    double residual; // |Y Y^T - E|_F / sqrt(rank)
} PolarReport;

// x (m,n), m <= n, becomes its polar factor U V^T. A singular value below about POLAR_SMALLEST of
// (sum of fourth powers)^(1/4) of all of them has no direction that doubles determine: e (m,m)
// becomes the projection E onto the span of the other left singular vectors, exactly I when there
// are only those, and x is restricted to it (of exact zeros nothing is left). Work: y (m,n), a and
// p (m,m). Rounding leaves a relative error of about 1e-16 times the condition number.
#define POLAR_SMALLEST 1e-10
PolarReport polar_factor(const PolarDevice *device, double *x, double *e, double *y, double *a,
                         double *p, int m, int n);

// The largest singular value of x (m,n), m <= n, or up to m^(1/65536) times that, 1.0002 for
// m = 16384: |A^q|_F^(1/2q) of A = x x^T with q = 2^14. 0 for zeros. Work: a and p (m,m).
double polar_largest(const PolarDevice *device, const double *x, double *a, double *p, int m,
                     int n);

#endif
