// Whether a recipe fits into a device's memory, found out before any of it is taken.
#ifndef RUN_MEMORY_H
#define RUN_MEMORY_H

#include "optimizer.h"
#include "sharded.h"

// Bytes that gpt_create, the device's own workspaces, and optimizer_create, or sharded_create where
// comm is not NULL, take in all: on ranks, of this one. 0 when the model cannot be made, with the
// reason.
size_t memory_need(const Recipe *recipe, const Ops *ops, Comm *comm, bool real_storage, Error *err);
// False when that, and what kernels and driver take beside it, is more than is free: the message
// says what is needed for what, what is free, and which smaller --val-chunk, or --micro-batch with
// more --micro-batches, or both, would do. A device that cannot tell what is free (Ops.mem_info)
// fits.
bool memory_check(const Recipe *recipe, const Ops *ops, Comm *comm, bool real_storage, Error *err);

#endif
