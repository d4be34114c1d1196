#include "timeline_run.h"

#include <math.h>
#include <stdlib.h>

// Milliseconds of a step without collectives, as the environment tells them; 0: not known.
static bool stub_ms(double *ms, Error *err)
{
    const char *text = getenv("TURBOMUON_STUB_MS");
    char *end;
    *ms = 0;
    if (!text || !*text) return true;
    *ms = strtod(text, &end);
    return (!*end && isfinite(*ms) && *ms > 0) ||
           fail(err, "TURBOMUON_STUB_MS is \"%.40s\": milliseconds are wanted, such as 187.96",
                text);
}

bool timeline_run_open(Run *run, Error *err)
{
    const int step = run->options.timeline;
    if (step == 0) return true;
    run->shared_failure = run->comm != NULL;
    run->usage = true;
    if (!run->comm)
        return fail(err,
                    "--timeline %d shows how ranks communicate, and this is one rank: give "
                    "--gpus or --ranks",
                    step);
    if (step <= run->state.step || step > run->end)
        return fail(err, "--timeline %d: this run has the steps %d to %d", step,
                    run->state.step + 1, run->end);
    double ms;
    if (!stub_ms(&ms, err)) return false;
    run->shared_failure = run->usage = false;
    if (run->env.rank == 0) run->timeline = timeline_create(run->comm, step, err);
    return run->env.rank > 0 || run->timeline;
}

// One sentence, and what is known of a step without collectives.
static void find(const TimelineResult *r, char *text, size_t size)
{
    const char *mode = getenv("TURBOMUON_COMM");
    double without;
    Error unused; // timeline_run_open has looked
    stub_ms(&without, &unused);
    const int n =
        snprintf(text, size,
                 "Communication takes %.2f ms, and the device stands still for %.3f ms of "
                 "it, %.2f %% of the step's %.2f ms",
                 r->communication_ms, r->exposed_ms, 100 * r->exposed_ms / r->step_ms, r->step_ms);
    if (mode && !strcmp(mode, "stub"))
        snprintf(text + n, size - (size_t)n, "; the collectives are left out");
    else if (without > 0)
        snprintf(text + n, size - (size_t)n, "; without collectives a step takes %.2f ms", without);
}

static bool write_files(Run *run, const TimelineResult *r, Error *err)
{
    char title[256], finding[256], csv[600], svg[600];
    snprintf(title, sizeof title, "%s: training step %d on rank 0 of %d, %s", run->recipe.name,
             r->step, run->env.world, run->comm->description);
    find(r, finding, sizeof finding);
    snprintf(csv, sizeof csv, "%s/timeline.csv", run->folder);
    snprintf(svg, sizeof svg, "%s/timeline.svg", run->folder);
    if (!timeline_write_csv(r, csv, err) || !timeline_write_svg(r, title, finding, svg, err))
        return false;
    log_line(run->log, "timeline     %s, step %d: %s", svg, r->step, finding);
    log_begin(run->log, "timeline", r->step);
    log_number(run->log, "step_ms", r->step_ms);
    log_number(run->log, "communication_ms", r->communication_ms);
    log_number(run->log, "exposed_ms", r->exposed_ms);
    log_end(run->log);
    return true;
}

bool timeline_run_draw(Run *run, bool ended, Error *err)
{
    TimelineResult result;
    Error why;
    if (!run->timeline || !(ended || timeline_complete(run->timeline))) return true;
    run->ops->sync();
    bool ok = true;
    if (timeline_result(run->timeline, &result, &why))
        ok = write_files(run, &result, err);
    else
        log_line(run->log, "%s", why.text);
    free(result.span);
    timeline_free(run->timeline);
    run->timeline = NULL;
    return ok;
}
