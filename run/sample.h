// Text from a model: drawing tokens, one after the other.
#ifndef RUN_SAMPLE_H
#define RUN_SAMPLE_H

#include "../gpt/gpt.h"

// How a token is drawn from softmax(logits / temperature): among the top_k likeliest alone, and of
// those the fewest whose probabilities add up to top_p (Holtzman et al. 2019).
typedef struct {
    double temperature; // 0: always the likeliest
    int top_k;          // 0: all of them
    double top_p;       // 1: all of them
    uint64_t seed;      // the state of the random numbers: every draw moves it on
} Sampler;

// A token of 0..n-1; the logits are overwritten. -1 when a logit is not a number or memory is
// short.
int sample_token(Sampler *sampler, float *logits, int n);

// Continues the sequence from the logits (vocab_size, overwritten) of its next token, until the
// token that ends a document, `max_tokens` more, or no more room. Each but that last is given to
// `emit`, which returns false to stop. *count is how many were; false when the model's logits are
// no numbers or memory is short.
typedef bool SampleEmit(void *context, int token);
bool sample_continue(GptDecode *decode, float *logits, Sampler *sampler, int max_tokens,
                     SampleEmit *emit, void *context, int *count, Error *err);

#endif
