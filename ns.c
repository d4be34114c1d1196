// The orthogonalisation methods as data, and the changes that options may make to them. The
// arithmetic is each device's: ops/cpu/ns.c states it plainly.
#include "ns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const NsTable tables[] = {
    {"jordan", 1, {{3.4445, -4.7750, 2.0315}}},
    {"you",
     5,
     {{4.0848, -6.8946, 2.9270},
      {3.9505, -6.3029, 2.6377},
      {3.7418, -5.5913, 2.3037},
      {2.8769, -3.1427, 1.2046},
      {2.8366, -3.0525, 1.2012}}},
    {"polar_express",
     5,
     {{8.156554524902461, -22.48329292557795, 15.878769915207462},
      {4.042929935166739, -2.808917465908714, 0.5000178451051316},
      {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
      {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
      {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}}},
    {"cans",
     5,
     {{8.4703, -25.1081, 18.6293},
      {4.1828, -3.1087, 0.5806},
      {3.9619, -2.9541, 0.5630},
      {3.2866, -2.4647, 0.5074},
      {2.2737, -1.6447, 0.4162}}},
    {"turbo_ga",
     4, // tuned for the spectra that AOL leaves
     {{4.6051, -9.6552, 5.6769},
      {4.7505, -6.0861, 2.1790},
      {2.7763, -2.3190, 0.5523},
      {2.4231, -2.2861, 0.8193}}},
    {"cubic",
     5,
     {{3.3657, -3.3421, 0},
      {2.5744, -1.4957, 0},
      {2.5369, -1.4313, 0},
      {2.4419, -1.2764, 0},
      {2.2230, -0.9631, 0}}},
};

static const struct {
    const char *name;
    NsNorm norm;
    double delta, eps;
    const char *table;
    int iterations;
    bool gram;
    unsigned restarts;
    DType storage;
} methods[] = {
    {"muon5", NS_NORM_FROBENIUS, 0, 1e-7, "jordan", 5, false, 0, DT_BF16},
    {"you5", NS_NORM_FROBENIUS, 0, 1e-7, "you", 5, false, 0, DT_BF16},
    {"polar5", NS_NORM_FROBENIUS, 0.02, 1e-6, "polar_express", 5, false, 0, DT_BF16},
    // 1 is the very edge of these two tables' domain: without delta, rounding carries matrices of
    // rank 1 across it, and cans5 in bf16 diverges on most of them.
    {"cans5", NS_NORM_FROBENIUS, 0.02, 1e-6, "cans", 5, false, 0, DT_BF16},
    {"cubic5", NS_NORM_FROBENIUS, 0.02, 1e-6, "cubic", 5, false, 0, DT_BF16},
    {"turbo4", NS_NORM_AOL, 0.02, 1e-6, "polar_express", 4, false, 0, DT_BF16},
    {"turbo5", NS_NORM_AOL, 0.02, 1e-6, "polar_express", 5, false, 0, DT_BF16},
    {"turbo4-you", NS_NORM_AOL, 0, 1e-7, "you", 4, false, 0, DT_BF16},
    {"turbo4-ga", NS_NORM_AOL, 0, 1e-7, "turbo_ga", 4, false, 0, DT_BF16},
    // Gram forms store f16: bounded values, three more fraction bits than bf16. Five iterations
    // need a restart after the second, four do not.
    {"turbo-gram4", NS_NORM_AOL, 0.02, 1e-6, "polar_express", 4, true, 0, DT_F16},
    {"turbo-gram5", NS_NORM_AOL, 0.02, 1e-6, "polar_express", 5, true, 1u << 2, DT_F16},
    {"s4-polar4", NS_NORM_SCHATTEN4, 0.02, 1e-6, "polar_express", 4, false, 0, DT_BF16},
    {"s4-polar5", NS_NORM_SCHATTEN4, 0.02, 1e-6, "polar_express", 5, false, 0, DT_BF16},
    {"s4-gram4", NS_NORM_SCHATTEN4, 0.02, 1e-6, "polar_express", 4, true, 0, DT_F16},
    {"s4-gram5", NS_NORM_SCHATTEN4, 0.02, 1e-6, "polar_express", 5, true, 1u << 2, DT_F16},
};

static const char *const norm_names[] = {"none", "frobenius", "aol", "schatten4"};

static const struct {
    const char *name;
    DType type;
} storages[] = {{"bf16", DT_BF16}, {"f16", DT_F16}, {"real", DT_F64}};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

// Appends text to a list that stays cut off at its size.
static void list_append(char *list, size_t size, const char *text)
{
    const size_t used = strlen(list), room = size - used - 1, length = strlen(text);
    const size_t n = length < room ? length : room;
    memcpy(list + used, text, n);
    list[used + n] = '\0';
}

static void list_word(char *list, size_t size, const char *word)
{
    if (*list) list_append(list, size, ", ");
    list_append(list, size, word);
}

static const NsTable *find_table(const char *name)
{
    for (int i = 0; i < COUNT(tables); i++)
        if (!strcmp(tables[i].name, name)) return &tables[i];
    return NULL;
}

static void set_table(NsMethod *method, const NsTable *table, int iterations)
{
    memcpy(method->table, table->name, sizeof method->table);
    method->iterations = iterations;
    memset(method->coeff, 0, sizeof method->coeff);
    int first = table->rows > iterations ? table->rows - iterations : 0;
    for (int k = 0; k < iterations; k++) {
        int row = first + k < table->rows ? first + k : table->rows - 1;
        method->coeff[k] = table->row[row];
    }
    method->restarts &= (1u << iterations) - 1;
}

size_t ns_method_size(void) { return sizeof(NsMethod); }

const char *ns_method_name(int i) { return i >= 0 && i < COUNT(methods) ? methods[i].name : NULL; }

bool ns_method_find(NsMethod *method, const char *name, Error *err)
{
    char list[400] = "";
    for (int i = 0; i < COUNT(methods); i++) {
        list_word(list, sizeof list, methods[i].name);
        if (strcmp(methods[i].name, name)) continue;
        memset(method, 0, sizeof *method);
        snprintf(method->name, sizeof method->name, "%s", name);
        method->norm = methods[i].norm;
        method->delta = methods[i].delta;
        method->eps = methods[i].eps;
        method->gram = methods[i].gram;
        method->restarts = methods[i].restarts;
        method->storage = methods[i].storage;
        set_table(method, find_table(methods[i].table), methods[i].iterations);
        return true;
    }
    return fail(err, "no orthogonalisation method '%.40s'; there are %s; " NS_ADVICE, name, list);
}

bool ns_method_set_norm(NsMethod *method, const char *norm, Error *err)
{
    for (int i = 0; i < COUNT(norm_names); i++)
        if (!strcmp(norm_names[i], norm)) {
            method->norm = (NsNorm)i;
            return true;
        }
    return fail(err, "no normaliser '%.40s'; there are none, frobenius, aol, schatten4", norm);
}

static bool valid_number(const char *word, double *value)
{
    char *end;
    *value = strtod(word, &end);
    return end != word && !*end && fabs(*value) <= 1e6; // false for NaN
}

// One line of a table file, already ended by a NUL: nothing, the name, or three coefficients.
static bool parse_line(NsTable *table, char *line, const char *source, int number, Error *err)
{
    static const char blanks[] = " \t\r\v\f";
    char *words[4], *rest = NULL;
    int count = 0;
    line[strcspn(line, "#")] = 0;
    for (char *w = strtok_r(line, blanks, &rest); w && count < 4; w = strtok_r(NULL, blanks, &rest))
        words[count++] = w;
    if (!count) return true;
    if (!table->name[0]) {
        if (count > 1)
            return fail(err, "%s:%d: the first line is the table's name, one word", source, number);
        size_t length = strlen(words[0]);
        if (length >= sizeof table->name)
            return fail(err, "%s:%d: the table's name has more than %d characters", source, number,
                        (int)sizeof table->name - 1);
        for (const char *c = words[0]; *c; c++)
            if (!(*c > ' ' && *c < 127))
                return fail(err, "%s:%d: the table's name is not plain text", source, number);
        memcpy(table->name, words[0], length + 1);
        return true;
    }
    if (table->rows == NS_MAX_ITERATIONS)
        return fail(err, "%s:%d: more than %d rows", source, number, NS_MAX_ITERATIONS);
    NsCoeff *row = &table->row[table->rows];
    if (count != 3 || !valid_number(words[0], &row->a) || !valid_number(words[1], &row->b) ||
        !valid_number(words[2], &row->c))
        return fail(err, "%s:%d: a row is three numbers a b c, each at most 1e6 in size", source,
                    number);
    table->rows++;
    return true;
}

bool ns_table_parse(NsTable *table, const char *text, size_t length, const char *source, Error *err)
{
    memset(table, 0, sizeof *table);
    int number = 0;
    for (size_t at = 0; at < length;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - text) : length;
        char line[256];
        number++;
        if (end - at >= sizeof line)
            return fail(err, "%s:%d: a line of more than %d characters", source, number,
                        (int)sizeof line - 1);
        memcpy(line, text + at, end - at);
        line[end - at] = 0;
        if (strlen(line) != end - at) return fail(err, "%s:%d: a NUL character", source, number);
        if (!parse_line(table, line, source, number, err)) return false;
        at = end + 1;
    }
    if (!table->rows)
        return fail(err, "%s: no coefficients; a table is its name, then rows a b c", source);
    return true;
}

