// One communicator and one stream of high priority. A collective waits for an event recorded on the
// device's own stream, and leaves one behind; both come from a ring that no step goes around.
//
// For measurements (bench/, docs/ranks.md): TURBOMUON_COMM=timing adds up how long the device's
// stream stands still in comm_wait; TURBOMUON_COMM=stub leaves the collectives out, so that each
// rank goes on with its own gradients, the numbers are wrong, and the time is that of the
// computation alone.
#include "comm_nccl.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "../../ops/cuda/device.h"

// What of NCCL's documented interface is used.
typedef struct ncclComm *ncclComm_t;
typedef struct {
    char internal[COMM_NCCL_ID_BYTES];
} ncclUniqueId;
enum { ncclSuccess = 0, ncclInProgress = 7 };
enum { ncclUint8 = 1, ncclFloat16 = 6, ncclFloat32 = 7, ncclFloat64 = 8, ncclBfloat16 = 9 };
enum { ncclSum = 0, ncclAvg = 4 };

static struct {
    void *library;
    int (*GetVersion)(int *);
    int (*GetUniqueId)(ncclUniqueId *);
    int (*CommInitRank)(ncclComm_t *, int, ncclUniqueId, int);
    int (*CommGetAsyncError)(ncclComm_t, int *);
    int (*CommDestroy)(ncclComm_t);
    int (*ReduceScatter)(const void *, void *, size_t, int, int, ncclComm_t, cudaStream_t);
    int (*AllGather)(const void *, void *, size_t, int, ncclComm_t, cudaStream_t);
    int (*AllReduce)(const void *, void *, size_t, int, int, ncclComm_t, cudaStream_t);
    int (*Reduce)(const void *, void *, size_t, int, int, int, ncclComm_t, cudaStream_t);
    int (*Broadcast)(const void *, void *, size_t, int, int, ncclComm_t, cudaStream_t);
    int (*Send)(const void *, size_t, int, int, ncclComm_t, cudaStream_t);
    int (*Recv)(void *, size_t, int, int, ncclComm_t, cudaStream_t);
    int (*GroupStart)(void);
    int (*GroupEnd)(void);
    const char *(*GetErrorString)(int);
} nccl;

enum { RING = 1024 };

typedef struct {
    Comm comm;
    ncclComm_t nccl;
    cudaStream_t stream, compute;
    cudaEvent_t ready, done[RING];
    CommTicket last, waited; // collectives started; the last one that the device waits for
    double *sums, *staged;   // COMM_MAX_SUM on the device, and where the host leaves them
    CommTicket sum;          // of the sum that was started
    bool timing, stub;
    cudaEvent_t before[RING], after[RING]; // of waits, when they are timed
    int waits;
    cudaEvent_t *stamp; // (stamps)
    int stamps;
} CommNccl;

static CommNccl *of(Comm *comm) { return (CommNccl *)comm; }

// A GPU or a connection that fails ends this rank, and its peers with it.
_Noreturn static void end(const char *call, const char *error)
{
    char line[256];
    snprintf(line, sizeof line, "%.64s: %.128s", call, error);
    ops_cuda_failed(line);
}

static void check_cuda(cudaError_t status, const char *call)
{
    if (status != cudaSuccess) end(call, cudaGetErrorString(status));
}
#define CUDA(call) check_cuda((call), #call)

static void check_nccl(int status, const char *call)
{
    if (status != ncclSuccess && status != ncclInProgress) end(call, nccl.GetErrorString(status));
}
#define NCCL(call) check_nccl((call), #call)

static int type_of(DType t)
{
    return t == DT_F64    ? ncclFloat64
           : t == DT_F32  ? ncclFloat32
           : t == DT_BF16 ? ncclBfloat16
                          : ncclFloat16;
}

// ---- collectives -------------------------------------------------------------------------------

static void begin(CommNccl *c)
{
    CUDA(cudaEventRecord(c->ready, c->compute));
    CUDA(cudaStreamWaitEvent(c->stream, c->ready, 0));
}

static CommTicket finish(CommNccl *c)
{
    c->last++;
    CUDA(cudaEventRecord(c->done[c->last % RING], c->stream));
    return c->last;
}

