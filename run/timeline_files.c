// The numbers of a timeline as CSV, and its picture as SVG, which follows the reader's light or
// dark theme.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"
#include "escape.h"
#include "plot_axis.h"
#include "timeline.h"

static bool write_whole(FILE *out, char **text, const size_t *size, const char *path, Error *err)
{
    AtomicFile file;
    const bool whole = !ferror(out);
    const bool ok = (!fclose(out) && whole) || fail(err, "no memory for %.256s", path);
    const bool written = ok && atomic_file_open(&file, path, *size, err) &&
                         atomic_file_write(&file, *text, *size, err) &&
                         atomic_file_commit(&file, err);
    free(*text);
    return written;
}

bool timeline_write_csv(const TimelineResult *r, const char *path, Error *err)
{
    static const char *const lane[] = {"compute", "compute", "communication"};
    static const char *const kind[] = {"phase", "wait", "collective"};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return fail(err, "no memory for %.256s", path);
    fprintf(out,
            "step,lane,kind,name,begin_ms,end_ms,bytes\n%d,all,step,step,0,%.4f,\n"
            "%d,all,total,communication,0,%.4f,\n%d,all,total,exposed,0,%.4f,\n",
            r->step, r->step_ms, r->step, r->communication_ms, r->step, r->exposed_ms);
    for (int i = 0; i < r->n; i++) {
        const Span *s = &r->span[i];
        fprintf(out, "%d,%s,%s,%s,%.4f,%.4f,", s->step, lane[s->kind], kind[s->kind], s->name,
                s->begin, s->end);
        if (s->kind == SPAN_COLLECTIVE) fprintf(out, "%zu", s->bytes);
        fputc('\n', out);
    }
    return write_whole(out, &text, &size, path, err);
}

// ---- the picture -------------------------------------------------------------------------------

enum { WIDTH = 1200, HEIGHT = 380, LEFT = 130, RIGHT = 1170, BOTTOM = 300 };

// Lanes from top to bottom: where each begins, and how high it is.
static const struct {
    const char *name;
    int top, height;
} lanes[] = {[SPAN_PHASE] = {"compute", 100, 70},
             [SPAN_WAIT] = {"waits", 178, 24},
             [SPAN_COLLECTIVE] = {"communication", 210, 70}};

// What a span's name begins with has the colour of it; the last is for everything else.
static const struct {
    const char *name, *color;
} key[] = {{"forward", "#0b5fd0"},    {"head", "#0a7ea4"},       {"backward", "#8250df"},
           {"update", "#1a7f37"},     {"wait", "#d1242f"},       {"reduce-scatter", "#d1500c"},
           {"all-gather", "#9a6700"}, {"all-reduce", "#bf3989"}, {"exchange", "#a8201a"},
           {"sum", "#6e7781"}};
enum { N_KEYS = sizeof key / sizeof *key };

static const char style[] =
    "<style>\n"
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu Sans',sans-serif;"
    "fill:#57606a;font-size:13px}\n"
    ".paper{fill:#ffffff}.title{font-size:20px;font-weight:600;fill:#1f2328}.sub{font-size:14px}\n"
    ".grid{stroke:#d0d7de;stroke-opacity:.55}.axis{stroke:#8c959f}.in{fill:#ffffff;font-size:11px}"
    "\n"
    ".end{stroke:#1f2328;stroke-dasharray:4 3}\n"
    "@media (prefers-color-scheme:dark){\n"
    "text{fill:#9da7b3}.paper{fill:#0d1117}.title{fill:#e6edf3}.in{fill:#ffffff}\n"
    ".grid{stroke:#30363d;stroke-opacity:.8}.axis{stroke:#6e7681}.end{stroke:#e6edf3}}\n"
    "</style>\n";

static void put_text(FILE *out, const char *class, const char *anchor, double x, double y,
                     const char *text)
{
    fprintf(out, "<text class=\"%s\" text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, anchor, x,
            y);
    escape_xml(out, text, strlen(text));
    fputs("</text>\n", out);
}

