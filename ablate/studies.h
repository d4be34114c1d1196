// The studies of `ablations`: each fills one table of a folder, and skips the rows that are there.
#ifndef ABLATE_STUDIES_H
#define ABLATE_STUDIES_H

#include <stdbool.h>
#include <stdint.h>

#include "../ops/error.h"
#include "csv.h"

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

// time.csv, TIME_HEAD: microseconds on one thread of this machine's CPU, fp32 arithmetic with the
// method's storage: the least of the calls of 0.3 s, since whatever else runs only adds.
#define TIME_HEAD "method,m,n,us"
bool studies_time(const Studies *studies, Error *err);

// remedies.csv, REMEDIES_HEAD: what may mend AOL's error, by matrix. `share` is
// tr(A)^2 / (m |A|_F^2) for A = G G^T, which a device has at hand: 1 when all singular values are
// equal. aol3 .. s4-5 are polar errors in bf16 of normaliser and iterations (the last rows of
// polar_express); two-sided4 is of rows scaled by AOL, then columns, and four iterations, with
// two-sided-bias the distance of the scaled matrix's polar factor from G's.
#define REMEDIES_HEAD                                                                              \
    "input,m,n,seed,share,aol3,aol4,aol5,s4-3,s4-4,s4-5,two-sided-bias,two-sided4,two-sided5,"     \
    "polar5"
bool studies_remedies(const Studies *studies, Error *err);

// Opens the study's table in its folder (csv_open).
bool studies_table(Csv *csv, const Studies *studies, const char *name, const char *head,
                   Error *err);

// The methods that tables and figures name, in their order; NULL past the end.
const char *studies_method(int i);

#endif
