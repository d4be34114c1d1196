#include "log.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "escape.h"

enum { kShownSteps = 50, kFirstSteps = 5 };

static const double kProgressSeconds = 0.2; // at least, between two progress lines

struct Log {
    FILE *text, *json;
    char text_path[1100], json_path[1100];
    bool terminal, shown; // standard error is a terminal; a progress line stands on it
    double shown_at;
    Series train, val;
    bool failed;
    Error why;
};

static double now_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Hands everything to the system; the first failure is told at once and kept for log_close.
static void flush(Log *log, FILE *file, const char *path)
{
    bool broken = fflush(file) != 0 || ferror(file);
    if (!broken || log->failed) return;
    log->failed = true;
    fail(&log->why, "cannot write %.256s: %s", path, strerror(errno));
    fprintf(stderr, "warning: %s; the run goes on without it\n", log->why.text);
}

// ---- opening
// -------------------------------------------------------------------------------------

// A killed run may leave half a line at the end; a whole one ends with a newline.
static bool drop_half_line(FILE *file)
{
    if (fseeko(file, 0, SEEK_END)) return false;
    off_t end = ftello(file), at = end;
    while (at > 0) {
        if (fseeko(file, at - 1, SEEK_SET)) return false;
        if (getc(file) == '\n') break;
        at--;
    }
    // fflush forgets what was read ahead, which the truncation would leave stale
    return fflush(file) == 0 && (at == end || ftruncate(fileno(file), at) == 0) &&
           fseeko(file, 0, SEEK_END) == 0;
}

static FILE *open_file(char *path, size_t size, const char *folder, const char *name, bool resume,
                       Error *err)
{
    FILE *file = NULL;
    if ((size_t)snprintf(path, size, "%s/%s", folder, name) >= size) {
        fail(err, "the path %.128s... is too long", folder);
        return NULL;
    }
    if (resume) file = fopen(path, "r+");
    if (!file && (!resume || errno == ENOENT)) file = fopen(path, "w+");
    if (file && drop_half_line(file)) return file;
    fail(err, "cannot write %.256s: %s", path, strerror(errno));
    if (file) fclose(file);
    return NULL;
}

static void drop_after(Series *series, double step)
{
    while (series->n && series->x[series->n - 1] > step) series->n--;
}

// The number after "key": in a line of our own making; NAN for null or none.
static double number_of(const char *line, const char *key)
{
    const char *at = strstr(line, key);
    if (!at) return NAN;
    at += strlen(key);
    char *end;
    double value = strtod(at, &end);
    return end > at && *at != 'n' ? value : NAN;
}

// The curves of the part of the run that is already in the log.
static void read_curves(Log *log)
{
    char *line = NULL;
    size_t size = 0;
    rewind(log->json);
    while (getline(&line, &size, log->json) > 0) {
        bool step = !strncmp(line, "{\"event\":\"step\",", 16),
             val = !strncmp(line, "{\"event\":\"val\",", 15);
        bool start = !strncmp(line, "{\"event\":\"start\",", 17);
        double at = number_of(line, "\"step\":");
        if (!(step || val || start) || !isfinite(at)) continue;
        if (start) {
            drop_after(&log->train, at);
            drop_after(&log->val, at);
        } else {
            series_add(step ? &log->train : &log->val, at, number_of(line, "\"loss\":"));
        }
    }
    free(line);
    fseeko(log->json, 0, SEEK_END);
}

Log *log_open(const char *folder, bool resume, Error *err)
{
    Log *log = calloc(1, sizeof *log);
    if (!log) {
        fail(err, "no memory for the log");
        return NULL;
    }
    log->text = open_file(log->text_path, sizeof log->text_path, folder, "log.txt", resume, err);
    if (log->text)
        log->json =
            open_file(log->json_path, sizeof log->json_path, folder, "log.jsonl", resume, err);
    if (!log->json) {
        if (log->text) fclose(log->text);
        free(log);
        return NULL;
    }
    if (resume) read_curves(log);
    log->terminal = isatty(STDERR_FILENO);
    return log;
}

bool log_close(Log *log, Error *err)
{
    if (!log) return true;
    if (log->shown) fputs("\r\033[K", stderr);
    flush(log, log->text, log->text_path);
    flush(log, log->json, log->json_path);
    bool ok = !log->failed;
    if (!ok) *err = log->why;
    fclose(log->text);
    fclose(log->json);
    series_free(&log->train);
    series_free(&log->val);
    free(log);
    return ok;
}

// ---- lines
// ---------------------------------------------------------------------------------------

