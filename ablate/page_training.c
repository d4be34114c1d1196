// What training runs on the CPU say, of several seeds a method.
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
