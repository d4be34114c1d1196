// What one forward pass reads: N tokens of one or more sequences of equal length, side by side, the
// token that follows each, and where documents start.
#ifndef RUN_BATCH_H
#define RUN_BATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../gpt/gpt.h"

typedef struct {
    int n_tokens;     // N
    int sequence;     // tokens in each
    int n_docs;       // documents, empty ones counted; at most N + the number of sequences
    int32_t *ids;     // (N + 1): the last one is the last target
    int32_t *targets; // (N): the next token of the sequence, also across the border of a document
    int32_t *cu;      // cu[0] = 0 .. cu[n_docs] = N: where documents end; then undefined
    int32_t *order;   // (N) positions sorted by (id, position), when has_order
    bool has_order;
} Batch;

static inline void batch_free(Batch *batch)
{
    free(batch->ids);
    free(batch->targets);
    free(batch->cu);
    free(batch->order);
    *batch = (Batch){0};
}

// For n_tokens in so many sequences. False when there is no memory.
static inline bool batch_alloc(Batch *batch, int n_tokens, int sequences)
{
    *batch = (Batch){.n_tokens = n_tokens, .sequence = n_tokens / sequences};
    batch->ids = calloc((size_t)n_tokens + 1, sizeof *batch->ids);
    batch->targets = calloc((size_t)n_tokens, sizeof *batch->targets);
    batch->cu = calloc((size_t)n_tokens + (size_t)sequences + 1, sizeof *batch->cu);
    batch->order = calloc((size_t)n_tokens, sizeof *batch->order);
    if (batch->ids && batch->targets && batch->cu && batch->order) return true;
    batch_free(batch);
    return false;
}

// As the model takes it.
static inline GptBatch batch_view(const Batch *b)
{
    return (GptBatch){.ids = b->ids,
                      .targets = b->targets,
                      .cu = b->cu,
                      .n_docs = b->n_docs,
                      .tokens = b->n_tokens,
                      .sequence = b->sequence,
                      .order = b->has_order ? b->order : NULL};
}

// A batch of the same shape.
static inline void batch_copy(Batch *to, const Batch *from)
{
    const size_t bytes = (size_t)from->n_tokens * sizeof *from->ids;
    memcpy(to->ids, from->ids, bytes + sizeof *from->ids);
    memcpy(to->targets, from->targets, bytes);
    memcpy(to->cu, from->cu, ((size_t)from->n_docs + 1) * sizeof *from->cu);
    memcpy(to->order, from->order, bytes);
    to->n_docs = from->n_docs;
    to->has_order = from->has_order;
}

// The tokens and documents of `one` from position `at` on, behind what *batch has already.
static inline void batch_append(Batch *batch, int at, const Batch *one)
{
    const size_t bytes = (size_t)one->n_tokens * sizeof *one->ids;
    if (at == 0) batch->n_docs = 0;
    memcpy(batch->ids + at, one->ids, bytes + sizeof *one->ids);
    memcpy(batch->targets + at, one->targets, bytes);
    for (int i = 1; i <= one->n_docs; i++) batch->cu[batch->n_docs + i] = at + one->cu[i];
    batch->n_docs += one->n_docs;
}

#endif
