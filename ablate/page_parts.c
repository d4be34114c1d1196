#include "page_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double page_error(const Page *p, const char *input, int m, int n, const char *norm,
                  const char *table, int iterations, const char *variant, const char *column)
{
    double sum = 0;
    int count = 0;
    const Csv *c = &p->error;
    for (int r = 0; r < c->rows; r++) {
        if (strcmp(c->cell[r][0], input) || strcmp(c->cell[r][4], norm) ||
            strcmp(c->cell[r][5], table) || atoi(c->cell[r][6]) != iterations ||
            strcmp(c->cell[r][7], variant) ||
            (m && (atoi(c->cell[r][1]) != m || atoi(c->cell[r][2]) != n)))
            continue;
        sum += csv_number(c, r, column);
        count++;
    }
    return count ? sum / count : NAN;
}

// A named method as rows of error.csv.
typedef struct {
    const char *name, *norm, *table;
    int iterations;
    const char *variant;
} Named;

static const Named named[] = {
    {"muon5", "frobenius", "jordan", 5, "standard"},
    {"you5", "frobenius", "you", 5, "standard"},
    {"polar5", "frobenius", "polar_express", 5, "standard"},
    {"turbo4", "aol", "polar_express", 4, "standard"},
    {"turbo5", "aol", "polar_express", 5, "standard"},
    {"turbo4-you", "aol", "you", 4, "standard"},
    {"s4-polar4", "schatten4", "polar_express", 4, "standard"},
    {"s4-polar5", "schatten4", "polar_express", 5, "standard"},
    {"s4-gram4", "schatten4", "polar_express", 4, "gram"},
    {"s4-gram5", "schatten4", "polar_express", 5, "gram"},
    {"turbo-gram4", "aol", "polar_express", 4, "gram"},
};
enum { N_NAMED = sizeof named / sizeof *named };

const char *page_method(int i) { return i >= 0 && i < N_NAMED ? named[i].name : NULL; }

double page_named_error(const Page *p, const char *input, int m, int n, const char *name)
{
    for (int i = 0; i < N_NAMED; i++)
        if (!strcmp(named[i].name, name))
            return page_error(p, input, m, n, named[i].norm, named[i].table, named[i].iterations,
                              named[i].variant, "polar");
    return NAN;
}

void page_number(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, value < 9.9995 ? "%.3f" : "%.2g", value);
    else
        fprintf(out, "–");
}

const char *page_input(const Page *p, int i)
{
    for (int r = 0, found = 0; r < p->error.rows; r++) {
        int first = 0;
        while (strcmp(p->error.cell[first][0], p->error.cell[r][0])) first++;
        if (first == r && found++ == i) return p->error.cell[r][0];
    }
    return NULL;
}

bool page_has_input(const Page *p, const char *name)
{
    for (int i = 0; page_input(p, i); i++)
        if (!strcmp(page_input(p, i), name)) return true;
    return false;
}

void page_figure_path(const Page *p, const char *name, char *path, size_t size, char *link,
                      size_t link_size)
{
    const char *slash = strrchr(p->path, '/'), *base = slash ? slash + 1 : p->path;
    const int stem = (int)strcspn(base, ".");
    snprintf(link, link_size, "%.*s_%s.svg", stem, base, name);
    snprintf(path, size, "%.*s%s", (int)(base - p->path), p->path, link);
}

bool page_show(Page *p, Figure *figure, const char *name, Error *err)
{
    char path[1200], link[256];
    page_figure_path(p, name, path, sizeof path, link, sizeof link);
    const bool ok = figure_write(figure, path, err);
    if (ok) fprintf(p->out, "![%s](%s)\n\n%s\n\n", figure->title, link, figure->finding);
    figure_free(figure);
    return ok;
}

double page_mean(const Csv *csv, const char *key, const char *column)
{
    double sum = 0;
    int count = 0;
    for (int r = csv_find(csv, key, 0); r >= 0; r = csv_find(csv, key, r + 1)) {
        sum += csv_number(csv, r, column);
        count++;
    }
    return count ? sum / count : NAN;
}

void page_front(char *text, size_t size, const char *const *name, const double *x, const double *y,
                int n)
{
    *text = '\0';
    for (int i = 0; i < n; i++) {
        bool beaten = !isfinite(x[i]) || !isfinite(y[i]);
        for (int k = 0; k < n; k++) beaten = beaten || (x[k] < x[i] && y[k] < y[i]);
        if (!beaten)
            snprintf(text + strlen(text), size - strlen(text), "%s%s", *text ? ", " : "", name[i]);
    }
}
