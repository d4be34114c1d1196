// A run of several ranks, from its processes to its collectives: what train_gpt.c does besides when
// it is not alone. With one rank all of these do nothing.
#ifndef RUN_RANKS_H
#define RUN_RANKS_H

#include "run.h"

// Finds this process's rank (launch.h), or becomes the parent of --gpus or --ranks N processes and
// ends when they have. Call before anything touches a GPU or starts a thread.
bool ranks_start(Run *run, Error *err);
// Selects this rank's GPU (ops_cuda_select), and lets a GPU that fails end the rank by ranks_fail.
// Only where the program is built with CUDA.
bool ranks_select_gpu(Run *run, Error *err);
// Connects the control connections (peers.h).
bool ranks_connect(Run *run, Error *err);
// Opens run->comm for the device that was chosen; the recipe's micro-batches must suit the ranks.
bool ranks_open(Run *run, Error *err);
// Refuses unless all ranks have the same program, device, recipe, options and weights to start
// from: before ranks_open, since collectives of unlike sizes would never end.
bool ranks_agree_options(Run *run, Error *err);
// The same for training and validation data.
bool ranks_agree_data(Run *run, Error *err);
// Prints the failure if that falls to this rank, and ends the process. Never returns.
_Noreturn void ranks_fail(Run *run, const char *text);
void ranks_close(Run *run);

#endif
