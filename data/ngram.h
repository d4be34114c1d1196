// Byte n-gram models with Witten-Bell smoothing, to say how far counting alone gets on a corpus.
#ifndef DATA_NGRAM_H
#define DATA_NGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { kNgramMaxOrder = 7 };

struct ngram_text {
    const uint16_t *tokens; // each below 511
    size_t count;
};

// losses[n - 1] becomes the mean loss, in nats, of the n-gram model counted on the `train` texts,
// when it predicts tokens[1 ..] of `val`; n = 1 .. order, order <= kNgramMaxOrder. False when
// memory runs out.
bool ngram_losses(const struct ngram_text *train, int train_count, struct ngram_text val,
                  int vocabulary, int order, double *losses);

#endif
