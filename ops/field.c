#include "field.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { kNameMax = 64, kHelpIndent = 26, kHelpWidth = 98 };

static char same_letter(char c) { return c == '_' ? '-' : c; }

static bool same_name(const char *a, const char *b)
{
    while (*a && same_letter(*a) == same_letter(*b)) a++, b++;
    return same_letter(*a) == same_letter(*b);
}

const Field *field_find(const Field *table, const char *name)
{
    for (const Field *field = table; field->name; field++)
        if (same_name(field->name, name)) return field;
    return NULL;
}

char *field_option(const Field *field, char *text, size_t size)
{
    snprintf(text, size, "--%s", field->name);
    for (char *c = text; *c; c++) *c = same_letter(*c);
    return text;
}

char *field_number(double value, char *text, size_t size)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    // 1e+02 is 100 to a reader; whole numbers of a moderate size are written out
    if (value == floor(value) && fabs(value) < 1e7) snprintf(text, size, "%.0f", value);
    return text;
}

// What the field takes, for a refusal or --help: "1 to 64", "fp8, full", "yes, no".
static void range_text(const Field *field, char *text, size_t size)
{
    char low[32], high[32];
    text[0] = '\0';
    switch (field->type) {
    case FIELD_INT: // written out in full: 9007199254740992, never 9e+15
        snprintf(text, size, "%.0f to %.0f", field->min, field->max);
        break;
    case FIELD_DOUBLE:
        field_number(field->min, low, sizeof low);
        field_number(field->max, high, sizeof high);
        snprintf(text, size, "%s to %s", low, high);
        break;
    case FIELD_BOOL:
        snprintf(text, size, "yes, no");
        break;
    case FIELD_CHOICE:
        for (const char *c = field->choices + (field->choices[0] == '|'); *c; c++) {
            size_t n = strlen(text);
            snprintf(text + n, size - n, *c == '|' ? ", " : "%c", *c);
        }
        break;
    case FIELD_STRING:
        break;
    }
}

static bool refuse(const Field *field, const char *text, const char *what, Error *err)
{
    char option[kNameMax], range[256], shown[48];
    size_t n = strlen(text);
    // an echo of the user's text stays on one line and leaves room for the rest
    for (size_t i = 0; i <= n && i < sizeof shown; i++)
        shown[i] = text[i] == '\0' || (text[i] >= ' ' && text[i] != 127) ? text[i] : '?';
    if (n >= sizeof shown) memcpy(shown + sizeof shown - 4, "...", 4);
    range_text(field, range, sizeof range);
    const char *quote = n == 0 || strchr(text, ' ') ? "\"" : "";
    return fail(err, "%s %s%s%s %s%s%s", field_option(field, option, sizeof option), quote, shown,
                quote, what, range[0] ? ": " : "", range);
}

static bool set_int(const Field *field, void *at, const char *text, Error *err)
{
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (!digits[0] || digits[strspn(digits, "0123456789")])
        return refuse(field, text, "is not a whole number", err);
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno || (double)value < field->min || (double)value > field->max)
        return refuse(field, text, "is out of range", err);
    if (field->size == sizeof(int64_t))
        *(int64_t *)at = value;
    else
        *(int *)at = (int)value;
    return true;
}

static bool set_double(const Field *field, void *at, const char *text, Error *err)
{
    char *end;
    // decimal only: no spaces, no hexadecimal, no nan and no infinity by name
    if (!text[0] || text[strspn(text, "0123456789+-.eE")])
        return refuse(field, text, "is not a number", err);
    errno = 0;
    double value = strtod(text, &end);
    if (*end || end == text) return refuse(field, text, "is not a number", err);
    if ((errno && value == 0) || !(value >= field->min && value <= field->max))
        return refuse(field, text, "is out of range", err);
    *(double *)at = value;
    return true;
}

static bool set_string(const Field *field, void *at, const char *text, Error *err)
{
    size_t n = strlen(text);
    char what[64];
    if (n >= field->size) {
        snprintf(what, sizeof what, "is too long (%zu bytes): at most %zu", n, field->size - 1);
        return refuse(field, text, what, err);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (field->choices ? !strchr(field->choices, c) : c < ' ' || c == 127) {
            snprintf(what, sizeof what,
                     c > ' ' && c < 127 ? "may not hold '%c'" : "may not hold byte %d", c);
            return refuse(field, text, what, err);
        }
    }
    memset(at, 0, field->size); // no trace of a longer value: records can be compared as bytes
    memcpy(at, text, n);
    return true;
}

