// Matrices to orthogonalise: random ones of known distributions, and what a normaliser makes of
// one.
#ifndef ABLATE_INPUTS_H
#define ABLATE_INPUTS_H

#include <stdint.h>

#include "../ns.h"

// The i-th distribution's name, NULL past the end: gaussian; uniform on [-1, 1]; levy1.0, levy1.5
// and levy1.75, symmetric alpha-stable; rows and columns, Gaussians times e^N(0,1) for each of
// them; low-rank, of rank max(1, m/16) with rms entries of 1, plus noise of 0.03.
const char *inputs_name(int i);
// g (m,n) of that distribution, the same for the same seed. False for an unknown name.
bool inputs_fill(double *g, int m, int n, const char *name, uint64_t seed);

// Matrix b of a tensor (..,rows,cols) to g, its longer side along the rows. False when a number is
// not finite.
bool inputs_matrix(double *g, const void *tensor, DType dtype, int64_t b, int64_t rows,
                   int64_t cols);

// g (m,n) as the method's normaliser leaves it in exact arithmetic, without eps.
void inputs_normalize(double *g, int m, int n, NsNorm norm, double delta);

#endif
