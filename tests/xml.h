// Whether a picture is well-formed XML.
#ifndef TESTS_XML_H
#define TESTS_XML_H

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

// Elements open and close in order, attributes are quoted, entities are known, one root. Returns
// what is wrong, or NULL.
static inline const char *xml_fault(const char *c)
{
    char open[64][32];
    int depth = 0, roots = 0;
    while (*c) {
        if (*c == '&' && strncmp(c, "&lt;", 4) && strncmp(c, "&gt;", 4) && strncmp(c, "&amp;", 5) &&
            strncmp(c, "&quot;", 6))
            return "an unknown entity";
        if (*c != '<') {
            if (depth == 0 && !isspace((unsigned char)*c)) return "text outside the root";
            c++;
            continue;
        }
        bool closing = *++c == '/';
        if (closing) c++;
        size_t n = strspn(c, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        if (n == 0 || n > 31) return "a nameless element";
        if (closing) {
            if (depth == 0 || strncmp(open[depth - 1], c, n) || open[depth - 1][n])
                return "a crossed element";
            depth--;
            c += n;
            if (*c++ != '>') return "an unfinished end";
            continue;
        }
        if (depth == 0 && roots++) return "two roots";
        if (depth == 64) return "too deep for the checker";
        memcpy(open[depth], c, n);
        open[depth++][n] = '\0';
        for (c += n; *c && *c != '>' && *c != '/';) {
            if (!isspace((unsigned char)*c)) return "no space before an attribute";
            while (isspace((unsigned char)*c)) c++;
            c += strspn(c, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
            if (strncmp(c, "=\"", 2)) return "an attribute without a quoted value";
            c += 2 + strcspn(c + 2, "\"<&");
            if (*c++ != '"') return "an unfinished attribute";
        }
        if (*c == '/') depth--, c++;
        if (*c++ != '>') return "an unfinished element";
    }
    return depth || roots != 1 ? "an element left open" : NULL;
}

#endif
