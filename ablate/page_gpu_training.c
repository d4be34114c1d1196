// What training runs at the speedrun's width say, on a GPU with few seeds and steps.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page_parts.h"
#include "speedrun_log.h"
#include "statistics.h"

enum { MAX_STEPS = 8 };

// The recipe's method, which the others are laid beside; the first one where it did not run.
static const char *base_of(const Csv *c)
{
    return csv_find(c, "turbo4", 0) >= 0 ? "turbo4" : page_trained(c, 0);
}

// Deviations within methods at that step, pooled: of losses, and of ms a step.
typedef struct {
    double loss, ms, freedom;
    int runs; // the fewest of a method
} Pooled;

static bool pool(const Csv *c, int step, Pooled *pooled)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    int n[MAX_ROWS], kinds = 0, used = 0;
    *pooled = (Pooled){.runs = MAX_ROWS};
    for (; page_trained(c, kinds) && kinds < MAX_ROWS; kinds++) {
        double new_loss[MAX_ROWS], new_ms[MAX_ROWS];
        n[kinds] = page_losses(c, page_trained(c, kinds), step, new_loss, new_ms);
        if (n[kinds] < 1 || used + n[kinds] > MAX_ROWS) return false;
        memcpy(loss + used, new_loss, sizeof *loss * (size_t)n[kinds]);
        memcpy(ms + used, new_ms, sizeof *ms * (size_t)n[kinds]);
        used += n[kinds];
        if (n[kinds] < pooled->runs) pooled->runs = n[kinds];
    }
    pooled->ms = pooled_deviation(ms, n, kinds, &pooled->freedom);
    pooled->loss = pooled_deviation(loss, n, kinds, &pooled->freedom);
    return kinds > 0;
}

bool page_gpu_best(const Page *p, int step, GpuTraining *t)
{
    const Csv *c = &p->gpu.training;
    double loss[MAX_ROWS], ms[MAX_ROWS];
    Pooled pooled;
    *t = (GpuTraining){.loss = INFINITY};
    t->last = step ? step : page_step_below(c, INFINITY);
    t->before = page_step_below(c, t->last);
    if (!pool(c, t->last, &pooled)) return false;
    for (int i = 0; page_trained(c, i); i++) {
        const int n = page_losses(c, page_trained(c, i), t->last, loss, ms);
        if (mean_of(loss, n) < t->loss) t->loss = mean_of(loss, n), t->method = page_trained(c, i);
    }
    t->deviation = pooled.loss, t->freedom = pooled.freedom, t->runs = pooled.runs;
    t->detectable = detectable_pooled(t->deviation, t->runs, t->freedom);
    return true;
}

double page_pooled_p(const GpuTraining *t, double off, int nx, int ny)
{
    if (!(t->freedom > 0) || off == 0) return 1;
    return student_two_sided(off / (t->deviation * sqrt(1.0 / nx + 1.0 / ny)), t->freedom);
}

double page_gpu_loss(const Page *p, const char *method, int step, int *runs)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    *runs = page_losses(&p->gpu.training, method, step, loss, ms);
    return mean_of(loss, *runs);
}

double page_gpu_banks_ms(const Page *p, const char *method)
{
    return 1e-3 * (page_gpu_us(p, 40, 768, 768, method) + page_gpu_us(p, 22, 768, 3072, method));
}

static double step_ms(const Page *p, const char *method, int step)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    const int n = page_losses(&p->gpu.training, method, step, loss, ms);
    return mean_of(ms, n);
}

double page_gpu_own_ms(const Page *p, const char *method, int step)
{
    const char *base = base_of(&p->gpu.training);
    const double more = page_gpu_banks_ms(p, method) - page_gpu_banks_ms(p, base);
    return isfinite(more) ? step_ms(p, base, step) + more : step_ms(p, method, step);
}

