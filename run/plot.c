#include "plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "atomic_file.h"
#include "escape.h"
#include "plot_axis.h"

// The picture in SVG units, and the rectangle that the curves live in.
enum { kWidth = 960, kHeight = 540, kLeft = 68, kRight = 890, kTop = 108, kBottom = 482 };
enum { kBins = 760, kMaxLines = 8, kLabelWidth = 190 };

static const double kLabelGap = 17; // between the baselines of two labels

typedef struct {
    const Plot *plot;
    FILE *out;
    Axis x, y;
} Canvas;

static double at_x(const Canvas *c, double x) { return axis_place(&c->x, x, kLeft, kRight); }

static double at_y(const Canvas *c, double y) { return axis_place(&c->y, y, kBottom, kTop); }

static const char kStyle[] =
    "<style>\n"
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu "
    "Sans',sans-serif;fill:#57606a;font-size:13px}\n"
    ".paper{fill:#ffffff}.title{font-size:20px;font-weight:600;fill:#1f2328}.sub{font-size:14px}\n"
    ".grid{stroke:#d0d7de;stroke-opacity:.55}.axis{stroke:#8c959f}\n"
    ".raw{fill:none;stroke:#7fb2ee;stroke-opacity:.55;stroke-width:1}\n"
    ".mean{fill:none;stroke:#0b5fd0;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".val{fill:none;stroke:#d1500c;stroke-opacity:.6;stroke-width:1.2;stroke-linejoin:round}\n"
    ".dot{fill:#d1500c;stroke:#ffffff;stroke-width:1.5}.end{fill:#b3440a;font-weight:600}\n"
    ".ref{stroke:#6e7781;stroke-width:1.3;stroke-dasharray:6 5}\n"
    ".halo{stroke:#ffffff;stroke-width:4;stroke-linejoin:round;paint-order:stroke}\n"
    "@media (prefers-color-scheme:dark){\n"
    "text{fill:#9da7b3}.paper{fill:#0d1117}.title{fill:#e6edf3}\n"
    ".grid{stroke:#30363d;stroke-opacity:.8}.axis{stroke:#6e7681}\n"
    ".raw{stroke:#1f6feb;stroke-opacity:.5}.mean{stroke:#58a6ff}\n"
    ".val{stroke:#f0883e}.dot{fill:#f0883e;stroke:#0d1117}.end{fill:#f0883e}.ref{stroke:#8b949e}\n"
    ".halo{stroke:#0d1117}}\n"
    "</style>\n";

static void put_text(const Canvas *c, const char *class, const char *anchor, double x, double y,
                     const char *text)
{
    fprintf(c->out, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, anchor,
            x, y);
    escape_xml(c->out, text, strlen(text));
    fputs("</text>\n", c->out);
}

static void put_line(const Canvas *c, const char *class, double x1, double y1, double x2, double y2)
{
    fprintf(c->out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class,
            x1, y1, x2, y2);
}

static void draw_axes(const Canvas *c)
{
    char text[32];
    for (int i = 0; i < c->y.n_ticks; i++) {
        double y = at_y(c, c->y.tick[i]);
        put_line(c, "grid", kLeft, y, kRight, y);
        put_text(c, "tick", "end", kLeft - 10, y + 4.5, axis_label(&c->y, i, text, sizeof text));
    }
    for (int i = 0; i < c->x.n_ticks; i++) {
        double x = at_x(c, c->x.tick[i]);
        put_line(c, "grid", x, kTop, x, kBottom);
        put_text(c, "tick", "middle", x, kBottom + 21, axis_label(&c->x, i, text, sizeof text));
    }
    put_line(c, "axis", kLeft, kBottom, kRight, kBottom);
    put_text(c, "name", "middle", (kLeft + kRight) / 2.0, kBottom + 46, "training step");
    put_text(c, "name", "start", kLeft - 40, kTop - 14, "loss (nats per token)");
}

// ---- curves
// --------------------------------------------------------------------------------------

// A polyline from points that arrive one by one; a point that is not finite interrupts it.
typedef struct {
    FILE *out;
    const char *class;
    int n;
    double x, y;
} Path;

static void path_end(Path *path)
{
    if (path->n == 1) // a lone point is a short stroke, else it could not be seen
        fprintf(path->out, " %.1f,%.1f", path->x + 1.5, path->y);
    if (path->n) fputs("\"/>\n", path->out);
    path->n = 0;
}

static void path_point(const Canvas *c, Path *path, double x, double y)
{
    if (!isfinite(y)) {
        path_end(path);
        return;
    }
    path->x = at_x(c, x);
    path->y = at_y(c, y);
    if (!path->n++) fprintf(path->out, "<polyline class=\"%s\" points=\"", path->class);
    fprintf(path->out, " %.1f,%.1f", path->x, path->y);
}

static bool is_drawn(const Canvas *c, const Series *s, int i)
{
    return isfinite(s->x[i]) && s->x[i] >= c->x.low && s->x[i] <= c->x.high;
}

// The lowest and the highest point of each column of the picture, in the order they came: the look
// of the full line at a bounded size.
static void draw_raw(const Canvas *c, const Series *s)
{
    Path path = {.out = c->out, .class = "raw"};
    for (int i = 0; i < s->n;) {
        if (!is_drawn(c, s, i) || !isfinite(s->y[i])) {
            if (is_drawn(c, s, i)) path_point(c, &path, s->x[i], NAN);
            i++;
            continue;
        }
        int column = (int)(kBins * axis_place(&c->x, s->x[i], 0, 1)), low = i, high = i, j = i;
        for (; j < s->n && is_drawn(c, s, j) && isfinite(s->y[j]) &&
               (int)(kBins * axis_place(&c->x, s->x[j], 0, 1)) == column;
             j++) {
            if (s->y[j] < s->y[low]) low = j;
            if (s->y[j] > s->y[high]) high = j;
        }
        int first = low < high ? low : high, second = low < high ? high : low;
        path_point(c, &path, s->x[first], s->y[first]);
        if (second != first) path_point(c, &path, s->x[second], s->y[second]);
        i = j;
    }
    path_end(&path);
}

static double on_axis(const Axis *axis, double value)
{
    return fmin(fmax(value, axis->low), axis->high);
}

// The mean over a window of steps around each, narrow at the start where the loss falls fast. What
// the axis leaves out counts as its end, so that one spike does not become a tower.
static void draw_mean(const Canvas *c, const Series *s)
{
    Path path = {.out = c->out, .class = "mean"};
    int every = s->n / (2 * kBins) + 1, left = 0, right = 0, count = 0;
    double sum = 0;
    for (int i = 0; i < s->n; i++) {
        int half = i / 6 < s->n / 50 ? i / 6 : s->n / 50;
        if (half > s->n - 1 - i) half = s->n - 1 - i; // symmetric, else the end would lean
        if (half < s->n / 200) half = i < s->n / 2 ? half : s->n / 200;
        int from = i - half > 0 ? i - half : 0, to = i + half + 1 < s->n ? i + half + 1 : s->n;
        if (from < left || to < right) left = right = from, sum = 0, count = 0;
        for (; right < to; right++)
            if (isfinite(s->y[right])) sum += on_axis(&c->y, s->y[right]), count++;
        for (; left < from; left++)
            if (isfinite(s->y[left])) sum -= on_axis(&c->y, s->y[left]), count--;
        bool kept = half < 3 || i % every == 0 || i == s->n - 1;
        if (kept && is_drawn(c, s, i))
            path_point(c, &path, s->x[i], isfinite(s->y[i]) && count ? sum / count : NAN);
    }
    path_end(&path);
}

// Points closer than a gap to the one before are left out, but never the last.
static void draw_val(const Canvas *c, const Series *s)
{
    static const double line_gap = 0.8, dot_gap = 7;
    Path path = {.out = c->out, .class = "val"};
    double before = -kWidth;
    for (int i = 0; i < s->n; i++) {
        if (!is_drawn(c, s, i) || (i < s->n - 1 && fabs(at_x(c, s->x[i]) - before) < line_gap))
            continue;
        path_point(c, &path, s->x[i], s->y[i]);
        before = at_x(c, s->x[i]);
    }
    path_end(&path);
    before = -kWidth;
    for (int i = 0; i < s->n; i++) {
        if (!is_drawn(c, s, i) || !isfinite(s->y[i])) continue;
        double x = at_x(c, s->x[i]);
        if (i < s->n - 1 && fabs(x - before) < dot_gap) continue;
        fprintf(c->out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", x,
                at_y(c, s->y[i]));
        before = x;
    }
}

// The last validation's value to the right of its point, or above it when other points follow.
static void label_last(const Canvas *c, const Series *s)
{
    char text[32];
    int i = s->n - 1;
    while (i >= 0 && !(is_drawn(c, s, i) && isfinite(s->y[i]))) i--;
    if (i < 0) return;
    snprintf(text, sizeof text, fabs(s->y[i]) < 1e4 ? "%.4f" : "%.2e", s->y[i]);
    double x = at_x(c, s->x[i]), y = at_y(c, s->y[i]);
    if (x > kRight - 30)
        put_text(c, "end", "start", x + 10, y + 4.5, text);
    else
        put_text(c, "end halo", "middle", x, y < kTop + 14 ? y + 22 : y - 12, text);
}

// ---- references and legend
// -----------------------------------------------------------------------

// How near the curves come to a height, within columns from x1 to x2.
static double clearance(const Canvas *c, double x1, double x2, double y)
{
    const Series *both[2] = {c->plot->train, c->plot->val};
    double nearest = kHeight;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < both[k]->n; i++) {
            if (!is_drawn(c, both[k], i) || !isfinite(both[k]->y[i])) continue;
            double x = at_x(c, both[k]->x[i]);
            if (x >= x1 && x <= x2) nearest = fmin(nearest, fabs(at_y(c, both[k]->y[i]) - y));
        }
    return nearest;
}

