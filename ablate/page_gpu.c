// The section of what scripts/ablate_gpu.sh measured.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page_parts.h"
#include "peers.h"
#include "studies.h"

enum { MAX_SHAPES = 24, MAX_METHODS = 16 };

// The names in a column, each once, in their order.
static int names_of(const Csv *c, const char *column, const char **name, int most)
{
    int n = 0;
    for (int r = 0; r < c->rows; r++) {
        int k = 0;
        while (k < n && strcmp(name[k], csv_text(c, r, column))) k++;
        if (k == n && n < most) name[n++] = csv_text(c, r, column);
    }
    return n;
}

double page_gpu_error(const Page *p, int m, int n, const char *input, const char *method)
{
    char key[160];
    snprintf(key, sizeof key, "%d,%d,%s,%s", m, n, input, method);
    const int r = csv_find(&p->gpu.error, key, 0);
    return r < 0 ? NAN : csv_number(&p->gpu.error, r, "polar");
}

double page_gpu_us(const Page *p, int batch, int m, int n, const char *method)
{
    char key[128];
    snprintf(key, sizeof key, "%d,%d,%d,%s", batch, m, n, method);
    const int r = csv_find(&p->gpu.time, key, 0);
    return r < 0 ? NAN : csv_number(&p->gpu.time, r, "us");
}

// The GPU of the times, by the words behind the "#" of their command.
static void name_device(const Page *p, char *device, size_t size)
{
    const char *study = strstr(p->gpu.command, "STUDIES=time "); // its line
    const char *machine = strstr(study ? study : p->gpu.command, "# ");
    snprintf(device, size, "%s", machine ? machine + 2 : "a GPU");
    device[strcspn(device, ",\n")] = '\0';
}

static bool peers_figure(Page *p, Error *err)
{
    // The methods that are likeliest as defaults, as many as there is room for beside the peers.
    static const char *const methods[] = {"turbo4", "turbo-gram4", "s4-gram4", "s4-gram5",
                                          "polar5"};
    enum { N = sizeof methods / sizeof *methods };
    const Csv *c = &p->gpu.time;
    BankShape shape[MAX_SHAPES];
    double us[MAX_SHAPES * N];
    int n = 0;
    char path[1200], link[256], finding[256], device[64];
    for (int r = 0; r < c->rows && n < MAX_SHAPES; r++) {
        const BankShape s = {atoi(c->cell[r][0]), atoi(c->cell[r][1]), atoi(c->cell[r][2])};
        if (n && !memcmp(&shape[n - 1], &s, sizeof s)) continue;
        for (int k = 0; k < N; k++) us[n * N + k] = page_gpu_us(p, s.batch, s.m, s.n, methods[k]);
        shape[n] = s;
        n += isfinite(peer_us(PEER_FLASH, &s));
    }
    if (!n) return true;
    name_device(p, device, sizeof device);
    page_figure_path(p, "gpu_peers", path, sizeof path, link, sizeof link);
    if (!peers_chart(path, shape, n, methods, N, us, device, finding, sizeof finding, err))
        return false;
    fprintf(p->out, "![Orthogonalisation beside its peers](%s)\n\n%s\n\n", link, finding);
    return true;
}

static bool is_square(const Csv *c, int row) // and Gaussian
{
    return !strcmp(c->cell[row][2], "gaussian") && !strcmp(c->cell[row][0], c->cell[row][1]);
}

static int next_square(const Csv *c, int after) // the next larger size, 0 past the end
{
    int n = 0;
    for (int r = 0; r < c->rows; r++) {
        const int size = atoi(c->cell[r][0]);
        if (is_square(c, r) && size > after && (!n || size < n)) n = size;
    }
    return n;
}

static bool size_figure(Page *p, Error *err)
{
    const Csv *c = &p->gpu.error;
    char finding[256];
    int largest = 0;
    Figure f = {.title = "Polar error by size: Gaussian n x n",
                .x_name = "n",
                .y_name = "polar error on the GPU",
                .log_x = true,
                .log_y = true};
    for (int n = next_square(c, 0); n; n = next_square(c, n)) {
        for (int r = 0; r < c->rows; r++)
            if (is_square(c, r) && atoi(c->cell[r][0]) == n)
                series_add(figure_line(&f, c->cell[r][3]), n, csv_number(c, r, "polar"));
        largest = n;
    }
    if (!largest) return figure_free(&f), true;
    snprintf(finding, sizeof finding,
             "At n = %d: turbo4 %.3f, you5 %.3f, polar5 %.3f, s4-gram5 %.3f, against an fp64 "
             "iteration.",
             largest, page_gpu_error(p, largest, largest, "gaussian", "turbo4"),
             page_gpu_error(p, largest, largest, "gaussian", "you5"),
             page_gpu_error(p, largest, largest, "gaussian", "polar5"),
             page_gpu_error(p, largest, largest, "gaussian", "s4-gram5"));
    f.finding = finding;
    return page_show(p, &f, "gpu_size", err);
}