static const char *color_of(const Span *s)
{
    const char *name = s->kind == SPAN_WAIT ? "wait" : s->name;
    int i = 0;
    while (i < N_KEYS - 1 && strncmp(name, key[i].name, strlen(key[i].name))) i++;
    return key[i].color;
}

// A box from the span's begin to its end, cut at the picture's, with its name where there is room.
static void draw_span(FILE *out, const Axis *x, const TimelineResult *r, const Span *s)
{
    enum { LETTER = 7 }; // wide at most
    const double begin = s->begin > 0 ? s->begin : 0, end = s->end < r->until ? s->end : r->until;
    const double left = axis_place(x, begin, LEFT, RIGHT), right = axis_place(x, end, LEFT, RIGHT);
    const double gap = right - left > 3 ? 0.5 : 0; // between neighbours
    const int top = lanes[s->kind].top, height = lanes[s->kind].height;
    fprintf(out, "<rect fill=\"%s\"%s x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\"><title>",
            color_of(s), s->step == r->step ? "" : " fill-opacity=\".5\"", left, top,
            right - left - gap > 0.3 ? right - left - gap : 0.3, height);
    if (s->kind == SPAN_WAIT) fputs("waits for ", out);
    escape_xml(out, s->name, strlen(s->name));
    fprintf(out, ", step %d: %.3f to %.3f ms", s->step, s->begin, s->end);
    if (s->kind == SPAN_COLLECTIVE) fprintf(out, ", %.2f MB", (double)s->bytes / 1e6);
    fputs("</title></rect>\n", out);
    if (s->kind != SPAN_WAIT && right - left > (double)(LETTER * (strlen(s->name) + 1)))
        put_text(out, "in", "middle", (left + right) / 2, top + height / 2.0 + 4, s->name);
}

static void draw_axis(FILE *out, const Axis *x)
{
    char text[32];
    for (int i = 0; i < x->n_ticks; i++) {
        const double at = axis_place(x, x->tick[i], LEFT, RIGHT);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", at,
                lanes[0].top - 8, at, BOTTOM - 8);
        put_text(out, "tick", "middle", at, BOTTOM + 8, axis_label(x, i, text, sizeof text));
    }
    put_text(out, "name", "middle", (LEFT + RIGHT) / 2.0, BOTTOM + 30, "ms since the step began");
}

static void draw_key(FILE *out)
{
    double x = LEFT;
    for (int i = 0; i < N_KEYS; i++) {
        fprintf(out, "<rect fill=\"%s\" x=\"%.1f\" y=\"%d\" width=\"14\" height=\"14\"/>\n",
                key[i].color, x, HEIGHT - 28);
        put_text(out, "key", "start", x + 20, HEIGHT - 16, key[i].name);
        x += 40 + 6.4 * (double)strlen(key[i].name);
    }
    put_text(out, "key", "start", x, HEIGHT - 16, "pale: another step's");
}

bool timeline_write_svg(const TimelineResult *r, const char *title, const char *finding,
                        const char *path, Error *err)
{
    Axis x;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return fail(err, "no memory for %.256s", path);
    axis_fit_range(&x, 0, r->until > 0 ? r->until : 1, false, false);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" role=\"img\">\n%s<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, style, WIDTH, HEIGHT);
    put_text(out, "title", "start", LEFT - 110, 36, title);
    put_text(out, "sub", "start", LEFT - 110, 62, finding);
    draw_axis(out, &x);
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++)
        put_text(out, "name", "end", LEFT - 10, lanes[i].top + lanes[i].height / 2.0 + 4,
                 lanes[i].name);
    for (int i = 0; i < r->n; i++) draw_span(out, &x, r, &r->span[i]);
    const double end = axis_place(&x, r->step_ms, LEFT, RIGHT);
    fprintf(out, "<line class=\"end\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", end,
            lanes[0].top - 14, end, BOTTOM - 8);
    put_text(out, "tick", end > RIGHT - 80 ? "end" : "middle", end, lanes[0].top - 18,
             "the step's end");
    draw_key(out);
    fputs("</svg>\n", out);
    return write_whole(out, &text, &size, path, err);
}
