// Collectives between GPUs through NCCL (https://docs.nvidia.com/deeplearning/nccl), which is
// loaded when the first communicator is opened and not needed to build.
#ifndef RUN_CUDA_COMM_NCCL_H
#define RUN_CUDA_COMM_NCCL_H

#include "../../ops/error.h"
#include "../comm.h"

enum { COMM_NCCL_ID_BYTES = 128 };

// Loads libnccl.so.2: NCCL_LIBRARY names a file, else where the dynamic linker looks, the CUDA
// toolkit, and PyTorch's wheels. Refuses with where it looked.
bool comm_nccl_load(Error *err);
// The id that rank 0 makes and every rank opens the communicator with.
bool comm_nccl_id(char id[COMM_NCCL_ID_BYTES], Error *err);
// On the GPU of ops_cuda_find. NULL with the reason.
Comm *comm_nccl_open(const char id[COMM_NCCL_ID_BYTES], int rank, int world, Error *err);

#endif
