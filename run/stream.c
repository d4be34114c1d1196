#include "stream.h"

#include <string.h>

// ---- the order of shards -----------------------------------------------------------------------

static void *preload_main(void *argument)
{
    Preload *p = argument;
    p->ok = shard_open(&p->shard, p->path, p->vocab_size, &p->error);
    return NULL;
}

static bool preload_finish(Preload *p)
{
    pthread_join(p->thread, NULL);
    p->running = false;
    return p->ok;
}

// Moves to the start of the next shard; false after the last one of the last epoch.
static bool cursor_advance(const Stream *s, StreamCursor *at)
{
    at->bos = 0;
    if (++at->shard < s->list.count) return true;
    at->shard = 0;
    at->epoch++;
    return s->config.epochs == 0 || at->epoch < s->config.epochs;
}

static bool preload_start(Stream *s, Error *err)
{
    StreamCursor next = s->at;
    if (!cursor_advance(s, &next)) return true;
    Preload *p = &s->next;
    p->path = s->list.path[next.shard];
    p->vocab_size = s->config.vocab_size;
    if (pthread_create(&p->thread, NULL, preload_main, p) != 0)
        return fail(err, "cannot start the thread that opens the next shard");
    p->running = true;
    return true;
}

static bool fail_exhausted(const Stream *s, Error *err)
{
    const StreamConfig *c = &s->config;
    long long n = c->micro_batch, drawn = s->at.micro_batches;
    char need[64] = "more";
    if (c->total > drawn)
        snprintf(need, sizeof need, "%lld more tokens", ((long long)c->total - drawn) * n);
    return fail(err,
                "the training data ran out after %lld tokens, %s are needed for the remaining "
                "steps: %d training shards were given, with --epochs %d; give more shards, or use "
                "--epochs N to cycle them in name order (0: without end)",
                drawn * n, need, s->list.count, c->epochs);
}

static bool next_shard(Stream *s, Error *err)
{
    if (s->at.bos == 0) {
        const StreamConfig *c = &s->config;
        return fail(err,
                    "%s cannot give even one call: %d micro-batches of %d + 1 tokens from "
                    "documents cut to %d; give larger shards, or fewer tokens per micro-batch",
                    s->list.path[s->at.shard], c->world, c->micro_batch, c->max_doc);
    }
    StreamCursor next = s->at;
    if (!cursor_advance(s, &next)) return fail_exhausted(s, err);
    if (!preload_finish(&s->next)) {
        *err = s->next.error;
        return false;
    }
    shard_close(&s->shard);
    s->shard = s->next.shard;
    s->next.shard = (Shard){0};
    s->at = next;
    return preload_start(s, err);
}

// ---- micro-batches -----------------------------------------------------------------------------

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Collects one micro-batch from document *doc on and moves *doc behind it; with a NULL batch, only
// moves. False when the shard has too few documents left.
static bool collect(const Shard *shard, const StreamConfig *c, int64_t *doc, Batch *batch)
{
    int64_t wanted = (int64_t)c->micro_batch + 1, n = 0;
    int docs = 0;
    while (n < wanted) {
        if (*doc == shard->n_bos) return false;
        int64_t begin = shard->bos[*doc];
        int64_t end = ++*doc < shard->n_bos ? shard->bos[*doc] : shard->n_tokens;
        int64_t length = smaller(end - begin, smaller(c->max_doc, wanted - n));
        if (batch) {
            for (int64_t i = 0; i < length; i++) batch->ids[n + i] = shard->tokens[begin + i];
            batch->cu[++docs] = (int32_t)smaller(n + length, c->micro_batch);
        }
        n += length;
    }
    if (batch) {
        memcpy(batch->targets, batch->ids + 1, (size_t)c->micro_batch * sizeof *batch->ids);
        batch->n_docs = docs;
    }
    return true;
}

bool stream_next(Stream *s, Batch *batch, Error *err)
{
    const StreamConfig *c = &s->config;
    for (;;) {
        int64_t doc = s->at.bos;
        int rank = 0;
        while (rank < c->world && collect(&s->shard, c, &doc, rank == c->rank ? batch : NULL))
            rank++;
        if (rank == c->world) {
            s->at.bos = doc;
            s->at.micro_batches += c->world;
            return true;
        }
        if (!next_shard(s, err)) return false;
    }
}

// ---- opening and closing -----------------------------------------------------------------------

// FNV-1a over base name, with its closing zero, and token count of each of the first n files.
static uint64_t data_hash(const Stream *s, int64_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < n; i++) {
        const char *slash = strrchr(s->list.path[i], '/');
        const char *base = slash ? slash + 1 : s->list.path[i];
        for (size_t k = 0; k <= strlen(base); k++)
            hash = (hash ^ (unsigned char)base[k]) * 0x100000001b3u;
        for (int shift = 0; shift < 64; shift += 8)
            hash = (hash ^ ((uint64_t)s->list_tokens[i] >> shift & 255)) * 0x100000001b3u;
    }
    return hash;
}

