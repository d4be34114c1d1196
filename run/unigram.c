#include "unigram.h"

#include <math.h>
#include <stdlib.h>

static const double kSmoothing = 0.5;

bool unigram_open(Unigram *u, int vocab_size, Error *err)
{
    *u = (Unigram){.vocab_size = vocab_size};
    u->count = calloc((size_t)vocab_size, sizeof *u->count);
    return u->count || fail(err, "no memory to count %d tokens", vocab_size);
}

void unigram_add(Unigram *u, const int32_t *targets, int64_t n)
{
    for (int64_t i = 0; i < n; i++) u->count[targets[i]]++;
    u->total += n;
}

double unigram_loss(const Unigram *u, const uint16_t *targets, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += log((double)u->count[targets[i]] + kSmoothing);
    return log((double)u->total + kSmoothing * u->vocab_size) - sum / (double)n;
}

void unigram_close(Unigram *u)
{
    free(u->count);
    *u = (Unigram){0};
}
