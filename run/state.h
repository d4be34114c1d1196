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
#include "stream.h"
#include "unigram.h"

typedef struct {
    Gpt *gpt;
    Optimizer *optimizer;
    Unigram *unigram;
    int step;            // training steps done
    StreamCursor cursor; // of the next batch
    int64_t seed, tokens;
    double train_ms;
} TrainState;

// Saves to the folder and removes old checkpoints beyond `keep` (checkpoint.h); path receives the
// file's name.
bool state_save(const TrainState *state, const char *folder, int keep, char path[FILE_PATH_MAX],
                Error *err);
// The recipe that a checkpoint was trained with, not yet finished (recipe_finish), and whether its
// storage was "real".
bool state_recipe(const Safetensors *file, Recipe *recipe, bool *real_storage, Error *err);
// Fills a state whose gpt, optimizer and unigram exist, for the same recipe's shapes.
bool state_load(TrainState *state, const Safetensors *file, Error *err);

#endif
