// Processes of a run: started by this program (--gpus N, --ranks N), or by torchrun, mpirun or
// srun, whose environment tells each process its rank.
#ifndef RUN_LAUNCH_H
#define RUN_LAUNCH_H

#include <stdatomic.h>
#include <stdint.h>

#include "../ops/error.h"

enum { LAUNCH_MAX_RANKS = 1024 };

// Memory that the processes this program started share with it.
typedef struct {
    atomic_int said;                   // somebody has told why the run ends
    atomic_int step[LAUNCH_MAX_RANKS]; // steps done by each rank of this node
} Board;

typedef struct {
    int rank, world;             // of all; world 1: a run alone
    int local_rank, local_world; // of this node; local_world 0: unknown
    char master[256];            // node of rank 0
    int port;                    // where rank 0 listens
    int listener;                // socket that listens there already, or -1
    Board *board;                // NULL when others started the processes
} RankEnv;

// What the environment says: RANK, WORLD_SIZE and LOCAL_RANK (torchrun), OMPI_COMM_WORLD_* (Open
// MPI), PMI_* (MPICH), SLURM_* (srun); MASTER_ADDR and MASTER_PORT. World 1 when it says nothing.
// False when what is used of it makes no sense.
bool launch_environment(RankEnv *env, Error *err);

// Which of the `visible` GPUs is this rank's: that of its number on the node, or the only one that
// its launcher lets it see (srun --gpus-per-task=1). -1, with the reason, when there is none.
int launch_gpu(const RankEnv *env, int visible, Error *err);

// Starts `count` ranks on this node, node `node` of `nodes`, watches them, and ends the program
// with the status of the run. Returns in the children alone, with their RankEnv; in the parent,
// false when they cannot be started. When a rank fails the others are stopped within seconds, and
// when the parent dies they die too. Call before there are threads.
bool launch_ranks(RankEnv *env, int count, int nodes, int node, Error *err);

#endif
