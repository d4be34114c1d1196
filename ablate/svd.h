// The polar factor U V^T of a small matrix in double, by a one-sided Jacobi SVD: pairs of rows are
// rotated until all are orthogonal; then G = U diag(sigma) V^T with sigma v_i^T the rows.
#ifndef ABLATE_SVD_H
#define ABLATE_SVD_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

// polar (m,n) and sigma (m, unsorted) of g (m,n), m <= n. Directions of a singular value that is
// exactly 0 are left out of polar. sigma may be NULL.
static void svd_polar(double *polar, double *sigma, const double *g, int m, int n)
{
    double *v = malloc(sizeof(double) * (size_t)m * n), *u = calloc((size_t)m * m, sizeof(double));
    memcpy(v, g, sizeof(double) * (size_t)m * n);
    for (int i = 0; i < m; i++) u[i * m + i] = 1; // row i of u: column i of U
    for (int sweep = 0, rotated = 1; rotated && sweep < 40; sweep++) {
        rotated = 0;
        for (int i = 0; i < m; i++)
            for (int j = i + 1; j < m; j++) {
                double *x = v + (size_t)i * n, *y = v + (size_t)j * n, xx = 0, yy = 0, xy = 0;
#pragma omp simd reduction(+ : xx, yy, xy)
                for (int k = 0; k < n; k++) {
                    xx += x[k] * x[k];
                    yy += y[k] * y[k];
                    xy += x[k] * y[k];
                }
                if (fabs(xy) <= 1e-15 * sqrt(xx * yy)) continue;
                rotated = 1;
                double zeta = (yy - xx) / (2 * xy);
                double t = copysign(1, zeta) / (fabs(zeta) + sqrt(1 + zeta * zeta));
                double c = 1 / sqrt(1 + t * t), s = c * t;
                for (int k = 0; k < n; k++) {
                    double a = x[k], b = y[k];
                    x[k] = c * a - s * b;
                    y[k] = s * a + c * b;
                }
                for (int k = 0; k < m; k++) {
                    double a = u[i * m + k], b = u[j * m + k];
                    u[i * m + k] = c * a - s * b;
                    u[j * m + k] = s * a + c * b;
                }
            }
    }
    memset(polar, 0, sizeof(double) * (size_t)m * n);
    for (int i = 0; i < m; i++) {
        double norm = 0;
        for (int k = 0; k < n; k++) norm += v[(size_t)i * n + k] * v[(size_t)i * n + k];
        norm = sqrt(norm);
        if (sigma) sigma[i] = norm;
        for (int r = 0; r < m; r++)
            for (int k = 0; k < n; k++)
                polar[(size_t)r * n + k] +=
                    norm > 0 ? u[i * m + r] * v[(size_t)i * n + k] / norm : 0;
    }
    free(u);
    free(v);
}

#endif
