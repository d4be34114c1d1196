// search: coefficient triples for a normaliser, a number of iterations and a kind of input, by two
// routes; what they are worth on matrices that neither has seen; and a file that --ns-coeffs reads.
//
// The first route is minimax: the normaliser's effect on the spectrum is fitted by an odd quintic,
// and each step is the best odd quintic on an interval that begins at what the fit makes of a low
// quantile; the quantile is the one that does best on the training matrices. The second,
// cross-entropy, starts from the best table known by then and lowers the loss on the training
// matrices themselves.
#include <math.h>   // sqrt, fabs
#include <stdlib.h> // malloc, qsort
#include <string.h> // strcmp
#include <unistd.h> // isatty

#include "../ops/field.h"
#include "../run/atomic_file.h"
#include "../run/safetensors.h"
#include "../run/threads.h"
#include "cross_entropy.h"
#include "inputs.h"
#include "polynomial.h"
#include "svd.h"

enum { USAGE = 2, EACH = 64, MIN_SIDE = 16, MAX_SIDE = 4096 }; // EACH: values kept of a spectrum

// ---- options -----------------------------------------------------------------------------------

typedef struct {
    char norm[16], inputs[256], matrices[1024], output[1024], name[32];
    double delta, elite, momentum, spread;
    int steps, rows, cols, train, test, population, generations;
    int64_t seed;
    bool help;
} Options;

#define N(member, low, high, text) FIELD_N(Options, member, low, high, text)
#define X(member, low, high, text) FIELD_X(Options, member, low, high, text)

static const Field table[] = {
    FIELD_C(Options, norm, "none|frobenius|aol|schatten4", "the normaliser"),
    X(delta, 0, 1, "of the normaliser"),
    N(steps, 1, NS_MAX_ITERATIONS, "iterations"),
    FIELD_S(Options, inputs, NULL, "NAMES", "of the training matrices, with commas between"),
    FIELD_S(Options, matrices, NULL, "FILE", "safetensors with matrices to train on too"),
    N(rows, 2, 1024, "of a random matrix"),
    N(cols, 2, 4096, "of a random matrix"),
    N(train, 1, 1000, "matrices of each distribution to train on"),
    N(test, 1, 1000, "matrices of each distribution to judge by"),
    N(population, 4, 100000, "candidates of a generation"),
    N(generations, 0, 100000, "of the cross-entropy search"),
    X(elite, 0.001, 1, "share of a generation that the next is drawn towards"),
    X(momentum, 0, 0.999, "of the distribution that candidates are drawn from"),
    X(spread, 0.0001, 1, "first deviation of a coefficient, relative to it"),
    N(seed, 0, 4294967295, "another seed, another search"),
    FIELD_S(Options, output, NULL, "FILE", "write the best table there, for --ns-coeffs; or -o"),
    FIELD_S(Options, name, NULL, "NAME", "of that table"),
    FIELD_B(Options, help, "print this, and stop"),
    {.name = NULL},
};

static const Options defaults = {.norm = "aol",
                                 .inputs = "gaussian,levy1.5,rows,columns",
                                 .name = "found",
                                 .delta = 0.02,
                                 .elite = 0.1,
                                 .momentum = 0.5,
                                 .spread = 0.1,
                                 .steps = 4,
                                 .rows = 96,
                                 .cols = 384,
                                 .train = 8,
                                 .test = 4,
                                 .population = 400,
                                 .generations = 300,
                                 .seed = 1};

