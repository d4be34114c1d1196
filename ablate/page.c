#include "page_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../run/atomic_file.h"
#include "combination.h"
#include "studies.h"

// ---- errors ------------------------------------------------------------------------------------

static bool iterations_figure(Page *p, const char *input, int m, int n, const char *what,
                              Error *err)
{
    char title[160], finding[320], file[64];
    Figure f = {.x_name =
                    "iterations (the last rows of polar_express; past five its last one again)",
                .y_name = "polar error, bf16",
                .log_y = true,
                .whole_x = true};
    for (int i = 0; combination_norm(i); i++)
        for (int k = 1; k <= NS_MAX_ITERATIONS; k++) {
            const char *norm = combination_norm(i);
            const double e = page_error(p, input, m, n, norm, "polar_express", k, "standard", what);
            series_add(figure_line(&f, norm), k, e);
        }
    if (!strcmp(what, "orthogonality")) f.y_name = "|Y Y^T - I| / sqrt(m), bf16";
    snprintf(title, sizeof title, "%s by normaliser: %s%s",
             strcmp(what, "polar") ? "Orthogonality error" : "Polar error", input,
             m ? "" : ", all shapes");
    if (m) snprintf(title + strlen(title), sizeof title - strlen(title), ", %d x %d", m, n);
    snprintf(
        finding, sizeof finding,
        "AOL, Schatten-4, Frobenius after 4: %.3f, %.3f, %.3f; after 5: %.3f, %.3f, %.3f; after 8: "
        "%.3f, %.3f, %.3f.",
        page_error(p, input, m, n, "aol", "polar_express", 4, "standard", what),
        page_error(p, input, m, n, "schatten4", "polar_express", 4, "standard", what),
        page_error(p, input, m, n, "frobenius", "polar_express", 4, "standard", what),
        page_error(p, input, m, n, "aol", "polar_express", 5, "standard", what),
        page_error(p, input, m, n, "schatten4", "polar_express", 5, "standard", what),
        page_error(p, input, m, n, "frobenius", "polar_express", 5, "standard", what),
        page_error(p, input, m, n, "aol", "polar_express", 8, "standard", what),
        page_error(p, input, m, n, "schatten4", "polar_express", 8, "standard", what),
        page_error(p, input, m, n, "frobenius", "polar_express", 8, "standard", what));
    f.title = title, f.finding = finding;
    snprintf(file, sizeof file, "%s_%s", what, input);
    return page_show(p, &f, file, err);
}

static void error_table(Page *p)
{
    fprintf(p->out,
            "Polar error of the named methods, mean over shapes and matrices:\n\n| input |");
    for (int k = 0; page_method(k); k++) fprintf(p->out, " %s |", page_method(k));
    fprintf(p->out, "\n|---|");
    for (int k = 0; page_method(k); k++) fprintf(p->out, "---|");
    for (int i = 0; page_input(p, i); i++) {
        fprintf(p->out, "\n| %s |", page_input(p, i));
        for (int k = 0; page_method(k); k++) {
            fputc(' ', p->out);
            page_number(p->out, page_named_error(p, page_input(p, i), 0, 0, page_method(k)));
            fprintf(p->out, " |");
        }
    }
    fprintf(p->out, "\n\n");
}

// turbo_muon.md section 2: Gaussian n x n, bf16; T1 .. T5 is aol with the last rows of `you`.
static void published_table(Page *p)
{
    static const struct {
        int n;
        double muon5, you5, t[5];
    } published[] = {{64, .214, .068, {.463, .286, .160, .089, .048}},
                     {256, .209, .094, {.533, .328, .174, .093, .054}}};
    fprintf(p->out, "Published polar errors on Gaussian n x n (paper / here; T_k is k iterations "
                    "of AOL with the "
                    "last rows of `you`):\n\n| n | muon5 | you5 | T1 | T2 | T3 | T4 | T5 |\n"
                    "|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < 2; i++) {
        const int n = published[i].n;
        if (isnan(page_named_error(p, "gaussian", n, n, "muon5"))) continue;
        fprintf(p->out, "| %d | %.3f / %.3f | %.3f / %.3f |", n, published[i].muon5,
                page_named_error(p, "gaussian", n, n, "muon5"), published[i].you5,
                page_named_error(p, "gaussian", n, n, "you5"));
        for (int k = 1; k <= 5; k++)
            fprintf(p->out, " %.3f / %.3f |", published[i].t[k - 1],
                    page_error(p, "gaussian", n, n, "aol", "you", k, "standard", "polar"));
        fputc('\n', p->out);
    }
    fprintf(p->out,
            "\nThe means are over few matrices; one n x n Gaussian has a smallest singular value "
            "of about 1/n of the largest, which varies from matrix to matrix, and with it all "
            "that has not converged there.\n\n");
}

