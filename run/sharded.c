#include "sharded.h"

#include <stdlib.h>
#include <string.h>

#include "partition.h"
#include "sharded_rows.h"

static int buckets_of(const ShardedOptimizer *s, BankId id)
{
    return s->bank[id].copied ? 1 : partition_buckets(s->bank[id].items, s->comm->world);
}

static void *at(void *base, size_t index, size_t size) { return (char *)base + index * size; }

// ---- memory ------------------------------------------------------------------------------------

static bool is_copied(BankId id)
{
    return id == BANK_ATTN_GATE || id == BANK_SMEAR_GATE || id == BANK_SCALARS;
}

static bool describe(ShardedOptimizer *s, BankId id, Error *err)
{
    const int world = s->comm->world, rank = s->comm->rank;
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedBank *shard = &s->bank[id];
    shard->copied = is_copied(id);
    const int rows = b->muon || shard->copied ? b->rows : b->rows / world;
    if (!b->muon && !shard->copied && b->rows % world)
        return fail(err, "%d ranks do not divide the %d rows of %s: use a number that does", world,
                    b->rows, b->name);
    shard->items = b->muon || shard->copied ? b->count : b->count * world;
    shard->owned = shard->copied ? b->count : partition_owned(shard->items, world, rank);
    shard->n = (size_t)rows * (size_t)b->cols;
    shard->n_state = b->muon ? (size_t)b->cols : shard->n;
    const int buckets = buckets_of(s, id);
    shard->lr_mul = calloc((size_t)shard->owned + 1, sizeof *shard->lr_mul);
    shard->reduced = calloc((size_t)buckets + 1, sizeof *shard->reduced);
    shard->renewed = calloc((size_t)buckets + 1, sizeof *shard->renewed);
    if (!shard->lr_mul || !shard->reduced || !shard->renewed)
        return fail(err, "out of memory for the tables of %s", b->name);
    for (int k = 0; k < shard->owned; k++) {
        const int item = shard->copied ? k : k * world + rank;
        shard->lr_mul[k] = b->lr_mul[item * rows / b->rows];
    }
    return true;
}

static MuonBank muon_bank(const ShardedOptimizer *s, BankId id)
{
    const GptBank *b = gpt_bank(s->gpt, id);
    const ShardedBank *shard = &s->bank[id];
    return (MuonBank){.count = shard->owned,
                      .rows = b->rows,
                      .cols = b->cols,
                      .dtype = b->dtype,
                      .param = shard->copied ? b->param : shard->master,
                      .grad = shard->copied ? b->grad : shard->grad,
                      .momentum = shard->first,
                      .second_moment = shard->second,
                      .lr_mul = shard->lr_mul,
                      .beta2 = gpt_recipe(s->gpt)->muon_beta2};
}

static bool take(ShardedOptimizer *s, void **p, size_t bytes, Error *err)
{
    const Ops *ops = gpt_ops(s->gpt);
    s->bytes += bytes;
    *p = ops->mem_alloc(bytes);
    return *p || fail(err, "out of memory: a request of %.2f GB for optimizer state on %s failed",
                      (double)bytes / 1e9, ops->name);
}

static bool take_state(ShardedOptimizer *s, BankId id, size_t *work, Error *err)
{
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedBank *shard = &s->bank[id];
    const size_t size = dtype_size(b->dtype), owned = (size_t)shard->owned * shard->n * size;
    if (!take(s, &shard->first, owned, err) ||
        !take(s, &shard->second, (size_t)shard->owned * shard->n_state * size, err))
        return false;
    if (!shard->copied && !take(s, &shard->grad, owned, err)) return false;
    if (!b->muon) return true;
    if (!shard->copied && !take(s, &shard->master, owned, err)) return false;
    const MuonBank bank = muon_bank(s, id);
    const size_t need =
        shard->owned ? gpt_ops(s->gpt)->normuon_workspace(&bank, &gpt_recipe(s->gpt)->method) : 0;
    if (need > *work) *work = need;
    return true;
}

// ---- the model's hooks -------------------------------------------------------------------------

