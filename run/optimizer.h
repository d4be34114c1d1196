// The two optimizers of the recipe over a model's banks: NorMuon for matrices and gates at every
// step, Adam for the rest at every second one (specification 4).
#ifndef RUN_OPTIMIZER_H
#define RUN_OPTIMIZER_H

#include "../gpt/gpt.h"

typedef struct {
    Gpt *gpt;
    void *first[GPT_BANKS]; // momentum (NorMuon) or m (Adam): like the parameters, in their dtype
    void *
        second[GPT_BANKS]; // NorMuon: column statistics (count, cols); Adam: v, like the parameters
    void *work;
    size_t bytes, work_bytes; // taken in all, and for `work`
} Optimizer;

// Takes zeroed state for every bank. False, naming the size, when memory is short.
bool optimizer_create(Optimizer *optimizer, Gpt *gpt, Error *err);
void optimizer_free(Optimizer *optimizer);
void optimizer_clear(Optimizer *optimizer); // all state zero again
// Updates the parameters at training step `step`, for which gpt_set_step has been called: Adam at
// the steps where it is due, then NorMuon; refreshes working copies. Used gradients are cleared;
// Adam's stay and go on summing until its next turn.
void optimizer_step(Optimizer *optimizer, int step);

#endif
