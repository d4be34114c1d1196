// Validation batches (specification 6.3): the first tokens of a file in plain order, in chunks.
//
// Chunk j has the inputs [jN, jN + N) and, one behind, the targets. Its sequences start at its
// first token and at every BOS, so the document that the chunk's start cuts is a sequence of its
// own. Rank r of W takes the chunks cW + r for c = 0, 1, ..: together the same chunks for every W.
#ifndef RUN_VAL_H
#define RUN_VAL_H

#include "../ops/error.h"
#include "batch.h"
#include "shard.h"

typedef struct {
    const char *files; // shell pattern; the first file in name order is used, and only that one
    int vocab_size;
    int64_t tokens;  // to validate on, a multiple of chunk; 0: all chunks that the file holds
    int chunk;       // N
    int rank, world; // W
} ValConfig;

typedef struct {
    int64_t tokens; // validated on by all ranks together
    int calls;      // of val_batch that every rank makes: chunks / W, rounded up
    // What follows is val.c's own.
    ValConfig config;
    Shard shard;
    Batch batch;
} Val;

// Refuses what shard_open refuses, tokens that are no multiple of the chunk, and a file of fewer
// than tokens + 1 tokens. Closing is right also after a failure.
bool val_open(Val *val, const ValConfig *config, Error *err);
// This rank's batch of a call (0 .. calls - 1), valid until the next; NULL where W does not divide
// the chunks and this rank has none: the mean over ranks must weigh each by its chunks.
const Batch *val_batch(Val *val, int call);
// The val->tokens targets of all chunks and ranks, in the file's order.
const uint16_t *val_targets(const Val *val);
void val_close(Val *val);

#endif
