#include "val.h"

static bool set_tokens(Val *val, const char *path, Error *err)
{
    const ValConfig *c = &val->config;
    int64_t fit = (val->shard.n_tokens - 1) / c->chunk * c->chunk;
    val->tokens = c->tokens ? c->tokens : fit;
    if (fit == 0)
        return fail(err,
                    "%s holds %lld tokens, and one validation chunk of %d needs one more than "
                    "that: give a larger file, or a smaller --val-chunk",
                    path, (long long)val->shard.n_tokens, c->chunk);
    if (val->tokens > fit)
        return fail(err,
                    "%s holds %lld tokens, and validating on %lld needs one more than that: "
                    "give a larger file, or --val-tokens %lld at most",
                    path, (long long)val->shard.n_tokens, (long long)val->tokens, (long long)fit);
    if (val->tokens % c->chunk != 0)
        return fail(err, "--val-tokens %lld is not a multiple of --val-chunk %d: use %lld",
                    (long long)val->tokens, c->chunk,
                    (long long)(val->tokens / c->chunk + 1) * c->chunk);
    val->calls = (int)((val->tokens / c->chunk + c->world - 1) / c->world);
    return true;
}

bool val_open(Val *val, const ValConfig *config, Error *err)
{
    *val = (Val){.config = *config};
    const ValConfig *c = config;
    if (c->chunk < 1 || c->tokens < 0 || c->world < 1 || c->rank < 0 || c->rank >= c->world)
        return fail(err, "validation: tokens %lld, chunk %d, rank %d of %d are not a configuration",
                    (long long)c->tokens, c->chunk, c->rank, c->world);
    ShardList list;
    if (!shard_list(&list, c->files, err)) return false;
    bool ok = shard_open(&val->shard, list.path[0], c->vocab_size, err) &&
              set_tokens(val, list.path[0], err);
    shard_list_free(&list);
    if (ok && !batch_alloc(&val->batch, c->chunk, 1))
        ok = fail(err, "no memory for validation chunks of %d tokens", c->chunk);
    if (!ok) val_close(val);
    return ok;
}

const Batch *val_batch(Val *val, int call)
{
    int n = val->config.chunk;
    int64_t begin = ((int64_t)call * val->config.world + val->config.rank) * n;
    if (begin >= val->tokens) return NULL;
    Batch *batch = &val->batch;
    const uint16_t *token = val->shard.tokens + begin;
    uint16_t bos = (uint16_t)(val->config.vocab_size - 1);
    int docs = 0;
    for (int i = 0; i <= n; i++) batch->ids[i] = token[i];
    for (int i = 0; i < n; i++) batch->targets[i] = token[i + 1];
    for (int i = 1; i < n; i++)
        if (token[i] == bos) batch->cu[++docs] = i;
    batch->cu[++docs] = n;
    batch->n_docs = docs;
    return batch;
}

const uint16_t *val_targets(const Val *val) { return val->shard.tokens + 1; }

void val_close(Val *val)
{
    shard_close(&val->shard);
    batch_free(&val->batch);
    *val = (Val){0};
}
