// Timelines: the arithmetic of overlap over a device whose two streams are two numbers, so that
// every begin, end and wait is known; and the files. tests/cpu/test_ranks.c has one of ranks that
// train.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../run/comm.h"
#include "../test.h"
#include "../xml.h"

typedef struct {
    Comm comm;
    double now[2], done[64]; // of the streams, and of the collectives by ticket
    CommTicket last;
    double *stamp;
} Device;

static bool make_stamps(Comm *comm, int n)
{
    ((Device *)comm)->stamp = calloc((size_t)n, sizeof(double));
    return true;
}

static void take_stamp(Comm *comm, int i, CommStream stream)
{
    Device *d = (Device *)comm;
    d->stamp[i] = d->now[stream];
}

static double from_to(Comm *comm, int from, int to)
{
    return ((Device *)comm)->stamp[to] - ((Device *)comm)->stamp[from];
}

// Takes as many ms as x has bytes.
static CommTicket collect(Comm *comm, void *x, size_t n, DType dtype)
{
    Device *d = (Device *)comm;
    (void)x, (void)dtype;
    d->now[COMM_COMMUNICATION] =
        fmax(d->now[COMM_COMMUNICATION], d->now[COMM_COMPUTE]) + (double)(n * dtype_size(dtype));
    d->done[++d->last] = d->now[COMM_COMMUNICATION];
    return d->last;
}

static void wait_for(Comm *comm, CommTicket ticket)
{
    Device *d = (Device *)comm;
    d->now[COMM_COMPUTE] = fmax(d->now[COMM_COMPUTE], d->done[ticket]);
}

static Device a_device(void)
{
    return (Device){.comm = {.world = 2,
                             .stamps = make_stamps,
                             .stamp = take_stamp,
                             .stamp_ms = from_to,
                             .all_reduce = collect,
                             .wait = wait_for}};
}

static void work(Device *d, double ms) { d->now[COMM_COMPUTE] += ms; }

static CommTicket send(Device *d, const char *name, int bucket, size_t ms)
{
    comm_label(&d->comm, name, bucket);
    return comm_all_reduce(&d->comm, NULL, ms / 2, DT_BF16);
}

// A step: 10 ms of forward, which needs `weights` after 5 of them; 20 of backward, with gradients
// of 4 and 12 ms sent after 5 and 15; an update, which needs them and takes 6; new weights, 30 ms.
static CommTicket train_step(Device *d, int step, CommTicket weights)
{
    Timeline *t = d->comm.timeline;
    timeline_step_begins(t, step);
    timeline_phase(t, "forward", NULL);
    work(d, 5);
    comm_wait(&d->comm, weights);
    work(d, 5);
    timeline_phase(t, "backward", NULL);
    work(d, 5);
    send(d, "attn", 0, 4);
    work(d, 10);
    const CommTicket sent = send(d, "attn", 1, 12);
    work(d, 5);
    timeline_phase(t, "update", "attn");
    comm_wait(&d->comm, sent);
    comm_wait(&d->comm, sent); // the second is no wait
    work(d, 6);
    const CommTicket renewed = send(d, "new attn", -1, 30);
    timeline_step_ends(t);
    return renewed;
}

static const Span *span_of(const TimelineResult *r, SpanKind kind, int step, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (r->span[i].kind == kind && r->span[i].step == step && !strcmp(r->span[i].name, name))
            return &r->span[i];
    return NULL;
}

static void check_span(const TimelineResult *r, SpanKind kind, int step, const char *name,
                       double begin, double end)
{
    const Span *s = span_of(r, kind, step, name);
    CHECK(s, "no \"%s\" of step %d", name, step);
    if (!s) return;
    CHECK(s->begin == begin && s->end == end, "%s of step %d: %g to %g, not %g to %g", name, step,
          s->begin, s->end, begin, end);
}

TEST(overlap)
{
    Error err;
    TimelineResult r;
    Device d = a_device();
    Timeline *t = timeline_create(&d.comm, 3, &err);
    CommTicket weights = 0;
    for (int step = 1; step <= 5; step++) {
        CHECK(timeline_complete(t) == (step > 4), "before step %d", step);
        weights = train_step(&d, step, weights);
        work(&d, 1); // between steps
    }
    CHECK(timeline_result(t, &r, &err), "%s", err.text);
    // The weights of step 2 arrive 29 ms after step 3 has begun; their wait moves all by 24 ms.
    check_span(&r, SPAN_COLLECTIVE, 2, "all-reduce new attn", -1, 29);
    check_span(&r, SPAN_PHASE, 3, "forward 1", 0, 34);
    check_span(&r, SPAN_WAIT, 3, "all-reduce new attn", 5, 29);
    check_span(&r, SPAN_PHASE, 3, "backward 1", 34, 54);
    check_span(&r, SPAN_COLLECTIVE, 3, "all-reduce attn 0", 39, 43);
    check_span(&r, SPAN_COLLECTIVE, 3, "all-reduce attn 1", 49, 61);
    check_span(&r, SPAN_PHASE, 3, "update attn", 54, 67);
    check_span(&r, SPAN_WAIT, 3, "all-reduce attn 1", 54, 61);
    check_span(&r, SPAN_COLLECTIVE, 3, "all-reduce new attn", 67, 97);
    check_span(&r, SPAN_PHASE, 4, "forward 1", 68, 102);
    CHECK(r.step_ms == 67 && r.until == 97, "%g, %g", r.step_ms, r.until);
    CHECK(r.communication_ms == 29 + 4 + 12, "%g", r.communication_ms);
    CHECK(r.exposed_ms == 24 + 7, "%g", r.exposed_ms);
    CHECK(r.n == 11, "%d spans", r.n); // those, and the wait of step 4
    CHECK(!span_of(&r, SPAN_PHASE, 5, "forward 1") && !span_of(&r, SPAN_PHASE, 4, "backward 1"));
    const Span *sent = span_of(&r, SPAN_COLLECTIVE, 3, "all-reduce attn 1");
    CHECK(sent && sent->bytes == 12);
    free(r.span);
    timeline_free(t);
    CHECK(!d.comm.timeline);
    free(d.stamp);
}

