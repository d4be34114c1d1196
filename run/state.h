// A training run as a checkpoint: parameters, optimizer state, pending gradients, the place in the
// data, and the recipe, so that a resumed run continues bit for bit.
//
// Tensors are the model's banks (gpt.h), in backward order: `attn` (count, rows, cols) and so on,
// with
// `.momentum` and `.second_moment` (NorMuon) or `.adam_m`, `.adam_v` and `.grad` (Adam: the sum of
// gradients that waits for the next Adam update). `unigram` (vocabulary) counts the targets seen.
#ifndef RUN_STATE_H
#define RUN_STATE_H

#include "checkpoint.h"
#include "optimizer.h"
#include "sharded.h"
#include "stream.h"
#include "unigram.h"

typedef struct {
    Gpt *gpt;
    Optimizer *optimizer;      // of a run alone;
    ShardedOptimizer *sharded; // of a run of ranks: the other is NULL
    Unigram *unigram;
    int step;            // training steps done
    StreamCursor cursor; // of the next batch
    int64_t seed, tokens;
    double train_ms;
} TrainState;

// All ranks call it, and rank 0 does the rest of this with what the others send it:
// saves to the folder and removes old checkpoints beyond `keep` (checkpoint.h); path receives the
// file's name.
bool state_save(const TrainState *state, const char *folder, int keep, char path[FILE_PATH_MAX],
                Error *err);
// In the same way, the momentum of every matrix that is orthogonalised, under the names that a
// checkpoint has: to `folder`/momentum_000060.safetensors for step 60. A file that rank 0 cannot
// make is no failure: `warning` says why, else it is empty. False when a rank cannot send its part.
bool state_dump_momentum(const TrainState *state, const char *folder, char path[FILE_PATH_MAX],
                         Error *warning, Error *err);
// The recipe that a checkpoint, or an export (weights.h), was trained with, not yet finished
// (recipe_finish), and whether its storage was "real".
bool state_recipe(const Safetensors *file, Recipe *recipe, bool *real_storage, Error *err);
// The algorithms of the device's products (Ops.plans_text) that the checkpoint was trained with, or
// NULL; as long-lived as the file's header.
const char *state_plans(const Safetensors *file);
// Fills a state whose gpt, optimizer and unigram exist, for the same recipe's shapes. Every rank
// reads the file; how many ranks wrote it does not matter. The counts of the unigram go to rank 0.
bool state_load(TrainState *state, const Safetensors *file, Error *err);

#endif
