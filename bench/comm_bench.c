// Bus bandwidth of the collectives of a training step, by the calls that it makes (run/comm.h), and
// of 64 MiB; over GPUs or over ranks on CPUs. Embeddings' gradients go as whole tables here: by
// rows, as a step mostly sends them, they are less.
//
//     make build/bench/comm_bench && build/bench/comm_bench --gpus 2
//     build/bench/comm_bench --ranks 2 --recipe tiny
//
// Takes train_gpt's options, and torchrun's, mpirun's and srun's environment. A time is the median
// of rounds of collectives one after another, as the communication stream runs them, with nothing
// beside. Bus bandwidth is that of nccl-tests: bytes of the larger buffer a second, times (W-1)/W
// for reduce-scatter and all-gather and 2 (W-1)/W for all-reduce, so that it compares with what a
// link can do.
#include <stdlib.h>
#include <string.h>

#include "../run/partition.h"
#include "../run/ranks.h"
#ifdef USE_CUDA
#include "../ops/cuda/device.h"
#endif

typedef enum { REDUCE_SCATTER, ALL_GATHER, ALL_REDUCE } Kind;
static const char *const names[] = {"reduce-scatter", "all-gather", "all-reduce"};

enum { ROUNDS = 9 };

typedef struct {
    Run *run;
    void *all, *part; // of the largest collective
    int repeats;      // in a round
} Bench;