// Starts to reduce what of a bank is final and complete by the bucket.
static void send_grads(void *context, BankId id, int end)
{
    ShardedOptimizer *s = context;
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedBank *shard = &s->bank[id];
    const int world = s->comm->world;
    if (id == BANK_LM_HEAD) timeline_phase(s->comm->timeline, "backward", NULL);
    if (id == BANK_SCALARS) timeline_phase(s->comm->timeline, NULL, NULL); // they are the last
    if (!s->sending || (!b->muon && !s->adam)) return;
    if (shard->copied) {
        comm_label(s->comm, b->name, -1);
        shard->reduced[0] = comm_all_reduce(s->comm, b->grad, gpt_bank_size(b), b->dtype);
        return;
    }
    if (id == BANK_EMBED) sharded_rows_plan(s);
    if (s->rows.sparse && (id == BANK_EMBED || id == BANK_VALUE_EMBED)) {
        sharded_rows_send(s, id, shard->reduced);
        return;
    }
    const size_t size = dtype_size(b->dtype);
    const int final = b->muon ? end : end * world;
    while (shard->sent * world < shard->items) {
        const int bucket = shard->sent, parts = partition_parts(shard->items, world, bucket);
        if (bucket * world + parts > final) return;
        comm_label(s->comm, b->name, bucket);
        shard->reduced[bucket] =
            comm_reduce_scatter(s->comm, at(shard->grad, (size_t)bucket * shard->n, size),
                                at(b->grad, (size_t)bucket * (size_t)world * shard->n, size),
                                shard->n, parts, b->dtype);
        shard->sent++;
    }
}

// Waits for the new weights of a bank's matrices [first, last].
static void wait_renewed(ShardedOptimizer *s, BankId id, int first, int last)
{
    const int world = gpt_bank(s->gpt, id)->muon ? s->comm->world : 1;
    for (int bucket = first / world; bucket <= last / world; bucket++)
        comm_wait(s->comm, s->bank[id].renewed[bucket]);
}

static void wait_weights(void *context, int slot)
{
    ShardedOptimizer *s = context;
    const Recipe *r = gpt_recipe(s->gpt);
    if (slot < 0) {
        timeline_phase(s->comm->timeline, "forward", NULL);
        wait_renewed(s, BANK_EMBED, 0, 0);
    }
    if (slot == r->n_slots) {
        timeline_phase(s->comm->timeline, "head", NULL);
        wait_renewed(s, BANK_LM_HEAD, 0, 0);
    }
    if (slot < 0 || slot == r->n_slots) return;
    const LayerSlot *layer = &r->slot[slot];
    const int q = gpt_matrix_index(s->gpt, BANK_ATTN, slot);
    const int fc = gpt_matrix_index(s->gpt, BANK_MLP, slot);
    const int ve = layer->attention ? layer->value_embed : -1;
    if (ve >= 0) wait_renewed(s, BANK_VALUE_EMBED, ve, ve);
    if (layer->attention) wait_renewed(s, BANK_ATTN, q, q + 3);
    if (layer->mlp) wait_renewed(s, BANK_MLP, fc, fc + 1);
}

// ---- the step ----------------------------------------------------------------------------------

void sharded_send(ShardedOptimizer *s, int step)
{
    s->sending = true;
    s->adam = recipe_adam_updates(gpt_recipe(s->gpt), step);
}

// Where the stored parameters of an owned item lie.
static void *param_of(const ShardedOptimizer *s, BankId id, int k)
{
    const GptBank *b = gpt_bank(s->gpt, id);
    const ShardedBank *shard = &s->bank[id];
    const size_t size = dtype_size(b->dtype);
    if (shard->copied) return at(b->param, (size_t)k * shard->n, size);
    if (b->muon) return at(shard->master, (size_t)k * shard->n, size);
    return at(b->param, (size_t)(k * s->comm->world + s->comm->rank) * shard->n, size);
}

static void adam(ShardedOptimizer *s, BankId id)
{
    const Recipe *r = gpt_recipe(s->gpt);
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    const ShardedBank *shard = &s->bank[id];
    const size_t size = dtype_size(b->dtype);
    for (int k = 0; k < shard->owned; k++) {
        const size_t first = (size_t)k * shard->n;
        const AdamConfig config = {.lr_mul = shard->lr_mul[k],
                                   .beta1 = r->adam_beta1,
                                   .beta2 = r->adam_beta2,
                                   .eps = r->adam_eps};
        ops->adam(param_of(s, id, k), at(shard->first, first, size), at(shard->second, first, size),
                  at(shard->copied ? b->grad : shard->grad, first, size), b->dtype, shard->n,
                  &config, gpt_step_state(s->gpt));
    }
}