static bool set_choice(const Field *field, void *at, const char *text, Error *err)
{
    size_t n = strlen(text);
    for (const char *word = field->choices;; word++) {
        size_t length = strcspn(word, "|");
        if (length == n && memcmp(word, text, n) == 0) {
            memset(at, 0, field->size);
            memcpy(at, text, n);
            return true;
        }
        word += length;
        if (!*word) return refuse(field, text, "is not one of", err);
    }
}

bool field_set(const Field *field, void *base, const char *text, Error *err)
{
    void *at = (char *)base + field->offset;
    switch (field->type) {
    case FIELD_INT:
        return set_int(field, at, text, err);
    case FIELD_DOUBLE:
        return set_double(field, at, text, err);
    case FIELD_STRING:
        return set_string(field, at, text, err);
    case FIELD_CHOICE:
        return set_choice(field, at, text, err);
    case FIELD_BOOL:
        break;
    }
    if (strcmp(text, "yes") && strcmp(text, "no")) return refuse(field, text, "is not one of", err);
    *(bool *)at = text[0] == 'y';
    return true;
}

bool field_parse(const Field *table, void *base, const char *word, const char *next, bool *took,
                 Error *err)
{
    char name[64], option[64];
    const char *equals = strchr(word, '=');
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    const Field *field = strncmp(name, "--", 2) ? NULL : field_find(table, name + 2);
    if (!field) return fail(err, "unknown option %.60s: --help lists them", name);
    *took = !equals && field->type != FIELD_BOOL;
    const char *value = equals ? equals + 1 : *took ? next : "yes";
    if (!value)
        return fail(err, "%s needs a value: %s", field_option(field, option, sizeof option),
                    field->help);
    return field_set(field, base, value, err);
}

char *field_get(const Field *field, const void *base, char *text, size_t size)
{
    const void *at = (const char *)base + field->offset;
    switch (field->type) {
    case FIELD_INT:
        snprintf(text, size, "%lld",
                 field->size == sizeof(int64_t) ? (long long)*(const int64_t *)at
                                                : *(const int *)at);
        break;
    case FIELD_DOUBLE:
        field_number(*(const double *)at, text, size);
        break;
    case FIELD_STRING:
    case FIELD_CHOICE:
        snprintf(text, size, "%s", (const char *)at);
        break;
    case FIELD_BOOL:
        snprintf(text, size, "%s", *(const bool *)at ? "yes" : "no");
        break;
    }
    return text;
}

// Levenshtein distance.
static int edit_distance(const char *a, const char *b)
{
    int row[kNameMax + 1], n = (int)strlen(b);
    if (n > kNameMax || strlen(a) > kNameMax) return kNameMax;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (same_letter(a[i - 1]) != same_letter(b[j - 1]));
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *field_nearest(const Field *table, const char *name, int *distance)
{
    const char *nearest = NULL;
    for (const Field *field = table; field->name; field++) {
        int d = edit_distance(name, field->name);
        if (d < *distance) *distance = d, nearest = field->name;
    }
    return nearest;
}

int field_typo(const char *name)
{
    size_t n = strlen(name); // below this: a slip in a short name, two letters swapped, three slips
    return n < 4 ? 2 : n < 9 ? 3 : 4;
}

void field_help(const Field *field, const void *base, FILE *out)
{
    char option[kNameMax], value[512], range[256], left[kNameMax + 32], note[800];
    const char *word = field->type == FIELD_INT      ? "N"
                       : field->type == FIELD_DOUBLE ? "X"
                       : field->type == FIELD_CHOICE ? field->choices + (field->choices[0] == '|')
                                                     : field->word;
    field_option(field, option, sizeof option);
    if (field->type == FIELD_BOOL)
        snprintf(left, sizeof left, "%s", option);
    else
        snprintf(left, sizeof left, field->bare ? "%s [%s]" : "%s %s", option,
                 word ? word : "TEXT");
    field_get(field, base, value, sizeof value);
    range_text(field, range, sizeof range);
    if (field->type == FIELD_CHOICE) range[0] = '\0'; // the words stand beside the name
    if (field->type == FIELD_BOOL || (!value[0] && !range[0]))
        snprintf(note, sizeof note, "%s", field->help);
    else
        snprintf(note, sizeof note, "%s [%s%s%s]", field->help, value,
                 value[0] && range[0] ? "; " : "", range);
    int column = fprintf(out, "  %-*s", kHelpIndent - 3, left);
    if (column >= kHelpIndent) column = fprintf(out, "\n%*s", kHelpIndent - 1, "") - 1;
    for (const char *c = note; *c;) { // words, folded at the margin
        int length = (int)strcspn(c, " ");
        if (column + 1 + length > kHelpWidth)
            column = fprintf(out, "\n%*s", kHelpIndent - 1, "") - 1;
        column += fprintf(out, " %.*s", length, c);
        c += length + (c[length] == ' ');
    }
    fputc('\n', out);
}