static void bias_table(Page *p)
{
    const Csv *c = &p->bias;
    fprintf(
        p->out,
        "AOL's bias, the distance of polar(diag(s) G) from polar(G), and its share of turbo5's "
        "squared error. The last column is <G,Y> / (|G| |Y|) relative to the exact polar factor's: "
        "positive is a descent, above 1 a steeper one, since small singular values are left "
        "small:\n\n| input | bias | turbo4 | turbo5 | share | polar5 "
        "| "
        "s4-polar4 | descent of turbo4 |\n|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; page_input(p, i); i++) {
        static const char *const columns[] = {"bias", "turbo4", "turbo5", "polar5", "s4-polar4"};
        double sum[5] = {0};
        int count = 0;
        for (int r = 0; r < c->rows; r++) {
            if (strcmp(c->cell[r][0], page_input(p, i))) continue;
            for (int k = 0; k < 5; k++) sum[k] += csv_number(c, r, columns[k]);
            count++;
        }
        if (!count) continue;
        fprintf(p->out, "| %s | %.3f | %.3f | %.3f | %.0f %% | %.3f | %.3f | %.3f |\n",
                page_input(p, i), sum[0] / count, sum[1] / count, sum[2] / count,
                100 * pow(sum[0] / sum[2], 2), sum[3] / count, sum[4] / count,
                page_error(p, page_input(p, i), 0, 0, "aol", "polar_express", 4, "standard",
                           "descent"));
    }
    fputc('\n', p->out);
}

static bool spectrum_figure(Page *p, const char *input, Error *err)
{
    const Csv *c = &p->spectrum;
    char title[128], finding[256];
    Figure f = {.x_name = "singular value (before: of G / |G|_2), bins of a tenth of a decade",
                .y_name = "share of the singular values",
                .log_x = true};
    static const char *const methods[] = {"before", "turbo4", "polar5", "s4-gram5"};
    double below[4] = {0}; // the share under a half
    for (int k = 0; k < 4; k++) {
        Series *line = figure_line(&f, methods[k]);
        double share[64] = {0}, at[64];
        int bins = 0, first = -1, matrices = 0;
        for (int r = 0; r < c->rows; r++) {
            if (strcmp(c->cell[r][0], input) || strcmp(c->cell[r][4], methods[k])) continue;
            if (first < 0 || !strcmp(c->cell[r][5], c->cell[first][5])) bins = 0, matrices++;
            if (first < 0) first = r;
            if (bins == 64) break;
            at[bins] = csv_number(c, r, "value"), share[bins] += csv_number(c, r, "share");
            bins++;
        }
        for (int b = 0; b < bins; b++) {
            series_add(line, at[b], share[b] / matrices);
            if (at[b] < 0.5) below[k] += 100 * share[b] / matrices;
        }
    }
    snprintf(finding, sizeof finding,
             "%.0f %% of the values begin under half of the largest; turbo4 leaves %.0f %% there, "
             "polar5 %.0f %%, s4-gram5 %.0f %%.",
             below[0], below[1], below[2], below[3]);
    f.finding = finding;
    snprintf(title, sizeof title, "Singular values before and after: %s", input);
    f.title = title;
    char file[64];
    snprintf(file, sizeof file, "spectrum_%s", input);
    return page_show(p, &f, file, err);
}

// ---- time --------------------------------------------------------------------------------------