static void draw_references(const Canvas *c)
{
    double taken[kMaxLines];
    int n = 0;
    for (int i = 0; i < c->plot->n_lines && n < kMaxLines; i++) {
        const PlotLine *line = &c->plot->lines[i];
        if (!(line->y >= c->y.low && line->y <= c->y.high)) continue;
        char text[160];
        double y = at_y(c, line->y), label = y - 6;
        put_line(c, "ref", kLeft, y, kRight, y);
        for (int j = 0; j < n; j++) // below its own line when above is another's label
            if (fabs(taken[j] - label) < kLabelGap) label = y + kLabelGap;
        taken[n++] = label;
        snprintf(text, sizeof text, "%.120s %.3f", line->label, line->y);
        // at the end where the curves are farther away
        bool right = clearance(c, kRight - kLabelWidth, kRight, label - 5) >
                     clearance(c, kLeft, kLeft + kLabelWidth, label - 5);
        put_text(c, "halo", right ? "end" : "start", right ? kRight - 8 : kLeft + 8, label, text);
    }
}

static void draw_legend(const Canvas *c)
{
    static const char *const name[] = {"training", "running mean", "validation"};
    static const double width[] = {100, 134, 104};
    bool has[] = {c->plot->train->n > 0, c->plot->train->n > 2, c->plot->val->n > 0};
    static const char *const class[] = {"raw", "mean", "val"};
    double x = kRight;
    for (int i = 0; i < 3; i++) x -= has[i] ? width[i] : 0;
    for (int i = 0; i < 3; i++) {
        if (!has[i]) continue;
        put_line(c, class[i], x, kTop - 18.5, x + 24, kTop - 18.5);
        if (i == 2)
            fprintf(c->out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", x + 12,
                    kTop - 18.5);
        put_text(c, "legend", "start", x + 31, kTop - 14, name[i]);
        x += width[i];
    }
}

