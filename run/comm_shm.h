// Collectives between processes of one machine, through memory they share: for ranks on CPUs.
#ifndef RUN_COMM_SHM_H
#define RUN_COMM_SHM_H

#include "../ops/error.h"
#include "comm.h"

size_t comm_shm_size(int world); // bytes of the shared memory
// Takes shared memory of that size, zeroed when it was made. One rank, any, calls comm_shm_prepare
// before the others open it.
bool comm_shm_prepare(void *shared, int world, Error *err);
// NULL when memory is short. The shared memory is the caller's; closing does not touch it.
Comm *comm_shm_open(void *shared, int rank, int world, Error *err);

#endif