static double square_us(const Csv *c, int n, const char *method)
{
    char key[96];
    snprintf(key, sizeof key, "%s,%d,%d", method, n, n);
    return page_mean(c, key, "us");
}

static bool time_figures(Page *p, const char *input, Error *err)
{
    char title[160], finding[400], front[320];
    const Csv *c = &p->time;
    Figure f = {.x_name = "n of a matrix n x n",
                .y_name = "microseconds on one thread of the CPU",
                .log_x = true,
                .log_y = true};
    int largest = 0;
    for (int i = 0; studies_method(i); i++)
        for (int r = 0; r < c->rows; r++)
            if (!strcmp(c->cell[r][0], studies_method(i)) &&
                !strcmp(c->cell[r][1], c->cell[r][2])) {
                series_add(figure_line(&f, studies_method(i)), csv_number(c, r, "n"),
                           csv_number(c, r, "us"));
                largest = (int)fmax(largest, csv_number(c, r, "n"));
            }
    if (largest) {
        f.title = "Time by size, n x n";
        f.finding = finding;
        snprintf(finding, sizeof finding,
                 "At n = %d, of polar5's time turbo4 takes %.2f, s4-gram5 %.2f, turbo-gram4 %.2f; "
                 "a GPU's kernels order them otherwise.",
                 largest, square_us(c, largest, "turbo4") / square_us(c, largest, "polar5"),
                 square_us(c, largest, "s4-gram5") / square_us(c, largest, "polar5"),
                 square_us(c, largest, "turbo-gram4") / square_us(c, largest, "polar5"));
        if (!page_show(p, &f, "time", err)) return false;
    }

    double us[MAX_ROWS] = {0}, error[MAX_ROWS] = {0};
    const char *name[MAX_ROWS];
    int n = 0;
    Figure pareto = {.x_name = "microseconds on one thread of the CPU",
                     .y_name = "polar error, bf16 (f16 in gram form)",
                     .points = true};
    for (int i = 0; studies_method(i) && n < MAX_ROWS; i++) {
        char key[96];
        snprintf(key, sizeof key, "%s,%d,%d", studies_method(i), p->m, p->n);
        const int r = csv_find(c, key, 0);
        us[n] = r < 0 ? NAN : csv_number(c, r, "us");
        error[n] = page_named_error(p, input, 0, 0, studies_method(i));
        name[n] = studies_method(i);
        series_add(figure_line(&pareto, name[n]), us[n], error[n]);
        n++;
    }
    page_front(front, sizeof front, name, us, error, n);
    snprintf(finding, sizeof finding, "Not dominated: %s.", front);
    snprintf(title, sizeof title, "Error on %s against time at %d x %d", input, p->m, p->n);
    pareto.title = title, pareto.finding = finding;
    return page_show(p, &pareto, "pareto", err);
}

// ---- claims ------------------------------------------------------------------------------------

static void claim(Page *p, const char *text, bool testable, bool holds, const char *format,
                  double a, double b)
{
    fprintf(p->out, "| %s | %s | ", text,
            !testable ? "not testable here"
            : holds   ? "reproduced"
                      : "not reproduced");
    fprintf(p->out, format, a, b);
    fprintf(p->out, " |\n");
}

