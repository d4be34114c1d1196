// Where AOL loses: which remedy helps, and whether counts of iterations by matrix do.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page_parts.h"
#include "statistics.h"

enum { MAX_BATCH = 512 };

// A column of remedies.csv over the rows of an input (NULL for every random one) and a shape; how
// many.
static int column_of(const Csv *c, const char *input, const char *m, const char *n,
                     const char *column, double *out)
{
    int count = 0;
    for (int r = 0; r < c->rows && count < MAX_BATCH; r++)
        if ((input ? !strcmp(c->cell[r][0], input) : strcmp(c->cell[r][0], "momentum") != 0) &&
            !strcmp(c->cell[r][1], m) && !strcmp(c->cell[r][2], n))
            out[count++] = csv_number(c, r, column);
    return count;
}

// At equal cost, with the rule fixed beforehand.
typedef struct {
    int cases, wins, momentum; // batches of one kind; those that the rule helps; of momentum
    double change;             // of the mean error on momentum, relative, summed
    double best;               // the most that hindsight gains there, relative
} Verdict;

static void adaptive_row(Page *p, const char *input, const char *m, const char *n,
                         const char *const *columns, Verdict *v)
{
    static double share[MAX_BATCH], before[MAX_BATCH], at[MAX_BATCH], after[MAX_BATCH];
    const Csv *c = &p->remedies;
    const int count = column_of(c, input, m, n, "share", share);
    if (count < 4) return;
    column_of(c, input, m, n, columns[0], before), column_of(c, input, m, n, columns[1], at);
    column_of(c, input, m, n, columns[2], after);
    const Adaptive a = adaptive_counts(share, before, at, after, count);
    fprintf(p->out, "| %s | %s, %s x %s | %d | %+.2f | %.4f | %.4f | %.4f |\n",
            **columns == 'a' ? "AOL" : "Schatten-4", input ? input : "all random inputs mixed", m,
            n, count, a.correlation, a.fixed, a.quarter, a.best);
    if (!input) return;
    v->cases++, v->wins += a.quarter < a.fixed;
    if (strcmp(input, "momentum") != 0) return;
    v->momentum++, v->change += a.quarter / a.fixed - 1;
    v->best = fmax(v->best, 1 - a.best / a.fixed);
}

static bool is_first(const Csv *c, int row, int columns) // of the rows that begin with these cells
{
    char key[256] = "";
    for (int i = 0; i < columns; i++)
        snprintf(key + strlen(key), sizeof key - strlen(key), "%s%s", i ? "," : "",
                 c->cell[row][i]);
    return csv_find(c, key, 0) == row;
}

static void adaptive_table(Page *p)
{
    static const char *const kinds[][3] = {{"aol3", "aol4", "aol5"}, {"s4-3", "s4-4", "s4-5"}};
    const Csv *c = &p->remedies;
    Verdict v = {0, 0, 0, 0, 0};
    fprintf(
        p->out,
        "### Iterations by matrix\n\ntr(A)² / (m |A|_F²), which every iteration has at hand, says "
        "how many singular values count. Does it pay to spend iterations by it? In each batch a "
        "quarter of the matrices, the lowest by that number, gets five iterations, the highest "
        "quarter three, the rest four, which costs as much as four for all; `in hindsight` takes "
        "the share that turns out best.\n\n"
        "| normaliser | batch | matrices | rank correlation with the error | four for all | by "
        "quarters | in hindsight |\n|---|---|---|---|---|---|---|\n");
    for (int k = 0; k < 2; k++) {
        for (int r = 0; r < c->rows; r++)
            if (is_first(c, r, 3))
                adaptive_row(p, c->cell[r][0], c->cell[r][1], c->cell[r][2], kinds[k], &v);
        for (int r = 0; r < c->rows; r++) { // each shape of the random inputs once
            bool seen = !strcmp(c->cell[r][0], "momentum");
            for (int q = 0; q < r && !seen; q++)
                seen =
                    !strcmp(c->cell[q][1], c->cell[r][1]) && !strcmp(c->cell[q][2], c->cell[r][2]);
            if (!seen) adaptive_row(p, NULL, c->cell[r][1], c->cell[r][2], kinds[k], &v);
        }
    }
    fprintf(p->out,
            "\nOf %d batches of one kind the rule lowers the mean error in %d (an earlier "
            "study, of other sizes and not kept, found none of 8).",
            v.cases, v.wins);
    if (v.momentum)
        fprintf(
            p->out,
            " On the banks of real momentum it changes it by %+.1f %% on average, and hindsight "
            "gains %.1f %% at most. %s",
            100 * v.change / v.momentum, 100 * v.best,
            v.change > -0.02 * v.momentum
                ? "So a count by matrix is not offered: where it matters it does not pay, and one "
                  "more iteration for all gains far more (the table above)."
                : "That is worth a try in training.");
    fprintf(p->out, " A batch that mixes kinds of matrices does gain.\n\n");
}

void page_remedies(Page *p)
{
    static const char *const columns[] = {"aol4", "two-sided4", "two-sided5", "aol5",
                                          "s4-4", "s4-5",       "polar5",     "two-sided-bias"};
    enum { N = sizeof columns / sizeof *columns };
    const Csv *c = &p->remedies;
    double sums[N] = {0};
    int inputs = 0;
    if (!c->rows) return;
    fprintf(
        p->out,
        "## Where AOL loses: remedies\n\nPolar errors in bf16, means over the matrices. Two-sided: "
        "the rows scaled by AOL, then the columns of that; its bias is the distance of the scaled "
        "matrix's polar factor from G's.\n\n| input | turbo4 | two-sided, 4 | two-sided, 5 | "
        "turbo5 | s4-polar4 | s4-polar5 | polar5 | two-sided bias |\n"
        "|---|---|---|---|---|---|---|---|---|\n");
    for (int r = 0; r < c->rows; r++) {
        if (!is_first(c, r, 1)) continue;
        fprintf(p->out, "| %s |", c->cell[r][0]);
        for (int k = 0; k < N; k++) {
            const double mean = page_mean(c, c->cell[r][0], columns[k]);
            sums[k] += mean;
            fprintf(p->out, " %.3f |", mean);
        }
        inputs++;
        fprintf(p->out, "\n");
    }
    fprintf(
        p->out,
        "\nOver all inputs two-sided scaling with four iterations has %.3f where turbo4 has %.3f: "
        "%s. A fifth iteration brings turbo4 to %.3f, and Schatten-4 with five to %.3f.\n\n",
        sums[1] / inputs, sums[0] / inputs,
        sums[1] < 0.95 * sums[0] ? "it helps"
                                 : "it is no remedy, since what it gains in convergence its bias "
                                   "takes back",
        sums[3] / inputs, sums[5] / inputs);
    adaptive_table(p);
}