// The loss at the last step's time of the base, by the slope against the logarithm of the step
// between the last two validations.
static double at_equal_time(const Page *p, const GpuTraining *t, const char *method)
{
    int n;
    const double last = page_gpu_loss(p, method, t->last, &n),
                 before = page_gpu_loss(p, method, t->before, &n);
    const double ratio = page_gpu_own_ms(p, base_of(&p->gpu.training), t->last) /
                         page_gpu_own_ms(p, method, t->last);
    return page_loss_at(last, t->last, before, t->before, ratio);
}

// Every run's loss less the mean of the base, at each step with validations (the last MAX_STEPS).
static bool figure(Page *p, const GpuTraining *t, Error *err)
{
    const Csv *c = &p->gpu.training;
    const char *base = base_of(c), *label[MAX_STEPS];
    char text[MAX_STEPS][24], title[160], y_name[96], finding[400];
    int step[MAX_STEPS], steps = 0, kinds = 0, n;
    for (int s = t->last; s > 0 && steps < MAX_STEPS; s = page_step_below(c, s)) step[steps++] = s;
    while (page_trained(c, kinds)) kinds++;
    Figure f = {.x_name = "step", .points = true, .x_label = label, .x_labels = steps};
    for (int i = 0; i < steps; i++) {
        const int at = step[steps - 1 - i];
        const double zero = page_gpu_loss(p, base, at, &n);
        snprintf(text[i], sizeof text[i], "%d", at);
        label[i] = text[i];
        for (int k = 0; k < kinds; k++) {
            double loss[MAX_ROWS], ms[MAX_ROWS];
            n = page_losses(c, page_trained(c, k), at, loss, ms);
            for (int j = 0; j < n; j++) // points of one step stand beside one another
                series_add(figure_line(&f, page_trained(c, k)), i + 0.6 * (k + 0.5) / kinds - 0.3,
                           loss[j] - zero);
        }
    }
    snprintf(title, sizeof title, "Loss beside %s's at the speedrun's width, each run a point",
             base);
    snprintf(y_name, sizeof y_name, "validation loss less %s's mean, nats per token", base);
    const double first = page_gpu_loss(p, t->method, step[steps - 1], &n) -
                         page_gpu_loss(p, base, step[steps - 1], &n);
    snprintf(finding, sizeof finding,
             "The lowest at step %d is %s, %.3f from %s's mean; at step %d it was %.3f.", t->last,
             t->method, t->loss - page_gpu_loss(p, base, t->last, &n), base, step[steps - 1],
             first);
    f.title = title, f.y_name = y_name, f.finding = finding;
    return page_show(p, &f, "gpu_training", err);
}

static void put_step(Page *p, const GpuTraining *t, const char *method)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    int n_base;
    const int n = page_losses(&p->gpu.training, method, t->last, loss, ms);
    const double off =
        mean_of(loss, n) - page_gpu_loss(p, base_of(&p->gpu.training), t->last, &n_base);
    fprintf(p->out, " %.4f ± %.4f | %+.4f | %.4f |", mean_of(loss, n), deviation_of(loss, n), off,
            page_pooled_p(t, off, n, n_base));
}

double page_published_p(int step, double off, int nx, int ny, double *deviation)
{
    for (int i = 0; speedrun_reference(i); i++) {
        const SpeedrunReference *r = speedrun_reference(i);
        const GpuTraining ten = {.deviation = r->deviation, .freedom = SPEEDRUN_LOGS - 1};
        if (r->step != step) continue;
        *deviation = r->deviation;
        return page_pooled_p(&ten, off, nx, ny);
    }
    return NAN;
}

