// The fields of a structure as a table: name, type, range, meaning. One table serves the parser,
// the refusals, --help, the printout and the log, so they cannot disagree.
//
// A table is an array of Field ended by an entry without a name; the FIELD_ macros write entries.
// '-' and '_' are the same letter in names: the field micro_batch is the option --micro-batch.
#ifndef OPS_FIELD_H
#define OPS_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "error.h"

typedef enum {
    FIELD_INT,    // int, or int64_t when size is 8
    FIELD_DOUBLE, // double
    FIELD_STRING, // char[size], printable, ended by '\0'
    FIELD_CHOICE, // char[size], one of `choices`
    FIELD_BOOL,   // bool, written yes or no
} FieldType;

typedef struct {
    const char *name;
    FieldType type;
    size_t offset, size;
    double min, max;     // of a number, inclusive
    const char *choices; // CHOICE: words between bars, "fp8|full"; STRING: the characters allowed
    const char *word;    // STRING: what --help calls the value
    const char *bare;    // STRING: the value when the option stands alone; NULL: it may not
    const char *help;
} Field;

#define FIELD_IN(kind, structure, member)                                                          \
    .type = kind, .offset = offsetof(structure, member), .size = sizeof(((structure *)0)->member)
#define FIELD_N(type, member, low, high, text) /* an int or an int64_t */                          \
    {                                                                                              \
        .name = #member, FIELD_IN(FIELD_INT, type, member), .min = low, .max = high, .help = text  \
    }
#define FIELD_X(type, member, low, high, text) /* a double */                                      \
    {                                                                                              \
        .name = #member, FIELD_IN(FIELD_DOUBLE, type, member), .min = low, .max = high,            \
        .help = text                                                                               \
    }
#define FIELD_S(type, member, letters, value, text) /* a string of `letters`, NULL: printable */   \
    {                                                                                              \
        .name = #member, FIELD_IN(FIELD_STRING, type, member), .choices = letters, .word = value,  \
        .help = text                                                                               \
    }
#define FIELD_C(type, member, words, text) /* one of "word|word" */                                \
    {                                                                                              \
        .name = #member, FIELD_IN(FIELD_CHOICE, type, member), .choices = words, .help = text      \
    }
#define FIELD_B(type, member, text) /* a bool */                                                   \
    {                                                                                              \
        .name = #member, FIELD_IN(FIELD_BOOL, type, member), .help = text                          \
    }

// The entry of that name, NULL when there is none.
const Field *field_find(const Field *table, const char *name);
// Sets the field of the structure at `base` from text, all of which must be the value. When it is
// not of the type or outside the range: false, nothing changed, and the option's name and what it
// takes in the message, "--heads 0 is out of range: 1 to 64".
bool field_set(const Field *field, void *base, const char *text, Error *err);
// Sets the field that an option names, "--name=value", "--name value" of two words, or of a bool
// "--name" alone; `next` is the word that follows, NULL at the end, and *took whether it was the
// value. Refuses what is no option of the table, a missing value, and what field_set does.
bool field_parse(const Field *table, void *base, const char *word, const char *next, bool *took,
                 Error *err);
// The value as text that field_set reads back to the same bits; returns `text`. 32 bytes hold any
// number, field->size any string.
char *field_get(const Field *field, const void *base, char *text, size_t size);
// A finite number with the fewest digits that read back to the same bits; returns `text`, 32 bytes.
char *field_number(double value, char *text, size_t size);
// The name as an option, "--micro-batch"; returns `text`. 64 bytes are enough.
char *field_option(const Field *field, char *text, size_t size);
// The name nearest to `name` by edit distance, when nearer than *distance, which becomes smaller;
// else NULL. Start from field_typo(name), the most that counts as a slip; chain over tables.
const char *field_nearest(const Field *table, const char *name, int *distance);
int field_typo(const char *name);
// One entry of --help: option, meaning, then the value in `base` and the range, in brackets.
void field_help(const Field *field, const void *base, FILE *out);

#endif
