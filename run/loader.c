#include "loader.h"

enum { kRing = 4 }; // batches prepared, the one in the caller's hands counted

struct Loader {
    Stream stream;         // the builder's once it runs
    Batch one;             // a sequence of several
    int32_t *counts;       // (vocab_size + 1) scratch of the sorting
    StreamCursor returned; // after the batch returned last; the caller's

    // Shared. Slot i % kRing of the ring is the builder's for i >= built, the caller's below.
    pthread_mutex_t lock;
    pthread_cond_t changed; // never waited for by both: the ring is not full and empty at once
    pthread_t builder;
    bool stop, failed;
    Error error;                    // why the builder ended; the caller's when failed
    int64_t built, taken, released; // released <= taken <= built <= released + kRing
    Batch batch[kRing];
    StreamCursor after[kRing];
};

static bool build(Loader *l, Batch *batch)
{
    const int n = l->one.n_tokens;
    bool ok = true;
    for (int at = 0; at < batch->n_tokens && ok; at += n) {
        ok = stream_next(&l->stream, &l->one, &l->error);
        if (ok) batch_append(batch, at, &l->one);
    }
    if (!ok) return false;
    gpt_sort_ids(batch->order, l->counts, batch->ids, batch->n_tokens, l->stream.config.vocab_size);
    return batch->has_order = true;
}

static void *builder_main(void *argument)
{
    Loader *l = argument;
    pthread_mutex_lock(&l->lock);
    while (!l->stop && !l->failed) {
        if (l->built == l->released + kRing) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        int slot = (int)(l->built % kRing);
        pthread_mutex_unlock(&l->lock);
        bool ok = build(l, &l->batch[slot]);
        l->after[slot] = l->stream.at;
        pthread_mutex_lock(&l->lock);
        l->built += ok;
        l->failed = !ok;
        pthread_cond_signal(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

bool loader_next(Loader *l, const Batch **batch, Error *err)
{
    *batch = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->released < l->taken) { // the caller is done with the batch it had
        l->released = l->taken;
        pthread_cond_signal(&l->changed);
    }
    while (l->taken == l->built && !l->failed) pthread_cond_wait(&l->changed, &l->lock);
    bool ok = l->taken < l->built;
    if (ok) {
        int slot = (int)(l->taken++ % kRing);
        *batch = &l->batch[slot];
        l->returned = l->after[slot];
    } else {
        *err = l->error;
    }
    pthread_mutex_unlock(&l->lock);
    return ok;
}

StreamCursor loader_cursor(const Loader *l) { return l->returned; }

static void loader_free(Loader *l)
{
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    stream_close(&l->stream);
    for (int i = 0; i < kRing; i++) batch_free(&l->batch[i]);
    batch_free(&l->one);
    free(l->counts);
    free(l);
}

static bool batches_alloc(Loader *l, const StreamConfig *config, Error *err)
{
    const int sequences = config->sequences > 1 ? config->sequences : 1;
    const int n_tokens = sequences * config->micro_batch;
    bool ok = batch_alloc(&l->one, config->micro_batch, 1);
    l->counts = calloc((size_t)config->vocab_size + 1, sizeof *l->counts);
    for (int i = 0; i < kRing && ok; i++) ok = batch_alloc(&l->batch[i], n_tokens, sequences);
    return (ok && l->counts) || fail(err, "no memory for micro-batches of %d tokens", n_tokens);
}

bool loader_open(Loader **loader, const StreamConfig *config, const StreamCursor *start, Error *err)
{
    *loader = NULL;
    Loader *l = calloc(1, sizeof *l);
    if (!l) return fail(err, "no memory for the loader");
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    bool ok = stream_open(&l->stream, config, start, err) && batches_alloc(l, config, err);
    if (ok) {
        l->returned = l->stream.at;
        if (pthread_create(&l->builder, NULL, builder_main, l) != 0)
            ok = fail(err, "cannot start the thread that prepares batches");
    }
    if (ok)
        *loader = l;
    else
        loader_free(l);
    return ok;
}

void loader_close(Loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->builder, NULL);
    loader_free(l);
}
