#include "figure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../run/atomic_file.h"
#include "../run/escape.h"
#include "../run/plot_axis.h"

enum { WIDTH = 960, HEIGHT = 560, LEFT = 76, RIGHT = 740, TOP = 96, BOTTOM = 490 };

// Eight colours that a colour-blind reader can tell apart, lightened for dark paper by the filter.
static const char style[] =
    "<style>\n"
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu Sans',sans-serif;"
    "fill:#57606a;font-size:13px}\n"
    ".paper{fill:#ffffff}.title{font-size:20px;font-weight:600;fill:#1f2328}.sub{font-size:14px}\n"
    ".grid{stroke:#d0d7de;stroke-opacity:.55}.axis{stroke:#8c959f}\n"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}\n"
    "@media (prefers-color-scheme:dark){\n"
    "text{fill:#9da7b3}.paper{fill:#0d1117}.title{fill:#e6edf3}\n"
    ".grid{stroke:#30363d;stroke-opacity:.8}.axis{stroke:#6e7681}.curve{filter:brightness(1.35)}}\n"
    "</style>\n";
static const char *const color[] = {"#0b5fd0", "#d1500c", "#1a7f37", "#8250df",
                                    "#bf3989", "#9a6700", "#0a7ea4", "#6e7781"};
enum { N_COLORS = sizeof color / sizeof *color };

Series *figure_line(Figure *figure, const char *label)
{
    for (int i = 0; i < figure->n; i++)
        if (!strcmp(figure->label[i], label)) return &figure->line[i];
    if (figure->n == FIGURE_MAX) return &figure->line[FIGURE_MAX - 1];
    figure->label[figure->n] = label;
    return &figure->line[figure->n++];
}

void figure_free(Figure *figure)
{
    for (int i = 0; i < figure->n; i++) series_free(&figure->line[i]);
    figure->n = 0;
}

static bool is_shown(const Figure *f, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!f->log_x || x > 0) && (!f->log_y || y > 0);
}

static void put_text(FILE *out, const char *class, const char *anchor, double x, double y,
                     const char *text)
{
    fprintf(out, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, anchor, x,
            y);
    escape_xml(out, text, strlen(text));
    fputs("</text>\n", out);
}

// The range of all values, with room at the ends.
static bool fit(const Figure *f, bool is_x, Axis *axis)
{
    const bool logarithmic = is_x ? f->log_x : f->log_y;
    double low = INFINITY, high = -INFINITY;
    if (is_x && f->x_labels) {
        axis_fit_range(axis, -0.5, f->x_labels - 0.5, false, true);
        for (axis->n_ticks = 0; axis->n_ticks < f->x_labels && axis->n_ticks < AXIS_MAX_TICKS;
             axis->n_ticks++)
            axis->tick[axis->n_ticks] = axis->n_ticks;
        return true;
    }
    for (int i = 0; i < f->n; i++)
        for (int k = 0; k < f->line[i].n; k++)
            if (is_shown(f, f->line[i].x[k], f->line[i].y[k])) {
                const double value = is_x ? f->line[i].x[k] : f->line[i].y[k];
                low = fmin(low, value), high = fmax(high, value);
            }
    if (!(low <= high)) return false;
    if (logarithmic)
        low /= 1.15, high *= 1.15;
    else {
        const double room = fmax(0.05 * (high - low), fmax(1e-6 * fabs(high), 1e-9));
        low = low >= 0 && low < 2 * room ? 0 : low - room, high += room;
    }
    axis_fit_range(axis, low, high, logarithmic, is_x && f->whole_x);
    return true;
}

