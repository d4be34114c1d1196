// Collectives between the ranks of a run, over one of two back ends: NCCL for GPUs
// (cuda/comm_nccl.h), shared memory for CPU ranks (comm_shm.h).
//
// Every rank makes the same calls in the same order, with the same numbers. A collective begins
// once all operations given to the device before the call are done, and runs beside the operations
// given after it (on the CPU: at once, before the call returns); collectives run in call order. The
// call returns a ticket, and comm_wait holds back the operations given after the wait until that
// collective is done. No call makes the host wait, but comm_sum_finish.
//
// A mean is the sum in a fixed order, divided by the number of ranks: the same bits on every rank
// and in every run. Errors: a peer that fails ends the program through run/peers.h; a collective
// itself never returns a failure.
#ifndef RUN_COMM_H
#define RUN_COMM_H

#include <stdint.h>

#include "../ops/dtype.h"

typedef uint64_t CommTicket; // number of the collective; 0 is done already

typedef struct Comm Comm;
struct Comm {
    int rank, world;
    char description[48]; // of the back end, for people
    double waited_ms;     // that the device stood still in comm_wait, where that is measured
    CommTicket (*reduce_scatter)(Comm *, void *out, const void *in, size_t n, int parts, DType);
    CommTicket (*all_gather)(Comm *, void *parts_of_all, size_t n, int parts, DType);
    CommTicket (*all_reduce)(Comm *, void *x, size_t n, DType);
    void (*wait)(Comm *, CommTicket);
    void (*sum_start)(Comm *, const double *x, int n);
    void (*sum_finish)(Comm *, double *x, int n);
    void (*close)(Comm *);
};

// `in` (parts, n), parts <= world: part j of the ranks' mean goes to `out` (n) of rank j. The ranks
// from `parts` on receive nothing, and their `out` is not looked at.
static inline CommTicket comm_reduce_scatter(Comm *comm, void *out, const void *in, size_t n,
                                             int parts, DType dtype)
{
    return comm->reduce_scatter(comm, out, in, n, parts, dtype);
}

// `x` (parts, n), in place: part j comes from rank j's x; all ranks have all parts afterwards.
static inline CommTicket comm_all_gather(Comm *comm, void *x, size_t n, int parts, DType dtype)
{
    return comm->all_gather(comm, x, n, parts, dtype);
}

// x (n) becomes the ranks' mean.
static inline CommTicket comm_all_reduce(Comm *comm, void *x, size_t n, DType dtype)
{
    return comm->all_reduce(comm, x, n, dtype);
}

// Operations given to the device from now on begin after the collective is done, and so after all
// before it.
static inline void comm_wait(Comm *comm, CommTicket ticket)
{
    if (ticket > 0) comm->wait(comm, ticket);
}

// The ranks' sum of n numbers on the host: started, one at a time, like a collective; the host
// waits for it, and for the operations before it, in the second call. Together a barrier, too.
enum { COMM_MAX_SUM = 4096 };
static inline void comm_sum_start(Comm *comm, const double *x, int n)
{
    comm->sum_start(comm, x, n);
}
static inline void comm_sum_finish(Comm *comm, double *x, int n) { comm->sum_finish(comm, x, n); }
static inline void comm_sum(Comm *comm, double *x, int n)
{
    comm_sum_start(comm, x, n);
    comm_sum_finish(comm, x, n);
}

// NULL is allowed.
static inline void comm_close(Comm *comm)
{
    if (comm) comm->close(comm);
}

#endif
