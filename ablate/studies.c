#include "studies.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "../run/clock.h"
#include "combination.h"
#include "csv.h"
#include "inputs.h"
#include "samples.h"
#include "svd.h"

static const char *const methods[] = {"muon5",    "you5",       "polar5",     "turbo4",
                                      "turbo5",   "turbo4-you", "s4-polar4",  "s4-polar5",
                                      "s4-gram4", "s4-gram5",   "turbo-gram4"};
enum { N_METHODS = sizeof methods / sizeof *methods };
// Runs of training have these counts too.
static const char *const timed_too[] = {"aol-polar_express-1", "aol-polar_express-2",
                                        "aol-polar_express-3"};
enum { N_TIMED = N_METHODS + sizeof timed_too / sizeof *timed_too };

const char *studies_method(int i) { return i >= 0 && i < N_METHODS ? methods[i] : NULL; }

typedef struct {
    Csv error, bias, spectrum;
} Tables;

static bool add_error(Tables *t, const Sample *s, const NsMethod *method, const char *norm,
                      double factor, Error *err)
{
    char key[512], row[768];
    snprintf(key, sizeof key, "%s,%d,%d,%d,%s,%s,%d,%s", s->input, s->m, s->n, s->seed, norm,
             method->table, method->iterations, method->gram ? "gram" : "standard");
    if (csv_find(&t->error, key, 0) >= 0) return true;
    double *y = malloc(sizeof(double) * (size_t)s->m * (size_t)s->n);
    sample_apply(y, s, method, factor);
    snprintf(row, sizeof row, "%s,%.5g,%.5g,%.5g", key, sample_distance(y, s),
             sample_orthogonality(y, s->m, s->n), sample_descent(y, s));
    free(y);
    return csv_add(&t->error, row, err);
}

static bool error_rows(Tables *t, const Sample *s, Error *err)
{
    NsMethod method;
    for (int i = 0; i < COMBINATIONS; i++) {
        if (!combination_at(&method, i, err)) return false;
        method.eps = 0;
        // Without a normaliser the largest singular value is 1, which costs a decomposition.
        const double factor = method.norm == NS_NORM_NONE ? 1 / sample_largest(s) : 1;
        const char *norm = combination_norm(i / (NS_MAX_ITERATIONS * COMBINATION_TABLES));
        if (!add_error(t, s, &method, norm, factor, err)) return false;
    }
    static const char *const gram[] = {"turbo-gram4", "s4-gram4", "s4-gram5"};
    for (int i = 0; i < 3; i++) {
        if (!ns_method_find(&method, gram[i], err)) return false;
        method.eps = 0;
        if (!add_error(t, s, &method, i ? "schatten4" : "aol", 1, err)) return false;
    }
    return true;
}

static bool bias_row(Tables *t, const Sample *s, Error *err)
{
    static const char *const beside[] = {"turbo4", "turbo5", "polar5", "s4-polar4", "s4-gram5"};
    const size_t size = (size_t)s->m * (size_t)s->n;
    char row[512];
    int used = snprintf(row, sizeof row, "%s,%d,%d,%d", s->input, s->m, s->n, s->seed);
    if (csv_find(&t->bias, row, 0) >= 0) return true;
    double *x = malloc(sizeof(double) * size), *polar = malloc(sizeof(double) * size);
    memcpy(x, s->g, sizeof(double) * size);
    inputs_normalize(x, s->m, s->n, NS_NORM_AOL, 0);
    svd_polar(polar, NULL, x, s->m, s->n);
    used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", sample_distance(polar, s));
    bool ok = true;
    for (int i = 0; ok && i < 5; i++) {
        NsMethod method;
        ok = ns_method_find(&method, beside[i], err);
        if (!ok) break;
        method.eps = 0;
        sample_apply(x, s, &method, 1);
        used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", sample_distance(x, s));
    }
    free(x), free(polar);
    return ok && csv_add(&t->bias, row, err);
}

// Shares of values in bins of a tenth of a decade up to 10^0.3.
static bool add_bins(Tables *t, const Sample *s, const char *method, const double *sigma,
                     double factor, Error *err)
{
    enum { BINS = 44 };
    int count[BINS] = {0};
    char key[256], row[512];
    snprintf(key, sizeof key, "%s,%d,%d,%d,%s", s->input, s->m, s->n, s->seed, method);
    for (int i = 0; i < s->m; i++) {
        const double at = 10 * log10(fmax(factor * sigma[i], 1e-99)) + 40;
        count[at < 0 ? 0 : at >= BINS ? BINS - 1 : (int)at]++;
    }
    for (int b = 0; b < BINS; b++) {
        snprintf(row, sizeof row, "%s,%.4g,%.5g", key, pow(10, (b + 0.5) / 10 - 4),
                 (double)count[b] / s->m);
        char *const last = strrchr(row, ',');
        *last = '\0';
        const bool there = csv_find(&t->spectrum, row, 0) >= 0;
        *last = ',';
        if (!there && !csv_add(&t->spectrum, row, err)) return false;
    }
    return true;
}