static void help(void)
{
    printf("search finds coefficients for Newton-Schulz iterations.\n\nusage: search [--option "
           "value]...\n\noptions [default; range]:\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, stdout);
    printf("distributions:");
    for (int i = 0; inputs_name(i); i++) printf(" %s", inputs_name(i));
    printf("\n");
}

static bool parse(Options *options, int argc, char **argv, Error *err)
{
    *options = defaults;
    for (int i = 1; i < argc; i++) {
        const char *word = !strcmp(argv[i], "-o") ? "--output" : argv[i];
        bool took;
        if (!field_parse(table, options, word, argv[i + 1], &took, err)) return false;
        i += took;
    }
    if (options->rows > options->cols)
        return fail(err, "--rows %d is more than --cols %d: matrices are wide", options->rows,
                    options->cols);
    for (const char *c = options->name; *c; c++)
        if (strchr(" \t#", *c)) return fail(err, "--name holds a space or a #");
    return options->name[0] || fail(err, "--name is empty");
}

// ---- matrices ----------------------------------------------------------------------------------

typedef struct {
    const char *kind; // a distribution, or the file
    int m, n;         // m <= n
    double *g;        // (m,n)
} Matrix;

typedef struct {
    Matrix *matrix;
    int count;
} Set;

static double *add(Set *set, const char *kind, int m, int n)
{
    set->matrix = realloc(set->matrix, sizeof *set->matrix * (size_t)(set->count + 1));
    Matrix *matrix = &set->matrix[set->count++];
    *matrix = (Matrix){kind, m, n, malloc(sizeof(double) * (size_t)m * (size_t)n)};
    return matrix->g;
}

static void add_random(Set *set, const Options *o, const char *kind, int count, uint64_t seed)
{
    for (int i = 0; i < count; i++)
        inputs_fill(add(set, kind, o->rows, o->cols), o->rows, o->cols, kind, seed + (uint64_t)i);
}

// The last two dimensions of every tensor that has two or three, by turns to train and test.
static bool add_file(Set *train, Set *test, const char *path, Error *err)
{
    Safetensors file;
    if (!safetensors_open(&file, path, err)) return false;
    int found = 0;
    bool ok = true;
    for (int e = 0; ok && e < file.header.count; e++) {
        const SafetensorsTensor *t = &file.header.entries[e].tensor;
        if (t->ndim < 2 || t->ndim > 3 || t->dtype > ST_F16) continue;
        const int64_t batch = t->ndim == 3 ? t->shape[0] : 1, r = t->shape[t->ndim - 2],
                      c = t->shape[t->ndim - 1];
        if (r < MIN_SIDE || c < MIN_SIDE || r > MAX_SIDE || c > MAX_SIDE || batch < 1) continue;
        const DType dtype = (DType)t->dtype;
        void *data = malloc((size_t)(batch * r * c) * dtype_size(dtype));
        ok = data ? safetensors_read(&file, t->name, t->dtype, t->ndim, t->shape, data, err)
                  : fail(err, "%s: no memory for %s", path, t->name);
        for (int64_t b = 0; ok && b < batch; b++) {
            double *g =
                add(found++ % 2 ? test : train, "file", (int)(r < c ? r : c), (int)(r < c ? c : r));
            ok = inputs_matrix(g, data, dtype, b, r, c) ||
                 fail(err, "%s: %s holds numbers that are not finite", path, t->name);
        }
        free(data);
    }
    safetensors_close(&file);
    if (!ok) return false;
    return found >= 2 ||
           fail(err, "%s holds %d matrices of %d to %d rows and columns; two are needed", path,
                found, MIN_SIDE, MAX_SIDE);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// EACH values of the spectrum after a normaliser, at equal steps of rank, ascending.
static void spectrum(double *out, const Matrix *matrix, NsNorm norm, double delta)
{
    const int m = matrix->m, n = matrix->n;
    const size_t size = (size_t)m * (size_t)n;
    double *g = malloc(sizeof(double) * size), *polar = malloc(sizeof(double) * size),
           *sigma = malloc(sizeof(double) * (size_t)m);
    memcpy(g, matrix->g, sizeof(double) * size);
    inputs_normalize(g, m, n, norm, delta);
    svd_polar(polar, sigma, g, m, n);
    qsort(sigma, (size_t)m, sizeof *sigma, ascending);
    for (int i = 0; i < EACH; i++) {
        const double at = (double)i * (m - 1) / (EACH - 1);
        const int below = (int)at < m - 1 ? (int)at : m - 2;
        out[i] = sigma[below] + (at - below) * (sigma[below + 1] - sigma[below]);
    }
    free(g), free(polar), free(sigma);
}

static double *spectra(const Set *set, NsNorm norm, double delta)
{
    double *sigma = malloc(sizeof(double) * EACH * (size_t)set->count);
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < set->count; i++)
        spectrum(sigma + (size_t)i * EACH, &set->matrix[i], norm, delta);
    return sigma;
}

// ---- the routes --------------------------------------------------------------------------------

// r(x) ~ y by least squares over n points, r an odd quintic.
static NsCoeff fit(const double *x, const double *y, int n)
{
    double row[3][4] = {{0}}, r[3];
    for (int i = 0; i < n; i++) {
        const double f[3] = {x[i], pow(x[i], 3), pow(x[i], 5)};
        for (int a = 0; a < 3; a++) {
            for (int b = 0; b < 3; b++) row[a][b] += f[a] * f[b];
            row[a][3] += f[a] * y[i];
        }
    }
    for (int a = 0; a < 3; a++)
        for (int b = a + 1; b < 3; b++) {
            const double factor = row[b][a] / row[a][a];
            for (int c = a; c < 4; c++) row[b][c] -= factor * row[a][c];
        }
    for (int a = 2; a >= 0; a--) {
        r[a] = row[a][3];
        for (int c = a + 1; c < 3; c++) r[a] -= row[a][c] * r[c];
        r[a] /= row[a][a];
    }
    return (NsCoeff){r[0], r[1], r[2]};
}

// The first route; returns its loss.
static double minimax(NsCoeff *p, const Spectra *s, const double *before, bool bounded, int k)
{
    const int n = s->matrices * s->each;
    const NsCoeff effect = fit(before, s->sigma, n);
    // A normaliser promises values of at most 1; a polynomial for less would diverge on those
    // above.
    double off = 0, size = 0, high = bounded, best = INFINITY, chosen = 0;
    for (int i = 0; i < n; i++) {
        off += pow(polynomial_at(effect, before[i]) - s->sigma[i], 2);
        size += s->sigma[i] * s->sigma[i];
        high = fmax(high, s->sigma[i]);
    }
    double *sorted = malloc(sizeof(double) * (size_t)n);
    memcpy(sorted, before, sizeof(double) * (size_t)n);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    for (int i = 0; i <= 100; i++) {
        NsCoeff tried[NS_MAX_ITERATIONS];
        const double quantile = 0.5 * i / 100;
        const double low = polynomial_at(effect, sorted[(int)(quantile * (n - 1))]);
        if (!(low > 1e-6 * high && low < high)) continue;
        polynomial_minimax_chain(tried, k, low, high, 1.02);
        const double loss = spectra_loss(s, tried, k);
        if (loss >= best) continue;
        best = loss, chosen = quantile;
        memcpy(p, tried, sizeof *p * (size_t)k);
    }
    free(sorted);
    printf("effect of the normaliser on |G|_F = 1: %.4g s + %.4g s^3 + %.4g s^5, off by %.1f %%\n",
           effect.a, effect.b, effect.c, 100 * sqrt(off / size));
    printf("minimax: loss %.5f, from the quantile %.3f up to %.4f\n", best, chosen, high);
    return best;
}

static void progress(int generation, int of, double best)
{
    if (!isatty(STDERR_FILENO) && generation != of) return;
    fprintf(stderr, "\rcross-entropy: generation %d of %d, loss %.5f%s", generation, of, best,
            generation == of ? "\n" : "");
}

// ---- the judgement -----------------------------------------------------------------------------

static double polar_error(const Matrix *matrix, const double *polar, const NsMethod *method)
{
    const size_t size = (size_t)matrix->m * (size_t)matrix->n;
    float *x = malloc(sizeof(float) * size);
    void *work = malloc(ns_workspace_size(method, 1, matrix->m, matrix->n, sizeof(float)));
    double off = 0, all = 0;
    for (size_t i = 0; i < size; i++) x[i] = (float)matrix->g[i];
    ns_orthogonalize_f32(method, x, 1, matrix->m, matrix->n, work, 1);
    for (size_t i = 0; i < size; i++) {
        off += (x[i] - polar[i]) * (x[i] - polar[i]);
        all += polar[i] * polar[i];
    }
    free(x), free(work);
    return sqrt(off / all);
}

// Mean polar errors in bf16 against an SVD, a line per kind of the set and a column per method.
static void judge(const Set *set, const NsMethod *method, const char *const *name, int count)
{
    double *error = malloc(sizeof(double) * (size_t)(set->count * count));
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < set->count; i++) {
        const Matrix *matrix = &set->matrix[i];
        double *polar = malloc(sizeof(double) * (size_t)matrix->m * (size_t)matrix->n);
        svd_polar(polar, NULL, matrix->g, matrix->m, matrix->n);
        for (int k = 0; k < count; k++)
            error[i * count + k] = polar_error(matrix, polar, &method[k]);
        free(polar);
    }
    printf("%-10s", "held out");
    for (int k = 0; k < count; k++) printf(" %13s", name[k]);
    for (int i = 0, n; i < set->count; i += n) {
        for (n = 1; i + n < set->count && !strcmp(set->matrix[i].kind, set->matrix[i + n].kind);)
            n++;
        printf("\n%-10s", set->matrix[i].kind);
        for (int k = 0; k < count; k++) {
            double sum = 0;
            for (int j = i; j < i + n; j++) sum += error[j * count + k];
            printf(" %13.4f", sum / n);
        }
    }
    printf("\n");
    free(error);
}

