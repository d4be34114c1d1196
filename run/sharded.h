// The two optimizers of the recipe over ranks that share the parameters (docs/ranks.md).
//
// Each rank keeps fp32 parameters and optimizer state of what it owns (partition.h), a full
// gradient, and the full working copies that the model reads. In the last micro-batch of a step the
// gradients of a bucket are reduce-scattered as soon as backward has passed it; owners update; the
// new working copies are gathered under the next forward pass, which waits for them layer by layer.
// The gates and scalars, a few hundred numbers, are all-reduced and updated by every rank alike.
// Source: specification 7; the numbers are those of run/optimizer.h but for the order of sums.
#ifndef RUN_SHARDED_H
#define RUN_SHARDED_H

#include "../gpt/gpt.h"
#include "comm.h"
#include "touched.h"

typedef struct {
    bool copied;          // every rank has all of it; the fields of parts are unused
    int items;            // what is divided: matrices, or W-ths of tensors
    int owned;            // of this rank
    size_t n;             // numbers in an item
    size_t n_state;       // in its second state
    void *master;         // (owned, n): stored parameters of a NorMuon bank; Adam's lie in the bank
    void *grad;           // (owned, n): the ranks' mean
    void *first, *second; // as in Optimizer, (owned, n) and (owned, n_state)
    double *lr_mul;       // (owned)
    CommTicket *reduced, *renewed; // of every bucket: its gradients, its working copies
    int sent;                      // buckets whose gradients are on their way
} ShardedBank;

// The embeddings' gradients, of which ranks exchange the rows that are not zero where those are
// fewer than all (sharded_rows.c).
typedef struct {
    Touched touched;
    bool told, sparse;         // the ranks are telling one another their rows; they exchange rows
    int tables;                // the embedding, and the value embeddings behind it
    void *sent, *received;     // (tables, rows, n)
    void *real;                // (rows, n) received rows as `real`, where they are not
    int32_t *row, *id, *order; // on the device, as in Touched
    size_t bytes;              // taken for these
} ShardedRows;

typedef struct {
    Gpt *gpt;
    Comm *comm;
    ShardedBank bank[GPT_BANKS];
    ShardedRows rows;
    void *work;
    size_t bytes, work_bytes; // taken in all, and for `work`
    bool sending, adam;       // this is the step's last micro-batch; and Adam's turn
} ShardedOptimizer;

// The model's parameters and gradients as a checkpoint holds them, whole.
typedef enum { STATE_PARAM, STATE_FIRST, STATE_SECOND, STATE_GRAD } StatePart;

// Takes zeroed state for what this rank owns, and sets the model's hooks. Refuses ranks that do not
// divide the vocabulary's rows, and naming the size, when memory is short.
bool sharded_create(ShardedOptimizer *sharded, Gpt *gpt, Comm *comm, Error *err);
void sharded_free(ShardedOptimizer *sharded);
void sharded_clear(ShardedOptimizer *sharded); // zeroes the state, as it was created
// Call once when the model's initial values, the same on every rank, or those of a checkpoint are
// in place: owners keep their parameters, and the rest of the matrices' is given back.
void sharded_adopt(ShardedOptimizer *sharded);
// Before the first micro-batch of training step `step`: all tokens of this rank's, by
// sharded_touch, as often as there are micro-batches; then sharded_begin, on every rank or on none.
// Without them the embeddings' gradients travel whole.
void sharded_touch(ShardedOptimizer *sharded, const int32_t *ids, int n);
void sharded_begin(ShardedOptimizer *sharded, int step);
// Before the last micro-batch of training step `step`: its backward pass sends the gradients.
void sharded_send(ShardedOptimizer *sharded, int step);
// After that micro-batch: the update (optimizer_step in optimizer.h).
void sharded_step(ShardedOptimizer *sharded, int step);
// Collects a bank's part on the host of rank 0, others give NULL; all ranks call it. Pending
// gradients (STATE_GRAD) become the ranks' mean, on every rank. False when memory is short.
bool sharded_get(ShardedOptimizer *sharded, BankId id, StatePart part, void *host, Error *err);
// Takes what this rank keeps of a bank's part; `host` holds all of it. Before sharded_adopt.
void sharded_put(ShardedOptimizer *sharded, BankId id, StatePart part, const void *host);

#endif