// What can only be told at full size: nothing where the tables are not there.
static void gpu_claims(Page *p)
{
    const double l4 = page_gpu_error(p, 1024, 1024, "levy1.0", "turbo4-you"),
                 l5 = page_gpu_error(p, 1024, 1024, "levy1.0", "you5");
    const double us4 = page_gpu_us(p, 22, 768, 3072, "turbo4-you"),
                 us5 = page_gpu_us(p, 22, 768, 3072, "you5");
    const double t4 = page_gpu_us(p, 22, 768, 3072, "turbo4"),
                 tg = page_gpu_us(p, 22, 768, 3072, "turbo-gram4"),
                 s5 = page_gpu_us(p, 22, 768, 3072, "s4-gram5");
    const double me = page_gpu_error(p, 768, 3072, "momentum", "turbo4"),
                 se = page_gpu_error(p, 768, 3072, "momentum", "s4-gram5");
    int n4, n5;
    GpuTraining t;
    if (isfinite(l4))
        claim(p,
              "on Lévy 1.0, 1024 x 1024, four AOL iterations have .188, five without .574 (a tenth "
              "off at "
              "most)",
              true, fabs(l4 - .188) < .0188 && fabs(l5 - .574) < .0574,
              "turbo4-you %.3f, you5 %.3f", l4, l5);
    if (isfinite(us4))
        claim(p, "four AOL iterations take less time than five without", true, us4 < us5,
              "turbo4-you %.0f, you5 %.0f µs (22 x 768 x 3072)", us4, us5);
    if (isfinite(tg))
        claim(p, "turbo-gram4 is 2.1 times cheaper than turbo4 where n = 4 m", true, t4 / tg > 2,
              "%.2f times in time (22 x 768 x 3072), 2.1 in multiplications%.0s", t4 / tg, 0);
    if (isfinite(s5 + se))
        claim(p, "s4-gram5 is more accurate than turbo4 and cheaper, on 768 x 3072", true,
              s5 < t4 && se < me, "%.2f of its time, %.2f of its error on momentum", s5 / t4,
              se / me);
    if (!page_gpu_best(p, 250, &t)) return;
    const double off = page_gpu_loss(p, "turbo4", 250, &n4) - page_gpu_loss(p, "polar5", 250, &n5);
    if (isfinite(off))
        claim(
            p,
            "turbo4's loss is above that of its parent's polar5 at step 250 (published: by 0.0195)",
            true, off > 0 && page_pooled_p(&t, off, n4, n5) < 0.05,
            "%+.4f on other data, p %.3f by the spread of these seeds", off,
            page_pooled_p(&t, off, n4, n5));
}

static void claims(Page *p)
{
    const double t4 = page_named_error(p, "gaussian", 256, 256, "turbo4-you"),
                 y5 = page_named_error(p, "gaussian", 256, 256, "you5");
    const double mt4 = page_named_error(p, "momentum", 0, 0, "turbo4"),
                 mp5 = page_named_error(p, "momentum", 0, 0, "polar5");
    const double ms4 = page_named_error(p, "momentum", 0, 0, "s4-polar5");
    const double c4 = page_named_error(p, "columns", 0, 0, "turbo4-you"),
                 c5 = page_named_error(p, "columns", 0, 0, "you5");
    const double l4 = page_named_error(p, "levy1.0", 0, 0, "turbo4-you"),
                 l5 = page_named_error(p, "levy1.0", 0, 0, "you5");
    fprintf(p->out, "| published claim | here | numbers |\n|---|---|---|\n");
    claim(p, "AOL saves an iteration: on a Gaussian 256 x 256 four are as accurate as five without",
          isfinite(t4), t4 <= 1.1 * y5, "turbo4-you %.3f, you5 %.3f", t4, y5);
    claim(p, "on heavy-tailed (Lévy 1.0) matrices four are more accurate than five without",
          isfinite(l4), l4 < l5, "%.3f, %.3f", l4, l5);
    claim(p, "AOL loses where columns are badly scaled", isfinite(c4), c4 > c5, "%.3f, %.3f", c4,
          c5);
    claim(p, "on real momentum four AOL iterations are less accurate than five Frobenius ones",
          isfinite(mt4), mt4 > mp5, "turbo4 %.3f, polar5 %.3f", mt4, mp5);
    claim(p, "on real momentum five Schatten-4 iterations beat polar5", isfinite(ms4), ms4 < mp5,
          "s4-polar5 %.3f, polar5 %.3f", ms4, mp5);
    gpu_claims(p);
    claim(p, "2.6 % less training time end to end on 4 GPUs", false, false, "needs 4 GPUs%.0s%.0s",
          0, 0);
    claim(p, "no less training time on 8 GPUs", false, false, "needs 8 GPUs%.0s%.0s", 0, 0);
    fputc('\n', p->out);
}

// ---- the page ----------------------------------------------------------------------------------

