#include "ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "comm_shm.h"
#include "weights.h"
#include "xxh64.h"
#ifdef USE_CUDA
#include "../ops/cuda/device.h"
#include "cuda/comm_nccl.h"
#endif

// ---- processes ---------------------------------------------------------------------------------

// Every rank of this node its share of the cores, unless somebody chose.
static void share_cores(const Run *run)
{
#ifdef _OPENMP
    const int on_node = run->env.local_world ? run->env.local_world : run->env.world;
    const int cores = omp_get_num_procs() / on_node;
    if (run->options.threads == 0 && !getenv("OMP_NUM_THREADS"))
        omp_set_num_threads(cores > 0 ? cores : 1);
#else
    (void)run;
#endif
}

bool ranks_start(Run *run, Error *err)
{
    Options *o = &run->options;
    const char *mode = getenv("TURBOMUON_COMM");
    const int count = o->gpus > 0 ? o->gpus : o->ranks;
    run->usage = true; // until the end of this function
    run->chose_device = strcmp(o->device, "auto") != 0;
    if (!launch_environment(&run->env, err)) return false;
    if (o->gpus > 0 && o->ranks > 0)
        return fail(err, "--gpus %d and --ranks %d: give one of them", o->gpus, o->ranks);
    if (o->gpus > 0 && !strcmp(o->device, "cpu"))
        return fail(err, "--gpus %d and --device cpu: use --ranks for ranks on CPUs", o->gpus);
    if (o->ranks > 0 && !strcmp(o->device, "cuda"))
        return fail(err, "--ranks %d is for CPUs, and --device is cuda: use --gpus", o->ranks);
    if (count > 0 && run->env.world > 1)
        return fail(err,
                    "the environment says that this is rank %d of %d (torchrun, mpirun or srun): "
                    "leave --%s out, or WORLD_SIZE",
                    run->env.rank, run->env.world, o->gpus > 0 ? "gpus" : "ranks");
    if (o->nodes > 1 && count == 0)
        return fail(err, "--nodes %d needs --gpus or --ranks: how many on each", o->nodes);
    if (o->node >= o->nodes)
        return fail(err, "--node %d of %d: nodes count from 0", o->node, o->nodes);
    if (mode && *mode && strcmp(mode, "timing") && strcmp(mode, "stub"))
        return fail(err, "TURBOMUON_COMM is \"%.40s\": there are timing and stub", mode);
    if (o->gpus > 0) snprintf(o->device, sizeof o->device, "cuda");
    if (o->ranks > 0) snprintf(o->device, sizeof o->device, "cpu");
    run->usage = false;
    if (count * o->nodes > 1 && !launch_ranks(&run->env, count, o->nodes, o->node, err))
        return false;
    if (run->env.world > 1) share_cores(run);
    return true;
}

#ifdef USE_CUDA
static Run *of_this_process; // for those who fail and know nothing of ranks

_Noreturn static void gpu_failed(const char *line)
{
    char text[512];
    const RankEnv *env = &of_this_process->env;
    snprintf(text, sizeof text, "%s%.440s after step %d; all ranks are stopped",
             env->rank == 0 ? "rank 0: " : "", line, of_this_process->state.step);
    // A collective, or memory of another GPU, also fails when that one's rank is gone. Whoever
    // knows better, the launcher or that rank, speaks first and stops this one meanwhile.
    usleep(500000);
    ranks_fail(of_this_process, text);
}

bool ranks_select_gpu(Run *run, Error *err)
{
    if (run->env.world <= 1) return true;
    of_this_process = run;
    ops_cuda_on_failure(gpu_failed);
    const int visible = ops_cuda_count(), gpu = visible ? launch_gpu(&run->env, visible, err) : 0;
    if (gpu >= 0) ops_cuda_select(gpu);
    return gpu >= 0;
}
#endif

bool ranks_connect(Run *run, Error *err)
{
    return run->env.world == 1 || peers_open(&run->peers, &run->env, err);
}

// ---- collectives -------------------------------------------------------------------------------

// Where rank 0's shared memory is found: by other processes of the same machine alone.
typedef struct {
    char boot[64];
    int pid, fd;
} Place;

static void read_boot(char boot[64])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    memset(boot, 0, 64);
    if (!file) return;
    if (!fgets(boot, 64, file)) boot[0] = '\0';
    fclose(file);
}

static Comm *open_shared_memory(Run *run, Error *err)
{
    const RankEnv *env = &run->env;
    const size_t size = comm_shm_size(env->world);
    char path[64], boot[64];
    Place place = {.pid = (int)getpid()};
    read_boot(place.boot);
    memcpy(boot, place.boot, sizeof boot);
    if (env->rank == 0) place.fd = memfd_create("ranks", MFD_CLOEXEC);
    if (env->rank == 0 && (place.fd < 0 || ftruncate(place.fd, (off_t)size))) {
        fail(err, "no memory for the ranks to share: %s", strerror(errno));
        return NULL;
    }
    int fd = place.fd;
    void *shared = MAP_FAILED;
    if (env->rank == 0) {
        shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (shared != MAP_FAILED && !comm_shm_prepare(shared, env->world, err)) return NULL;
    }
    if (!peers_broadcast(run->peers, &place, sizeof place, err)) return NULL;
    if (strcmp(boot, place.boot)) {
        fail(err,
             "ranks on CPUs share memory, and rank %d is not on the machine of rank 0: start "
             "them all on one",
             env->rank);
        return NULL;
    }
    if (env->rank != 0) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", place.pid, place.fd);
        fd = open(path, O_RDWR | O_CLOEXEC);
        struct stat file; // what it should be, were processes of another container in /proc
        if (fd >= 0 && !fstat(fd, &file) && (size_t)file.st_size == size)
            shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0) close(fd);
    }
    if (shared == MAP_FAILED) {
        fail(err, "rank %d cannot share the memory of rank 0: %s", env->rank, strerror(errno));
        return NULL;
    }
    return comm_shm_open(shared, env->rank, env->world, err);
}

