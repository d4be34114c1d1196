// Writes documents into shards: PREFIX_train_000001.bin and on, PREFIX_val_000000.bin and on.
//
// A shard holds whole documents: one that does not fit begins the next shard. Only a document that
// takes more than half of a shard by itself is cut there, and goes on in the next one behind an end
// of text of its own, since no shard may be without one.
#ifndef RUN_SHARD_WRITER_H
#define RUN_SHARD_WRITER_H

#include <stdint.h>

#include "../ops/error.h"
#include "atomic_file.h"

typedef struct {
    char prefix[FILE_PATH_MAX / 2]; // its folder is made
    int vocab_size;                 // the last id is the end of text, with which documents begin
    int64_t shard_tokens;           // most tokens of a shard, 2 to 2^30
    int64_t cut;                    // most tokens of a document, end of text included; 0: no limit
    double val_fraction;            // of the documents go to validation, every (1 / fraction)th one
} ShardWriterConfig;

typedef struct {
    const char *name; // "train" or "val"
    uint16_t *tokens; // (count) of the shard that is being filled, the last document's at `start`
    int64_t count, capacity, start;
    int number;                      // of that shard
    int64_t total_tokens, documents; // of all shards, that one included
} ShardSeries;

typedef struct {
    ShardWriterConfig config;
    ShardSeries train, val;
    ShardSeries *at;                  // where the current document goes, NULL before the first
    int64_t documents, length;        // all documents; tokens of the current one
    int64_t longest;                  // the longest one's tokens
    int64_t shard_cuts;               // how often a document was cut for a shard's end
    void (*report)(const char *line); // told of each shard written; may be NULL
} ShardWriter;

// Refuses a configuration out of range, and a prefix whose shards exist.
bool shard_writer_open(ShardWriter *writer, const ShardWriterConfig *config, Error *err);
// Appends tokens; each end of text begins a document, the very first token must be one. A document
// may come in any number of calls.
bool shard_writer_add(ShardWriter *writer, const uint16_t *tokens, int64_t count, Error *err);
// Writes what is left. Refuses to when nothing came, or when a split was asked for and one side of
// it got no document.
bool shard_writer_finish(ShardWriter *writer, Error *err);
void shard_writer_free(ShardWriter *writer); // also right on zeros, and twice

#endif