static void draw_axes(const Figure *f, FILE *out, const Axis *x, const Axis *y)
{
    char text[32];
    for (int i = 0; i < y->n_ticks; i++) {
        const double at = axis_place(y, y->tick[i], BOTTOM, TOP);
        fprintf(out, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", LEFT,
                at, RIGHT, at);
        put_text(out, "tick", "end", LEFT - 8, at + 4.5, axis_label(y, i, text, sizeof text));
    }
    for (int i = 0; i < x->n_ticks; i++) {
        const double at = axis_place(x, x->tick[i], LEFT, RIGHT);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", at,
                TOP, at, BOTTOM);
        put_text(out, "tick", "middle", at, BOTTOM + 20,
                 f->x_labels ? f->x_label[i] : axis_label(x, i, text, sizeof text));
    }
    fprintf(out, "<line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", LEFT, BOTTOM,
            RIGHT, BOTTOM);
    put_text(out, "name", "middle", (LEFT + RIGHT) / 2.0, BOTTOM + 46, f->x_name);
    put_text(out, "name", "start", LEFT - 50, TOP - 14, f->y_name);
}

// The lines after the first N_COLORS have dashes, and squares.
static void draw_point(FILE *out, int i, double x, double y)
{
    const char *ink = color[i % N_COLORS];
    if (i < N_COLORS)
        fprintf(out, "<circle fill=\"%s\" r=\"4\" cx=\"%.1f\" cy=\"%.1f\"/>\n", ink, x, y);
    else
        fprintf(out, "<rect fill=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\"/>\n", ink,
                x - 4, y - 4);
}

static void begin_line(FILE *out, int i)
{
    fprintf(out, "<polyline class=\"line\" stroke=\"%s\"%s points=\"", color[i % N_COLORS],
            i < N_COLORS ? "" : " stroke-dasharray=\"6 4\"");
}

static void draw_line(const Figure *f, FILE *out, int i, const Axis *x, const Axis *y)
{
    const Series *s = &f->line[i];
    bool begun = false;
    fputs("<g class=\"curve\">\n", out);
    for (int k = 0; !f->points && k < s->n; k++) {
        if (!is_shown(f, s->x[k], s->y[k])) continue;
        if (!begun) begin_line(out, i);
        begun = true;
        fprintf(out, " %.1f,%.1f", axis_place(x, s->x[k], LEFT, RIGHT),
                axis_place(y, s->y[k], BOTTOM, TOP));
    }
    if (begun) fputs("\"/>\n", out);
    for (int k = 0; k < s->n; k++)
        if (is_shown(f, s->x[k], s->y[k]))
            draw_point(out, i, axis_place(x, s->x[k], LEFT, RIGHT),
                       axis_place(y, s->y[k], BOTTOM, TOP));
    const double at = TOP + 10 + 22 * i;
    if (!f->points) {
        begin_line(out, i);
        fprintf(out, "%d,%.1f %d,%.1f\"/>\n", RIGHT + 18, at, RIGHT + 40, at);
    }
    draw_point(out, i, RIGHT + 29, at);
    fputs("</g>\n", out);
    put_text(out, "key", "start", RIGHT + 47, at + 4.5, f->label[i]);
}

bool figure_write(const Figure *figure, const char *path, Error *err)
{
    Axis x, y;
    char *text = NULL;
    size_t size = 0;
    if (!fit(figure, true, &x) || !fit(figure, false, &y))
        return fail(err, "%s: nothing to draw", path);
    FILE *out = open_memstream(&text, &size);
    if (!out) return fail(err, "%s: no memory", path);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\">\n%s<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, style, WIDTH, HEIGHT);
    put_text(out, "title", "start", LEFT - 50, 36, figure->title);
    put_text(out, "sub", "start", LEFT - 50, 60, figure->finding);
    draw_axes(figure, out, &x, &y);
    for (int i = 0; i < figure->n; i++) draw_line(figure, out, i, &x, &y);
    fputs("</svg>\n", out);
    const bool whole = fflush(out) == 0 && !ferror(out);
    fclose(out);
    AtomicFile file;
    const bool ok = whole ? atomic_file_open(&file, path, size, err) &&
                                atomic_file_write(&file, text, size, err) &&
                                atomic_file_commit(&file, err)
                          : fail(err, "%s: no memory", path);
    free(text);
    return ok;
}
