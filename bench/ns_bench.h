// What ns_bench measures on the GPU, for its main program in C.
#ifndef BENCH_NS_BENCH_H
#define BENCH_NS_BENCH_H

#include "../ablate/combination.h"
#include "../ablate/peers.h"
#include "../ns.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    NS_BENCH_NAMED = 16,
    NS_BENCH_METHODS = COMBINATIONS + NS_BENCH_NAMED, // the sweep, and named ones
    NS_BENCH_SHAPES = 32,
    NS_BENCH_INPUTS = 16
};

typedef struct {
    double us;       // median of CUDA-graph replays over inputs that together exceed the L2 cache
    double tflops;   // useful ones: symmetric products count half
    double executed; // those that the tiles of symmetric products compute
    double floor;    // the fraction reached of the floor at 790 TFLOP/s, which cuBLAS reaches on an
                     // H200 with random data
    int failed;      // matrices that came back NaN
} NsTime;

// The GPU's name.
void ns_bench_device(char *name, size_t size);
// Times of the methods on bf16 inputs (batch,m,n).
void ns_bench_time(NsTime *times, const NsMethod *methods, int n_methods, const BankShape *shape);
// Prints a line for each of the iteration's products alone.
void ns_bench_products(const BankShape *shape);

typedef struct {
    double polar;         // |Y - U V^T|_F / |U V^T|_F
    double orthogonality; // |Y Y^T - I|_F / sqrt(m)
} NsErrors;

typedef struct {
    int rank, iterations; // of the reference (ablate/polar.h)
    double residual;
} NsReference;

// Errors of the methods on one matrix (m,n), m <= n, given as fp32 with a Frobenius norm of 8,
// against the polar factor of just that in fp64. Both are restricted to the directions that the
// input determines where its rank is less than m (ablate/polar.h); those that only the rounding to
// fp32 made are such directions too. The matrix is `host` (m,n) if
// given, else the random one of that input's name (ablate/inputs.h) and seed. A method without a
// normaliser gets it over its largest singular value (polar_largest). False for an unknown name or
// a matrix of zeros.
bool ns_bench_errors(NsErrors *errors, NsReference *reference, const NsMethod *methods,
                     int n_methods, int m, int n, const char *input, uint64_t seed,
                     const double *host, Error *err);

// ---- ns_report.c -------------------------------------------------------------------------------

typedef struct {
    int m, n;
    const char *input;
    NsErrors error[NS_BENCH_METHODS]; // means over matrices; NaN for what is not known
} NsErrorRow;

// For each gram method whose standard form is among the methods too, the ratio of their polar
// errors by row: at most 1.1 everywhere for a form that may be chosen by its speed alone.
void ns_report_ratios(const NsErrorRow *rows, int n_rows, const NsMethod *methods, int n_methods);

#ifdef __cplusplus
}
#endif

#endif