static Comm *open_nccl(Run *run, Error *err)
{
#ifdef USE_CUDA
    char id[COMM_NCCL_ID_BYTES] = {0}, uuid[OPS_CUDA_UUID_BYTES];
    ops_cuda_uuid(uuid);
    if (!peers_unique(run->peers, "the GPU", uuid, err)) return run->shared_failure = true, NULL;
    if (!comm_nccl_load(err) || (run->env.rank == 0 && !comm_nccl_id(id, err)) ||
        !peers_broadcast(run->peers, id, sizeof id, err))
        return NULL;
    return comm_nccl_open(id, run->env.rank, run->env.world, err);
#else
    (void)run;
    fail(err, "this program was built without CUDA");
    return NULL;
#endif
}

bool ranks_open(Run *run, Error *err)
{
    const int world = run->env.world;
    if (world == 1) return true;
    run->shared_failure = true;
    if (run->recipe.micro_batches % world)
        return fail(err,
                    "%d ranks cannot share the %d micro-batches of a step (--micro-batches): the "
                    "number of ranks must divide them",
                    world, run->recipe.micro_batches);
    run->shared_failure = false;
    run->comm = run->ops == &ops_cpu ? open_shared_memory(run, err) : open_nccl(run, err);
    return run->comm != NULL;
}

// ---- agreement ---------------------------------------------------------------------------------

// What --init-from stands for on this rank: its checksum.
static void print_weights(FILE *out, const Options *o)
{
    char path[FILE_PATH_MAX];
    Safetensors file;
    Error ignored;
    if (!o->init_from[0] || !weights_find(o->init_from, path, &ignored) ||
        !safetensors_open(&file, path, &ignored))
        return;
    const char *checksum = metadata_find(&file.header.metadata, "checksum");
    fprintf(out, "initial weights %s\n", checksum ? checksum : "without a checksum");
    safetensors_close(&file);
}

typedef void Print(FILE *out, const Run *run);

static bool agree(Run *run, Print *print, Error *err)
{
    char *text = NULL;
    size_t size = 0;
    if (run->env.world == 1) return true;
    FILE *out = open_memstream(&text, &size);
    if (!out) return fail(err, "out of memory to compare the ranks' options");
    print(out, run);
    const bool written = !ferror(out);
    const bool ok = !fclose(out) && written && peers_agree(run->peers, text, err);
    free(text);
    return ok;
}

static void print_options(FILE *out, const Run *run)
{
    const Options *o = &run->options;
    const NsMethod *method = &run->recipe.method;
    const char *field, *comm = getenv("TURBOMUON_COMM");
    char value[512];
    fprintf(out, "%s\ndevice %s\nrecipe %s\n", run->version, run->ops->name, run->recipe.name);
    for (int i = 0; (field = recipe_field(&run->recipe, i, value, sizeof value)); i++)
        fprintf(out, "%s %s\n", field, value);
    for (int i = 0; i < method->iterations; i++) // of a file, they may differ
        fprintf(out, "coefficients %.17g %.17g %.17g\n", method->coeff[i].a, method->coeff[i].b,
                method->coeff[i].c);
    fprintf(out, "steps %d\nseed %lld\nstorage %s\nepochs %d\ncheckpoint_every %d\n", run->end,
            (long long)o->seed, run->real_storage ? "real" : "recipe", o->epochs,
            o->checkpoint_every);
    fprintf(out, "kernels %s\ndeterministic %d\ndump_momentum %s\nTURBOMUON_COMM %s\n", o->kernels,
            o->deterministic, o->dump_momentum, comm ? comm : "");
    fprintf(out, "resumed %s\n",
            run->resuming ? metadata_find(&run->resume.header.metadata, "checksum") : "no");
    print_weights(out, o);
}

static void print_data(FILE *out, const Run *run)
{
    const StreamCursor cursor = loader_cursor(run->loader);
    const size_t bytes = sizeof(uint16_t) * ((size_t)run->val.tokens + 1);
    fprintf(out, "training data %016llx at %lld\nvalidation tokens %lld, %016llx\n",
            (unsigned long long)cursor.data_hash, (long long)cursor.micro_batches,
            (long long)run->val.tokens, (unsigned long long)xxh64(run->val.shard.tokens, bytes));
}

bool ranks_agree_options(Run *run, Error *err) { return agree(run, print_options, err); }
bool ranks_agree_data(Run *run, Error *err) { return agree(run, print_data, err); }

// ---- the end -----------------------------------------------------------------------------------

void ranks_fail(Run *run, const char *text)
{
    // Rank 0 says for all what all of them fail of, and stops this one meanwhile.
    if (run->shared_failure && run->env.rank != 0) sleep(2);
    if (peers_claim(run->peers)) {
        if (run->env.rank == 0)
            fprintf(stderr, "error: %s\n", text);
        else
            fprintf(stderr, "error: rank %d: %s\n", run->env.rank, text);
    }
    peers_fail(run->peers, text);
    _exit(run->usage ? EXIT_USAGE : 1); // nothing waits for collectives that will not come
}

void ranks_close(Run *run)
{
    comm_close(run->comm);
    peers_close(run->peers);
}