static CommTicket collect(const Bench *b, Kind kind, size_t n, int parts, DType type)
{
    Comm *comm = b->run->comm;
    return kind == REDUCE_SCATTER ? comm_reduce_scatter(comm, b->part, b->all, n, parts, type)
           : kind == ALL_GATHER   ? comm_all_gather(comm, b->all, n, parts, type)
                                  : comm_all_reduce(comm, b->all, n * (size_t)parts, type);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Milliseconds of a collective of `parts` times n numbers, the median of the rounds after the
// first.
static double ms_of(const Bench *b, Kind kind, size_t n, int parts, DType type)
{
    Comm *comm = b->run->comm;
    double ms[ROUNDS + 1];
    for (int round = 0; round <= ROUNDS; round++) {
        CommTicket last = 0;
        comm_sum(comm, (double[1]){0}, 1); // all begin together
        comm->stamp(comm, 0, COMM_COMPUTE);
        for (int i = 0; i < b->repeats; i++) last = collect(b, kind, n, parts, type);
        comm_wait(comm, last);
        comm->stamp(comm, 1, COMM_COMPUTE);
        b->run->ops->sync();
        ms[round] = comm->stamp_ms(comm, 0, 1) / b->repeats;
    }
    qsort(ms + 1, ROUNDS, sizeof *ms, by_value);
    return ms[1 + ROUNDS / 2];
}

// Prints a row: `count` collectives of a step, 0 for one that it does not make. Their ms in all.
static double row(const Bench *b, Kind kind, const char *of, int count, size_t n, int parts,
                  DType type)
{
    const int world = b->run->env.world;
    const double bytes = (double)n * parts * (double)dtype_size(type);
    const double ms = ms_of(b, kind, n, parts, type);
    const double gigabytes = bytes / 1e6 / ms;
    const double bus = gigabytes * (kind == ALL_REDUCE ? 2 : 1) * (world - 1) / world;
    if (b->run->env.rank > 0) return 0;
    printf("%-15s %-12s %3d x %10.0f bytes %9.4f ms %8.2f GB/s, bus %8.2f GB/s\n", names[kind], of,
           count, bytes, ms, gigabytes, bus);
    fflush(stdout);
    return count * ms;
}

// The buckets of a bank of `items` (partition.h), whole ones and a smaller last one: gradients to
// the owners, new weights to all.
static double bank(const Bench *b, const char *of, int items, size_t n, DType gradient,
                   double *back)
{
    const int world = b->run->env.world, whole = items / world, rest = items % world;
    double there = 0;
    if (whole) there += row(b, REDUCE_SCATTER, of, whole, n, world, gradient);
    if (rest) there += row(b, REDUCE_SCATTER, of, 1, n, rest, gradient);
    if (whole) *back += row(b, ALL_GATHER, of, whole, n, world, b->run->ops->real_type);
    if (rest) *back += row(b, ALL_GATHER, of, 1, n, rest, b->run->ops->real_type);
    return there;
}

static void total(const Bench *b, const char *of, double there, double back)
{
    if (b->run->env.rank > 0) return;
    printf("%-28s %8.4f ms: gradients %.4f, weights %.4f\n", of, there + back, there, back);
}

static void measure(const Bench *b)
{
    const Recipe *r = &b->run->recipe;
    const int world = b->run->env.world;
    const size_t d = (size_t)r->width, rows = (size_t)r->vocab_padded / (size_t)world;
    double back = 0, there = bank(b, "attn", 4 * r->n_attention, d * d, DT_F32, &back);
    there += bank(b, "mlp", 2 * r->n_mlp, d * (size_t)r->hidden, DT_F32, &back);
    double adam_back = 0, adam_there = bank(b, "lm_head", world, rows * d, DT_BF16, &adam_back);
    adam_there +=
        bank(b, "embeddings", (1 + r->n_value_embeds) * world, rows * d, DT_BF16, &adam_back);
    const double small = row(b, ALL_REDUCE, "scalars", 1, (size_t)r->n_scalars, 1, DT_F32);
    for (Kind kind = REDUCE_SCATTER; kind <= ALL_REDUCE; kind++)
        row(b, kind, "64 MiB", 0, ((size_t)64 << 20) / 4 / (size_t)world, world, DT_F32);
    total(b, "matrices, in every step", there, back);
    total(b, "Adam's, in every second", adam_there, adam_back);
    if (b->run->env.rank == 0)
        printf("%-28s %8.4f ms each: three of gates and scalars, the loss, signals\n", "small ones",
               small);
}

// ---- opening -----------------------------------------------------------------------------------

static bool choose_device(Run *run, Error *err)
{
    run->ops = &ops_cpu;
    if (!strcmp(run->options.device, "cpu")) return true;
#ifdef USE_CUDA
    return ranks_select_gpu(run, err) &&
           ops_cuda_find(&run->ops, run->device, sizeof run->device, err);
#else
    return fail(err, "this program was built without CUDA: give --ranks");
#endif
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static bool run_all(Run *run, Error *err)
{
    Bench b = {.run = run};
    const Recipe *r = &run->recipe;
    if (!ranks_connect(run, err) || !choose_device(run, err) ||
        !options_recipe(&run->options, "speedrun", &run->recipe, err))
        return false;
    const int world = run->env.world;
    run->shared_failure = true;
    if (world == 1) return fail(err, "one rank has no collectives: give --gpus or --ranks");
    if (r->vocab_padded % world)
        return fail(err, "%d ranks do not divide the %d rows of lm_head", world, r->vocab_padded);
    run->recipe.micro_batches = world; // none is trained on
    run->shared_failure = false;
    if (!ranks_open(run, err)) return false;
    const size_t d = (size_t)r->width, matrix = d * (size_t)r->hidden * 4 * (size_t)world;
    const size_t bytes = larger((size_t)64 << 20, larger(matrix, (size_t)r->vocab_padded * d * 4));
    b.all = run->ops->mem_alloc(bytes);
    b.part = run->ops->mem_alloc(bytes / (size_t)world + 4);
    b.repeats = run->ops == &ops_cpu ? 1 : 20;
    if (!b.all || !b.part || !run->comm->stamps(run->comm, 2))
        return fail(err, "out of memory: two buffers of %.0f MB", (double)bytes / 1e6);
    if (run->env.rank == 0)
        printf("%s: %d ranks on %s, %s\n", r->name, world,
               run->ops == &ops_cpu ? "CPUs" : run->device, run->comm->description);
    measure(&b);
    run->ops->mem_free(b.all);
    run->ops->mem_free(b.part);
    return true;
}

int main(int argc, char **argv)
{
    static Run run;
    Error err = {""};
    if (!options_parse(&run.options, argc, argv, &err)) {
        fprintf(stderr, "error: %s\n", err.text);
        return EXIT_USAGE;
    }
    const bool ok = ranks_start(&run, &err) && run_all(&run, &err);
    if (!ok && run.env.world > 1) ranks_fail(&run, err.text);
    if (!ok) fprintf(stderr, "error: %s\n", err.text);
    ranks_close(&run);
    return ok ? 0 : run.usage ? EXIT_USAGE : 1;
}
