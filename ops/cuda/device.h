// The CUDA device, for programs in plain C.
#ifndef OPS_CUDA_DEVICE_H
#define OPS_CUDA_DEVICE_H

#include "../error.h"
#include "../ops.h"

// Picks the first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), makes its stream and its
// workspaces, and points *ops to the table; `description` is its name and memory for people. False
// with the reason when there is no GPU, its driver is older than this program's CUDA, or its
// compute capability is below 8.0 (no bf16). Call again for the same table.
#ifdef __cplusplus
extern "C"
#endif
    bool
    ops_cuda_find(const Ops **ops, char *description, size_t size, Error *err);

#endif
