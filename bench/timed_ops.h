// A device whose every operation is timed: the CUDA device's table with each function wrapped in a
// pair of events. The model runs on it unchanged, and a bench reads how long each kind of call
// took.
#ifndef BENCH_TIMED_OPS_H
#define BENCH_TIMED_OPS_H

#include "../ops/ops.h"

enum { TIMED_MAX_ROWS = 96 };

// The calls of one operation with one shape.
typedef struct {
    char name[64];
    int calls;
    double us;           // on the GPU, of all calls
    double bytes, flops; // that all calls must move and do: each operand once, visible pairs alone
} TimedOp;

// What the arguments of a call do not say.
typedef struct {
    const StepState *step;          // tells a long window from a short one
    double short_pairs, long_pairs; // visible (query, key) pairs of the batch, one head
    double distinct_ids;            // rows that embed_scatter writes
} TimedBatch;

// The wrapped table of `ops` (the CUDA device), valid for ever. Calls pass through until timing
// starts. It records (Ops.record) only where timed_record says so, and never while it times.
const Ops *timed_ops(const Ops *ops);
void timed_record(bool on);
// Times the calls from now on. *batch is read at each of them. The host is given a head start of
// some milliseconds, so that the GPU never waits for it.
void timed_start(const TimedBatch *batch);
// Waits for the GPU and returns the rows in *rows (TIMED_MAX_ROWS), and their number.
int timed_stop(TimedOp *rows);
void timed_head_start(void); // alone: for a wall time without the host's

#endif
