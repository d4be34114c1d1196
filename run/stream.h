// The stream of training micro-batches (specification 6.2), one call after another.
//
// A micro-batch is N + 1 tokens: whole documents from consecutive BOS on, each cut to max_doc, the
// last one cut to fit; the cut-off parts are dropped. Its first N tokens are the inputs, its last N
// the targets. If the documents before sum to exactly N, one more gives its BOS as the last target
// and stands in `cu` as an empty sequence.
//
// A call builds one micro-batch for each of W ranks, in order; each rank reads the same stream and
// keeps its own. When a shard cannot complete a call, the whole call is discarded and repeated from
// the start of the next shard, so within a shard the micro-batches are the same for every W, and
// after a switch they are not (specification 6.4). While a shard is read, a thread opens and checks
// the one after it.
#ifndef RUN_STREAM_H
#define RUN_STREAM_H

#include <pthread.h>

#include "../ops/error.h"
#include "batch.h"
#include "shard.h"

typedef struct {
    const char *files; // shell pattern of the training shards; used in byte order of their names
    int vocab_size;
    int micro_batch; // N
    int max_doc;     // tokens that a document is cut to
    int rank, world; // W
    int epochs;      // passes over the shards, 0: without end
    int sequences;   // micro-batches that the loader puts side by side into one batch; 0 is 1
    int64_t total;   // micro-batches of all ranks that the run draws from its very start to its
                     // end, 0: unknown; data that cannot hold them are refused at once
} StreamConfig;

// Where the next call starts. Plain numbers, to be kept in a checkpoint; all zeros is the start. A
// run resumed from the cursor of its last batch draws the same batches as one never stopped.
typedef struct {
    int64_t epoch, shard, bos; // pass, index of the file, index of the document in it
    int64_t micro_batches;     // drawn so far, by all ranks: calls * W
    int64_t n_shards;          // files given, and a hash of their base names and token counts; more
    uint64_t data_hash;        // files may be added, in the first epoch, behind those there were
} StreamCursor;

// A shard being opened by its own thread.
typedef struct {
    pthread_t thread;
    bool running, ok;
    const char *path;
    int vocab_size;
    Shard shard;
    Error error;
} Preload;

typedef struct {
    StreamConfig config; // `files` is not read after stream_open
    ShardList list;
    int64_t *list_tokens; // (list.count)
    Shard shard;          // the current one
    Preload next;         // the one after it
    StreamCursor at;
} Stream;

// Starts at *start (NULL: the beginning). Refuses a pattern without files, a damaged header in any
// shard, anything wrong with the first one, a cursor that does not belong to the data, and too
// little data for `total`. Closing is right also after a failure.
bool stream_open(Stream *stream, const StreamConfig *config, const StreamCursor *start, Error *err);
// Makes one call: this rank's micro-batch into *batch (of N tokens), and stream->at behind it.
// Refuses when the shards ran out, or one is damaged or too small for a call; after that, only
// close.
bool stream_next(Stream *stream, Batch *batch, Error *err);
void stream_close(Stream *stream);

#endif
