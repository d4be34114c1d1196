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
// The same with the deviation known from `freedom` degrees of freedom, of several methods together.
double detectable_pooled(double deviation, int n, double freedom);
// The deviation within groups, of n[i] numbers each, that follow one another in x, and its degrees
// of freedom; NaN when there are none.
double pooled_deviation(const double *x, const int *n, int groups, double *freedom);
// P(T < t) of Student's distribution.
double student_below(double t, double freedom);
// Student's one-sided test that the mean of x lies below `value`: the probability of a mean as low
// when it does not; 1 for fewer than two numbers.
double student_mean_below(const double *x, int n, double value);
// Spearman's correlation of the ranks of x and y, for numbers without ties; n >= 2.
double rank_correlation(const double *x, const double *y, int n);

// A batch of n matrices where each gets one iteration more or less than another count, by an
// indicator that is low where more are needed: the q lowest get one more, the q highest one less,
// which costs as much as the same for all. before, at and after are the errors at the three counts.
typedef struct {
    double correlation; // of the indicator with `at`
    double fixed;       // mean of `at`
    double quarter;     // mean error with q = n/4, fixed beforehand
    double best;        // with the q that turns out best, 0 to n/2
} Adaptive;
Adaptive adaptive_counts(const double *indicator, const double *before, const double *at,
                         const double *after, int n);

#endif