static CommTicket nccl_reduce_scatter(Comm *comm, void *out, const void *in, size_t n, int parts,
                                      DType dtype)
{
    CommNccl *c = of(comm);
    const int type = type_of(dtype);
    begin(c);
    if (c->stub) {
        const size_t bytes = n * dtype_size(dtype);
        if (comm->rank < parts)
            CUDA(cudaMemcpyAsync(out, (const char *)in + (size_t)comm->rank * bytes, bytes,
                                 cudaMemcpyDeviceToDevice, c->stream));
        return finish(c);
    }
    if (parts == comm->world) {
        NCCL(nccl.ReduceScatter(in, out, n, type, ncclAvg, c->nccl, c->stream));
        return finish(c);
    }
    NCCL(nccl.GroupStart());
    for (int j = 0; j < parts; j++) {
        const char *part = (const char *)in + (size_t)j * n * dtype_size(dtype);
        NCCL(nccl.Reduce(part, j == comm->rank ? out : NULL, n, type, ncclAvg, j, c->nccl,
                         c->stream));
    }
    NCCL(nccl.GroupEnd());
    return finish(c);
}

static CommTicket nccl_all_gather(Comm *comm, void *x, size_t n, int parts, DType dtype)
{
    CommNccl *c = of(comm);
    const size_t bytes = n * dtype_size(dtype);
    const int type = type_of(dtype);
    begin(c);
    if (c->stub) return finish(c);
    if (parts == comm->world) {
        NCCL(
            nccl.AllGather((char *)x + (size_t)comm->rank * bytes, x, n, type, c->nccl, c->stream));
        return finish(c);
    }
    NCCL(nccl.GroupStart());
    for (int j = 0; j < parts; j++) {
        char *part = (char *)x + (size_t)j * bytes;
        NCCL(nccl.Broadcast(part, part, n, type, j, c->nccl, c->stream));
    }
    NCCL(nccl.GroupEnd());
    return finish(c);
}

static CommTicket nccl_all_reduce(Comm *comm, void *x, size_t n, DType dtype)
{
    CommNccl *c = of(comm);
    begin(c);
    if (!c->stub) NCCL(nccl.AllReduce(x, x, n, type_of(dtype), ncclAvg, c->nccl, c->stream));
    return finish(c);
}

static CommTicket nccl_exchange(Comm *comm, void *out, const void *in, const size_t *sent,
                                const size_t *received, size_t size)
{
    CommNccl *c = of(comm);
    size_t to = 0, from = 0;
    begin(c);
    if (!c->stub) NCCL(nccl.GroupStart());
    for (int r = 0; r < comm->world; r++) {
        const char *mine = (const char *)in + to;
        char *theirs = (char *)out + from;
        const size_t going = sent[r] * size, coming = received[r] * size;
        to += going, from += coming;
        if (r == comm->rank) {
            CUDA(cudaMemcpyAsync(theirs, mine, going, cudaMemcpyDeviceToDevice, c->stream));
            continue;
        }
        if (c->stub) continue;
        if (going) NCCL(nccl.Send(mine, going, ncclUint8, r, c->nccl, c->stream));
        if (coming) NCCL(nccl.Recv(theirs, coming, ncclUint8, r, c->nccl, c->stream));
    }
    if (!c->stub) NCCL(nccl.GroupEnd());
    return finish(c);
}

static void nccl_wait(Comm *comm, CommTicket ticket)
{
    CommNccl *c = of(comm);
    if (ticket <= c->waited) return; // one of the later collectives has been waited for
    c->waited = ticket;
    const bool timed = c->timing && c->waits < RING;
    if (timed) CUDA(cudaEventRecord(c->before[c->waits], c->compute));
    CUDA(cudaStreamWaitEvent(c->compute, c->done[ticket % RING], 0));
    if (timed) CUDA(cudaEventRecord(c->after[c->waits++], c->compute));
}

// Waits for an event, and for a peer that fails meanwhile.
static void wait_on_host(CommNccl *c, cudaEvent_t event)
{
    cudaError_t status;
    int error = ncclSuccess;
    while ((status = cudaEventQuery(event)) == cudaErrorNotReady) {
        NCCL(nccl.CommGetAsyncError(c->nccl, &error));
        check_nccl(error, "a collective");
    }
    check_cuda(status, "the GPU");
}

static void add_waits(CommNccl *c)
{
    for (int i = 0; i < c->waits; i++) {
        float ms;
        CUDA(cudaEventElapsedTime(&ms, c->before[i], c->after[i]));
        c->comm.waited_ms += (double)ms;
    }
    c->waits = 0;
}

