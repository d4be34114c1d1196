// Every rank has a slot in the shared memory. A collective goes through it piece by piece: all
// write their slots, meet, read what they need of all slots, and meet again.
#include "comm_shm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { SLOT_BYTES = 1 << 20 };

typedef struct {
    _Alignas(64) pthread_barrier_t barrier;
    _Alignas(64) char slot[]; // (world, SLOT_BYTES)
} Segment;

typedef struct {
    Comm comm;
    Segment *shared;
    double sums[COMM_MAX_SUM];
    double *stamp; // of the clock, in ms
    bool stub;     // TURBOMUON_COMM=stub, as in cuda/comm_nccl.c
} CommShm;

static CommShm *of(Comm *comm) { return (CommShm *)comm; }
static char *slot_of(const CommShm *c, int rank)
{
    return c->shared->slot + (size_t)rank * SLOT_BYTES;
}
static void meet(CommShm *c) { pthread_barrier_wait(&c->shared->barrier); }

// out[i] = the sum over the ranks, in their order, of number `at + i` of their slots, times scale.
static void reduce_slots(const CommShm *c, void *out, size_t first, size_t at, size_t n,
                         DType dtype, double scale)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int r = 0; r < c->comm.world; r++) sum += dtype_get(slot_of(c, r), dtype, at + i);
        dtype_set(out, dtype, first + i, sum * scale);
    }
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static CommTicket shm_reduce_scatter(Comm *comm, void *out, const void *in, size_t n, int parts,
                                     DType dtype)
{
    CommShm *c = of(comm);
    const size_t size = dtype_size(dtype), piece = SLOT_BYTES / size / (size_t)parts;
    if (c->stub) {
        if (comm->rank < parts)
            memcpy(out, (const char *)in + (size_t)comm->rank * n * size, n * size);
        return 0;
    }
    for (size_t at = 0; at < n; at += piece) {
        const size_t some = smaller(piece, n - at);
        for (int j = 0; j < parts; j++)
            memcpy(slot_of(c, comm->rank) + (size_t)j * some * size,
                   (const char *)in + ((size_t)j * n + at) * size, some * size);
        meet(c);
        if (comm->rank < parts)
            reduce_slots(c, out, at, (size_t)comm->rank * some, some, dtype, 1.0 / comm->world);
        meet(c);
    }
    return 0;
}

static CommTicket shm_all_gather(Comm *comm, void *x, size_t n, int parts, DType dtype)
{
    CommShm *c = of(comm);
    const size_t size = dtype_size(dtype), piece = SLOT_BYTES / size;
    if (c->stub) return 0;
    for (size_t at = 0; at < n; at += piece) {
        const size_t some = smaller(piece, n - at);
        for (int j = 0; j < parts; j++)
            if (j == comm->rank)
                memcpy(slot_of(c, j), (char *)x + ((size_t)j * n + at) * size, some * size);
        meet(c);
        for (int j = 0; j < parts; j++)
            if (j != comm->rank)
                memcpy((char *)x + ((size_t)j * n + at) * size, slot_of(c, j), some * size);
        meet(c);
    }
    return 0;
}

static void reduce_all(CommShm *c, void *x, size_t n, DType dtype, double scale)
{
    const size_t size = dtype_size(dtype), piece = SLOT_BYTES / size;
    for (size_t at = 0; at < n; at += piece) {
        const size_t some = smaller(piece, n - at);
        memcpy(slot_of(c, c->comm.rank), (char *)x + at * size, some * size);
        meet(c);
        reduce_slots(c, x, at, 0, some, dtype, scale);
        meet(c);
    }
}

static CommTicket shm_all_reduce(Comm *comm, void *x, size_t n, DType dtype)
{
    if (!of(comm)->stub) reduce_all(of(comm), x, n, dtype, 1.0 / comm->world);
    return 0;
}

