// A step of Adam's adds up the gradients of all tokens since its last turn, which are few of the
// vocabulary. Each rank keeps which rows it has touched; in the step of Adam's turn all tell all,
// by one sum of bits that has the step's passes to arrive in, and every rank works out the same
// plan. Then an owner receives from each rank the rows that this one has touched, divided by the
// number of ranks, and adds them up in the ranks' order.
#include "sharded_rows.h"

static void *at(void *base, size_t index, size_t size) { return (char *)base + index * size; }
static const GptBank *table_of(const ShardedOptimizer *s) { return gpt_bank(s->gpt, BANK_EMBED); }

static bool take(ShardedOptimizer *s, void **p, size_t bytes, Error *err)
{
    const Ops *ops = gpt_ops(s->gpt);
    s->bytes += bytes;
    s->rows.bytes += bytes;
    *p = ops->mem_alloc(bytes);
    return *p || fail(err,
                      "out of memory: %.2f GB for rows of embeddings on %s; a smaller "
                      "--micro-batch frees some",
                      (double)bytes / 1e9, ops->name);
}

bool sharded_rows_create(ShardedOptimizer *s, Error *err)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = table_of(s);
    ShardedRows *r = &s->rows;
    const size_t n = (size_t)b->rows * (size_t)b->cols, size = dtype_size(b->dtype);
    const size_t ints = (size_t)b->rows * sizeof(int32_t);
    const int words = touched_words(b->rows) * s->comm->world;
    if (size > ops->real_size || words > COMM_MAX_SUM) return true;
    r->tables = 1 + gpt_bank(s->gpt, BANK_VALUE_EMBED)->count;
    return touched_create(&r->touched, b->rows, s->comm->world, s->comm->rank, err) &&
           take(s, &r->sent, (size_t)r->tables * n * size, err) &&
           take(s, &r->received, (size_t)r->tables * n * size, err) &&
           (b->dtype == ops->real_type || take(s, &r->real, n * ops->real_size, err)) &&
           take(s, (void **)&r->row, ints, err) && take(s, (void **)&r->id, ints, err) &&
           take(s, (void **)&r->order, ints, err);
}

void sharded_rows_free(ShardedOptimizer *s)
{
    const Ops *ops = gpt_ops(s->gpt);
    ShardedRows *r = &s->rows;
    touched_free(&r->touched);
    ops->mem_free(r->sent);
    ops->mem_free(r->received);
    ops->mem_free(r->real);
    ops->mem_free(r->row);
    ops->mem_free(r->id);
    ops->mem_free(r->order);
}

void sharded_rows_forget(ShardedOptimizer *s)
{
    if (s->rows.tables > 0) touched_add_all(&s->rows.touched);
}

void sharded_touch(ShardedOptimizer *s, const int32_t *ids, int n)
{
    if (s->rows.tables > 0) touched_add(&s->rows.touched, ids, n);
}

void sharded_begin(ShardedOptimizer *s, int step)
{
    Touched *t = &s->rows.touched;
    if (s->rows.tables == 0 || !recipe_adam_updates(gpt_recipe(s->gpt), step)) return;
    touched_tell(t);
    comm_label(s->comm, "rows", -1);
    comm_sum_start(s->comm, t->words, t->world * t->per);
    s->rows.told = true;
}

bool sharded_rows_plan(ShardedOptimizer *s)
{
    const Ops *ops = gpt_ops(s->gpt);
    ShardedRows *r = &s->rows;
    Touched *t = &r->touched;
    r->sparse = false;
    if (!r->told) return false;
    comm_sum_finish(s->comm, t->words, t->world * t->per);
    r->told = false;
    r->sparse = touched_plan(t);
    if (!r->sparse) return false;
    ops->mem_put(r->row, t->row, (size_t)t->n * sizeof *t->row);
    ops->mem_put(r->id, t->id, (size_t)t->n_received * sizeof *t->id);
    ops->mem_put(r->order, t->order, (size_t)t->n_received * sizeof *t->order);
    return true;
}

// Place of a bank's first table among all.
static int first_of(BankId id) { return id == BANK_EMBED ? 0 : 1; }

void sharded_rows_send(ShardedOptimizer *s, BankId id, CommTicket *tickets)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedRows *r = &s->rows;
    const size_t n = (size_t)b->rows * (size_t)b->cols, size = dtype_size(b->dtype);
    for (int k = 0; k < b->count; k++) {
        const size_t place = (size_t)(first_of(id) + k) * n;
        void *sent = at(r->sent, place, size);
        ops->gather_rows(sent, at(b->grad, (size_t)k * n, size), b->dtype, r->row,
                         1.0 / s->comm->world, r->touched.n, b->cols);
        comm_label(s->comm, b->name, k);
        tickets[k] = comm_exchange(s->comm, at(r->received, place, size), sent, r->touched.sent,
                                   r->touched.received, (size_t)b->cols * size);
    }
}

void sharded_rows_gather(ShardedOptimizer *s, BankId id, void *grad)
{
    const Ops *ops = gpt_ops(s->gpt);
    const GptBank *b = gpt_bank(s->gpt, id);
    ShardedRows *r = &s->rows;
    const size_t n = (size_t)b->rows * (size_t)b->cols, size = dtype_size(b->dtype);
    const size_t own = n / (size_t)s->comm->world;
    const size_t coming = (size_t)r->touched.n_received * (size_t)b->cols;
    for (int k = 0; k < b->count; k++) {
        void *received = at(r->received, (size_t)(first_of(id) + k) * n, size);
        void *mean = at(grad, (size_t)k * own, size);
        if (r->real) ops->load_param(r->real, ops->real_type, received, b->dtype, coming);
        ops->mem_zero(mean, own * size);
        ops->embed_scatter(mean, b->dtype, r->real ? r->real : received, r->id, r->order,
                           r->touched.n_received, b->cols);
    }
}