static bool write_table(const char *path, const char *name, const NsCoeff *p, int k, Error *err)
{
    char text[4096], number[3][32];
    size_t used = (size_t)snprintf(text, sizeof text, "%s\n", name);
    for (int i = 0; i < k; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s %s %s\n",
                                 field_number(p[i].a, number[0], sizeof number[0]),
                                 field_number(p[i].b, number[1], sizeof number[1]),
                                 field_number(p[i].c, number[2], sizeof number[2]));
    AtomicFile file;
    return atomic_file_open(&file, path, used, err) && atomic_file_write(&file, text, used, err) &&
           atomic_file_commit(&file, err);
}

static void print_rows(const char *name, double loss, const NsCoeff *p, int k)
{
    printf("%-13s loss %.5f ", name, loss);
    for (int i = 0; i < k; i++) printf(" (%.4f, %.4f, %.4f)", p[i].a, p[i].b, p[i].c);
    printf("\n");
}

static bool run(Options *o, Error *err)
{
    Set train = {0}, test = {0};
    for (char *kind = strtok(o->inputs, ","); kind; kind = strtok(NULL, ",")) {
        double probe[4];
        if (!inputs_fill(probe, 2, 2, kind, 0))
            return fail(err, "--inputs: no distribution '%.40s'; --help lists them", kind);
        add_random(&train, o, kind, o->train, (uint64_t)o->seed << 20);
    }
    for (int i = 0; inputs_name(i); i++)
        add_random(&test, o, inputs_name(i), o->test, ((uint64_t)o->seed << 20) + 100000);
    if (o->matrices[0] && !add_file(&train, &test, o->matrices, err)) return false;
    if (!train.count) return fail(err, "nothing to train on: give --inputs or --matrices");

    static const char *const name[] = {"polar_express", "you", "cans", "minimax", "cross-entropy"};
    enum { KNOWN = 3, MINIMAX = 3, FOUND = 4, METHODS };
    NsMethod method[METHODS];
    const int k = o->steps;
    for (int i = 0; i < METHODS; i++) {
        if (!ns_method_find(&method[i], "turbo4", err) ||
            !ns_method_set_norm(&method[i], o->norm, err) ||
            !ns_method_set_coeffs(&method[i], name[i < KNOWN ? i : 0], k, err))
            return false;
        method[i].delta = o->delta, method[i].eps = 0;
    }
    double *after = spectra(&train, method[0].norm, o->delta);
    double *before = spectra(&train, NS_NORM_FROBENIUS, 0);
    const Spectra s = {train.count, EACH, after};
    double loss[METHODS];
    for (int i = 0; i < KNOWN; i++) loss[i] = spectra_loss(&s, method[i].coeff, k);
    loss[MINIMAX] = minimax(method[MINIMAX].coeff, &s, before, method[0].norm != NS_NORM_NONE, k);
    const CrossEntropy how = {o->population, o->generations,    o->elite, o->momentum,
                              o->spread,     (uint64_t)o->seed, progress};
    loss[FOUND] = INFINITY;
    for (int i = 0; i <= MINIMAX; i++) { // from each of the others: it finds the nearest valley
        NsCoeff p[NS_MAX_ITERATIONS];
        memcpy(p, method[i].coeff, sizeof p);
        const double least = cross_entropy_search(&how, &s, p, k);
        if (least >= loss[FOUND]) continue;
        loss[FOUND] = least;
        memcpy(method[FOUND].coeff, p, sizeof p);
    }
    for (int i = 0; i < METHODS; i++) print_rows(name[i], loss[i], method[i].coeff, k);
    printf("\npolar error in bf16, %d x %d and the file's own shapes, a mean over matrices:\n",
           o->rows, o->cols);
    judge(&test, method, name, METHODS);
    free(after), free(before);
    for (int i = 0; i < train.count; i++) free(train.matrix[i].g);
    for (int i = 0; i < test.count; i++) free(test.matrix[i].g);
    free(train.matrix), free(test.matrix);
    if (!o->output[0]) return true;
    if (!write_table(o->output, o->name, method[FOUND].coeff, k, err)) return false;
    printf("%s: %s, %d rows\n", o->output, o->name, k);
    return true;
}

int main(int argc, char **argv)
{
    Options options;
    Error err;
    threads_spin_briefly(argv);
    if (!parse(&options, argc, argv, &err)) {
        fprintf(stderr, "error: %s\n", err.text);
        return USAGE;
    }
    if (options.help) {
        help();
        return 0;
    }
    if (run(&options, &err)) return 0;
    fprintf(stderr, "error: %s\n", err.text);
    return 1;
}