// Owners' new parameters as working copies, and those to everybody: the layers of the next forward
// pass first, which are the last of the bank.
static void renew_weights(ShardedOptimizer *s, BankId id)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedBank *shard = &s->bank[id];
    const int world = s->comm->world;
    if (shard->copied) {
        gpt_load_weights(s->gpt, id);
        return;
    }
    for (int k = shard->owned - 1; k >= 0; k--) {
        const size_t item = (size_t)(k * world + s->comm->rank);
        void *weight = at(b->weight, item * shard->n, ops->real_size);
        const void *param = param_of(s, id, k);
        if (weight != param) ops->load_param(weight, ops->real_type, param, b->dtype, shard->n);
    }
    for (int bucket = buckets_of(s, id) - 1; bucket >= 0; bucket--) {
        comm_label(s->comm, b->name, bucket);
        shard->renewed[bucket] = comm_all_gather(
            s->comm, at(b->weight, (size_t)bucket * (size_t)world * shard->n, ops->real_size),
            shard->n, partition_parts(shard->items, world, bucket), ops->real_type);
    }
}

static void update(ShardedOptimizer *s, BankId id)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedBank *shard = &s->bank[id];
    timeline_phase(s->comm->timeline, "update", b->name);
    for (int bucket = 0; bucket < buckets_of(s, id); bucket++)
        comm_wait(s->comm, shard->reduced[bucket]);
    shard->sent = 0;
    if (s->rows.sparse && (id == BANK_EMBED || id == BANK_VALUE_EMBED))
        sharded_rows_gather(s, id, shard->grad);
    if (shard->owned > 0 && b->muon) {
        const MuonBank bank = muon_bank(s, id);
        ops->normuon(&bank, &gpt_recipe(s->gpt)->method, gpt_step_state(s->gpt), s->work);
    } else if (shard->owned > 0) {
        adam(s, id);
    }
    renew_weights(s, id);
    ops->mem_zero(b->grad, gpt_bank_size(b) * dtype_size(b->dtype));
}

void sharded_step(ShardedOptimizer *s, int step)
{
    // While the embeddings' gradients, final last, are on their way, the attention is updated;
    // while their new values are, the MLPs. The head is read last.
    static const BankId order[] = {BANK_ATTN,      BANK_EMBED,      BANK_VALUE_EMBED, BANK_MLP,
                                   BANK_ATTN_GATE, BANK_SMEAR_GATE, BANK_SCALARS,     BANK_LM_HEAD};
    const bool adam_turn = recipe_adam_updates(gpt_recipe(s->gpt), step);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (adam_turn || gpt_bank(s->gpt, order[i])->muon) update(s, order[i]);
    timeline_phase(s->comm->timeline, NULL, NULL);
    if (adam_turn && s->rows.tables > 0) touched_clear(&s->rows.touched);
    s->sending = s->rows.sparse = false;
}

// ---- checkpoints -------------------------------------------------------------------------------

static void *state_of(const ShardedOptimizer *s, BankId id, StatePart part, int k)
{
    const ShardedBank *shard = &s->bank[id];
    const size_t size = dtype_size(gpt_bank(s->gpt, id)->dtype);
    return part == STATE_PARAM   ? param_of(s, id, k)
           : part == STATE_FIRST ? at(shard->first, (size_t)k * shard->n, size)
                                 : at(shard->second, (size_t)k * shard->n_state, size);
}

bool sharded_get(ShardedOptimizer *s, BankId id, StatePart part, void *host, Error *err)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    const ShardedBank *shard = &s->bank[id];
    const int world = s->comm->world, rank = s->comm->rank;
    const size_t n = part == STATE_SECOND ? shard->n_state : shard->n;
    const size_t size = dtype_size(b->dtype);
    if (part == STATE_GRAD) {
        comm_label(s->comm, b->name, -1);
        comm_wait(s->comm, comm_all_reduce(s->comm, b->grad, gpt_bank_size(b), b->dtype));
        if (host) ops->mem_get(host, b->grad, gpt_bank_size(b) * size);
        if (touched_any(&s->rows.touched)) sharded_rows_forget(s);
        return true;
    }
    if (shard->copied) {
        if (host && shard->owned > 0)
            ops->mem_get(host, state_of(s, id, part, 0), (size_t)shard->owned * n * size);
        return true;
    }
    void *buffer = ops->mem_alloc((size_t)world * n * size); // where the parts of a bucket meet
    if (!buffer) return fail(err, "out of memory on %s to collect %s", ops->name, b->name);
    for (int bucket = 0; bucket < buckets_of(s, id); bucket++) {
        const int parts = partition_parts(shard->items, world, bucket);
        if (rank < parts)
            ops->load_param(at(buffer, (size_t)rank * n, size), b->dtype,
                            state_of(s, id, part, bucket), b->dtype, n);
        comm_wait(s->comm, comm_all_gather(s->comm, buffer, n, parts, b->dtype));
        if (host)
            ops->mem_get(at(host, (size_t)bucket * (size_t)world * n, size), buffer,
                         (size_t)parts * n * size);
    }
    ops->mem_free(buffer);
    return true;
}