// Few seeds may agree by chance, so the same with the spread of more runs.
static void published_spread(Page *p, const GpuTraining *t)
{
    int n, n_base;
    double deviation;
    const char *base = base_of(&p->gpu.training);
    const double off =
        page_gpu_loss(p, t->method, t->last, &n) - page_gpu_loss(p, base, t->last, &n_base);
    const double chance = page_published_p(t->last, off, n, n_base, &deviation);
    if (isfinite(chance) && strcmp(base, t->method))
        fprintf(p->out,
                "So few seeds may agree by chance: ten published runs of the recipe have a "
                "deviation of %.4f at this step, with which that difference is %.4f, and the p of "
                "%s against %s %.2f. ",
                deviation, detectable_pooled(deviation, t->runs, SPEEDRUN_LOGS - 1), t->method,
                base, chance);
}

static void put_times(Page *p, const GpuTraining *t)
{
    const Csv *c = &p->gpu.training;
    double least = INFINITY, most = 0;
    Pooled pooled;
    for (int i = 0; page_trained(c, i); i++) {
        least = fmin(least, page_gpu_banks_ms(p, page_trained(c, i)));
        most = fmax(most, page_gpu_banks_ms(p, page_trained(c, i)));
    }
    if (!pool(c, t->last, &pooled)) return;
    fprintf(p->out,
            "Of the times a step, differences under %.1f ms say nothing, by the deviation of runs "
            "of one method; a run also has the speed of its GPU",
            detectable_pooled(pooled.ms, pooled.runs, pooled.freedom));
    if (least < most)
        fprintf(p->out,
                ". Orthogonalising both banks alone (ns_bench) takes %.2f to %.2f ms, so the last "
                "column takes %s's time a step, with the method's time for the banks in place of "
                "its own",
                least, most, base_of(c));
    fprintf(p->out, ". It follows each method's slope between the last two validations.\n\n");
}

bool page_gpu_training(Page *p, Error *err)
{
    const Csv *c = &p->gpu.training;
    GpuTraining t, early;
    if (!page_gpu_best(p, 0, &t)) return true;
    const char *base = base_of(c);
    const bool two = t.before && page_gpu_best(p, t.before, &early);
    fprintf(p->out, "### Training at the speedrun's width\n\nThe recipe's own schedule, stopped: "
                    "only the orthogonaliser differs, and no learning rate has been lowered "
                    "yet.\n\n");
    if (!figure(p, &t, err)) return false;
    fprintf(p->out, "| method | runs |");
    if (two) fprintf(p->out, " loss at step %d, mean ± sd | against %s | p |", t.before, base);
    fprintf(p->out,
            " %s %d, mean ± sd | against %s | p | ms a step | both banks alone, ms | loss in %s's "
            "time |\n|---|---|---|---|---|---|---|---|%s\n",
            two ? "at" : "loss at step", t.last, base, base, two ? "---|---|---|" : "");
    for (int i = 0; page_trained(c, i); i++) {
        const char *name = page_trained(c, i);
        int n;
        page_gpu_loss(p, name, t.last, &n);
        fprintf(p->out, "| %s | %d |", name, n);
        if (two) put_step(p, &early, name);
        put_step(p, &t, name);
        fprintf(p->out, " %.1f | ", step_ms(p, name, t.last));
        page_number(p->out, page_gpu_banks_ms(p, name));
        fprintf(p->out, " | %.4f |\n", at_equal_time(p, &t, name));
    }
    fprintf(p->out, "\nThe lowest mean at step %d is %s's. ", t.last, t.method);
    if (!(t.freedom > 0)) {
        fprintf(p->out, "One run of each method tells nothing of their differences.\n\n");
        return true;
    }
    fprintf(p->out,
            "The deviation between seeds, of all methods together, is %.4f (%.0f degrees of "
            "freedom): the smallest difference of two methods that so many runs find at p < .05 "
            "four times in five is %.4f, so smaller ones say nothing",
            t.deviation, t.freedom, t.detectable);
    if (two)
        fprintf(p->out, " (at step %d: %.4f, %.4f)", early.last, early.deviation, early.detectable);
    fprintf(p->out, "; p is not corrected for comparing several methods. ");
    published_spread(p, &t);
    put_times(p, &t);
    return true;
}
