// Odd quintics p(x) = a x + b x^3 + c x^5 on singular values: what a Newton-Schulz iteration does
// to each of them, their composition, and the best ones on an interval.
#ifndef ABLATE_POLYNOMIAL_H
#define ABLATE_POLYNOMIAL_H

#include <stdbool.h>

#include "../ns.h"

double polynomial_at(NsCoeff p, double x);
// p[k-1] after .. after p[0], at x.
double polynomial_chain(const NsCoeff *p, int k, double x);

// The odd quintic with the least max |p(x) - 1| on [low, high], 0 < low < high, by Remez exchange;
// returns that error. Equal to Polar Express's step without its safety (arXiv 2505.16932, algorithm
// 1).
double polynomial_minimax(NsCoeff *p, double low, double high);
// k of them, each on the interval that the ones before leave of [low, high], its end times `margin`
// (1 for none), because roundings put values beyond it. Returns the last error.
double polynomial_minimax_chain(NsCoeff *p, int k, double low, double high, double margin);

#endif