static void draw(const Canvas *c)
{
    fprintf(c->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" "
            "role=\"img\">\n<title>",
            kWidth, kHeight, kWidth, kHeight);
    escape_xml(c->out, c->plot->title, strlen(c->plot->title));
    fprintf(
        c->out,
        "</title>\n%s<rect class=\"paper\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n"
        "<clipPath id=\"inside\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>\n",
        kStyle, kWidth, kHeight, kLeft - 6, kTop - 6, kRight - kLeft + 12, kBottom - kTop + 6);
    put_text(c, "title", "start", kLeft - 40, 36, c->plot->title);
    put_text(c, "sub", "start", kLeft - 40, 58, c->plot->subtitle);
    draw_axes(c);
    fputs("<g clip-path=\"url(#inside)\">\n", c->out);
    draw_raw(c, c->plot->train);
    draw_references(c);
    if (c->plot->train->n > 2) draw_mean(c, c->plot->train);
    draw_val(c, c->plot->val);
    fputs("</g>\n", c->out);
    label_last(c, c->plot->val);
    draw_legend(c);
    if (!c->plot->train->n && !c->plot->val->n)
        put_text(c, "sub", "middle", (kLeft + kRight) / 2.0, (kTop + kBottom) / 2.0,
                 "no losses yet");
    fputs("</svg>\n", c->out);
}

bool plot_write(const Plot *plot, const char *path, Error *err)
{
    Canvas canvas = {.plot = plot};
    char *text = NULL;
    size_t size = 0;
    AtomicFile file;
    axis_fit_x(&canvas.x, plot->train, plot->val, plot->log_x);
    if (!axis_fit_y(&canvas.y, plot->train, plot->val, plot->lines, plot->n_lines))
        return fail(err, "no memory to draw %.256s", path);
    canvas.out = open_memstream(&text, &size);
    if (!canvas.out) return fail(err, "no memory to draw %.256s", path);
    draw(&canvas);
    bool ok = fclose(canvas.out) == 0;
    if (!ok) fail(err, "no memory to draw %.256s", path);
    ok = ok && atomic_file_open(&file, path, size, err) &&
         atomic_file_write(&file, text, size, err) && atomic_file_commit(&file, err);
    free(text);
    return ok;
}
