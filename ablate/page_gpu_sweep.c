// Every normaliser, table and count of iterations at full size, on a GPU (ns_bench --methods
// sweep).
#include <math.h>
#include <string.h>

#include "combination.h"
#include "page_parts.h"

static double value(const Page *p, int m, int n, const char *input, const char *norm,
                    const char *table, int k)
{
    char key[160];
    snprintf(key, sizeof key, "%d,%d,%s,%s-%s-%d", m, n, input, norm, table, k);
    return page_mean(&p->gpu.sweep, key, "polar");
}

static bool iterations_figure(Page *p, int m, int n, const char *input, Error *err)
{
    static const char *const table = "polar_express";
    char title[160], finding[320], file[64];
    Figure f = {.x_name =
                    "iterations (the last rows of polar_express; past five its last one again)",
                .y_name = "polar error on the GPU, bf16",
                .log_y = true,
                .whole_x = true};
    int first = NS_MAX_ITERATIONS + 1; // from where on Frobenius's is no longer above AOL's
    for (int i = 0; combination_norm(i); i++)
        for (int k = 1; k <= NS_MAX_ITERATIONS; k++)
            series_add(figure_line(&f, combination_norm(i)), k,
                       value(p, m, n, input, combination_norm(i), table, k));
    while (first > 1 && value(p, m, n, input, "frobenius", table, first - 1) <=
                            value(p, m, n, input, "aol", table, first - 1))
        first--;
    snprintf(title, sizeof title, "Polar error by normaliser on the GPU: %s, %d x %d", input, m, n);
    const int used = snprintf(
        finding, sizeof finding,
        "AOL, Schatten-4, Frobenius after 4: %.3f, %.3f, %.3f; after 5: "
        "%.3f, %.3f, %.3f; ",
        value(p, m, n, input, "aol", table, 4), value(p, m, n, input, "schatten4", table, 4),
        value(p, m, n, input, "frobenius", table, 4), value(p, m, n, input, "aol", table, 5),
        value(p, m, n, input, "schatten4", table, 5), value(p, m, n, input, "frobenius", table, 5));
    if (first <= NS_MAX_ITERATIONS)
        snprintf(finding + used, sizeof finding - (size_t)used,
                 "Frobenius's is no longer above AOL's from %d on.", first);
    else
        snprintf(finding + used, sizeof finding - (size_t)used,
                 "AOL's is below Frobenius's to the last.");
    f.title = title, f.finding = finding;
    snprintf(file, sizeof file, "gpu_sweep_%s_%d", input, n);
    return page_show(p, &f, file, err);
}

// The mean over the input's shapes; NaN where there is none.
static double mean_over(const Page *p, const char *input, const char *norm, const char *table,
                        int k)
{
    const Csv *c = &p->gpu.sweep;
    double sum = 0;
    int count = 0;
    char name[64];
    snprintf(name, sizeof name, "%s-%s-%d", norm, table, k);
    for (int r = 0; r < c->rows; r++)
        if (!strcmp(c->cell[r][2], input) && !strcmp(c->cell[r][3], name)) {
            sum += csv_number(c, r, "polar");
            count++;
        }
    return count ? sum / count : NAN;
}

// The best normaliser that needs no decomposition, and table, after k iterations.
static void put_best(Page *p, const char *input, int k)
{
    double least = INFINITY;
    const char *norm = NULL, *table = NULL;
    for (int i = 0; combination_norm(i); i++)
        for (int t = 0; combination_table(t) && strcmp(combination_norm(i), "none"); t++) {
            const double now = mean_over(p, input, combination_norm(i), combination_table(t), k);
            if (!(now < least)) continue;
            least = now, norm = combination_norm(i), table = combination_table(t);
        }
    if (norm)
        fprintf(p->out, " %s %s, %.3f |", norm, table, least);
    else
        fprintf(p->out, " – |");
}

static void best_table(Page *p)
{
    const Csv *c = &p->gpu.sweep;
    fprintf(p->out, "The normaliser and table with the least polar error, mean over the input's "
                    "shapes:\n\n| input | after 3 iterations | after 4 | after 5 | after 6 | AOL "
                    "polar_express after 4 (turbo4) | Schatten-4 polar_express after 5 (s4-polar5) "
                    "|\n|---|---|---|---|---|---|---|\n");
    for (int r = 0; r < c->rows; r++) {
        const char *input = c->cell[r][2];
        int first = 0;
        while (strcmp(c->cell[first][2], input)) first++;
        if (first < r) continue;
        fprintf(p->out, "| %s |", input);
        for (int k = 3; k <= 6; k++) put_best(p, input, k);
        fputc(' ', p->out);
        page_number(p->out, mean_over(p, input, "aol", "polar_express", 4));
        fprintf(p->out, " | ");
        page_number(p->out, mean_over(p, input, "schatten4", "polar_express", 5));
        fprintf(p->out, " |\n");
    }
    fprintf(p->out, "\nWithout a normaliser (`none` in the figures) the matrix was divided by its "
                    "largest singular value, which costs more than the iteration; every error, "
                    "that of |Y Yᵀ - I| too, is in sweep.csv.\n\n");
}

bool page_gpu_sweep(Page *p, Error *err)
{
    static const struct {
        int m, n;
        const char *input;
    } shown[] = {{4096, 4096, "gaussian"}, {768, 3072, "momentum"}};
    const Csv *c = &p->gpu.sweep;
    if (!c->rows) return true;
    fprintf(p->out, "### Error by iterations, at full size\n\n");
    for (int i = 0; i < 2; i++)
        if (isfinite(value(p, shown[i].m, shown[i].n, shown[i].input, "aol", "polar_express", 4)) &&
            !iterations_figure(p, shown[i].m, shown[i].n, shown[i].input, err))
            return false;
    best_table(p);
    return true;
}
