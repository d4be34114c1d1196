#!/usr/bin/env python3
"""Writes run/unicode_tables.h: the code points that GPT-2's pre-tokeniser calls letters, numbers and
spaces, from Python's own unicodedata where that has Unicode 16.0.0 (Python 3.14), else from the
package unicodedata2:

    pip install unicodedata2==16.0.0 && scripts/make_unicode_tables.py >run/unicode_tables.h

The version is that of the regular expressions in tiktoken, whose classes the tables repeat for every
code point; tests/tokenizer_vs_tiktoken.py compares them.
"""
import sys
import unicodedata

VERSION = "16.0.0"
if unicodedata.unidata_version != VERSION:
    import unicodedata2 as unicodedata
if unicodedata.unidata_version != VERSION:
    sys.exit(f"error: this is Unicode {unicodedata.unidata_version}, not {VERSION}: "
             f"pip install unicodedata2=={VERSION}")

# The property White_Space (PropList.txt); it has not changed since Unicode 6.3.
SPACES = {*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000}


def kind(code):
    if code in SPACES:
        return "SPACE"
    return {"L": "LETTER", "N": "NUMBER"}.get(unicodedata.category(chr(code))[0])


ranges = []
for code in range(0x110000):
    k = kind(code)
    if k and ranges and ranges[-1][2] == k and ranges[-1][1] == code - 1:
        ranges[-1][1] = code
    elif k:
        ranges.append([code, code, k])

print(f"""\
// Letters (general category L), numbers (N) and spaces (White_Space) of Unicode {VERSION}, in ranges,
// ascending; every other code point is of class OTHER. Written by scripts/make_unicode_tables.py.
// clang-format off
#ifndef RUN_UNICODE_TABLES_H
#define RUN_UNICODE_TABLES_H

#include <stdint.h>

#define UNICODE_VERSION "{VERSION}"

enum {{ UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE }};
#define L UNICODE_LETTER
#define N UNICODE_NUMBER
#define S UNICODE_SPACE

static const struct {{
    uint32_t first, last, kind;
}} unicode_ranges[] = {{""")
line = "   "
for first, last, k in ranges:
    entry = f" {{{first:#x},{last:#x},{k[0]}}},"
    if len(line) + len(entry) > 100:
        print(line)
        line = "   "
    line += entry
print(line)
print("""\
};

#undef L
#undef N
#undef S
#endif""")
