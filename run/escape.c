#include "escape.h"

#include <stdbool.h>
#include <stdint.h>

static const char kReplacement[] = "\xef\xbf\xbd"; // U+FFFD

// The code point at the start of text and its length in bytes; length 0 when it is not valid UTF-8
// (too long, a surrogate, above U+10FFFF, cut off).
static uint32_t decode(const unsigned char *text, size_t size, size_t *length)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code = text[0];
    size_t n = code < 0x80 ? 1 : code >> 5 == 6 ? 2 : code >> 4 == 14 ? 3 : code >> 3 == 30 ? 4 : 0;
    *length = 0;
    if (n == 0 || n > size) return 0;
    if (n > 1) code &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) {
        if (text[i] >> 6 != 2) return 0;
        code = code << 6 | (text[i] & 63);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return 0;
    *length = n;
    return code;
}

typedef enum { ESCAPE_JSON, ESCAPE_XML, ESCAPE_TERMINAL } Place;

static void write_code(FILE *out, Place place, uint32_t code, const unsigned char *bytes,
                       size_t length)
{
    // C0 but for tab and newline, DEL, C1, and the two that no XML may hold
    bool control = (code < 32 && code != '\n' && code != '\t') || (code >= 127 && code < 160) ||
                   code == 0xfffe || code == 0xffff;
    if (place == ESCAPE_JSON && code < 32)
        fprintf(out, code == '\n' ? "\\n" : code == '\t' ? "\\t" : "\\u%04x", (unsigned)code);
    else if (place == ESCAPE_JSON && (code == '"' || code == '\\'))
        fprintf(out, "\\%c", (int)code);
    else if (place != ESCAPE_JSON && control)
        fputs(kReplacement, out);
    else if (place == ESCAPE_XML && (code == '<' || code == '&' || code == '>' || code == '"'))
        fputs(code == '<' ? "&lt;" : code == '&' ? "&amp;" : code == '>' ? "&gt;" : "&quot;", out);
    else
        fwrite(bytes, 1, length, out);
}

static void escape(FILE *out, Place place, const char *text, size_t size)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    while (at < end) {
        size_t length;
        uint32_t code = decode(at, (size_t)(end - at), &length);
        if (length)
            write_code(out, place, code, at, length);
        else
            fputs(kReplacement, out);
        at += length ? length : 1;
    }
}

void escape_json(FILE *out, const char *text, size_t size) { escape(out, ESCAPE_JSON, text, size); }

void escape_xml(FILE *out, const char *text, size_t size) { escape(out, ESCAPE_XML, text, size); }

void escape_terminal(FILE *out, const char *text, size_t size)
{
    escape(out, ESCAPE_TERMINAL, text, size);
}
