// Collectives between the ranks of a run, over one of two back ends: NCCL for GPUs
// (cuda/comm_nccl.h), shared memory for CPU ranks (comm_shm.h).
//
// Every rank makes the same calls in the same order, with the same numbers. A collective begins
// once all operations given to the device before the call are done, and runs beside the operations
// given after it (on the CPU: at once, before the call returns); collectives run in call order. The
// call returns a ticket, and comm_wait holds back the operations given after the wait until that
// collective is done. No call makes the host wait, but comm_finish and comm_sum_finish.
//
// A mean is the sum in a fixed order, divided by the number of ranks: the same bits on every rank
// and in every run. Errors: a peer that fails ends the program through run/peers.h; a collective
// itself never returns a failure.
#ifndef RUN_COMM_H
#define RUN_COMM_H

#include <stdint.h>

#include "../ops/dtype.h"
#include "timeline.h"

typedef uint64_t CommTicket; // number of the collective; 0 is done already

// What the next collective is about, for people.
typedef struct {
    const char *name; // of a bank
    int bucket;       // of it, or -1
} CommLabel;

// Where a time stamp is taken: behind the operations given to the device so far, or behind the
// collectives.
typedef enum { COMM_COMPUTE, COMM_COMMUNICATION } CommStream;

typedef struct Comm Comm;
struct Comm {
    int rank, world;
    char description[48]; // of the back end, for people
    double waited_ms;     // that the device stood still in comm_wait, where that is measured
    Timeline *timeline;   // that wants to know, or NULL
    CommLabel label;
    // Time stamps: room for `n` of them, false when memory is short; number i < n; and the ms from
    // one to another, once both are taken (Ops.sync).
    bool (*stamps)(Comm *, int n);
    void (*stamp)(Comm *, int i, CommStream);
    double (*stamp_ms)(Comm *, int from, int to);
    CommTicket (*reduce_scatter)(Comm *, void *out, const void *in, size_t n, int parts, DType);
    CommTicket (*all_gather)(Comm *, void *parts_of_all, size_t n, int parts, DType);
    CommTicket (*all_reduce)(Comm *, void *x, size_t n, DType);
    CommTicket (*exchange)(Comm *, void *out, const void *in, const size_t *sent,
                           const size_t *received, size_t size);
    void (*wait)(Comm *, CommTicket);
    void (*finish)(Comm *);
    CommTicket (*sum_start)(Comm *, const double *x, int n);
    void (*sum_finish)(Comm *, double *x, int n);
    void (*close)(Comm *);
};

// Names the collectives that follow.
static inline void comm_label(Comm *comm, const char *name, int bucket)
{
    comm->label = (CommLabel){name, bucket};
}

static inline void comm_begins(Comm *comm, const char *kind, size_t bytes)
{
    if (comm->timeline) timeline_collective_begins(comm->timeline, kind, bytes);
}
static inline CommTicket comm_ends(Comm *comm, CommTicket ticket)
{
    if (comm->timeline) timeline_collective_ends(comm->timeline, ticket);
    return ticket;
}

// `in` (parts, n), parts <= world: part j of the ranks' mean goes to `out` (n) of rank j. The ranks
// from `parts` on receive nothing, and their `out` is not looked at.
static inline CommTicket comm_reduce_scatter(Comm *comm, void *out, const void *in, size_t n,
                                             int parts, DType dtype)
{
    comm_begins(comm, "reduce-scatter", (size_t)parts * n * dtype_size(dtype));
    return comm_ends(comm, comm->reduce_scatter(comm, out, in, n, parts, dtype));
}

// `x` (parts, n), in place: part j comes from rank j's x; all ranks have all parts afterwards.
static inline CommTicket comm_all_gather(Comm *comm, void *x, size_t n, int parts, DType dtype)
{
    comm_begins(comm, "all-gather", (size_t)parts * n * dtype_size(dtype));
    return comm_ends(comm, comm->all_gather(comm, x, n, parts, dtype));
}

// x (n) becomes the ranks' mean.
static inline CommTicket comm_all_reduce(Comm *comm, void *x, size_t n, DType dtype)
{
    comm_begins(comm, "all-reduce", n * dtype_size(dtype));
    return comm_ends(comm, comm->all_reduce(comm, x, n, dtype));
}

// Items of `size` bytes from every rank to every rank: of `in`, sent[0] go to rank 0, the next
// sent[1] to rank 1, and so on, one's own too; `out` receives received[0] from rank 0, ... in
// order.
static inline CommTicket comm_exchange(Comm *comm, void *out, const void *in, const size_t *sent,
                                       const size_t *received, size_t size)
{
    size_t to = 0, from = 0;
    for (int i = 0; i < comm->world; i++) to += sent[i], from += received[i];
    comm_begins(comm, "exchange", (to > from ? to : from) * size);
    return comm_ends(comm, comm->exchange(comm, out, in, sent, received, size));
}

// Operations given to the device from now on begin after the collective is done, and so after all
// before it.
static inline void comm_wait(Comm *comm, CommTicket ticket)
{
    if (ticket == 0) return;
    if (comm->timeline) timeline_wait_begins(comm->timeline, ticket);
    comm->wait(comm, ticket);
    if (comm->timeline) timeline_wait_ends(comm->timeline);
}

// The host waits for all operations so far, and for a peer that fails meanwhile.
static inline void comm_finish(Comm *comm) { comm->finish(comm); }

// The ranks' sum of n numbers on the host: started, one at a time, like a collective; the host
// waits for it, and for the operations before it, in the second call. Together a barrier, too.
enum { COMM_MAX_SUM = 16384 };
static inline void comm_sum_start(Comm *comm, const double *x, int n)
{
    comm_begins(comm, "sum", (size_t)n * sizeof *x);
    comm_ends(comm, comm->sum_start(comm, x, n));
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