static void clear_progress(Log *log)
{
    if (!log->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    log->shown = false;
}

static void put_line(Log *log, const char *line, bool show)
{
    fprintf(log->text, "%s\n", line);
    flush(log, log->text, log->text_path);
    if (!show) return;
    clear_progress(log);
    puts(line);
    fflush(stdout);
}

void log_line(Log *log, const char *format, ...)
{
    char line[2048];
    if (!log) return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    put_line(log, line, true);
}

// ---- events
// --------------------------------------------------------------------------------------

void log_begin(Log *log, const char *event, int step)
{
    if (!log) return;
    fprintf(log->json, "{\"event\":\"%s\",\"step\":%d,\"time\":%.3f", event, step,
            now_seconds(CLOCK_REALTIME));
}

void log_number(Log *log, const char *key, double value)
{
    char text[32];
    if (!log) return;
    fprintf(log->json, ",\"%s\":%s", key,
            isfinite(value) ? field_number(value, text, sizeof text) : "null");
}

static void put_string(Log *log, const char *key, const char *value, size_t length)
{
    fprintf(log->json, ",\"%s\":\"", key);
    escape_json(log->json, value, length);
    putc('"', log->json);
}

void log_string(Log *log, const char *key, const char *value)
{
    if (log) put_string(log, key, value, strlen(value));
}

void log_end(Log *log)
{
    if (!log) return;
    fputs("}\n", log->json);
    flush(log, log->json, log->json_path);
}

void log_start(Log *log, int step, const Recipe *recipe, const char *command, const char *device)
{
    char value[512];
    if (!log) return;
    drop_after(&log->train, step);
    drop_after(&log->val, step);
    log_begin(log, "start", step);
    log_string(log, "command", command);
    log_string(log, "device", device);
    log_string(log, "recipe", recipe->name);
    for (const Field *field = recipe_fields(); field->name; field++) {
        field_get(field, recipe, value, sizeof value);
        if (field->type == FIELD_INT || field->type == FIELD_DOUBLE)
            fprintf(log->json, ",\"%s\":%s", field->name, value);
        else
            log_string(log, field->name, value);
    }
    log_end(log);
}

// ---- steps
// ---------------------------------------------------------------------------------------

// Every so many steps a line is shown: 1, 2 or 5 times a power of ten.
static bool is_shown(int step, int total)
{
    long long every = 1;
    for (int i = 0; every * kShownSteps < total; i++)
        every = i % 3 == 1 ? every / 2 * 5 : every * 2;
    return step <= kFirstSteps || step == total || step % every == 0;
}

static void show_progress(Log *log, const LogStep *s, double now)
{
    double left = s->train_ms / 1000 / s->step * (s->total - s->step);
    char when[32];
    if (left < 90)
        snprintf(when, sizeof when, "%.0f s", left);
    else if (left < 5400)
        snprintf(when, sizeof when, "%.0f min", left / 60);
    else
        snprintf(when, sizeof when, "%.1f h", left / 3600);
    fprintf(stderr, "\rstep %d of %d  %.0f%%  loss %.4f  %.0f tokens/s  %s left\033[K", s->step,
            s->total, 100.0 * s->step / s->total, s->loss, s->tokens_per_second, when);
    fflush(stderr);
    log->shown = true;
    log->shown_at = now;
}

void log_step(Log *log, const LogStep *s)
{
    char line[256];
    if (!log) return;
    int n = snprintf(line, sizeof line,
                     "step:%d/%d train_time:%.0fms step_avg:%.2fms train_loss:%.4f tokens/s:%.0f",
                     s->step, s->total, s->train_ms, s->train_ms / s->step, s->loss,
                     s->tokens_per_second);
    if (isfinite(s->mfu))
        n += snprintf(line + n, sizeof line - (size_t)n, " mfu:%.1f%%", 100 * s->mfu);
    else if (isfinite(s->mfu_measured))
        n += snprintf(line + n, sizeof line - (size_t)n, " mfu:n/a");
    if (isfinite(s->mfu_measured))
        snprintf(line + n, sizeof line - (size_t)n, " mfu_measured:%.1f%%", 100 * s->mfu_measured);
    put_line(log, line, is_shown(s->step, s->total));

    series_add(&log->train, s->step, s->loss);
    log_begin(log, "step", s->step);
    log_number(log, "loss", s->loss);
    log_number(log, "train_ms", s->train_ms);
    log_number(log, "lr_factor", s->lr_factor);
    log_number(log, "momentum", s->momentum);
    log_number(log, "window_long", s->window_long);
    log_number(log, "tokens", (double)s->tokens);
    log_number(log, "tokens_per_second", s->tokens_per_second);
    log_number(log, "mfu", s->mfu);
    log_number(log, "mfu_measured", s->mfu_measured);
    log_end(log);

    double now = now_seconds(CLOCK_MONOTONIC);
    if (log->terminal && (!log->shown || now - log->shown_at >= kProgressSeconds))
        show_progress(log, s, now);
}

void log_val(Log *log, int step, int total, double loss, double train_ms)
{
    char line[256];
    if (!log) return;
    snprintf(line, sizeof line, "step:%d/%d val_loss:%.4f train_time:%.0fms step_avg:%.2fms", step,
             total, loss, train_ms, train_ms / (step ? step : 1));
    put_line(log, line, true);
    series_add(&log->val, step, loss);
    log_begin(log, "val", step);
    log_number(log, "loss", loss);
    log_number(log, "train_ms", train_ms);
    log_end(log);
}

void log_sample(Log *log, int step, const char *text, size_t length)
{
    if (!log) return;
    clear_progress(log);
    FILE *places[2] = {stdout, log->text};
    for (int i = 0; i < 2; i++) {
        fprintf(places[i], "---- sample at step %d ----\n", step);
        escape_terminal(places[i], text, length);
        putc('\n', places[i]);
    }
    fflush(stdout);
    flush(log, log->text, log->text_path);
    log_begin(log, "sample", step);
    put_string(log, "text", text, length);
    log_end(log);
}

void log_checkpoint(Log *log, int step, const char *path, double seconds)
{
    if (!log) return;
    log_line(log, "checkpoint:%s step:%d written in %.2fs", path, step, seconds);
    log_begin(log, "checkpoint", step);
    log_string(log, "path", path);
    log_number(log, "seconds", seconds);
    log_end(log);
}

const Series *log_train_curve(const Log *log)
{
    static const Series none;
    return log ? &log->train : &none;
}

const Series *log_val_curve(const Log *log)
{
    static const Series none;
    return log ? &log->val : &none;
}
