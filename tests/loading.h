// Loaders over shards made by hand, for the tests of run/loader.
#ifndef TESTS_LOADING_H
#define TESTS_LOADING_H

#include "../run/loader.h"

#include "naive_stream.h"
#include "shards.h"

// A stream over the shards of one test, all named NAME_*.bin; N = 8, one rank, one epoch.
static inline StreamConfig config_of(const char *name)
{
    char pattern[64];
    snprintf(pattern, sizeof pattern, "%s_*.bin", name);
    return (StreamConfig){.files = shards_path(pattern),
                          .vocab_size = kByteVocab,
                          .micro_batch = 8,
                          .max_doc = 100,
                          .world = 1,
                          .epochs = 1};
}

static inline Loader *open_at(const StreamConfig *config, const StreamCursor *start)
{
    Loader *loader;
    Error err = {""};
    CHECK(loader_open(&loader, config, start, &err), "%s", err.text);
    return loader;
}

static inline void open_refused(const StreamConfig *config, const StreamCursor *start,
                                const char *text)
{
    Loader *loader;
    Error err = {""};
    bool opened = loader_open(&loader, config, start, &err);
    CHECK(!opened && !loader && strstr(err.text, text) && !strchr(err.text, '\n'), "'%s'",
          err.text);
    loader_close(loader);
}

static inline const Batch *next(Loader *loader)
{
    const Batch *batch;
    Error err = {""};
    CHECK(loader_next(loader, &batch, &err), "%s", err.text);
    return batch;
}

// The stream ends here, and goes on saying so.
static inline void next_refused(Loader *loader, const char *text)
{
    for (int i = 0; i < 2; i++) {
        const Batch *batch;
        Error err = {""};
        CHECK(!loader_next(loader, &batch, &err) && !batch);
        CHECK(strstr(err.text, text) && !strchr(err.text, '\n'), "'%s'", err.text);
    }
}

// Three shards of random documents, also as the naive stream reads them.
typedef struct {
    StreamConfig config;
    uint16_t *tokens[3];
    int64_t n_tokens[3];
} Shards3;

static inline Shards3 three_shards(const char *name, uint64_t seed, int max_length, int n_docs)
{
    Shards3 s = {.config = config_of(name)};
    for (int f = 0; f < 3; f++) {
        int lengths[400];
        for (int d = 0; d < n_docs; d++)
            lengths[d] = 1 + (int)(shards_random(&seed) % (uint64_t)max_length);
        char file[64];
        snprintf(file, sizeof file, "%s_%d.bin", name, f);
        int lead = (int)(shards_random(&seed) % 6);
        s.n_tokens[f] = shards_docs(file, lead, lengths, n_docs, seed, &s.tokens[f]);
    }
    return s;
}

static inline void free3(Shards3 *s)
{
    for (int f = 0; f < 3; f++) free(s->tokens[f]);
}

static inline Naive naive_of(const Shards3 *s)
{
    const StreamConfig *c = &s->config;
    Naive naive = {.n_files = 3,
                   .bos = kByteBos,
                   .micro_batch = c->micro_batch,
                   .max_doc = c->max_doc,
                   .world = c->world,
                   .epochs = c->epochs};
    for (int f = 0; f < 3; f++) {
        naive.tokens[f] = s->tokens[f];
        naive.n_tokens[f] = s->n_tokens[f];
    }
    naive_alloc(&naive);
    return naive;
}

#endif