// Reads a whole table file; `known` names the built-in tables for the refusal.
static bool read_table(NsTable *table, const char *path, const char *known, Error *err)
{
    char text[8192];
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail(err, "no coefficient table '%.100s' (%s), and no such file (%s)", path, known,
                    strerror(errno));
    size_t length = fread(text, 1, sizeof text, file);
    bool failed = ferror(file), longer = length == sizeof text;
    fclose(file);
    if (failed) return fail(err, "%.100s: cannot be read (%s)", path, strerror(errno));
    if (longer) return fail(err, "%.100s: longer than a coefficient table can be", path);
    return ns_table_parse(table, text, length, path, err);
}

bool ns_method_set_coeffs(NsMethod *method, const char *table, int iterations, Error *err)
{
    if (iterations < 1 || iterations > NS_MAX_ITERATIONS)
        return fail(err, "%d iterations; 1 to %d are possible", iterations, NS_MAX_ITERATIONS);
    char known[200] = "";
    for (int i = 0; i < COUNT(tables); i++) list_word(known, sizeof known, tables[i].name);
    NsTable from_file;
    const NsTable *found = find_table(table);
    if (!found) {
        if (!read_table(&from_file, table, known, err)) return false;
        found = &from_file;
    }
    set_table(method, found, iterations);
    return true;
}

