#include "pretokenize.h"

#include "unicode_tables.h"

#include <stdlib.h> // calloc
#include <string.h> // memset

enum { kOther = UNICODE_OTHER, kSpace = UNICODE_SPACE };

uint8_t *pretokenize_kinds(void)
{
    uint8_t *kinds = calloc(CODE_POINTS, 1);
    for (size_t i = 0; kinds && i < sizeof unicode_ranges / sizeof unicode_ranges[0]; i++)
        memset(kinds + unicode_ranges[i].first, (int)unicode_ranges[i].kind,
               unicode_ranges[i].last - unicode_ranges[i].first + 1);
    return kinds;
}

// The class of a character of several bytes, whose length goes to *length.
static int kind_long(const uint8_t *kinds, const uint8_t *at, const uint8_t *end, int *length)
{
    const size_t left = (size_t)(end - at);
    *length = 1;
    if (at[0] < 0xc2 || left < 2 || (at[1] & 0xc0) != 0x80) return kOther;
    uint32_t code = (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu);
    if (at[0] < 0xe0) {
        *length = 2;
        return kinds[code];
    }
    if (left < 3 || (at[2] & 0xc0) != 0x80) return kOther;
    if (at[0] < 0xf0) {
        code = (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu);
        if (code < 0x800 || (code >= 0xd800 && code < 0xe000)) return kOther;
        *length = 3;
        return kinds[code];
    }
    if (at[0] > 0xf4 || left < 4 || (at[3] & 0xc0) != 0x80) return kOther;
    code = (at[0] & 7u) << 18 | (at[1] & 0x3fu) << 12 | (at[2] & 0x3fu) << 6 | (at[3] & 0x3fu);
    if (code < 0x10000 || code >= CODE_POINTS) return kOther;
    *length = 4;
    return kinds[code];
}

static inline int kind_of(const uint8_t *kinds, const uint8_t *at, const uint8_t *end, int *length)
{
    *length = 1;
    return *at < 0x80 ? kinds[*at] : kind_long(kinds, at, end, length);
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

size_t pretokenize_cut(const uint8_t *text, size_t from, size_t size)
{
    for (size_t i = size; i > from + 1; i--) {
        const int space = text[i - 1], before = text[i - 2];
        if ((space == ' ' || space == '\n') && before > ' ' && before < 0x7f) return i - 1;
    }
    return 0;
}