static void error_table(Page *p)
{
    const Csv *c = &p->gpu.error;
    const char *method[MAX_METHODS];
    const int n = names_of(c, "method", method, MAX_METHODS);
    double residual = 0;
    fprintf(p->out, "Polar errors, means over matrices of each:\n\n| shape, input |");
    for (int k = 0; k < n; k++) fprintf(p->out, " %s |", method[k]);
    fprintf(p->out, "\n|---|");
    for (int k = 0; k < n; k++) fprintf(p->out, "---|");
    for (int r = 0; r < c->rows; r++) {
        residual = fmax(residual, csv_number(c, r, "residual"));
        if (strcmp(c->cell[r][3], method[0])) continue;
        fprintf(p->out, "\n| %s x %s, %s |", c->cell[r][0], c->cell[r][1], c->cell[r][2]);
        for (int k = 0; k < n; k++) {
            fputc(' ', p->out);
            page_number(p->out, page_gpu_error(p, atoi(c->cell[r][0]), atoi(c->cell[r][1]),
                                               c->cell[r][2], method[k]));
            fprintf(p->out, " |");
        }
    }
    fprintf(p->out,
            "\n\nThe reference is a Newton-Schulz iteration in fp64 (ablate/polar.c), whose |Y Yᵀ "
            "- I|_F "
            "/ √m is %.1e at most here; tests hold it against decompositions. Where a matrix has "
            "directions that doubles do not determine, both are restricted to the others.\n\n",
            residual);
}

static void ratios(Page *p)
{
    static const struct {
        const char *gram, *standard;
    } pair[] = {{"turbo-gram4", "turbo4"}, {"s4-gram4", "s4-polar4"}, {"s4-gram5", "s4-polar5"}};
    const Csv *c = &p->gpu.error;
    for (int i = 0; i < 3; i++) {
        double most = 0;
        int at = -1;
        for (int r = 0; r < c->rows; r++) {
            if (strcmp(c->cell[r][3], pair[i].gram)) continue;
            const double ratio = csv_number(c, r, "polar") /
                                 page_gpu_error(p, atoi(c->cell[r][0]), atoi(c->cell[r][1]),
                                                c->cell[r][2], pair[i].standard);
            if (ratio > most) most = ratio, at = r;
        }
        if (at >= 0)
            fprintf(p->out,
                    "* %s: its error is at most %.3f times %s's (%s x %s, %s), so the faster of "
                    "the two "
                    "%s.\n",
                    pair[i].gram, most, pair[i].standard, c->cell[at][0], c->cell[at][1],
                    c->cell[at][2],
                    most <= 1.1 ? "may be taken by shape (the limit is 1.1)"
                                : "may not be taken by its time alone (the limit is 1.1)");
    }
    fputc('\n', p->out);
}

static bool pareto_figure(Page *p, int batch, int m, int n, const char *input, Error *err)
{
    const char *name[MAX_METHODS];
    double us[MAX_METHODS], error[MAX_METHODS];
    char title[160], finding[400], front[320], file[64], device[64], x_name[96];
    const int methods = names_of(&p->gpu.error, "method", name, MAX_METHODS);
    bool any = false;
    Figure f = {.x_name = x_name, .y_name = "polar error on the GPU", .points = true};
    name_device(p, device, sizeof device);
    snprintf(x_name, sizeof x_name, "microseconds on %s", device);
    for (int k = 0; k < methods; k++) {
        us[k] = page_gpu_us(p, batch, m, n, name[k]),
        error[k] = page_gpu_error(p, m, n, input, name[k]);
        any = any || isfinite(us[k] + error[k]);
        series_add(figure_line(&f, name[k]), us[k], error[k]);
    }
    if (!any) return figure_free(&f), true;
    page_front(front, sizeof front, name, us, error, methods);
    snprintf(title, sizeof title, "Error on %s against time: %d x %d x %d", input, batch, m, n);
    snprintf(finding, sizeof finding, "Not dominated: %s.", front);
    snprintf(file, sizeof file, "gpu_pareto_%d", n);
    f.title = title, f.finding = finding;
    return page_show(p, &f, file, err);
}

bool page_gpu(Page *p, Error *err)
{
    const Csv *c = &p->gpu.error;
    if (!c->rows && !p->gpu.time.rows && !p->gpu.training.rows && !p->gpu.sweep.rows) return true;
    fprintf(p->out, "## Full size, on a GPU\n\nMade by\n\n");
    for (const char *line = p->gpu.command; *line; line += strcspn(line, "\n"), line += *line != 0)
        fprintf(p->out, "    %.*s\n", (int)strcspn(line, "\n"), line);
    fputc('\n', p->out);
    if (!peers_figure(p, err)) return false;
    if (c->rows) {
        const char *hard = "columns";
        for (int r = 0; r < c->rows; r++)
            if (!strcmp(c->cell[r][2], "momentum")) hard = "momentum";
        if (!size_figure(p, err)) return false;
        page_gpu_published(p);
        error_table(p);
        ratios(p);
        if (!pareto_figure(p, 22, 768, 3072, hard, err) ||
            !pareto_figure(p, 40, 768, 768, hard, err))
            return false;
    }
    return page_gpu_sweep(p, err) && page_gpu_training(p, err);
}