bool ns_method_set_gram(NsMethod *method, bool gram, const char *restarts, Error *err)
{
    unsigned bits = 0;
    const char *at = restarts ? restarts : "";
    if (*at && !gram) return fail(err, "restarts '%.40s' without the gram variant", restarts);
    while (*at) {
        char *end;
        long k = strtol(at, &end, 10);
        if (end == at || k < 1 || k >= method->iterations || (*end && *end != ',') ||
            (*end == ',' && !end[1]))
            return fail(err, "restarts '%.40s'; a list such as 2 or 2,4 of iterations from 1 to %d",
                        restarts, method->iterations - 1);
        bits |= 1u << k;
        at = *end ? end + 1 : end;
    }
    method->gram = gram;
    method->by_shape = false;
    method->restarts = bits;
    return true;
}

void ns_method_set_by_shape(NsMethod *method)
{
    method->by_shape = true;
    method->gram = false;
    method->restarts = 0;
}

NsMethod ns_method_for(const NsMethod *method, int m, int n)
{
    NsMethod chosen = *method;
    const int shorter = m < n ? m : n, longer = m < n ? n : m;
    if (!method->by_shape) return chosen;
    chosen.by_shape = false;
    chosen.gram = longer / 2 >= shorter;
    if (chosen.gram && chosen.iterations > 4) chosen.restarts = 1u << 2;
    if (chosen.gram && chosen.storage == DT_BF16) chosen.storage = DT_F16;
    return chosen;
}

bool ns_method_set_eps(NsMethod *method, const char *eps, Error *err)
{
    if (strcmp(eps, "abs") && strcmp(eps, "rel"))
        return fail(err, "no eps '%.40s'; there are abs, rel", eps);
    method->relative = eps[0] == 'r';
    return true;
}

bool ns_method_set_storage(NsMethod *method, const char *storage, Error *err)
{
    for (int i = 0; i < COUNT(storages); i++)
        if (!strcmp(storages[i].name, storage)) {
            method->storage = storages[i].type;
            return true;
        }
    return fail(err, "no storage '%.40s'; there are bf16, f16, real", storage);
}

static bool is_changed(const NsMethod *method)
{
    NsMethod named;
    Error ignored;
    if (!ns_method_find(&named, method->name, &ignored)) return false;
    bool same = named.norm == method->norm && named.delta == method->delta &&
                named.eps == method->eps && named.relative == method->relative &&
                named.iterations == method->iterations && named.gram == method->gram &&
                named.by_shape == method->by_shape && named.restarts == method->restarts &&
                named.storage == method->storage;
    for (int k = 0; same && k < named.iterations; k++)
        same = named.coeff[k].a == method->coeff[k].a && named.coeff[k].b == method->coeff[k].b &&
               named.coeff[k].c == method->coeff[k].c;
    return !same;
}

void ns_method_describe(const NsMethod *method, char *text, size_t size)
{
    char norm[64], variant[64], restarts[32] = "";
    if (method->norm == NS_NORM_NONE)
        snprintf(norm, sizeof norm, "none");
    else
        snprintf(norm, sizeof norm, "%s(%g, %g%s)", norm_names[method->norm], method->delta,
                 method->eps, method->relative ? " rel" : "");
    for (int k = 1; k < method->iterations; k++) {
        char word[16];
        snprintf(word, sizeof word, "%d", k);
        if (method->restarts >> k & 1) list_word(restarts, sizeof restarts, word);
    }
    const char *name = method->by_shape ? "standard or gram by shape"
                       : method->gram   ? "gram"
                                        : "standard";
    snprintf(variant, sizeof variant, "%s%s%s", name, *restarts ? ", restart after " : "",
             restarts);
    bool rounds = method->storage == DT_BF16 || method->storage == DT_F16;
    snprintf(text, size, "%s%s: %s %s x%d, %s, %s", method->name,
             is_changed(method) ? " (changed)" : "", norm, method->table, method->iterations,
             variant, rounds ? dtype_name(method->storage) : "real");
}

// Per matrix: one more X, and A, B (standard) or R, Q, Z and a product's copy (gram).
size_t ns_workspace_size(const NsMethod *method, int at_once, int m, int n, size_t real_size)
{
    size_t rows = (size_t)(m < n ? m : n), cols = (size_t)(m < n ? n : m);
    const bool gram = ns_method_for(method, m, n).gram;
    return (size_t)at_once * (rows * cols + (gram ? 4 : 2) * rows * rows) * real_size;
}
