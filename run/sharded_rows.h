// Rows of the embeddings' gradients that travel alone: a part of sharded.c.
#ifndef RUN_SHARDED_ROWS_H
#define RUN_SHARDED_ROWS_H

#include "sharded.h"

// Takes what the exchange needs, or nothing where gradients are wider than `real` and cannot be
// scattered. False when memory is short.
bool sharded_rows_create(ShardedOptimizer *sharded, Error *err);
void sharded_rows_free(ShardedOptimizer *sharded);
// Once the gradient of the last table is final: whether rows are exchanged, which a bank's
// sharded_rows_send then starts, table by table; tickets (tables of the bank).
bool sharded_rows_plan(ShardedOptimizer *sharded);
void sharded_rows_send(ShardedOptimizer *sharded, BankId id, CommTicket *tickets);
// After those: the ranks' mean of a bank's own rows into `grad` (tables of the bank, own rows, n).
void sharded_rows_gather(ShardedOptimizer *sharded, BankId id, void *grad);
// A checkpoint has given every rank the same pending gradients: all rows may be touched.
void sharded_rows_forget(ShardedOptimizer *sharded);

#endif
