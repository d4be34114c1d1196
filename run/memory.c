#include "memory.h"

static const size_t headroom = (size_t)512 << 20; // kernels, and what others take meanwhile

// A device that hands out no memory and does nothing with it: what is asked of it only counts.
static void *alloc_none(size_t bytes)
{
    static char somewhere;
    (void)bytes;
    return &somewhere;
}
static void free_none(void *p) { (void)p; }
static void zero_none(void *p, size_t bytes) { (void)p, (void)bytes; }
static void put_none(void *p, const void *host, size_t bytes) { (void)p, (void)host, (void)bytes; }
static void load_none(void *weight, DType to, const void *param, DType from, size_t n)
{
    (void)weight, (void)to, (void)param, (void)from, (void)n;
}

typedef struct {
    size_t model, activations, optimizer, own; // model: without the activations
} Need;

static size_t total(Need n) { return n.model + n.activations + n.optimizer + n.own; }

static bool find_need(Need *need, const Recipe *recipe, const Ops *ops, Comm *comm,
                      bool real_storage, Error *err)
{
    Ops none = *ops;
    Optimizer optimizer = {0};
    ShardedOptimizer sharded = {0};
    size_t unused;
    none.mem_alloc = alloc_none, none.mem_free = free_none;
    none.mem_zero = zero_none, none.mem_put = put_none, none.load_param = load_none;
    *need = (Need){0};
    Gpt *gpt = gpt_create(recipe, &none, real_storage, 1, err);
    const bool ok = gpt && (comm ? sharded_create(&sharded, gpt, comm, err)
                                 : optimizer_create(&optimizer, gpt, err));
    if (ok) {
        const GptMemory *rows = gpt_memory(gpt);
        for (int i = 0; i < GPT_MEMORY_ROWS; i++)
            *(i < GPT_MEMORY_ACTIVATIONS ? &need->model : &need->activations) += rows[i].bytes;
        need->optimizer = comm ? sharded.bytes : optimizer.bytes;
        if (ops->mem_info) ops->mem_info(&need->own, &unused, &unused);
    }
    optimizer_free(&optimizer);
    sharded_free(&sharded);
    gpt_free(gpt);
    return ok;
}

size_t memory_need(const Recipe *recipe, const Ops *ops, Comm *comm, bool real_storage, Error *err)
{
    Need need;
    return find_need(&need, recipe, ops, comm, real_storage, err) ? total(need) : 0;
}

// Halves the validation chunk, the micro-batch (as many more of them), or both, until the recipe
// fits into `room`; the options that do it go to `text`. False when none does.
static bool find_smaller(const Recipe *recipe, const Ops *ops, Comm *comm, bool real_storage,
                         size_t room, char *text, size_t size)
{
    for (int what = 1; what <= 3; what++) {
        const bool chunk = what & 1, batch = what & 2;
        Recipe r = *recipe;
        Error unused;
        for (;;) {
            if ((chunk && r.val_chunk % 2) || (batch && r.micro_batch % 2)) break;
            if (chunk) r.val_chunk /= 2;
            if (batch) r.micro_batch /= 2, r.micro_batches *= 2;
            if (!recipe_finish(&r, &unused)) break;
            const size_t need = memory_need(&r, ops, comm, real_storage, &unused);
            if (!need || need > room) continue;
            int n = 0;
            if (chunk) n = snprintf(text, size, "--val-chunk %d ", r.val_chunk);
            if (batch)
                n += snprintf(text + n, size - (size_t)n, "--micro-batch %d --micro-batches %d ",
                              r.micro_batch, r.micro_batches);
            n += snprintf(text + n, size - (size_t)n, "takes %.2f GB", (double)need / 1e9);
            if (r.sequence != recipe->sequence)
                snprintf(text + n, size - (size_t)n, ", with sequences of %d tokens", r.sequence);
            return true;
        }
    }
    return false;
}

bool memory_check(const Recipe *recipe, const Ops *ops, Comm *comm, bool real_storage, Error *err)
{
    Need need;
    size_t own, available, all;
    char smaller[192] = "no smaller batch is enough: free some, or train a smaller --recipe";
    if (!ops->mem_info) return true;
    if (!find_need(&need, recipe, ops, comm, real_storage, err)) return false;
    ops->mem_info(&own, &available, &all);
    const size_t room = available > headroom ? available - headroom : 0;
    if (total(need) <= room) return true;
    find_smaller(recipe, ops, comm, real_storage, room, smaller, sizeof smaller);
    return fail(err,
                "out of memory: recipe %s needs %.2f GB (parameters and gradients %.2f, "
                "activations %.2f, optimizers %.2f, workspaces %.2f), and of the %.2f GB of the "
                "device %.2f are free, %.2f of them for kernels; %s",
                recipe->name, (double)total(need) / 1e9, (double)need.model / 1e9,
                (double)need.activations / 1e9, (double)need.optimizer / 1e9,
                (double)need.own / 1e9, (double)all / 1e9, (double)available / 1e9,
                (double)headroom / 1e9, smaller);
}