static CommTicket nccl_sum_start(Comm *comm, const double *x, int n)
{
    CommNccl *c = of(comm);
    const size_t bytes = (size_t)n * sizeof *x;
    memcpy(c->staged, x, bytes);
    CUDA(cudaMemcpyAsync(c->sums, c->staged, bytes, cudaMemcpyHostToDevice, c->compute));
    begin(c);
    NCCL(nccl.AllReduce(c->sums, c->sums, (size_t)n, ncclFloat64, ncclSum, c->nccl, c->stream));
    CUDA(cudaMemcpyAsync(c->staged, c->sums, bytes, cudaMemcpyDeviceToHost, c->stream));
    return c->sum = finish(c);
}

static void nccl_sum_finish(Comm *comm, double *x, int n)
{
    CommNccl *c = of(comm);
    wait_on_host(c, c->done[c->sum % RING]);
    memcpy(x, c->staged, (size_t)n * sizeof *x);
}

static void nccl_finish(Comm *comm)
{
    CommNccl *c = of(comm);
    CUDA(cudaEventRecord(c->ready, c->compute));
    wait_on_host(c, c->ready);
    add_waits(c);
}

// ---- time stamps -------------------------------------------------------------------------------

static bool nccl_stamps(Comm *comm, int n)
{
    CommNccl *c = of(comm);
    c->stamp = calloc((size_t)n, sizeof *c->stamp);
    if (!c->stamp) return false;
    for (c->stamps = 0; c->stamps < n; c->stamps++) CUDA(cudaEventCreate(&c->stamp[c->stamps]));
    return true;
}

static void nccl_stamp(Comm *comm, int i, CommStream stream)
{
    CommNccl *c = of(comm);
    CUDA(cudaEventRecord(c->stamp[i], stream == COMM_COMPUTE ? c->compute : c->stream));
}

static double nccl_stamp_ms(Comm *comm, int from, int to)
{
    CommNccl *c = of(comm);
    float ms;
    CUDA(cudaEventElapsedTime(&ms, c->stamp[from], c->stamp[to]));
    return (double)ms;
}

// ---- closing and opening -----------------------------------------------------------------------

// The process is about to end: nothing waits for peers here.
static void nccl_close(Comm *comm)
{
    CommNccl *c = of(comm);
    CUDA(cudaStreamSynchronize(c->stream));
    NCCL(nccl.CommDestroy(c->nccl));
    for (int i = 0; i < RING; i++) {
        cudaEventDestroy(c->done[i]);
        if (c->timing) cudaEventDestroy(c->before[i]), cudaEventDestroy(c->after[i]);
    }
    for (int i = 0; i < c->stamps; i++) cudaEventDestroy(c->stamp[i]);
    free(c->stamp);
    cudaEventDestroy(c->ready);
    cudaStreamDestroy(c->stream);
    cudaFree(c->sums);
    cudaFreeHost(c->staged);
    free(c);
}

// Opens the first file of a pattern.
static void *open_matching(const char *pattern)
{
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found)) return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++)
        library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
    globfree(&found);
    return library;
}

bool comm_nccl_load(Error *err)
{
    static const char *const patterns[] = {
        "/usr/local/cuda/lib64/libnccl.so.2",
        "/usr/lib/x86_64-linux-gnu/libnccl.so.2",
        "/usr/lib/python3*/*-packages/nvidia/nccl/lib/libnccl.so.2",
        "/usr/local/lib/python3*/*-packages/nvidia/nccl/lib/libnccl.so.2",
        "/opt/*/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2",
        "/root/.pyenv/versions/*/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2",
    };
    const char *named = getenv("NCCL_LIBRARY");
    if (nccl.library) return true;
    void *library = dlopen(named ? named : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library && named) return fail(err, "NCCL_LIBRARY: %.300s", dlerror());
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns && !library; i++)
        library = open_matching(patterns[i]);
    if (!library)
        return fail(err, "several GPUs need NCCL, and libnccl.so.2 is neither on the library path "
                         "nor beside CUDA or PyTorch: install it (package libnccl2, or pip install "
                         "nvidia-nccl-cu13) or set NCCL_LIBRARY to the file");
    const struct {
        const char *name;
        void *place;
    } functions[] = {
        {"ncclGetVersion", &nccl.GetVersion},
        {"ncclGetUniqueId", &nccl.GetUniqueId},
        {"ncclCommInitRank", &nccl.CommInitRank},
        {"ncclCommGetAsyncError", &nccl.CommGetAsyncError},
        {"ncclCommDestroy", &nccl.CommDestroy},
        {"ncclReduceScatter", &nccl.ReduceScatter},
        {"ncclAllGather", &nccl.AllGather},
        {"ncclAllReduce", &nccl.AllReduce},
        {"ncclReduce", &nccl.Reduce},
        {"ncclBroadcast", &nccl.Broadcast},
        {"ncclSend", &nccl.Send},
        {"ncclRecv", &nccl.Recv},
        {"ncclGroupStart", &nccl.GroupStart},
        {"ncclGroupEnd", &nccl.GroupEnd},
        {"ncclGetErrorString", &nccl.GetErrorString},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return fail(err, "the NCCL that was found has no %s: it is too old, 2.10 is needed",
                        functions[i].name);
        memcpy(functions[i].place, &function, sizeof function);
    }
    nccl.library = library;
    return true;
}

