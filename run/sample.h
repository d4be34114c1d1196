// Text from a model, token by token. For byte-level vocabularies; others need a tokenizer.
#ifndef RUN_SAMPLE_H
#define RUN_SAMPLE_H

#include "../gpt/gpt.h"

// Draws one document from its beginning: BOS, then up to max_tokens bytes until the next BOS, with
// logits divided by `temperature` (0: the likeliest token). The draws depend on `seed` alone.
// Writes the bytes to text (max_tokens) and returns how many; -1 when memory is short.
int sample_document(Gpt *gpt, uint64_t seed, double temperature, int max_tokens, char *text);

#endif
