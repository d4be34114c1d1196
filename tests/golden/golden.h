// Reads the golden files that make_golden.py writes, and compares tensors with the sketches in
// them.
//
// Inputs are hashes, u(seed, i) = (finalize(seed*0x9E3779B97F4A7C15 + i*0xD1342543DE82EF95) >> 11)
// * 2^-53 in [0, 1), finalize being splitmix64's output function, so the files hold seeds and
// results. A result x is kept as its norm and S_k = sum_i x_i (bit k of finalize(i) ? +1 : -1): the
// mean over k of (S_k - S'_k)^2 estimates |x - x'|^2 within a factor of about 1 +- sqrt(2/K).
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_SKETCH_MAX = 64 };

static inline uint64_t golden_finalize(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static inline double golden_uniform(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0x9E3779B97F4A7C15u + i * 0xD1342543DE82EF95u;
    return (double)(golden_finalize(z) >> 11) * 0x1p-53;
}

// ---- sketches ----------------------------------------------------------------------------------

typedef struct {
    char name[32];
    size_t n; // elements of the tensor
    int entries;
    double norm, sketch[GOLDEN_SKETCH_MAX];
} GoldenSketch;

static inline GoldenSketch golden_sketch(const double *x, size_t n, int entries)
{
    GoldenSketch s = {.n = n, .entries = entries};
    for (size_t i = 0; i < n; i++) {
        const uint64_t bits = golden_finalize(i);
        for (int k = 0; k < entries; k++) s.sketch[k] += bits >> k & 1 ? x[i] : -x[i];
        s.norm += x[i] * x[i];
    }
    s.norm = sqrt(s.norm);
    return s;
}

// Estimate of |x - expected|_F / |expected|_F (absolute when expected is 0); infinite when x has a
// NaN or another number of elements.
static inline double golden_error(const GoldenSketch *expected, const double *x, size_t n)
{
    if (n != expected->n) return INFINITY;
    GoldenSketch s = golden_sketch(x, n, expected->entries);
    double sum = 0;
    for (int k = 0; k < s.entries; k++)
        sum += (s.sketch[k] - expected->sketch[k]) * (s.sketch[k] - expected->sketch[k]);
    const double error = sqrt(sum / s.entries) / (expected->norm > 0 ? expected->norm : 1);
    return error == error ? error : INFINITY;
}

// ---- files -------------------------------------------------------------------------------------

// A golden file is lines of words; '#' starts a comment line. What is missing or malformed is a
// broken test, not an input to refuse, so it ends the program with the file and the line.
typedef struct {
    FILE *file;
    const char *path;
    int number;
    char line[4096], *at;
} GoldenFile;

static inline void golden_stop(const GoldenFile *f, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", f->path, f->number, what);
    exit(1);
}

static inline GoldenFile golden_open(const char *path)
{
    GoldenFile f = {.path = path, .file = fopen(path, "r")};
    if (!f.file) golden_stop(&f, "cannot be opened; run from the repository's top folder");
    return f;
}

// The rest of the current line.
static inline char *golden_rest(GoldenFile *f)
{
    f->at += strspn(f->at, " ");
    f->at[strcspn(f->at, "\r\n")] = 0;
    return f->at;
}

static inline char *golden_word(GoldenFile *f)
{
    char *word = f->at + strspn(f->at, " \r\n");
    size_t length = strcspn(word, " \r\n");
    if (!length) golden_stop(f, "the line ends too early");
    f->at = word + length + (word[length] != 0);
    word[length] = 0;
    return word;
}

static inline double golden_double(GoldenFile *f) { return strtod(golden_word(f), NULL); }
static inline long golden_int(GoldenFile *f) { return strtol(golden_word(f), NULL, 10); }
static inline uint32_t golden_hex(GoldenFile *f)
{
    return (uint32_t)strtoul(golden_word(f), NULL, 16);
}

// Goes to the next line and returns its first word; NULL, closing the file, at the end.
static inline char *golden_next(GoldenFile *f)
{
    while (fgets(f->line, sizeof f->line, f->file)) {
        f->number++;
        f->at = f->line;
        if (!strchr(f->line, '\n')) golden_stop(f, "the line is too long");
        if (f->line[0] != '#' && f->line[0] != '\n') return golden_word(f);
    }
    fclose(f->file);
    return NULL;
}

// norm and sketch as they stand at the end of a line.
static inline void golden_read_sketch(GoldenFile *f, GoldenSketch *s, int entries)
{
    s->entries = entries;
    s->norm = golden_double(f);
    for (int k = 0; k < entries; k++) s->sketch[k] = golden_double(f);
}

// ---- training cases ----------------------------------------------------------------------------

enum { GOLDEN_TENSORS = 64, GOLDEN_BATCHES = 48, GOLDEN_FIELDS = 48, GOLDEN_STEPS = 32 };

typedef struct {
    struct {
        char field[32], value[96];
    } set[GOLDEN_FIELDS];
    // Parameters: `scalars` is spelled out, the others are scale (2u - 1) + offset.
    struct {
        char name[32];
        size_t n;
        uint64_t seed;
        double scale, offset;
    } tensor[GOLDEN_TENSORS];
    double scalars[256];
    struct {
        int step, micro;
        uint64_t seed;
        int n_cu;
        int32_t cu[16];
    } batch[GOLDEN_BATCHES];
    double loss[GOLDEN_STEPS]; // mean per token before the update of each step, and after the last
    double loss_final;         // of the last batch, with the final validation's windows
    GoldenSketch gradient[GOLDEN_TENSORS], change[GOLDEN_TENSORS];
    int n_set, n_tensors, n_scalars, n_batches, n_losses, n_gradients, n_changes;
} GoldenCase;

static inline void golden_copy(char *to, size_t size, const GoldenFile *f, const char *from)
{
    if ((size_t)snprintf(to, size, "%s", from) >= size) golden_stop(f, "a word is too long");
}

static inline void golden_read_result(GoldenFile *f, GoldenSketch *s, int entries)
{
    golden_copy(s->name, sizeof s->name, f, golden_word(f));
    s->n = (size_t)golden_int(f);
    golden_read_sketch(f, s, entries);
}

static inline void golden_read_line(GoldenFile *f, const char *kind, GoldenCase *c, int *entries)
{
    if (c->n_set == GOLDEN_FIELDS || c->n_tensors == GOLDEN_TENSORS ||
        c->n_batches == GOLDEN_BATCHES || c->n_losses == GOLDEN_STEPS ||
        c->n_gradients == GOLDEN_TENSORS || c->n_changes == GOLDEN_TENSORS)
        golden_stop(f, "more than golden.h has room for");
    if (!strcmp(kind, "set")) {
        const int i = c->n_set++;
        golden_copy(c->set[i].field, sizeof c->set[i].field, f, golden_word(f));
        golden_copy(c->set[i].value, sizeof c->set[i].value, f, golden_rest(f));
    } else if (!strcmp(kind, "sketch")) {
        *entries = (int)golden_int(f);
    } else if (!strcmp(kind, "scalars")) {
        c->n_scalars = (int)golden_int(f);
        if (c->n_scalars > 256) golden_stop(f, "more scalars than golden.h has room for");
        for (int i = 0; i < c->n_scalars; i++) c->scalars[i] = golden_double(f);
    } else if (!strcmp(kind, "tensor")) {
        const int i = c->n_tensors++;
        golden_copy(c->tensor[i].name, sizeof c->tensor[i].name, f, golden_word(f));
        c->tensor[i].n = (size_t)golden_int(f);
        c->tensor[i].seed = (uint64_t)golden_int(f);
        c->tensor[i].scale = golden_double(f);
        c->tensor[i].offset = golden_double(f);
    } else if (!strcmp(kind, "batch")) {
        const int i = c->n_batches++;
        c->batch[i].step = (int)golden_int(f);
        c->batch[i].micro = (int)golden_int(f);
        c->batch[i].seed = (uint64_t)golden_int(f);
        c->batch[i].n_cu = (int)golden_int(f);
        if (c->batch[i].n_cu > 16) golden_stop(f, "more documents than golden.h has room for");
        for (int k = 0; k < c->batch[i].n_cu; k++) c->batch[i].cu[k] = (int32_t)golden_int(f);
    } else if (!strcmp(kind, "loss")) {
        if (golden_int(f) != c->n_losses) golden_stop(f, "losses are not in order");
        c->loss[c->n_losses++] = golden_double(f);
    } else if (!strcmp(kind, "loss_final")) {
        c->loss_final = golden_double(f);
    } else if (!strcmp(kind, "gradient")) {
        golden_read_result(f, &c->gradient[c->n_gradients++], *entries);
    } else if (!strcmp(kind, "change")) {
        golden_read_result(f, &c->change[c->n_changes++], *entries);
    } else {
        golden_stop(f, "unknown kind of line");
    }
}

static inline void golden_read_case(const char *path, GoldenCase *c)
{
    memset(c, 0, sizeof *c);
    GoldenFile f = golden_open(path);
    int entries = 0;
    for (char *kind; (kind = golden_next(&f));) golden_read_line(&f, kind, c, &entries);
    if (!c->n_tensors || !c->n_losses || c->n_gradients != c->n_tensors + 1 ||
        c->n_changes != c->n_gradients)
        golden_stop(&f, "the file is not whole");
}

// Element i of tensor t of the case.
static inline double golden_value(const GoldenCase *c, int t, size_t i)
{
    return c->tensor[t].scale * (2 * golden_uniform(c->tensor[t].seed, i) - 1) +
           c->tensor[t].offset;
}

// ids[0..tokens) and targets[0..tokens) of batch b: hash tokens, the last id of the vocabulary at
// every document start, targets the next ids.
static inline void golden_tokens(const GoldenCase *c, int b, int vocab_size, int tokens,
                                 int32_t *ids, int32_t *targets)
{
    for (int p = 0; p <= tokens; p++) {
        int32_t id = (int32_t)(golden_uniform(c->batch[b].seed, (uint64_t)p) * (vocab_size - 1));
        for (int k = 0; k < c->batch[b].n_cu; k++)
            if (c->batch[b].cu[k] == p && p < tokens) id = vocab_size - 1;
        if (p < tokens) ids[p] = id;
        if (p > 0) targets[p - 1] = id;
    }
}

#endif