// One collective queues behind another that is not done when it could begin.
TEST(collectives_queue)
{
    Error err;
    TimelineResult r;
    Device d = a_device();
    Timeline *t = timeline_create(&d.comm, 1, &err);
    timeline_step_begins(t, 1);
    send(&d, "first", -1, 8);
    work(&d, 2);
    send(&d, "second", -1, 6);
    work(&d, 20);
    timeline_step_ends(t);
    CHECK(timeline_result(t, &r, &err), "%s", err.text); // the run's last step
    check_span(&r, SPAN_COLLECTIVE, 1, "all-reduce first", 0, 8);
    check_span(&r, SPAN_COLLECTIVE, 1, "all-reduce second", 8, 14);
    CHECK(r.communication_ms == 14 && r.exposed_ms == 0 && r.step_ms == 22);
    free(r.span);
    timeline_free(t);
    free(d.stamp);
}

TEST(nothing_to_tell)
{
    Error err;
    TimelineResult r;
    Device d = a_device();
    Timeline *t = timeline_create(&d.comm, 7, &err);
    train_step(&d, 1, 0);
    CHECK(!timeline_result(t, &r, &err) && strstr(err.text, "has not taken place"));
    timeline_step_begins(t, 7);
    for (int i = 0; i < 5000; i++) timeline_phase(t, "forward", NULL);
    timeline_step_ends(t);
    CHECK(!timeline_result(t, &r, &err) && strstr(err.text, "more than"));
    timeline_free(t);
    free(d.stamp);
    timeline_phase(NULL, "forward", NULL); // without --timeline
    timeline_step_begins(NULL, 1);
    timeline_step_ends(NULL);
    CHECK(!timeline_complete(NULL));
}

static char path[] = "/tmp/test_timeline_XXXXXX";

static char *written(void)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 16);
    if (file) {
        const size_t size = fread(text, 1, (1 << 16) - 1, file);
        CHECK(size > 0);
        fclose(file);
    }
    return text;
}

TEST(files)
{
    Error err;
    Span span[] = {{SPAN_PHASE, 3, "forward 1", 0, 0, 30},
                   {SPAN_COLLECTIVE, 2, "all-gather <attn> & 7", 2000000, -4, 12.5},
                   {SPAN_WAIT, 3, "all-gather <attn> & 7", 0, 10, 12.5},
                   {SPAN_COLLECTIVE, 3, "something else", 1, 29, 41}};
    const TimelineResult r = {3, 30, 13.5, 2.5, span, 4, 41};
    CHECK(timeline_write_csv(&r, path, &err), "%s", err.text);
    char *text = written();
    CHECK(!strcmp(text, "step,lane,kind,name,begin_ms,end_ms,bytes\n"
                        "3,all,step,step,0,30.0000,\n"
                        "3,all,total,communication,0,13.5000,\n"
                        "3,all,total,exposed,0,2.5000,\n"
                        "3,compute,phase,forward 1,0.0000,30.0000,\n"
                        "2,communication,collective,all-gather <attn> & 7,-4.0000,12.5000,2000000\n"
                        "3,compute,wait,all-gather <attn> & 7,10.0000,12.5000,\n"
                        "3,communication,collective,something else,29.0000,41.0000,1\n"),
          "%s", text);
    free(text);
    CHECK(timeline_write_svg(&r, "a <title>", "a finding & no more", path, &err), "%s", err.text);
    text = written();
    const char *fault = xml_fault(text);
    CHECK(!fault, "%s", fault);
    CHECK(strstr(text, "a &lt;title&gt;") && strstr(text, "a finding &amp; no more"));
    CHECK(strstr(text, ">forward 1</text>") && strstr(text, "waits for all-gather"));
    int boxes = 0;
    for (const char *at = text; (at = strstr(at, "ms</title>")); at++) boxes++;
    CHECK(boxes == 2, "%d", boxes); // those of collectives end with their megabytes
    free(text);
    const TimelineResult nothing = {.step = 1};
    CHECK(timeline_write_svg(&nothing, "", "", path, &err), "%s", err.text);
    text = written();
    CHECK(!xml_fault(text));
    free(text);
    CHECK(!timeline_write_csv(&r, "/nonexistent/timeline.csv", &err));
}

int main(void)
{
    const int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    RUN(overlap);
    RUN(collectives_queue);
    RUN(nothing_to_tell);
    RUN(files);
    unlink(path);
    return TEST_SUMMARY();
}
