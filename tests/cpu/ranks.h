// Ranks as processes of a test: what the tests of CPU ranks and of GPUs share. The caller includes
// test.h and model.h first, and opens a rank's collectives by `open_rank`.
#ifndef TESTS_CPU_RANKS_H
#define TESTS_CPU_RANKS_H

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../run/comm.h"
#include "../../run/optimizer.h"
#include "../../run/sharded.h"
#include "model.h"

typedef struct {
    Comm *comm;
    const Ops *ops;
} Rank;

// Opens rank `rank` of `world` over zeroed memory that they share, `prepared` by the parent.
static Rank open_rank(void *shared, int rank, int world);
static size_t prepare_ranks(void **shared, int world); // the memory and its size

static void *shared_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

// Runs work(rank, context) in `world` processes; false when one of them fails. The caller has
// started no threads and touched no GPU: neither survives a fork.
static bool in_ranks(int world, void (*work)(Rank, void *), void *context)
{
    bool ok = true;
    void *shared;
    pid_t child[8];
    const size_t size = prepare_ranks(&shared, world);
    fflush(NULL);
    for (int rank = 0; rank < world; rank++) {
        child[rank] = fork();
        if (child[rank] < 0) abort();
        if (child[rank] > 0) continue;
        alarm(120); // a test that hangs fails
        Rank r = open_rank(shared, rank, world);
        work(r, context);
        comm_close(r.comm);
        fflush(NULL);
        _exit(checks_failed ? 1 : 0);
    }
    for (int rank = 0; rank < world; rank++) {
        int status;
        waitpid(child[rank], &status, 0);
        ok = ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    munmap(shared, size);
    return ok;
}

// ---- collectives -------------------------------------------------------------------------------

// Number i of rank r's buffer: exact in every type, as are means over 1, 2, 4 or 8 ranks.
static double number(int rank, size_t i) { return (double)((i * 7 + (size_t)rank * 3) % 16) * 8; }

static double mean(int world, size_t i)
{
    double sum = 0;
    for (int r = 0; r < world; r++) sum += number(r, i);
    return sum / world;
}

static void check_collectives_of(Rank me, DType dtype, size_t n, int parts)
{
    Comm *comm = me.comm;
    const int world = comm->world, rank = comm->rank;
    const size_t size = dtype_size(dtype), all = n * (size_t)parts;
    void *host = malloc(all * size), *x = me.ops->mem_alloc(all * size);
    void *out = me.ops->mem_alloc(n * size);
    size_t wrong = 0;

    for (size_t i = 0; i < all; i++) dtype_set(host, dtype, i, number(rank, i));
    me.ops->mem_put(x, host, all * size);
    comm_wait(comm, comm_reduce_scatter(comm, out, x, n, parts, dtype));
    me.ops->mem_get(host, out, n * size);
    for (size_t i = 0; i < n; i++)
        wrong += dtype_get(host, dtype, i) !=
                 (rank < parts ? mean(world, (size_t)rank * n + i) : 0); // untouched behind the end
    CHECK(wrong == 0, "reduce_scatter of %d x %zu %s", parts, n, dtype_name(dtype));

    comm_wait(comm, comm_all_gather(comm, x, n, parts, dtype));
    me.ops->mem_get(host, x, all * size);
    for (size_t i = 0; i < all; i++) wrong += dtype_get(host, dtype, i) != number((int)(i / n), i);
    CHECK(wrong == 0, "all_gather of %d x %zu %s", parts, n, dtype_name(dtype));

    for (size_t i = 0; i < all; i++) dtype_set(host, dtype, i, number(rank, i));
    me.ops->mem_put(x, host, all * size);
    comm_wait(comm, comm_all_reduce(comm, x, all, dtype));
    me.ops->mem_get(host, x, all * size);
    for (size_t i = 0; i < all; i++) wrong += dtype_get(host, dtype, i) != mean(world, i);
    CHECK(wrong == 0, "all_reduce of %d x %zu %s", parts, n, dtype_name(dtype));
    free(host);
    me.ops->mem_free(x);
    me.ops->mem_free(out);
}

// Rank r sends (r + 2 j) % 5 items of three numbers to rank j.
static size_t items_sent(int from, int to) { return (size_t)(from + 2 * to) % 5; }

static void check_exchange(Rank me, size_t times)
{
    Comm *comm = me.comm;
    enum { N = 3 };
    size_t sent[8], received[8], going = 0, coming = 0, wrong = 0, at = 0;
    for (int r = 0; r < comm->world; r++) {
        going += sent[r] = times * items_sent(comm->rank, r);
        coming += received[r] = times * items_sent(r, comm->rank);
    }
    const size_t size = N * sizeof(float);
    float *host = calloc(going + coming + 1, size);
    void *in = me.ops->mem_alloc(going * size), *out = me.ops->mem_alloc(coming * size);
    for (int r = 0; r < comm->world; r++)
        for (size_t i = 0; i < sent[r] * N; i++)
            host[at++] = (float)(comm->rank * 1000000 + r * 100000) + (float)i;
    me.ops->mem_put(in, host, going * size);
    comm_wait(comm, comm_exchange(comm, out, in, sent, received, size));
    me.ops->mem_get(host, out, coming * size);
    at = 0;
    for (int r = 0; r < comm->world; r++)
        for (size_t i = 0; i < received[r] * N; i++)
            wrong += host[at++] != (float)(r * 1000000 + comm->rank * 100000) + (float)i;
    CHECK(wrong == 0, "exchange of %zu items: %zu wrong", coming, wrong);
    free(host);
    me.ops->mem_free(in);
    me.ops->mem_free(out);
}

static void check_collectives(Rank me, void *context)
{
    static const DType types[] = {DT_F64, DT_F32, DT_BF16};
    (void)context;
    for (int t = 0; t < 3; t++)
        for (int parts = 1; parts <= me.comm->world; parts++) {
            check_collectives_of(me, types[t], 1, parts);
            check_collectives_of(me, types[t], 1000, parts);
        }
    check_collectives_of(me, DT_F32, 300001, me.comm->world); // more than a slot of shared memory
    check_exchange(me, 1);
    check_exchange(me, 30000); // more than a slot
    comm_finish(me.comm);
    double x[2] = {me.comm->rank, 1};
    comm_sum(me.comm, x, 2);
    CHECK(x[1] == me.comm->world && x[0] == me.comm->world * (me.comm->world - 1) / 2);
}

// ---- training ----------------------------------------------------------------------------------

#ifdef __SANITIZE_ADDRESS__
enum { STEPS = 6 }; // they take twenty times as long
#else
enum { STEPS = 20 };
#endif
enum { BATCHES = 8, TOKENS = 32, MAX_NUMBERS = 400000 };

typedef struct {
    const Ops *ops;
    bool real_storage, alone; // alone: the plain optimizer
    bool rows;                // the embeddings' gradients by rows where those are fewer
    int by_rows;              // steps in which they were
    double loss[STEPS];
    size_t n;
    double start[MAX_NUMBERS], end[MAX_NUMBERS]; // all parameters, whole
    double state[2 * MAX_NUMBERS];               // and optimizer state, without the gates' second
} Outcome;

static Recipe small_recipe(void)
{
    // 12 attention and 10 MLP matrices: over 8 ranks, buckets of 8 and 4, and of 8 and 2.
    const char *fields[] = {"layers",
                            "- smv0 lm m<1 smb<2 m",
                            "vocab_size",
                            "60",
                            "heads",
                            "1",
                            "mlp_ratio",
                            "2",
                            "micro_batch",
                            "32",
                            "micro_batches",
                            "8",
                            "val_chunk",
                            "32",
                            "val_tokens",
                            "32",
                            "window_block",
                            "8",
                            "max_doc",
                            "32",
                            "scheduled_steps",
                            "16",
                            "extension_steps",
                            "4",
                            "muon_lr",
                            "0.01",
                            NULL};
    return model_recipe("tiny", fields);
}

// Micro-batch number i of the stream, the same in every process.
static void stream_batch(ModelBatch *m, const Recipe *r, int i)
{
    model_random_state = 1000 + (uint64_t)i;
    model_batch(m, r->vocab_size, (int[]){5 + i % 7, 0, 11, TOKENS - 16 - i % 7, -1});
}

static size_t copy_out(const Ops *ops, double *to, const GptBank *b, const void *from, size_t n,
                       bool on_device)
{
    const size_t size = dtype_size(b->dtype);
    char *host = malloc(n * size + 1);
    if (on_device)
        ops->mem_get(host, from, n * size);
    else
        memcpy(host, from, n * size);
    for (size_t i = 0; i < n; i++) to[i] = dtype_get(host, b->dtype, i);
    free(host);
    return n;
}

// As model_randomize does, on any device.
static void shake(Gpt *gpt)
{
    const Ops *ops = gpt_ops(gpt);
    model_random_state = 99;
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t n = model_bank_size(b), size = dtype_size(b->dtype);
        void *host = malloc(n * size + 1);
        ops->mem_get(host, b->param, n * size);
        for (size_t i = 0; i < n; i++)
            dtype_set(host, b->dtype, i, dtype_get(host, b->dtype, i) + 0.02 * model_random());
        ops->mem_put(b->param, host, n * size);
        free(host);
        gpt_load_weights(gpt, (BankId)id);
    }
}

