// Every normaliser with every coefficient table and count of iterations: what the studies sweep.
#ifndef ABLATE_COMBINATION_H
#define ABLATE_COMBINATION_H

#include "../ns.h"

enum { COMBINATION_NORMS = 4, COMBINATION_TABLES = 5 };
enum { COMBINATIONS = COMBINATION_NORMS * COMBINATION_TABLES * NS_MAX_ITERATIONS };

// The k-th normaliser (none, frobenius, aol, schatten4) and coefficient table, NULL past the end.
const char *combination_norm(int k);
const char *combination_table(int k);
// The i-th combination, i < COMBINATIONS, iterations innermost, then tables. It is the standard
// form in bf16, its delta what was published with the table, and its name such as
// "aol-polar_express-4", which is turbo4 by another name. Without a normaliser nothing is scaled.
bool combination_at(NsMethod *method, int i, Error *err);
// The combination or the method (ns_method_find) of that name; false with the list of methods when
// it is neither.
bool combination_find(NsMethod *method, const char *name, Error *err);

#endif
