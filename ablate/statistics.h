// What a few runs say: mean, deviation, and whether two methods differ.
#ifndef ABLATE_STATISTICS_H
#define ABLATE_STATISTICS_H

double mean_of(const double *x, int n);
double deviation_of(const double *x, int n); // of a sample, n - 1; 0 for one value
// P(|T| > |t|) of Student's distribution.
double student_two_sided(double t, double freedom);
// Welch's test of equal means: the two-sided p; 1 when there is nothing to tell.
double welch(const double *x, int nx, const double *y, int ny);
// The smallest difference of two means of n runs each with that deviation which is found at p < .05
// four times in five.
double detectable(double deviation, int n);

#endif
