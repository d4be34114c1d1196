// How a function refuses: it fills an Error and returns false. The program prints the text after
// "error: " and exits with 1; a test reads it; a fuzzer ignores it.
#ifndef OPS_ERROR_H
#define OPS_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct {
    char
        text[512]; // one line, no newline at its end: what is wrong, where, and what would be right
} Error;

// Writes the message and returns false, so that a refusal is one statement: return fail(err, ...).
__attribute__((format(printf, 2, 3))) static inline bool fail(Error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    return false;
}

#endif