static bool fill(Page *p, const char *command, Error *err)
{
    const bool momentum = page_has_input(p, "momentum");
    const char *hard = momentum ? "momentum" : "columns";
    fprintf(
        p->out,
        "# Ablations\n\nMade by `ablations page` from the tables that this wrote:\n\n    %s\n\n"
        "Small sizes on a CPU%s. Errors are of the method's own storage (bf16; f16 in gram form) "
        "against a decomposition in double.\n\n",
        command,
        p->gpu.command[0] ? "; full size on a GPU follows below"
                          : "; the same at full size on a GPU is still to be measured");
    page_advice(p);
    bool ok = true;
    if (p->error.rows) {
        fprintf(p->out, "## Error by iterations\n\n");
        ok = iterations_figure(p, "gaussian", p->m, p->n, "polar", err) &&
             iterations_figure(p, hard, 0, 0, "polar", err) &&
             iterations_figure(p, hard, 0, 0, "orthogonality", err);
        if (!ok) return false;
        error_table(p);
        published_table(p);
    }
    if (p->bias.rows) {
        fprintf(p->out, "## The bias of AOL\n\n");
        bias_table(p);
    }
    if (p->spectrum.rows) {
        fprintf(p->out, "## Singular values\n\n");
        if (!spectrum_figure(p, "gaussian", err) || !spectrum_figure(p, hard, err)) return false;
    }
    if (p->time.rows && p->error.rows) {
        fprintf(p->out, "## Time\n\n");
        if (!time_figures(p, hard, err)) return false;
    }
    page_remedies(p);
    page_training(p);
    if (!page_gpu(p, err)) return false;
    if (p->error.rows) {
        fprintf(p->out, "## Published claims\n\n");
        claims(p);
    }
    return true;
}

static bool read_table(Csv *csv, const char *folder, const char *name, Error *err)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return csv_read(csv, path, err);
}

// All of machine.txt; nothing when there is no such file.
static void read_machine(Page *p, const char *gpu)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/machine.txt", gpu);
    FILE *file = fopen(path, "r");
    if (!file) return;
    p->gpu.command[fread(p->gpu.command, 1, sizeof p->gpu.command - 1, file)] = '\0';
    fclose(file);
}

bool page_write(const char *folder, const char *gpu, const char *page, const char *command,
                Error *err)
{
    Page p = {.path = page};
    const struct {
        Csv *csv;
        const char *folder, *name;
    } tables[] = {{&p.error, folder, "error.csv"},        {&p.bias, folder, "bias.csv"},
                  {&p.spectrum, folder, "spectrum.csv"},  {&p.remedies, folder, "remedies.csv"},
                  {&p.time, folder, "time.csv"},          {&p.training, folder, "training.csv"},
                  {&p.gpu.error, gpu, "error.csv"},       {&p.gpu.time, gpu, "time.csv"},
                  {&p.gpu.training, gpu, "training.csv"}, {&p.gpu.sweep, gpu, "sweep.csv"}};
    enum { N = sizeof tables / sizeof *tables };
    char *text = NULL;
    size_t size = 0;
    bool ok = true;
    for (int i = 0; ok && i < N; i++)
        ok = read_table(tables[i].csv, tables[i].folder, tables[i].name, err);
    read_machine(&p, gpu);
    if (ok && !p.error.rows && !p.training.rows)
        ok = fail(err, "%s holds no tables: ablations error and ablations time write them", folder);
    for (int r = 0; ok && r < p.error.rows; r++) // the last shape of the Gaussians
        if (!strcmp(p.error.cell[r][0], "gaussian"))
            p.m = atoi(p.error.cell[r][1]), p.n = atoi(p.error.cell[r][2]);
    p.out = ok ? open_memstream(&text, &size) : NULL;
    ok = ok && (p.out || fail(err, "no memory")) && fill(&p, command, err);
    if (p.out) ok = fclose(p.out) == 0 && ok;
    AtomicFile file;
    ok = ok && atomic_file_open(&file, page, size, err) &&
         atomic_file_write(&file, text, size, err) && atomic_file_commit(&file, err);
    free(text);
    for (int i = 0; i < N; i++) csv_close(tables[i].csv);
    return ok;
}
