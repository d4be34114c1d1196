// GPT-2's pre-tokeniser: the words of a text, within which BPE merges. They are the matches of
//
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// with Unicode 16.0's letters, numbers and spaces (unicode_tables.h), the version that tiktoken
// has. Text need not be UTF-8: a byte that begins no valid sequence counts as a character that is
// none of the three, as U+FFFD would.
#ifndef RUN_PRETOKENIZE_H
#define RUN_PRETOKENIZE_H

#include <stddef.h>
#include <stdint.h>

enum { CODE_POINTS = 0x110000 };

// The class of every code point, UNICODE_OTHER to UNICODE_SPACE, and of a byte that is none (the
// last one), for free() to release; NULL without memory.
uint8_t *pretokenize_kinds(void);

// The end of the word that begins at `at`; at < end, where the text ends.
const uint8_t *pretokenize(const uint8_t *kinds, const uint8_t *at, const uint8_t *end);

// The last place in text[from..size] where it may be cut with the words of the two pieces being
// those of the whole: before a space or the end of a line that no space of any kind precedes. 0
// when there is none.
size_t pretokenize_cut(const uint8_t *text, size_t from, size_t size);

#endif
