#include "timeline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"

enum { MAX_SPANS = 4096, STAMPS = 2 * MAX_SPANS + 2 };

typedef struct {
    Span span;
    int begin, end;  // stamps; end 0: it has not ended
    uint64_t ticket; // of a collective, or of the one that is waited for
} Note;

struct Timeline {
    Comm *comm;
    int wanted, step; // the step of the picture; that which runs, 0 between steps
    int first, last;  // stamps at the wanted step's begin and end; last 0: it has not ended
    bool complete;
    Note note[MAX_SPANS];
    int n, stamps; // of which 0 is none
    bool full;
    int phase, numbers; // the note of the phase that runs, or -1; micro-batches so far in the step
    int collective, wait;
    uint64_t waited; // the last collective that was waited for
};

Timeline *timeline_create(Comm *comm, int step, Error *err)
{
    Timeline *t = calloc(1, sizeof *t);
    if (!t || !comm->stamps(comm, STAMPS)) {
        free(t);
        fail(err, "out of memory for the time stamps of --timeline %d", step);
        return NULL;
    }
    *t = (Timeline){.comm = comm, .wanted = step, .phase = -1, .collective = -1, .wait = -1};
    comm->timeline = t;
    return t;
}

void timeline_free(Timeline *t)
{
    if (t) t->comm->timeline = NULL;
    free(t);
}

// ---- notes -------------------------------------------------------------------------------------

static int stamp(Timeline *t, CommStream stream)
{
    if (t->stamps + 1 >= STAMPS) t->full = true;
    if (t->full) return 0;
    t->comm->stamp(t->comm, ++t->stamps, stream);
    return t->stamps;
}

// A note that begins now, or -1 when nobody wants it: steps before the one before and after the one
// after are not noted.
static int begin(Timeline *t, SpanKind kind)
{
    if (abs(t->step - t->wanted) > 1 || t->step == 0 || t->complete) return -1;
    if (t->n == MAX_SPANS) t->full = true;
    if (t->full) return -1;
    t->note[t->n] = (Note){.span = {.kind = kind, .step = t->step}};
    t->note[t->n].begin = stamp(t, COMM_COMPUTE);
    return t->n++;
}

static void end(Timeline *t, int *note, CommStream stream)
{
    if (*note >= 0) t->note[*note].end = stamp(t, stream);
    *note = -1;
}

void timeline_step_begins(Timeline *t, int step)
{
    if (!t) return;
    t->step = step;
    t->numbers = 0;
    if (step == t->wanted) t->first = stamp(t, COMM_COMPUTE);
}

void timeline_step_ends(Timeline *t)
{
    if (!t) return;
    timeline_phase(t, NULL, NULL);
    if (t->step == t->wanted) t->last = stamp(t, COMM_COMPUTE);
    if (t->step == t->wanted + 1) t->complete = true;
    t->step = 0;
}

bool timeline_complete(const Timeline *t) { return t && t->complete; }

void timeline_phase(Timeline *t, const char *name, const char *of)
{
    if (!t) return;
    end(t, &t->phase, COMM_COMPUTE);
    if (!name || (t->phase = begin(t, SPAN_PHASE)) < 0) return;
    char *text = t->note[t->phase].span.name;
    const size_t size = sizeof t->note->span.name;
    if (!strcmp(name, "forward")) t->numbers++;
    if (of)
        snprintf(text, size, "%s %s", name, of);
    else
        snprintf(text, size, "%s %d", name, t->numbers);
}

void timeline_collective_begins(Timeline *t, const char *kind, size_t bytes)
{
    const CommLabel *label = &t->comm->label;
    if (t->step > t->wanted || (t->collective = begin(t, SPAN_COLLECTIVE)) < 0) return;
    Span *span = &t->note[t->collective].span;
    span->bytes = bytes;
    if (!label->name)
        snprintf(span->name, sizeof span->name, "%s", kind);
    else if (label->bucket >= 0)
        snprintf(span->name, sizeof span->name, "%s %.20s %d", kind, label->name, label->bucket);
    else
        snprintf(span->name, sizeof span->name, "%s %.20s", kind, label->name);
}

void timeline_collective_ends(Timeline *t, uint64_t ticket)
{
    const int i = t->collective;
    if (i < 0) return;
    t->note[i].ticket = ticket;
    end(t, &t->collective, COMM_COMMUNICATION);
    const int wait = ticket ? -1 : begin(t, SPAN_WAIT); // the device stood still meanwhile
    if (wait < 0) return;
    t->note[wait] = t->note[i];
    t->note[wait].span.kind = SPAN_WAIT;
}

void timeline_wait_begins(Timeline *t, uint64_t ticket)
{
    if (ticket <= t->waited) return; // as the collectives before are, when one has been waited for
    t->waited = ticket;
    if ((t->wait = begin(t, SPAN_WAIT)) < 0) return;
    char *text = t->note[t->wait].span.name;
    snprintf(text, sizeof t->note->span.name, "an earlier collective");
    for (int i = 0; i < t->n; i++)
        if (t->note[i].span.kind == SPAN_COLLECTIVE && t->note[i].ticket == ticket)
            snprintf(text, sizeof t->note->span.name, "%s", t->note[i].span.name);
}

void timeline_wait_ends(Timeline *t) { end(t, &t->wait, COMM_COMPUTE); }

// ---- the result --------------------------------------------------------------------------------

static double within(const Span *s, double last)
{
    return fmax(0, fmin(s->end, last) - fmax(s->begin, 0));
}

bool timeline_result(Timeline *t, TimelineResult *r, Error *err)
{
    double free_at = -INFINITY; // when the communication stream has done the collective before
    *r = (TimelineResult){.step = t->wanted};
    if (t->full)
        return fail(err, "--timeline: the steps have more than %d phases, waits and collectives",
                    MAX_SPANS);
    if (!t->last) return fail(err, "--timeline: step %d has not taken place", t->wanted);
    r->span = malloc(((size_t)t->n + 1) * sizeof *r->span);
    if (!r->span) return fail(err, "out of memory for the timeline");
    r->step_ms = r->until = t->comm->stamp_ms(t->comm, t->first, t->last);
    for (int i = 0; i < t->n; i++) {
        const Note *note = &t->note[i];
        Span span = note->span;
        if (!note->end) continue;
        span.begin = t->comm->stamp_ms(t->comm, t->first, note->begin);
        span.end = t->comm->stamp_ms(t->comm, t->first, note->end);
        if (span.kind == SPAN_COLLECTIVE) {
            span.begin = fmin(fmax(span.begin, free_at), span.end);
            free_at = span.end;
            r->communication_ms += within(&span, r->step_ms);
            if (span.step == t->wanted) r->until = fmax(r->until, span.end);
        }
        if (span.kind == SPAN_WAIT) r->exposed_ms += within(&span, r->step_ms);
        if (span.end > 0) r->span[r->n++] = span;
    }
    int kept = 0;
    for (int i = 0; i < r->n; i++)
        if (r->span[i].begin < r->until) r->span[kept++] = r->span[i];
    r->n = kept;
    return true;
}
