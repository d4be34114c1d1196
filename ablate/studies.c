#include "studies.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../run/safetensors.h"
#include "csv.h"
#include "inputs.h"
#include "svd.h"

static const char *const methods[] = {"muon5",    "you5",       "polar5",     "turbo4",
                                      "turbo5",   "turbo4-you", "s4-polar4",  "s4-polar5",
                                      "s4-gram4", "s4-gram5",   "turbo-gram4"};
enum { N_METHODS = sizeof methods / sizeof *methods };
static const char *const norms[] = {"none", "frobenius", "aol", "schatten4"};
static const char *const tables[] = {"jordan", "you", "polar_express", "cans", "turbo_ga"};

const char *studies_method(int i) { return i >= 0 && i < N_METHODS ? methods[i] : NULL; }

typedef struct {
    const char *input;
    int m, n, seed;
    double *g, *polar, *sigma; // (m,n), its polar factor, its singular values (m)
} Sample;

typedef struct {
    Csv error, bias, spectrum;
} Tables;

static double frobenius(const double *x, size_t size)
{
    double sum = 0;
    for (size_t i = 0; i < size; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

// y = the method on factor times the sample.
static void apply(double *y, const Sample *s, const NsMethod *method, double factor)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    float *x = malloc(sizeof(float) * size);
    void *work = malloc(ns_workspace_size(method, 1, s->m, s->n, sizeof(float)));
    for (size_t i = 0; i < size; i++) x[i] = (float)(factor * s->g[i]);
    ns_orthogonalize_f32(method, x, 1, s->m, s->n, work, 1);
    for (size_t i = 0; i < size; i++) y[i] = x[i];
    free(x), free(work);
}

static double distance(const double *y, const Sample *s)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    double off = 0;
    for (size_t i = 0; i < size; i++) off += (y[i] - s->polar[i]) * (y[i] - s->polar[i]);
    return sqrt(off) / frobenius(s->polar, size);
}

static double orthogonality(const double *y, int m, int n)
{
    double off = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++) {
            double dot = -(i == j);
            for (int k = 0; k < n; k++) dot += y[(size_t)i * n + k] * y[(size_t)j * n + k];
            off += (i == j ? 1 : 2) * dot * dot;
        }
    return sqrt(off / m);
}

// <G,Y> / (|G| |Y|), relative to the polar factor's.
static double descent(const double *y, const Sample *s)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    double along = 0, exact = 0;
    for (size_t i = 0; i < size; i++) along += s->g[i] * y[i], exact += s->g[i] * s->polar[i];
    return along / exact * frobenius(s->polar, size) / frobenius(y, size);
}

static double largest(const Sample *s)
{
    double most = 0;
    for (int i = 0; i < s->m; i++) most = fmax(most, s->sigma[i]);
    return most;
}

static bool add_error(Tables *t, const Sample *s, const NsMethod *method, const char *norm,
                      double factor, Error *err)
{
    char key[512], row[768];
    snprintf(key, sizeof key, "%s,%d,%d,%d,%s,%s,%d,%s", s->input, s->m, s->n, s->seed, norm,
             method->table, method->iterations, method->gram ? "gram" : "standard");
    if (csv_find(&t->error, key) >= 0) return true;
    double *y = malloc(sizeof(double) * (size_t)s->m * (size_t)s->n);
    apply(y, s, method, factor);
    snprintf(row, sizeof row, "%s,%.5g,%.5g,%.5g", key, distance(y, s),
             orthogonality(y, s->m, s->n), descent(y, s));
    free(y);
    return csv_add(&t->error, row, err);
}

