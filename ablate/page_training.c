// What training runs say: on the CPU with several seeds a method, on a GPU at full width.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page_parts.h"
#include "statistics.h"

int page_losses(const Csv *c, const char *method, int step, double *loss, double *ms)
{
    int n = 0;
    for (int r = 0; r < c->rows && n < MAX_ROWS; r++)
        if (!strcmp(c->cell[r][0], method) && (!step || csv_number(c, r, "step") == step)) {
            loss[n] = csv_number(c, r, "loss");
            ms[n++] = csv_number(c, r, "ms");
        }
    return n;
}

// The i-th method of a table of runs, in the order of their first rows, NULL past the end.
const char *page_trained(const Csv *c, int i)
{
    for (int r = 0; r < c->rows; r++)
        if (csv_find(c, c->cell[r][0], 0) == r && i-- == 0) return c->cell[r][0];
    return NULL;
}

void page_training(Page *p)
{
    const Csv *c = &p->training;
    double reference[MAX_ROWS], loss[MAX_ROWS], ms[MAX_ROWS], best[MAX_ROWS], spread = 0;
    const int n_reference = page_losses(c, "polar5", 0, reference, ms);
    int kinds = 0, runs = 0, first[MAX_ROWS] = {0}, least = 0;
    if (!c->rows) return;
    fprintf(p->out, "## Training\n\n");
    fprintf(
        p->out,
        "| method | runs | validation loss, mean ± sd | against polar5 | p (Welch) | ms a step |\n"
        "|---|---|---|---|---|---|\n");
    for (int r = 0; r < c->rows && kinds < MAX_ROWS; r++) {
        int same = 0;
        while (strcmp(c->cell[same][0], c->cell[r][0])) same++;
        if (same < r) continue;
        const int n = page_losses(c, c->cell[r][0], 0, loss, ms);
        const double sd = deviation_of(loss, n);
        first[kinds++] = r, spread += sd * sd, runs = n;
        fprintf(p->out, "| %s | %d | %.4f ± %.4f | %+.4f | %.2f | %.1f |\n", c->cell[r][0], n,
                mean_of(loss, n), sd, mean_of(loss, n) - mean_of(reference, n_reference),
                welch(loss, n, reference, n_reference), mean_of(ms, n));
        const int n_best = page_losses(c, c->cell[first[least]][0], 0, best, ms);
        if (mean_of(loss, n) < mean_of(best, n_best)) least = kinds - 1;
    }
    const char *name = c->cell[first[least]][0];
    const int n_best = page_losses(c, name, 0, best, ms);
    fprintf(p->out, "\nThe lowest mean is %s's. Not told apart from it (p of .05 or more):", name);
    for (int k = 0; k < kinds; k++) {
        const int n = page_losses(c, c->cell[first[k]][0], 0, loss, ms);
        if (k != least && welch(loss, n, best, n_best) >= 0.05)
            fprintf(p->out, " %s", c->cell[first[k]][0]);
    }
    fprintf(
        p->out,
        ". The smallest difference of two methods that so many runs find at p < .05 four times in "
        "five is %.4f; p is not corrected for comparing several methods. ms a step is wall "
        "time, and so of whatever else ran. aol3 and aol4 are what `build/search` found for AOL "
        "(docs/recipe.md).\n\n",
        detectable(sqrt(spread / kinds), runs));
}

// The steps with validations: the last one, and the one before.
static void steps_of(const Csv *c, int *last, int *before)
{
    *last = *before = 0;
    for (int r = 0; r < c->rows; r++) *last = (int)fmax(*last, csv_number(c, r, "step"));
    for (int r = 0; r < c->rows; r++)
        if (csv_number(c, r, "step") < *last)
            *before = (int)fmax(*before, csv_number(c, r, "step"));
}

// The loss after as much time as the reference takes, by the slope against the logarithm of the
// step between the two validations.
static double at_equal_time(double before, double last, double steps, double ms, double reference)
{
    return last + (last - before) / log(steps) * log(reference / ms);
}

bool page_gpu_best(const Page *p, GpuTraining *t)
{
    const Csv *c = &p->gpu.training;
    double all[MAX_ROWS], loss[MAX_ROWS], ms[MAX_ROWS], least = INFINITY;
    int n[MAX_ROWS], kinds = 0, used = 0, runs = MAX_ROWS;
    *t = (GpuTraining){0};
    steps_of(c, &t->last, &t->before);
    for (; page_trained(c, kinds) && kinds < MAX_ROWS; kinds++) {
        n[kinds] = page_losses(c, page_trained(c, kinds), t->last, loss, ms);
        if (n[kinds] < 1 || used + n[kinds] > MAX_ROWS) return false;
        memcpy(all + used, loss, sizeof *loss * (size_t)n[kinds]);
        used += n[kinds], runs = n[kinds] < runs ? n[kinds] : runs;
        if (mean_of(loss, n[kinds]) < least)
            least = mean_of(loss, n[kinds]), t->method = page_trained(c, kinds);
    }
    if (!kinds) return false;
    t->loss = least;
    t->deviation = pooled_deviation(all, n, kinds, &t->freedom);
    t->detectable = detectable_pooled(t->deviation, runs, t->freedom);
    return true;
}

double page_pooled_p(const GpuTraining *t, double off, int nx, int ny)
{
    if (!(t->freedom > 0) || off == 0) return 1;
    return student_two_sided(off / (t->deviation * sqrt(1.0 / nx + 1.0 / ny)), t->freedom);
}

void page_gpu_training(Page *p)
{
    const Csv *c = &p->gpu.training;
    double reference[MAX_ROWS], reference_ms[MAX_ROWS], loss[MAX_ROWS], early[MAX_ROWS],
        ms[MAX_ROWS];
    GpuTraining t;
    if (!page_gpu_best(p, &t)) return;
    const int n_reference = page_losses(c, "turbo4", t.last, reference, reference_ms);
    fprintf(
        p->out,
        "### Training at the speedrun's width\n\nThe recipe's own schedule, stopped: only the "
        "orthogonaliser differs, and no learning rate has been lowered yet.\n\n"
        "| method | runs | loss at step %d | at %d, mean ± sd | against turbo4 | p | ms a step | "
        "loss in turbo4's time |\n|---|---|---|---|---|---|---|---|\n",
        t.before, t.last);
    for (int i = 0; page_trained(c, i); i++) {
        const char *name = page_trained(c, i);
        page_losses(c, name, t.before, early, ms);
        const int n = page_losses(c, name, t.last, loss, ms);
        const double off = mean_of(loss, n) - mean_of(reference, n_reference);
        fprintf(p->out, "| %s | %d | %.4f | %.4f ± %.4f | %+.4f | %.2f | %.1f | %.4f |\n", name, n,
                mean_of(early, n), mean_of(loss, n), deviation_of(loss, n), off,
                page_pooled_p(&t, off, n, n_reference), mean_of(ms, n),
                at_equal_time(mean_of(early, n), mean_of(loss, n), (double)t.last / t.before,
                              mean_of(ms, n), mean_of(reference_ms, n_reference)));
    }
    fprintf(
        p->out,
        "\nThe lowest mean is %s's. The deviation between seeds, of all methods together, is %.4f "
        "(%.0f degrees of freedom): the smallest difference of two methods that so many runs find "
        "at p < .05 four times in five is %.4f, so smaller ones say nothing. The last column "
        "follows each method's slope between its two validations.\n\n",
        t.method, t.deviation, t.freedom, t.detectable);
}
