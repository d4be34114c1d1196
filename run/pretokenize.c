#include "pretokenize.h"

#include "unicode_tables.h"

#include <stdbool.h> // bool
#include <stdlib.h>  // calloc
#include <string.h>  // memset

enum { kOther = UNICODE_OTHER, kSpace = UNICODE_SPACE };

uint8_t *pretokenize_kinds(void)
{
    uint8_t *kinds = calloc(CODE_POINTS + 1, 1);
    for (size_t i = 0; kinds && i < sizeof unicode_ranges / sizeof unicode_ranges[0]; i++)
        memset(kinds + unicode_ranges[i].first, (int)unicode_ranges[i].kind,
               unicode_ranges[i].last - unicode_ranges[i].first + 1);
    return kinds;
}

enum { kNotUtf8 = CODE_POINTS };

// The code point of a character of several bytes, whose length goes to *length; kNotUtf8, of one
// byte, when it is none.
static uint32_t code_long(const uint8_t *at, const uint8_t *end, int *length)
{
    const size_t left = (size_t)(end - at);
    *length = 1;
    if (at[0] < 0xc2 || left < 2 || (at[1] & 0xc0) != 0x80) return kNotUtf8;
    uint32_t code = (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu);
    if (at[0] < 0xe0) {
        *length = 2;
        return code;
    }
    if (left < 3 || (at[2] & 0xc0) != 0x80) return kNotUtf8;
    if (at[0] < 0xf0) {
        code = (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu);
        if (code < 0x800 || (code >= 0xd800 && code < 0xe000)) return kNotUtf8;
        *length = 3;
        return code;
    }
    if (at[0] > 0xf4 || left < 4 || (at[3] & 0xc0) != 0x80) return kNotUtf8;
    code = (at[0] & 7u) << 18 | (at[1] & 0x3fu) << 12 | (at[2] & 0x3fu) << 6 | (at[3] & 0x3fu);
    if (code < 0x10000 || code >= CODE_POINTS) return kNotUtf8;
    *length = 4;
    return code;
}

static inline int kind_of(const uint8_t *kinds, const uint8_t *at, const uint8_t *end, int *length)
{
    *length = 1;
    return kinds[*at < 0x80 ? *at : code_long(at, end, length)];
}

// Past 's 't 'm 'd 'll 've 're, or NULL.
static const uint8_t *contraction(const uint8_t *at, const uint8_t *end)
{
    const int a = end - at > 1 ? at[1] : 0, b = end - at > 2 ? at[2] : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e')) return at + 3;
    return NULL;
}

// Spaces up to something visible leave their last one to it: ' ' becomes the start of its word, any
// other stands alone.
static const uint8_t *spaces(const uint8_t *kinds, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *first = at, *last = at;
    for (int length; at < end && kind_of(kinds, at, end, &length) == kSpace; at += length)
        last = at;
    return at == end || last == first ? at : last;
}

const uint8_t *pretokenize(const uint8_t *kinds, const uint8_t *at, const uint8_t *end)
{
    int length;
    if (*at == '\'') {
        const uint8_t *past = contraction(at, end);
        if (past) return past;
    }
    const uint8_t *first = *at == ' ' && end - at > 1 ? at + 1 : at;
    const int kind = kind_of(kinds, first, end, &length);
    if (kind == kSpace) return spaces(kinds, at, end);
    for (at = first + length; at < end && kind_of(kinds, at, end, &length) == kind; at += length) {
    }
    return at;
}

// Whether text[0..size] ends with a character of class kSpace.
static bool ends_with_space(const uint8_t *text, size_t size)
{
    size_t first = size - 1;
    while (first > 0 && size - first < 4 && (text[first] & 0xc0) == 0x80) first--;
    int length = 1;
    const uint32_t code =
        text[first] < 0x80 ? text[first] : code_long(text + first, text + size, &length);
    if (first + (size_t)length != size) return false; // the last byte is none of a character
    for (size_t i = 0; i < sizeof unicode_ranges / sizeof unicode_ranges[0]; i++)
        if (code <= unicode_ranges[i].last)
            return code >= unicode_ranges[i].first && unicode_ranges[i].kind == kSpace;
    return false;
}

size_t pretokenize_cut(const uint8_t *text, size_t from, size_t size)
{
    for (size_t i = size; i > from + 1; i--) {
        const int space = text[i - 1];
        if ((space == ' ' || space == '\n' || space == '\r') && !ends_with_space(text, i - 1))
            return i - 1;
    }
    return 0;
}