static bool error_rows(Tables *t, const Sample *s, Error *err)
{
    NsMethod method;
    for (int norm = 0; norm < 4; norm++)
        for (int table = 0; table < 5; table++)
            for (int k = 1; k <= NS_MAX_ITERATIONS; k++) {
                if (!ns_method_find(&method, "polar5", err) ||
                    !ns_method_set_norm(&method, norms[norm], err) ||
                    !ns_method_set_coeffs(&method, tables[table], k, err))
                    return false;
                method.eps = 0,
                method.delta = table >= 2 ? 0.02 : 0; // as published with the tables
                // Without a normaliser the largest singular value is 1, which costs a
                // decomposition.
                if (!add_error(t, s, &method, norms[norm], norm ? 1 : 1 / largest(s), err))
                    return false;
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
    if (csv_find(&t->bias, row) >= 0) return true;
    double *x = malloc(sizeof(double) * size), *polar = malloc(sizeof(double) * size);
    memcpy(x, s->g, sizeof(double) * size);
    inputs_normalize(x, s->m, s->n, NS_NORM_AOL, 0);
    svd_polar(polar, NULL, x, s->m, s->n);
    used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", distance(polar, s));
    bool ok = true;
    for (int i = 0; ok && i < 5; i++) {
        NsMethod method;
        ok = ns_method_find(&method, beside[i], err);
        if (!ok) break;
        method.eps = 0;
        apply(x, s, &method, 1);
        used += snprintf(row + used, sizeof row - (size_t)used, ",%.5g", distance(x, s));
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
        const bool there = csv_find(&t->spectrum, row) >= 0;
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
    bool ok = add_bins(t, s, "before", s->sigma, 1 / largest(s), err);
    for (int i = 0; ok && i < 3; i++) {
        NsMethod method;
        ok = ns_method_find(&method, after[i], err);
        if (!ok) break;
        method.eps = 0;
        apply(y, s, &method, 1);
        svd_polar(polar, sigma, y, s->m, s->n);
        ok = add_bins(t, s, after[i], sigma, 1, err);
    }
    free(y), free(polar), free(sigma);
    return ok;
}

// The rows of one matrix, all of which or none are missing but after a kill.
static bool study(Tables *t, const Sample *sample, Error *err)
{
    Sample s = *sample;
    char key[256];
    snprintf(key, sizeof key, "%s,%d,%d,%d,s4-gram5,2.239", s.input, s.m, s.n, s.seed);
    if (csv_find(&t->spectrum, key) >= 0) return true; // its last row
    const size_t size = (size_t)s.m * (size_t)s.n;
    s.polar = malloc(sizeof(double) * size);
    s.sigma = malloc(sizeof(double) * (size_t)s.m);
    svd_polar(s.polar, s.sigma, s.g, s.m, s.n);
    fprintf(stderr, "%s %dx%d, matrix %d\n", s.input, s.m, s.n, s.seed);
    const bool ok = largest(&s) == 0 ||
                    (error_rows(t, &s, err) && bias_row(t, &s, err) && spectrum_rows(t, &s, err));
    free(s.polar), free(s.sigma);
    return ok;
}

static bool random_samples(const Studies *o, Tables *t, Error *err)
{
    for (int z = 0; z < o->n_sizes; z++)
        for (int i = 0; i < o->n_inputs; i++)
            for (int seed = 1; seed <= o->seeds; seed++) {
                const int m = o->size[z].m, n = o->size[z].n;
                Sample s = {
                    o->input[i], m,   n, seed, malloc(sizeof(double) * (size_t)m * (size_t)n),
                    NULL,        NULL};
                bool ok = inputs_fill(s.g, m, n, s.input, o->seed << 20 | (uint64_t)seed) ||
                          fail(err, "no distribution '%.40s'", s.input);
                ok = ok && study(t, &s, err);
                free(s.g);
                if (!ok) return false;
            }
    return true;
}

// Matrix b of a tensor (.., r, c), wide side along rows.
static bool momentum_sample(Tables *t, const void *data, const SafetensorsTensor *in, int b,
                            int seed, Error *err)
{
    const int64_t r = in->shape[in->ndim - 2], c = in->shape[in->ndim - 1];
    Sample s = {"momentum",
                (int)(r < c ? r : c),
                (int)(r < c ? c : r),
                seed,
                malloc(sizeof(double) * (size_t)(r * c)),
                NULL,
                NULL};
    const bool ok = (inputs_matrix(s.g, data, (DType)in->dtype, b, r, c) ||
                     fail(err, "%s holds numbers that are not finite", in->name)) &&
                    study(t, &s, err);
    free(s.g);
    return ok;
}

static bool momentum_samples(const Studies *o, Tables *t, Error *err)
{
    enum { MIN_SIDE = 16, MAX_SIDE = 1024 };
    Safetensors file;
    bool ok = true, any = false;
    if (!safetensors_open(&file, o->momentum, err)) return false;
    for (int e = 0; ok && e < file.header.count; e++) {
        const SafetensorsTensor *in = &file.header.entries[e].tensor;
        if (in->ndim != 3 || in->dtype > ST_F16 || in->shape[0] < 1 || in->shape[1] < MIN_SIDE ||
            in->shape[2] < MIN_SIDE || in->shape[1] > MAX_SIDE || in->shape[2] > 4 * MAX_SIDE)
            continue;
        any = true;
        const size_t numbers = (size_t)(in->shape[0] * in->shape[1] * in->shape[2]);
        void *data = malloc(numbers * safetensors_dtype_size(in->dtype));
        ok = data ? safetensors_read(&file, in->name, in->dtype, 3, in->shape, data, err)
                  : fail(err, "%s: no memory for %s", o->momentum, in->name);
        const int count = (int)in->shape[0], wanted = o->momentum_matrices;
        for (int k = 0; ok && k < wanted && k < count; k++) // spread over the layers
            ok = momentum_sample(t, data, in, (int)((int64_t)k * count / wanted) % count, k + 1,
                                 err);
        free(data);
    }
    safetensors_close(&file);
    return ok && (any || fail(err, "%s holds no bank of matrices", o->momentum));
}

static bool open_table(Csv *csv, const Studies *o, const char *name, const char *head, Error *err)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", o->folder, name);
    return csv_open(csv, path, head, err);
}

bool studies_error(const Studies *o, Error *err)
{
    Tables t = {{0}, {0}, {0}};
    const bool ok = open_table(&t.error, o, "error.csv", ERROR_HEAD, err) &&
                    open_table(&t.bias, o, "bias.csv", BIAS_HEAD, err) &&
                    open_table(&t.spectrum, o, "spectrum.csv", SPECTRUM_HEAD, err) &&
                    random_samples(o, &t, err) && (!o->momentum || momentum_samples(o, &t, err));
    csv_close(&t.error), csv_close(&t.bias), csv_close(&t.spectrum);
    return ok;
}

// ---- time --------------------------------------------------------------------------------------

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_method(const NsMethod *method, int m, int n)
{
    enum { CALLS = 400 };
    const size_t size = (size_t)m * (size_t)n;
    double took[CALLS], *g = malloc(sizeof(double) * size);
    float *x = malloc(sizeof(float) * size);
    void *work = malloc(ns_workspace_size(method, 1, m, n, sizeof(float)));
    int calls = 0;
    inputs_fill(g, m, n, "gaussian", 1);
    for (double begun = seconds(); calls < CALLS && (calls < 5 || seconds() - begun < 0.1);
         calls++) {
        for (size_t i = 0; i < size; i++) x[i] = (float)g[i];
        const double start = seconds();
        ns_orthogonalize_f32(method, x, 1, m, n, work, 1);
        took[calls] = seconds() - start;
    }
    free(g), free(x), free(work);
    qsort(took, (size_t)calls, sizeof *took, ascending);
    return 1e6 * took[calls / 2];
}

bool studies_time(const Studies *o, Error *err)
{
    Csv csv = {0};
    bool ok = open_table(&csv, o, "time.csv", TIME_HEAD, err);
    for (int i = 0; ok && i < N_METHODS; i++)
        for (int z = 0; ok && z < o->n_sizes; z++) {
            NsMethod method;
            char key[128], row[192];
            snprintf(key, sizeof key, "%s,%d,%d", methods[i], o->size[z].m, o->size[z].n);
            if (csv_find(&csv, key) >= 0) continue;
            ok = ns_method_find(&method, methods[i], err);
            if (!ok) break;
            snprintf(row, sizeof row, "%s,%.1f", key,
                     time_method(&method, o->size[z].m, o->size[z].n));
            ok = csv_add(&csv, row, err);
        }
    csv_close(&csv);
    return ok;
}