bool comm_nccl_id(char id[COMM_NCCL_ID_BYTES], Error *err)
{
    ncclUniqueId made;
    const int status = nccl.GetUniqueId(&made);
    if (status != ncclSuccess)
        return fail(err, "NCCL makes no id: %s (NCCL_DEBUG=WARN says more)",
                    nccl.GetErrorString(status));
    memcpy(id, made.internal, COMM_NCCL_ID_BYTES);
    return true;
}

static cudaError_t make_events(CommNccl *c)
{
    cudaError_t status = cudaEventCreateWithFlags(&c->ready, cudaEventDisableTiming);
    for (int i = 0; i < RING && status == cudaSuccess; i++) {
        status = cudaEventCreateWithFlags(&c->done[i], cudaEventDisableTiming);
        if (c->timing && status == cudaSuccess) status = cudaEventCreate(&c->before[i]);
        if (c->timing && status == cudaSuccess) status = cudaEventCreate(&c->after[i]);
    }
    return status;
}

Comm *comm_nccl_open(const char id[COMM_NCCL_ID_BYTES], int rank, int world, Error *err)
{
    const char *mode = getenv("TURBOMUON_COMM");
    CommNccl *c = calloc(1, sizeof *c);
    ncclUniqueId unique;
    int low, high, version = 0;
    if (!c) {
        fail(err, "out of memory for the collectives");
        return NULL;
    }
    c->comm = (Comm){.rank = rank,
                     .world = world,
                     .reduce_scatter = nccl_reduce_scatter,
                     .all_gather = nccl_all_gather,
                     .all_reduce = nccl_all_reduce,
                     .exchange = nccl_exchange,
                     .wait = nccl_wait,
                     .finish = nccl_finish,
                     .sum_start = nccl_sum_start,
                     .sum_finish = nccl_sum_finish,
                     .stamps = nccl_stamps,
                     .stamp = nccl_stamp,
                     .stamp_ms = nccl_stamp_ms,
                     .close = nccl_close};
    c->timing = mode && !strcmp(mode, "timing");
    c->stub = mode && !strcmp(mode, "stub");
    c->compute = cuda_stream();
    nccl.GetVersion(&version);
    snprintf(c->comm.description, sizeof c->comm.description, "NCCL %d.%d.%d%s", version / 10000,
             version / 100 % 100, version % 100, c->stub ? ", left out" : "");
    cudaError_t status = cudaDeviceGetStreamPriorityRange(&low, &high);
    if (status == cudaSuccess)
        status = cudaStreamCreateWithPriority(&c->stream, cudaStreamNonBlocking, high);
    if (status == cudaSuccess) status = make_events(c);
    if (status == cudaSuccess)
        status = cudaMalloc((void **)&c->sums, COMM_MAX_SUM * sizeof *c->sums);
    if (status == cudaSuccess)
        status = cudaMallocHost((void **)&c->staged, COMM_MAX_SUM * sizeof *c->sums);
    if (status != cudaSuccess) {
        fail(err, "rank %d: %s", rank, cudaGetErrorString(status));
        free(c);
        return NULL;
    }
    memcpy(unique.internal, id, COMM_NCCL_ID_BYTES);
    const int result = nccl.CommInitRank(&c->nccl, world, unique, rank);
    if (result == ncclSuccess) return &c->comm;
    fail(err, "NCCL does not connect rank %d of %d: %s (NCCL_DEBUG=WARN says more)", rank, world,
         nccl.GetErrorString(result));
    free(c);
    return NULL;
}
