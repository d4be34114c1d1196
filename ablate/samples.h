// Matrices with their decompositions, one after the other, and what a method makes of one.
#ifndef ABLATE_SAMPLES_H
#define ABLATE_SAMPLES_H

#include "../ns.h"
#include "studies.h"

typedef struct {
    const char *input;
    int m, n, seed;
    double *g, *polar, *sigma; // (m,n), its polar factor, its singular values (m)
} Sample;

// Calls `study` for the matrices of each size, input and seed, then for those of the momentum file
// if there is one; until it returns false. The sample's polar and sigma are NULL: sample_decompose
// fills them, and samples_each frees them.
typedef bool SampleStudy(void *context, Sample *sample, Error *err);
bool samples_each(const Studies *studies, SampleStudy *study, void *context, Error *err);
void sample_decompose(Sample *sample);

// y (m,n) = the method on factor times the sample, in fp32 arithmetic with the method's storage.
void sample_apply(double *y, const Sample *sample, const NsMethod *method, double factor);
// |y - polar| / |polar|.
double sample_distance(const double *y, const Sample *sample);
// |y y^T - I|_F / sqrt(m).
double sample_orthogonality(const double *y, int m, int n);
// <G,Y> / (|G| |Y|), relative to the polar factor's.
double sample_descent(const double *y, const Sample *sample);
double sample_largest(const Sample *sample); // singular value

#endif
