// What may mend AOL's error where it is large: other counts of iterations by matrix, the other side
// scaled too, another normaliser.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "samples.h"
#include "svd.h"

// tr(A)^2 / (m |A|_F^2) from the singular values, whose fourth powers sum to |A|_F^2.
static double rank_share(const Sample *s)
{
    double square = 0, fourth = 0;
    for (int i = 0; i < s->m; i++) square += pow(s->sigma[i], 2), fourth += pow(s->sigma[i], 4);
    return square * square / (s->m * fourth);
}

static void transpose(double *to, const double *from, int m, int n) // from (m,n)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) to[(size_t)j * m + i] = from[(size_t)i * n + j];
}

// x = diag(s) G diag(t), s by AOL from G's rows, then t by AOL from the columns; |x|_2 <= 1.
static void scale_both_sides(double *x, const Sample *s)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    double *turned = malloc(sizeof(double) * size);
    memcpy(x, s->g, sizeof(double) * size);
    inputs_normalize(x, s->m, s->n, NS_NORM_AOL, 0);
    transpose(turned, x, s->m, s->n);
    inputs_normalize(turned, s->n, s->m, NS_NORM_AOL, 0.02);
    transpose(x, turned, s->n, s->m);
    free(turned);
}

static bool error_of(double *error, const Sample *s, const double *x, const char *norm, int k,
                     Error *err)
{
    NsMethod method;
    Sample scaled = *s;
    scaled.g = (double *)x; // read only
    double *y = malloc(sizeof(double) * (size_t)s->m * (size_t)s->n);
    const bool ok = ns_method_find(&method, "turbo5", err) &&
                    ns_method_set_norm(&method, norm, err) &&
                    ns_method_set_coeffs(&method, "polar_express", k, err);
    method.eps = 0;
    if (ok) sample_apply(y, &scaled, &method, 1);
    if (ok) *error = sample_distance(y, s);
    free(y);
    return ok;
}

static bool remedies_study(void *table, Sample *s, Error *err)
{
    static const struct {
        const char *norm;
        int iterations;
    } plain[] = {{"aol", 3},       {"aol", 4},       {"aol", 5},
                 {"schatten4", 3}, {"schatten4", 4}, {"schatten4", 5}};
    char row[512];
    int used = snprintf(row, sizeof row, "%s,%d,%d,%d", s->input, s->m, s->n, s->seed);
    if (csv_find(table, row, 0) >= 0) return true;
    sample_decompose(s);
    if (sample_largest(s) == 0) return true;
    const size_t size = (size_t)s->m * (size_t)s->n;
    double *x = malloc(sizeof(double) * size), *polar = malloc(sizeof(double) * size), error[9];
    bool ok = true;
    for (int i = 0; ok && i < 6; i++)
        ok = error_of(&error[i], s, s->g, plain[i].norm, plain[i].iterations, err);
    scale_both_sides(x, s);
    svd_polar(polar, NULL, x, s->m, s->n);
    ok = ok && error_of(&error[6], s, x, "none", 4, err) &&
         error_of(&error[7], s, x, "none", 5, err) &&
         error_of(&error[8], s, s->g, "frobenius", 5, err);
    used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", rank_share(s));
    for (int i = 0; i < 9; i++) {
        if (i == 6)
            used +=
                snprintf(row + used, sizeof row - (size_t)used, ",%.5g", sample_distance(polar, s));
        used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", error[i]);
    }
    free(x), free(polar);
    return ok && csv_add(table, row, err);
}

bool studies_remedies(const Studies *studies, Error *err)
{
    Csv table = {0};
    const bool ok = studies_table(&table, studies, "remedies.csv", REMEDIES_HEAD, err) &&
                    samples_each(studies, remedies_study, &table, err);
    csv_close(&table);
    return ok;
}