static bool is_zero(const char *bytes, size_t n)
{
    return n == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, n - 1));
}

void sharded_put(ShardedOptimizer *s, BankId id, StatePart part, const void *host)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    const ShardedBank *shard = &s->bank[id];
    const size_t size = dtype_size(b->dtype), n = part == STATE_SECOND ? shard->n_state : shard->n;
    if (part == STATE_PARAM) ops->mem_put(b->param, host, gpt_bank_size(b) * size);
    if (part == STATE_GRAD) {
        ops->mem_put(b->grad, host, gpt_bank_size(b) * size);
        if (!is_zero(host, gpt_bank_size(b) * size)) sharded_rows_forget(s);
    }
    if (part == STATE_PARAM || part == STATE_GRAD) return;
    for (int k = 0; k < shard->owned; k++) {
        const int item = shard->copied ? k : k * s->comm->world + s->comm->rank;
        ops->mem_put(state_of(s, id, part, k), (const char *)host + (size_t)item * n * size,
                     n * size);
    }
}

void sharded_adopt(ShardedOptimizer *s)
{
    const Ops *ops = gpt_ops(s->gpt);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(s->gpt, (BankId)id);
        const ShardedBank *shard = &s->bank[id];
        const size_t size = dtype_size(b->dtype);
        gpt_load_weights(s->gpt, (BankId)id);
        if (shard->copied || !b->muon) continue;
        for (int k = 0; k < shard->owned; k++) {
            const size_t item = (size_t)(k * s->comm->world + s->comm->rank);
            ops->load_param(at(shard->master, (size_t)k * shard->n, size), b->dtype,
                            at(b->param, item * shard->n, size), b->dtype, shard->n);
        }
        ops->sync();
        gpt_drop_param(s->gpt, (BankId)id);
    }
}

// ---- opening and closing -----------------------------------------------------------------------

bool sharded_create(ShardedOptimizer *s, Gpt *gpt, Comm *comm, Error *err)
{
    size_t work = 0;
    *s = (ShardedOptimizer){.gpt = gpt, .comm = comm};
    bool ok = true;
    for (int id = 0; id < GPT_BANKS && ok; id++)
        ok = describe(s, (BankId)id, err) && take_state(s, (BankId)id, &work, err);
    s->work_bytes = work;
    if (ok && take(s, &s->work, work, err) && sharded_rows_create(s, err)) {
        const GptHooks hooks = {s, wait_weights, send_grads};
        gpt_set_hooks(gpt, &hooks);
        return true;
    }
    sharded_free(s);
    return false;
}

void sharded_clear(ShardedOptimizer *s)
{
    const Ops *ops = gpt_ops(s->gpt);
    for (int id = 0; id < GPT_BANKS; id++) {
        const ShardedBank *shard = &s->bank[id];
        const size_t size = dtype_size(gpt_bank(s->gpt, (BankId)id)->dtype);
        ops->mem_zero(shard->first, (size_t)shard->owned * shard->n * size);
        ops->mem_zero(shard->second, (size_t)shard->owned * shard->n_state * size);
    }
}

void sharded_free(ShardedOptimizer *s)
{
    if (!s->gpt) return;
    const Ops *ops = gpt_ops(s->gpt);
    gpt_set_hooks(s->gpt, &(GptHooks){0});
    for (int id = 0; id < GPT_BANKS; id++) {
        ShardedBank *shard = &s->bank[id];
        ops->mem_free(shard->master);
        ops->mem_free(shard->grad);
        ops->mem_free(shard->first);
        ops->mem_free(shard->second);
        free(shard->lr_mul);
        free(shard->reduced);
        free(shard->renewed);
    }
    sharded_rows_free(s);
    ops->mem_free(s->work);
    memset(s, 0, sizeof *s);
}
