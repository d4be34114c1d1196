// When the phases of one training step and its collectives ran on a rank's device, and where the
// one waited for the other: --timeline STEP. From time stamps in the device's two streams
// (Comm.stamp), which nothing waits for until the step after is done.
//
// A collective begins when the operations before its call and the collective before it are done,
// and its time includes waiting for the last rank. On CPUs the device stands still for all of it.
#ifndef RUN_TIMELINE_H
#define RUN_TIMELINE_H

#include <stdint.h>

#include "../ops/error.h"

struct Comm;

typedef enum { SPAN_PHASE, SPAN_WAIT, SPAN_COLLECTIVE } SpanKind;

typedef struct {
    SpanKind kind;
    int step; // that it belongs to, 1 is the first; of a wait, in which it occurs
    // "forward 2", "update attn"; "reduce-scatter attn 7"; a wait has the collective's name
    char name[48];
    size_t bytes;      // that a collective gives to each rank, or takes from it: its larger buffer
    double begin, end; // ms since the step began
} Span;

typedef struct {
    int step;
    double step_ms;          // of the device, from the first forward pass to the last update
    double communication_ms; // collectives within the step
    double exposed_ms;       // waits within the step
    Span *span;              // (n) that lie at least in part between the step's begin and `until`
    int n;
    double until; // the step's end, or that of its last collective under the next forward pass
} TimelineResult;

typedef struct Timeline Timeline;

// Takes notes of training step `step` of the run (1 is the first), and of what of its neighbours
// runs in the same time. Sets comm->timeline. NULL when memory is short.
Timeline *timeline_create(struct Comm *comm, int step, Error *err);
// NULL is allowed here and in the four below.
void timeline_free(Timeline *timeline);

// A training step begins, and is done; what comes between two is left out.
void timeline_step_begins(Timeline *timeline, int step);
void timeline_step_ends(Timeline *timeline);
// A phase of computation begins, after the one before has ended; NULL only ends that. Phases with
// the same name and no `of` are numbered in the step: "forward 1", "forward 2".
void timeline_phase(Timeline *timeline, const char *name, const char *of);
// Whether all of it has happened: the step after is done.
bool timeline_complete(const Timeline *timeline);

// What comm.h tells. `ticket` 0: the collective was done when the call returned.
void timeline_collective_begins(Timeline *timeline, const char *kind, size_t bytes);
void timeline_collective_ends(Timeline *timeline, uint64_t ticket);
void timeline_wait_begins(Timeline *timeline, uint64_t ticket);
void timeline_wait_ends(Timeline *timeline);

// What there is of it, once all operations of the device are done (Ops.sync). False when the step
// did not take place or had more spans than there is room for. `result` is freed by free(span).
bool timeline_result(Timeline *timeline, TimelineResult *result, Error *err);

// Files, whole or not at all: a row per span, and a picture with three lanes.
bool timeline_write_csv(const TimelineResult *result, const char *path, Error *err);
bool timeline_write_svg(const TimelineResult *result, const char *title, const char *finding,
                        const char *path, Error *err);

#endif
