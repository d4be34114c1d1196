// Texts into and out of a model: prompts as tokens, tokens as text that grows.
#ifndef RUN_PROMPT_H
#define RUN_PROMPT_H

#include <stdbool.h>

#include "tokenizer.h"

// The tokens of a document that begins with `size` bytes of text: the end of the text before it,
// as in training, then the text's. *count is how many. The caller frees them; NULL without memory.
int32_t *prompt_tokens(const Tokenizer *tokenizer, const char *text, size_t size, int *count,
                       Error *err);

// How many of the first bytes end no character halfway: `size`, or up to 3 fewer when the last
// bytes are the beginning of a UTF-8 character.
size_t prompt_whole_characters(const char *text, size_t size);

#endif
