// The studies of `ablations`: each fills one table of a folder, and skips the rows that are there.
#ifndef ABLATE_STUDIES_H
#define ABLATE_STUDIES_H

#include <stdbool.h>
#include <stdint.h>

#include "../ops/error.h"

enum { STUDY_MAX = 24 };

typedef struct {
    char folder[1024];
    int n_sizes, n_inputs, seeds;
    struct {
        int m, n;
    } size[STUDY_MAX];
    const char *input[STUDY_MAX]; // distributions (inputs.h)
    const char *momentum;         // a file of train_gpt --dump-momentum, or NULL
    int momentum_matrices;        // of each shape in it
    uint64_t seed;
} Studies;

// error.csv, ERROR_HEAD: polar and orthogonality error in bf16 of every normaliser with every table
// after 1 to 8 iterations, and of the named gram methods; and how steep a descent it is:
// <G,Y>/(|G||Y|) relative to the exact polar factor's. bias.csv, BIAS_HEAD: the distance of
// polar(diag(s) G) from polar(G), and the errors beside it. spectrum.csv, SPECTRUM_HEAD: the share
// of singular values in bins of a tenth of a decade, of G / |G|_2 and of the result. All of one
// decomposition per matrix. A matrix of the momentum file is the input "momentum", its shape its
// own.
#define ERROR_HEAD "input,m,n,seed,norm,table,iterations,variant,polar,orthogonality,descent"
#define BIAS_HEAD "input,m,n,seed,bias,turbo4,turbo5,polar5,s4-polar4,s4-gram5"
#define SPECTRUM_HEAD "input,m,n,seed,method,value,share"
bool studies_error(const Studies *studies, Error *err);

// time.csv, TIME_HEAD: microseconds (median of calls over at least 0.1 s) on this machine's CPU,
// fp32 arithmetic with the method's storage.
#define TIME_HEAD "method,m,n,us"
bool studies_time(const Studies *studies, Error *err);

// The methods that tables and figures name, in their order; NULL past the end.
const char *studies_method(int i);

#endif
