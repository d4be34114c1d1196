#include "combination.h"

#include <stdio.h>
#include <string.h>

static const char *const norms[COMBINATION_NORMS] = {"none", "frobenius", "aol", "schatten4"};
static const struct {
    const char *name;
    double delta, eps;
} tables[COMBINATION_TABLES] = {{"jordan", 0, 1e-7},
                                {"you", 0, 1e-7},
                                {"polar_express", 0.02, 1e-6},
                                {"cans", 0.02, 1e-6},
                                {"turbo_ga", 0.02, 1e-6}};

const char *combination_norm(int k) { return k >= 0 && k < COMBINATION_NORMS ? norms[k] : NULL; }

const char *combination_table(int k)
{
    return k >= 0 && k < COMBINATION_TABLES ? tables[k].name : NULL;
}

bool combination_at(NsMethod *method, int i, Error *err)
{
    const int k = i % NS_MAX_ITERATIONS + 1, t = i / NS_MAX_ITERATIONS % COMBINATION_TABLES;
    const char *norm = norms[i / (NS_MAX_ITERATIONS * COMBINATION_TABLES)];
    if (!ns_method_find(method, "polar5", err) || !ns_method_set_norm(method, norm, err) ||
        !ns_method_set_coeffs(method, tables[t].name, k, err))
        return false;
    method->delta = tables[t].delta, method->eps = tables[t].eps;
    snprintf(method->name, sizeof method->name, "%s-%s-%d", norm, tables[t].name, k);
    return true;
}

bool combination_find(NsMethod *method, const char *name, Error *err)
{
    for (int i = 0; i < COMBINATIONS; i++) {
        if (!combination_at(method, i, err)) return false;
        if (!strcmp(method->name, name)) return true;
    }
    return ns_method_find(method, name, err);
}