static bool spectrum_rows(Tables *t, const Sample *s, Error *err)
{
    static const char *const after[] = {"turbo4", "polar5", "s4-gram5"};
    const size_t size = (size_t)s->m * (size_t)s->n;
    double *y = malloc(sizeof(double) * size), *polar = malloc(sizeof(double) * size),
           *sigma = malloc(sizeof(double) * (size_t)s->m);
    bool ok = add_bins(t, s, "before", s->sigma, 1 / sample_largest(s), err);
    for (int i = 0; ok && i < 3; i++) {
        NsMethod method;
        ok = ns_method_find(&method, after[i], err);
        if (!ok) break;
        method.eps = 0;
        sample_apply(y, s, &method, 1);
        svd_polar(polar, sigma, y, s->m, s->n);
        ok = add_bins(t, s, after[i], sigma, 1, err);
    }
    free(y), free(polar), free(sigma);
    return ok;
}

// The rows of one matrix, all of which or none are missing but after a kill.
static bool error_study(void *tables, Sample *s, Error *err)
{
    Tables *t = tables;
    char key[256];
    snprintf(key, sizeof key, "%s,%d,%d,%d,s4-gram5,2.239", s->input, s->m, s->n, s->seed);
    if (csv_find(&t->spectrum, key, 0) >= 0) return true; // its last row
    fprintf(stderr, "%s %dx%d, matrix %d\n", s->input, s->m, s->n, s->seed);
    sample_decompose(s);
    return sample_largest(s) == 0 ||
           (error_rows(t, s, err) && bias_row(t, s, err) && spectrum_rows(t, s, err));
}

bool studies_table(Csv *csv, const Studies *o, const char *name, const char *head, Error *err)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", o->folder, name);
    return csv_open(csv, path, head, err);
}

bool studies_error(const Studies *o, Error *err)
{
    Tables t = {{0}, {0}, {0}};
    const bool ok = studies_table(&t.error, o, "error.csv", ERROR_HEAD, err) &&
                    studies_table(&t.bias, o, "bias.csv", BIAS_HEAD, err) &&
                    studies_table(&t.spectrum, o, "spectrum.csv", SPECTRUM_HEAD, err) &&
                    samples_each(o, error_study, &t, err);
    csv_close(&t.error), csv_close(&t.bias), csv_close(&t.spectrum);
    return ok;
}

// ---- time --------------------------------------------------------------------------------------

static double seconds(void) { return now_ms() / 1e3; }

static double time_method(const NsMethod *method, int m, int n)
{
    enum { CALLS = 1000 };
    const size_t size = (size_t)m * (size_t)n;
    double least = INFINITY, *g = malloc(sizeof(double) * size);
    float *x = malloc(sizeof(float) * size);
    void *work = malloc(ns_workspace_size(method, 1, m, n, sizeof(float)));
    int calls = 0;
    inputs_fill(g, m, n, "gaussian", 1);
    for (double begun = seconds(); calls < CALLS && (calls < 5 || seconds() - begun < 0.3);
         calls++) {
        for (size_t i = 0; i < size; i++) x[i] = (float)g[i];
        const double start = seconds();
        ns_orthogonalize_f32(method, x, 1, m, n, work, 1);
        least = fmin(least, seconds() - start);
    }
    free(g), free(x), free(work);
    return 1e6 * least;
}

bool studies_time(const Studies *o, Error *err)
{
    Csv csv = {0};
    bool ok = studies_table(&csv, o, "time.csv", TIME_HEAD, err);
#ifdef _OPENMP
    omp_set_num_threads(1); // several would wait for each other where other programs run
#endif
    for (int i = 0; ok && i < (int)N_TIMED; i++)
        for (int z = 0; ok && z < o->n_sizes; z++) {
            NsMethod method;
            char key[128], row[192];
            const char *name = i < N_METHODS ? methods[i] : timed_too[i - N_METHODS];
            snprintf(key, sizeof key, "%s,%d,%d", name, o->size[z].m, o->size[z].n);
            if (csv_find(&csv, key, 0) >= 0) continue;
            ok = combination_find(&method, name, err);
            if (!ok) break;
            snprintf(row, sizeof row, "%s,%.1f", key,
                     time_method(&method, o->size[z].m, o->size[z].n));
            ok = csv_add(&csv, row, err);
        }
    csv_close(&csv);
    return ok;
}
