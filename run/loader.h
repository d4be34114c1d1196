// Training batches ahead of time: a thread draws from the stream (stream.h), puts config->sequences
// micro-batches of it side by side, sorts the positions by token, and keeps the next few batches
// ready, so that loader_next returns at once. One thread calls the functions below.
#ifndef RUN_LOADER_H
#define RUN_LOADER_H

#include "../ops/error.h"
#include "batch.h"
#include "stream.h"

typedef struct Loader Loader;

// Opens the stream, with its refusals, and starts the thread. On failure *loader is NULL.
bool loader_open(Loader **loader, const StreamConfig *config, const StreamCursor *start,
                 Error *err);
// The next batch, valid until the next call of loader_next or loader_close. The stream's refusal
// comes after the last whole batch, and then at every call.
bool loader_next(Loader *loader, const Batch **batch, Error *err);
// The cursor after the batch that loader_next returned last, whatever was prepared since.
StreamCursor loader_cursor(const Loader *loader);
// Stops the threads, also in the middle of preparing, and frees everything. NULL is allowed.
void loader_close(Loader *loader);

#endif
