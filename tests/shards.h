// Shards made by hand, in a directory that goes with the program.
#ifndef TESTS_SHARDS_H
#define TESTS_SHARDS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kByteVocab = 257, kByteBos = 256 };

static char shards_dir[] = "/tmp/turbomuon-shards-XXXXXX";

static inline void shards_dir_remove(void)
{
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", shards_dir);
    if (system(command) != 0) fprintf(stderr, "cannot remove %s\n", shards_dir);
}

// First statement of main: makes the directory, and removes it at exit.
static inline void shards_dir_make(void)
{
    if (!mkdtemp(shards_dir)) {
        perror(shards_dir);
        exit(1);
    }
    atexit(shards_dir_remove);
}

// The path of a file in the directory; 64 may be in use at a time.
static inline const char *shards_path(const char *name)
{
    static char path[64][128];
    static int next;
    char *p = path[next++ % 64];
    snprintf(p, sizeof path[0], "%s/%s", shards_dir, name);
    return p;
}

// Writes n_tokens tokens behind a header that claims header_tokens.
static inline const char *shards_write(const char *name, const uint16_t *tokens, int64_t n_tokens,
                                       int32_t header_tokens, int32_t vocab, int32_t floor)
{
    int32_t header[256] = {20240520, 1, header_tokens, vocab, floor};
    const char *path = shards_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(header, sizeof header, 1, file) != 1 ||
        fwrite(tokens, sizeof *tokens, (size_t)n_tokens, file) != (size_t)n_tokens ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

// SplitMix64.
static inline uint64_t shards_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// A shard of bytes: `lead` tokens without BOS, then documents of the given lengths (BOS counted),
// filled at random. Returns its token count; *tokens, where asked for, is the caller's to free.
static inline int64_t shards_docs(const char *name, int lead, const int *lengths, int n_docs,
                                  uint64_t seed, uint16_t **tokens)
{
    int64_t n = lead;
    for (int d = 0; d < n_docs; d++) n += lengths[d];
    uint16_t *t = malloc((size_t)n * sizeof *t + 1);
    for (int64_t i = 0; i < n; i++) t[i] = (uint16_t)(shards_random(&seed) % 256);
    int64_t at = lead;
    for (int d = 0; d < n_docs; at += lengths[d++]) t[at] = kByteBos;
    shards_write(name, t, n, (int32_t)n, kByteVocab, 0);
    if (tokens)
        *tokens = t;
    else
        free(t);
    return n;
}

#endif
