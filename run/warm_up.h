// An untimed step and validation before the first, so that what happens once does not count:
// kernels are loaded, products tuned (Ops.tune), a micro-batch recorded (Ops.record), clocks
// raised.
#ifndef RUN_WARM_UP_H
#define RUN_WARM_UP_H

#include "optimizer.h"
#include "sharded.h"

// One micro-batch forward and backward (two where the device records them), both optimizers, and
// one validation chunk, on random parameters and tokens. Before the parameters are set: leaves
// them, the gradients and the optimizers' state all zero, as after gpt_create and optimizer_create;
// gpt_set_step and gpt_init or state_load overwrite the rest. Nothing else of a run is touched. Of
// the two optimizers one is NULL; a sharded one makes every rank call this. False when memory is
// short.
bool warm_up(Gpt *gpt, Optimizer *optimizer, ShardedOptimizer *sharded, Error *err);

// FLOP/s of the device in a product of 8192 x 8192 matrices, the best of a few; NAN when memory is
// short. Leaves nothing behind.
double warm_up_gemm(const Ops *ops);

#endif
