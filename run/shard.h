// A file of tokens in the FineWeb format (specification 6.1), checked whole when it is opened.
//
//     bytes 0..1023   256 int32: [0] 20240520, [1] 1 (version), [2] number of tokens,
//                     [3] vocabulary (0: GPT-2's 50257), [4] floor (0: unknown), the rest ignored
//     then            the tokens, uint16; every document starts with BOS
//
// BOS is the highest token of the vocabulary: 50256 for GPT-2, 256 for bytes. The floor is the
// entropy of the process that wrote a synthetic corpus, in 1e-6 nats per token: no model's expected
// loss is below it. All numbers are little-endian, as is every machine this program runs on.
#ifndef RUN_SHARD_H
#define RUN_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

enum { SHARD_HEADER_BYTES = 1024, SHARD_MAGIC = 20240520 };

typedef struct {
    const uint16_t *tokens; // (n_tokens)
    int64_t n_tokens;
    int32_t *bos; // (n_bos) where the documents start, ascending; at least one
    int64_t n_bos;
    double floor; // nats per token, 0 when unknown
    void *map;    // the mapped file, NULL after shard_parse
    size_t map_size;
} Shard;

// Reads a shard that lies in memory, 2-byte aligned; `tokens` points into it. `name` is for
// messages. Refuses a header that is not a shard's, a size that contradicts it, a vocabulary other
// than vocab_size (2..65536), a token outside it, and a shard without BOS.
bool shard_parse(Shard *shard, const void *data, size_t size, const char *name, int vocab_size,
                 Error *err);
// Maps the file and parses it, which also brings its pages into memory. Refuses, besides, what
// cannot be opened, is not a regular file, or is empty. A file that someone shortens while it is
// mapped kills the program with SIGBUS: replace shards by renaming, never in place.
bool shard_open(Shard *shard, const char *path, int vocab_size, Error *err);
// Frees what parse or open took; also right on a Shard of zeros, and twice.
void shard_close(Shard *shard);
// The header's checks and the file's size alone, without reading the tokens.
bool shard_probe(const char *path, int vocab_size, int64_t *n_tokens, Error *err);

typedef struct {
    char **path; // (count) in byte order of the names
    int count;
} ShardList;

// The files that a shell pattern matches, at least one.
bool shard_list(ShardList *list, const char *pattern, Error *err);
void shard_list_free(ShardList *list);

#endif
