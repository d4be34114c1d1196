// The cross-entropy method (Rubinstein 1999) for coefficients: a normal distribution over 3k
// numbers is drawn towards the best of each generation.
#ifndef ABLATE_CROSS_ENTROPY_H
#define ABLATE_CROSS_ENTROPY_H

#include <stdint.h>

#include "../ns.h"

// Singular values of matrices after a normaliser.
typedef struct {
    int matrices, each;  // values of a matrix
    const double *sigma; // (matrices, each)
} Spectra;

// The mean over the matrices of the rms of p(sigma) - 1: the polar error in exact arithmetic,
// without a normaliser's bias. What the chain makes of [0, 1.02], were it to pass 1.1, is added
// with its square: roundings put values there.
double spectra_loss(const Spectra *s, const NsCoeff *p, int k);

typedef struct {
    int population, generations;
    double elite;    // the share that the next generation is drawn towards, (0, 1]
    double momentum; // of the old mean and deviation, [0, 1)
    double spread;   // first deviation relative to each coefficient
    uint64_t seed;
    // Called after each generation unless NULL.
    void (*progress)(int generation, int of, double best);
} CrossEntropy;

// Betters p (k triples) in place; returns its loss, which is never more than before. The result
// depends on the arguments alone.
double cross_entropy_search(const CrossEntropy *how, const Spectra *s, NsCoeff *p, int k);

#endif