static bool cursor_belongs(const Stream *s, const StreamCursor *start, Error *err)
{
    long long given = s->list.count, had = start->n_shards, pass = start->epoch + 1;
    if (had < 0 || start->epoch < 0 || start->shard < 0 || start->shard >= had || start->bos < 0 ||
        start->micro_batches < 0)
        return fail(err, "the checkpoint's place in the training data is damaged: resume from "
                         "another checkpoint");
    if (had > given || data_hash(s, had) != start->data_hash)
        return fail(err,
                    "the training data changed since the checkpoint: it knew %lld shards, '%s' "
                    "gives %lld, and names or sizes differ; give the same shards (more may follow "
                    "them in name order)",
                    had, s->config.files, given);
    if (had < given && start->epoch > 0)
        return fail(err,
                    "the checkpoint is in pass %lld over %lld shards, and %lld are given now: "
                    "shards can be added in the first pass only; give the same ones",
                    pass, had, given);
    if (s->config.epochs > 0 && pass > s->config.epochs)
        return fail(err,
                    "the checkpoint is in pass %lld over the training data, and --epochs is %d: "
                    "use at least --epochs %lld, or 0",
                    pass, s->config.epochs, pass);
    return true;
}

// The remaining steps cannot take more than what is left of the last epoch's shards.
static bool enough(const Stream *s, Error *err)
{
    const StreamConfig *c = &s->config;
    if (c->epochs == 0 || c->total == 0) return true;
    int64_t all = 0, passed = 0;
    for (int i = 0; i < s->list.count; i++) {
        all += s->list_tokens[i];
        if (i < s->at.shard) passed += s->list_tokens[i];
    }
    int64_t left = all * (c->epochs - s->at.epoch) - passed;
    int64_t need = (c->total - s->at.micro_batches) * c->micro_batch;
    if (need <= left) return true;
    return fail(
        err,
        "the training data are too few: %lld tokens are needed for the remaining steps, "
        "%lld are left in the %d training shards given, with --epochs %d; give more shards, "
        "or use --epochs N to cycle them in name order (0: without end)",
        (long long)need, (long long)left, s->list.count, c->epochs);
}

// The files, their sizes, the place to start, and the shard there.
static bool open_data(Stream *s, const StreamCursor *start, Error *err)
{
    const StreamConfig *c = &s->config;
    if (!shard_list(&s->list, c->files, err)) return false;
    s->list_tokens = calloc((size_t)s->list.count, sizeof *s->list_tokens);
    if (!s->list_tokens) return fail(err, "no memory for the list of training shards");
    for (int i = 0; i < s->list.count; i++)
        if (!shard_probe(s->list.path[i], c->vocab_size, &s->list_tokens[i], err)) return false;
    if (start && start->n_shards != 0) {
        if (!cursor_belongs(s, start, err)) return false;
        s->at = *start;
    }
    s->at.n_shards = s->list.count;
    s->at.data_hash = data_hash(s, s->list.count);
    if (!enough(s, err)) return false;
    if (!shard_open(&s->shard, s->list.path[s->at.shard], c->vocab_size, err)) return false;
    if (s->at.bos > s->shard.n_bos)
        return fail(err,
                    "the training data changed since the checkpoint: it is at document %lld "
                    "of %s, which has %lld; give the same shards",
                    (long long)s->at.bos, s->list.path[s->at.shard], (long long)s->shard.n_bos);
    return true;
}

bool stream_open(Stream *s, const StreamConfig *config, const StreamCursor *start, Error *err)
{
    *s = (Stream){.config = *config};
    const StreamConfig *c = config;
    if (c->micro_batch < 1 || c->max_doc < 1 || c->world < 1 || c->rank < 0 ||
        c->rank >= c->world || c->epochs < 0 || c->total < 0)
        return fail(err,
                    "stream: micro_batch %d, max_doc %d, rank %d of %d, epochs %d, total %lld "
                    "are not a configuration",
                    c->micro_batch, c->max_doc, c->rank, c->world, c->epochs, (long long)c->total);
    if (open_data(s, start, err) && preload_start(s, err)) return true;
    stream_close(s);
    return false;
}

void stream_close(Stream *s)
{
    if (s->next.running) preload_finish(&s->next);
    shard_close(&s->shard);
    shard_close(&s->next.shard);
    shard_list_free(&s->list);
    free(s->list_tokens);
    *s = (Stream){0};
}
