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
        if (!strcmp(c->cell[r][0], method) && csv_number(c, r, "step") == step) {
            loss[n] = csv_number(c, r, "loss");
            ms[n++] = csv_number(c, r, "ms");
        }
    return n;
}

const char *page_trained(const Csv *c, int i)
{
    for (int r = 0; r < c->rows; r++)
        if (csv_find(c, c->cell[r][0], 0) == r && i-- == 0) return c->cell[r][0];
    return NULL;
}

int page_step_below(const Csv *c, double under)
{
    double step = 0;
    for (int r = 0; r < c->rows; r++)
        if (csv_number(c, r, "step") < under) step = fmax(step, csv_number(c, r, "step"));
    return (int)step;
}

double page_loss_at(double last, int step, double before, int step_before, double ratio)
{
    if (step_before < 1) return NAN;
    return last + (last - before) / log((double)step / step_before) * log(ratio);
}

double page_tiny_ms(const Page *p, const char *method)
{
    // What runs call them, and the row of time.csv with as many products: a table costs nothing.
    static const char *const alias[][2] = {{"turbo1", "aol-polar_express-1"},
                                           {"turbo2", "aol-polar_express-2"},
                                           {"turbo3", "aol-polar_express-3"},
                                           {"aol3", "aol-polar_express-3"},
                                           {"aol4", "turbo4"}};
    char square[96], wide[96];
    for (int i = 0; i < 5; i++)
        if (!strcmp(method, alias[i][0])) {
            method = alias[i][1];
            break;
        }
    snprintf(square, sizeof square, "%s,128,128", method);
    snprintf(wide, sizeof wide, "%s,128,512", method);
    return 1e-3 * (20 * page_mean(&p->time, square, "us") + 12 * page_mean(&p->time, wide, "us"));
}

// ---- the table ---------------------------------------------------------------------------------

static const char kBase[] = "polar5"; // which the others are laid beside

static double mean_loss(const Csv *c, const char *method, int step)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    const int n = page_losses(c, method, step, loss, ms);
    return mean_of(loss, n);
}

// The least of the base's runs, since whatever else ran only adds; NaN without.
static double base_ms(const Csv *c, int step)
{
    double loss[MAX_ROWS], ms[MAX_ROWS], least = NAN;
    const int n = page_losses(c, kBase, step, loss, ms);
    for (int i = 0; i < n; i++) least = fmin(least, ms[i]);
    return least;
}

static void put_losses(Page *p, const char *method, int step)
{
    const Csv *c = &p->training;
    double loss[MAX_ROWS], base[MAX_ROWS], ms[MAX_ROWS];
    const int n_base = page_losses(c, kBase, step, base, ms),
              n = page_losses(c, method, step, loss, ms);
    fprintf(p->out, " %.4f ± %.4f | %+.4f | %.2f |", mean_of(loss, n), deviation_of(loss, n),
            mean_of(loss, n) - mean_of(base, n_base), welch(loss, n, base, n_base));
}

// The loss when the base's last step ends, had a step taken the base's time with this method's
// orthogonalisation in place of the base's.
static double at_equal_time(const Page *p, const char *method, int last, int before)
{
    const Csv *c = &p->training;
    const double step = base_ms(c, last),
                 own = step + page_tiny_ms(p, method) - page_tiny_ms(p, kBase);
    return page_loss_at(mean_loss(c, method, last), last, mean_loss(c, method, before), before,
                        step / own);
}

void page_training(Page *p)
{
    const Csv *c = &p->training;
    double loss[MAX_ROWS], ms[MAX_ROWS], best[MAX_ROWS], spread = 0;
    int kinds = 0, runs = 0;
    const int last = page_step_below(c, INFINITY), before = page_step_below(c, last);
    if (!last) return;
    fprintf(p->out, "## Training\n\n| method | runs |");
    if (before) fprintf(p->out, " loss at step %d, mean ± sd | against %s | p |", before, kBase);
    fprintf(p->out,
            " %s %d, mean ± sd | against %s | p (Welch) | ms to orthogonalise | loss in %s's time "
            "|\n|---|---|---|---|---|---|---|%s\n",
            before ? "at" : "loss at step", last, kBase, kBase, before ? "---|---|---|" : "");
    const char *lowest = page_trained(c, 0), *in_time = NULL;
    for (; page_trained(c, kinds) && kinds < MAX_ROWS; kinds++) {
        const char *name = page_trained(c, kinds);
        const double equal = at_equal_time(p, name, last, before);
        runs = page_losses(c, name, last, loss, ms);
        spread += pow(deviation_of(loss, runs), 2);
        fprintf(p->out, "| %s | %d |", name, runs);
        if (before) put_losses(p, name, before);
        put_losses(p, name, last);
        fprintf(p->out, isfinite(page_tiny_ms(p, name)) ? " %.1f" : " –", page_tiny_ms(p, name));
        fprintf(p->out, isfinite(equal) ? " | %.4f |\n" : " | – |\n", equal);
        if (mean_of(loss, runs) < mean_loss(c, lowest, last)) lowest = name;
        if (isfinite(equal) && (!in_time || equal < at_equal_time(p, in_time, last, before)))
            in_time = name;
    }
    const int n_best = page_losses(c, lowest, last, best, ms);
    const double found = detectable(sqrt(spread / kinds), runs);
    fprintf(p->out,
            "\nThe lowest mean is %s's. Not told apart from it (p of .05 or more):", lowest);
    for (int k = 0; k < kinds; k++) {
        const char *name = page_trained(c, k);
        const int n = page_losses(c, name, last, loss, ms);
        if (strcmp(name, lowest) && welch(loss, n, best, n_best) >= 0.05)
            fprintf(p->out, " %s", name);
    }
    fprintf(p->out,
            ". The smallest difference of two methods that so many runs find at p < .05 four times "
            "in five is %.4f; p is not corrected for comparing several methods. ",
            found);
    const double lead =
        in_time ? mean_loss(c, kBase, last) - at_equal_time(p, in_time, last, before) : 0;
    if (in_time)
        fprintf(p->out,
                "In %s's time the lowest is %s, %.4f%s. That time is %s's fastest run, %.1f ms a "
                "step, with the method's orthogonalisation in place of %s's, both on one thread "
                "(the run shares it between threads, so differences of time count for more here "
                "than there): the wall time of a run is also that of whatever else ran. The last "
                "column follows each method's slope between the two validations, which the "
                "schedule's end makes steeper than more steps are, so it is kind to the fast ones "
                "(bench/RESULTS.md has whole runs as long). ",
                kBase, in_time, at_equal_time(p, in_time, last, before),
                lead > 0 && lead < found ? ", a lead too small to be found" : "", kBase,
                base_ms(c, last), kBase);
    fprintf(p->out, "aol3 and aol4 are what `build/search` found for AOL (docs/recipe.md).\n\n");
}
