// What one forward pass reads: N tokens, the N tokens that follow them, and where documents start.
#ifndef RUN_BATCH_H
#define RUN_BATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    int n_tokens;     // N
    int n_docs;       // sequences, empty ones counted; at most N + 1
    int32_t *ids;     // (N)
    int32_t *targets; // (N) = ids + 1: targets cross the borders of documents
    int32_t *cu; // (N + 2): cu[0] = 0 .. cu[n_docs] = N are the sequences' ends; then undefined
} Batch;

static inline void batch_free(Batch *batch)
{
    free(batch->ids);
    free(batch->cu);
    *batch = (Batch){0};
}

// False when there is no memory.
static inline bool batch_alloc(Batch *batch, int n_tokens)
{
    *batch = (Batch){.n_tokens = n_tokens};
    batch->ids = calloc((size_t)n_tokens + 1, sizeof *batch->ids);
    batch->cu = calloc((size_t)n_tokens + 2, sizeof *batch->cu);
    if (!batch->ids || !batch->cu) {
        batch_free(batch);
        return false;
    }
    batch->targets = batch->ids + 1;
    return true;
}

#endif