static void train_alone(Gpt *gpt, const Recipe *r, Outcome *o)
{
    Error err;
    static ModelBatch m;
    Optimizer optimizer;
    if (!optimizer_create(&optimizer, gpt, &err)) abort();
    for (int step = 0; step < STEPS; step++) {
        gpt_set_step(gpt, step);
        for (int i = 0; i < BATCHES; i++) {
            stream_batch(&m, r, step * BATCHES + i);
            gpt_forward_backward(gpt, &m.batch);
        }
        optimizer_step(&optimizer, step);
        o->loss[step] = gpt_loss(gpt);
    }
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        copy_out(o->ops, o->end + o->n, b, b->param, model_bank_size(b), true);
        copy_out(o->ops, o->state + o->n, b, optimizer.first[id], model_bank_size(b), true);
        o->n += model_bank_size(b);
    }
    optimizer_free(&optimizer);
}

static void train_shared(Gpt *gpt, const Recipe *r, Comm *comm, Outcome *o)
{
    Error err;
    static ModelBatch m;
    ShardedOptimizer sharded;
    double loss[STEPS] = {0};
    if (!sharded_create(&sharded, gpt, comm, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    sharded_adopt(&sharded);
    for (int step = 0; step < STEPS; step++) {
        gpt_set_step(gpt, step);
        for (int i = comm->rank; i < BATCHES && o->rows; i += comm->world) {
            stream_batch(&m, r, step * BATCHES + i);
            sharded_touch(&sharded, m.ids, m.batch.tokens);
        }
        if (o->rows) sharded_begin(&sharded, step);
        for (int i = comm->rank; i < BATCHES; i += comm->world) {
            if (i + comm->world >= BATCHES) sharded_send(&sharded, step);
            stream_batch(&m, r, step * BATCHES + i);
            gpt_forward_backward(gpt, &m.batch);
        }
        const CommTicket mean = comm_all_reduce(comm, gpt_loss_sum(gpt), 1, DT_F64);
        if (comm->rank == 0) o->by_rows += sharded.rows.sparse; // in memory that they share
        sharded_step(&sharded, step);
        comm_wait(comm, mean);
        loss[step] = gpt_loss(gpt);
    }
    const bool first = comm->rank == 0;
    if (first) memcpy(o->loss, loss, sizeof loss);
    size_t at = 0;
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t n = model_bank_size(b);
        void *host = malloc(n * dtype_size(b->dtype) + 1);
        for (StatePart part = STATE_PARAM; part <= STATE_FIRST; part++) {
            if (!sharded_get(&sharded, (BankId)id, part, first ? host : NULL, &err)) abort();
            if (first)
                copy_out(o->ops, (part == STATE_PARAM ? o->end : o->state) + at, b, host, n, false);
        }
        // What every rank computes with is what the owners have.
        if (!sharded_get(&sharded, (BankId)id, STATE_PARAM, host, &err)) abort();
        if (id != BANK_SCALARS && o->real_storage) {
            void *weight = malloc(n * o->ops->real_size + 1);
            comm_sum(comm, (double[1]){0}, 1);
            if (comm->world > 1) o->ops->mem_get(weight, b->weight, n * o->ops->real_size);
            CHECK(comm->world == 1 || !memcmp(weight, host, n * o->ops->real_size),
                  "rank %d's weights of %s", comm->rank, b->name);
            free(weight);
        }
        free(host);
        at += n;
    }
    if (first) o->n = at;
    sharded_free(&sharded);
}

static void train(Rank me, void *context)
{
    Outcome *o = context;
    Comm *comm = me.comm;
    o->ops = me.ops;
    const Recipe r = small_recipe();
    Gpt *gpt = model_create(&r, o->ops, o->real_storage, BATCHES / comm->world);
    size_t n = 0;
    for (int id = 0; id < GPT_BANKS; id++) n += model_bank_size(gpt_bank(gpt, (BankId)id));
    if (n > MAX_NUMBERS) abort();
    shake(gpt);
    n = 0;
    for (int id = 0; id < GPT_BANKS && comm->rank == 0; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        n += copy_out(o->ops, o->start + n, b, b->param, model_bank_size(b), true);
    }
    if (o->alone)
        train_alone(gpt, &r, o);
    else
        train_shared(gpt, &r, comm, o);
    gpt_free(gpt);
}

static Outcome *outcome_of(int world, bool real_storage, bool alone)
{
    Outcome *o = shared_memory(sizeof *o);
    o->real_storage = real_storage, o->alone = alone;
    o->rows = !alone && world > 1;
    CHECK(in_ranks(world, train, o));
    return o;
}

// |a - b| / |a - start|
static double change_apart(const Outcome *a, const Outcome *b)
{
    double apart = 0, change = 0;
    for (size_t i = 0; i < a->n; i++) {
        apart += (a->end[i] - b->end[i]) * (a->end[i] - b->end[i]);
        change += (a->end[i] - a->start[i]) * (a->end[i] - a->start[i]);
    }
    return sqrt(apart / change);
}

static double losses_apart(const Outcome *a, const Outcome *b)
{
    double most = 0;
    for (int i = 0; i < STEPS; i++) most = fmax(most, fabs(a->loss[i] - b->loss[i]));
    return most;
}

static bool same(const Outcome *a, const Outcome *b)
{
    return !memcmp(a->loss, b->loss, sizeof a->loss) && !memcmp(a->end, b->end, sizeof a->end) &&
           !memcmp(a->state, b->state, sizeof a->state);
}

#endif