static CommTicket shm_exchange(Comm *comm, void *out, const void *in, const size_t *sent,
                               const size_t *received, size_t size)
{
    CommShm *c = of(comm);
    const int world = comm->world;
    if (c->stub) { // a rank's own rows
        size_t from = 0, at = 0;
        for (int r = 0; r < comm->rank; r++) from += sent[r] * size, at += received[r] * size;
        memcpy((char *)out + at, (const char *)in + from, sent[comm->rank] * size);
        return 0;
    }
    size_t begin[world], end[world], to = 0, most = 0; // of what is mine in each rank's `in`, bytes
    memcpy(slot_of(c, comm->rank), sent, (size_t)world * sizeof *sent);
    meet(c);
    for (int r = 0; r < world; r++) {
        const size_t *theirs = (const size_t *)slot_of(c, r);
        size_t all = 0;
        for (int j = 0; j < world; j++) {
            if (j == comm->rank) begin[r] = all * size;
            all += theirs[j];
            if (j == comm->rank) end[r] = all * size;
        }
        if (all * size > most) most = all * size;
    }
    meet(c);
    size_t all = 0, place[world]; // of what comes from each rank
    for (int r = 0; r < world; r++) {
        to += sent[r] * size;
        place[r] = all;
        all += received[r] * size;
    }
    for (size_t at = 0; at < most; at += SLOT_BYTES) {
        const size_t last = at + SLOT_BYTES;
        if (at < to) memcpy(slot_of(c, comm->rank), (const char *)in + at, smaller(last, to) - at);
        meet(c);
        for (int r = 0; r < world; r++) {
            const size_t first = begin[r] > at ? begin[r] : at, stop = smaller(end[r], last);
            if (first < stop)
                memcpy((char *)out + place[r] + (first - begin[r]), slot_of(c, r) + (first - at),
                       stop - first);
        }
        meet(c);
    }
    return 0;
}

static void shm_finish(Comm *comm) { (void)comm; }

static void shm_wait(Comm *comm, CommTicket ticket) { (void)comm, (void)ticket; }

static CommTicket shm_sum_start(Comm *comm, const double *x, int n)
{
    CommShm *c = of(comm);
    memcpy(c->sums, x, (size_t)n * sizeof *x);
    reduce_all(c, c->sums, (size_t)n, DT_F64, 1);
    return 0;
}

static void shm_sum_finish(Comm *comm, double *x, int n)
{
    memcpy(x, of(comm)->sums, (size_t)n * sizeof *x);
}

static bool shm_stamps(Comm *comm, int n)
{
    return (of(comm)->stamp = calloc((size_t)n, sizeof(double))) != NULL;
}

static void shm_stamp(Comm *comm, int i, CommStream stream)
{
    (void)stream; // both are the process
    of(comm)->stamp[i] = now_ms();
}

static double shm_stamp_ms(Comm *comm, int from, int to)
{
    return of(comm)->stamp[to] - of(comm)->stamp[from];
}

static void shm_close(Comm *comm)
{
    free(of(comm)->stamp);
    free(comm);
}

size_t comm_shm_size(int world) { return sizeof(Segment) + (size_t)world * SLOT_BYTES; }

bool comm_shm_prepare(void *shared, int world, Error *err)
{
    pthread_barrierattr_t attributes;
    Segment *s = shared;
    if (pthread_barrierattr_init(&attributes) ||
        pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) ||
        pthread_barrier_init(&s->barrier, &attributes, (unsigned)world))
        return fail(err, "cannot make a barrier for %d processes", world);
    pthread_barrierattr_destroy(&attributes);
    return true;
}

Comm *comm_shm_open(void *shared, int rank, int world, Error *err)
{
    const char *mode = getenv("TURBOMUON_COMM");
    CommShm *c = calloc(1, sizeof *c);
    if (!c) {
        fail(err, "out of memory for the collectives");
        return NULL;
    }
    *c = (CommShm){.comm = {.rank = rank,
                            .world = world,
                            .reduce_scatter = shm_reduce_scatter,
                            .all_gather = shm_all_gather,
                            .all_reduce = shm_all_reduce,
                            .exchange = shm_exchange,
                            .wait = shm_wait,
                            .finish = shm_finish,
                            .sum_start = shm_sum_start,
                            .sum_finish = shm_sum_finish,
                            .stamps = shm_stamps,
                            .stamp = shm_stamp,
                            .stamp_ms = shm_stamp_ms,
                            .close = shm_close},
                   .shared = shared,
                   .stub = mode && !strcmp(mode, "stub")};
    snprintf(c->comm.description, sizeof c->comm.description, "shared memory%s",
             c->stub ? ", left out" : "");
    return &c->comm;
}
