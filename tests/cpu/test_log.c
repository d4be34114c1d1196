// The log: the speedrun's lines, every event as JSON, a resumed run's curves, what a kill leaves,
// a full disk, the progress line, and the folders of runs.
#include "../../run/log.h"

#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../test.h"

static char folder[] = "/tmp/test_log_XXXXXX";

static char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

// A whole file; freed by the caller.
static char *contents(const char *name)
{
    char *text = calloc(1, 1 << 20);
    FILE *file = fopen(in_folder(name), "rb");
    if (file) {
        size_t size = fread(text, 1, (1 << 20) - 1, file);
        text[size] = '\0';
        fclose(file);
    }
    return text;
}

static void put(const char *name, const char *text, const char *mode)
{
    FILE *file = fopen(in_folder(name), mode);
    fputs(text, file);
    fclose(file);
}

// Standard output goes to a file in between, which is then returned.
static int saved = -1;

static void capture_begin(void)
{
    fflush(stdout);
    saved = dup(STDOUT_FILENO);
    int fd = open(in_folder("stdout"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    close(fd);
}

static char *capture_end(void)
{
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    return contents("stdout");
}

static bool skip_string(const char **c)
{
    if (*(*c)++ != '"') return false;
    for (; **c != '"'; ++*c) {
        if ((unsigned char)**c < 32) return false;
        if (**c != '\\') continue;
        ++*c;
        if (!**c || !strchr("\"\\ntu", **c)) return false;
        if (**c == 'u') {
            if (strspn(*c + 1, "0123456789abcdef") < 4) return false;
            *c += 4;
        }
    }
    ++*c;
    return true;
}

// One flat object of strings, numbers and null.
static bool is_json(const char *c)
{
    if (*c++ != '{') return false;
    for (;;) {
        char *end;
        if (!skip_string(&c) || *c++ != ':') return false;
        if (!strncmp(c, "null", 4))
            c += 4;
        else if (*c == '"') {
            if (!skip_string(&c)) return false;
        } else {
            if (!strchr("-0123456789", *c)) return false; // no nan, no inf
            strtod(c, &end);
            if (end == c) return false;
            c = end;
        }
        if (*c == '}') return c[1] == '\0';
        if (*c++ != ',') return false;
    }
}

static int check_json(char *text)
{
    int lines = 0;
    CHECK(!text[0] || text[strlen(text) - 1] == '\n');
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        CHECK(is_json(line), "%s", line);
    return lines;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *c = text; (c = strstr(c, what)); c++) n++;
    return n;
}

static LogStep at_step(int step, int total, double loss)
{
    return (LogStep){.step = step,
                     .total = total,
                     .train_ms = 118.0 * step,
                     .loss = loss,
                     .lr_factor = 1,
                     .momentum = 0.85,
                     .window_long = 384,
                     .tokens = 262144LL * step,
                     .tokens_per_second = 2221559.3,
                     .mfu = 0.4123,
                     .mfu_measured = 0.5164};
}

static Log *opened(bool resume)
{
    Error err = {""};
    Log *log = log_open(folder, resume, &err);
    CHECK(log, "%s", err.text);
    return log;
}

static void closed(Log *log)
{
    Error err = {""};
    CHECK(log_close(log, &err), "%s", err.text);
}

TEST(lines_of_the_speedrun)
{
    capture_begin();
    Log *log = opened(false);
    log_val(log, 0, 2245, 10.82584, 0);
    LogStep first = at_step(1, 2245, 10.8259);
    log_step(log, &first);
    first.step = 2;
    first.mfu = NAN;
    log_step(log, &first);
    first.step = 3;
    first.mfu_measured = NAN;
    log_step(log, &first);
    log_val(log, 250, 2245, 4.09567, 29559.2);
    closed(log);
    char *shown = capture_end(), *kept = contents("log.txt");
    CHECK(!strcmp(
              shown,
              "step:0/2245 val_loss:10.8258 train_time:0ms step_avg:0.00ms\n"
              "step:1/2245 train_time:118ms step_avg:118.00ms train_loss:10.8259 tokens/s:2221559 "
              "mfu:41.2% mfu_measured:51.6%\n"
              "step:2/2245 train_time:118ms step_avg:59.00ms train_loss:10.8259 tokens/s:2221559 "
              "mfu:n/a mfu_measured:51.6%\n"
              "step:3/2245 train_time:118ms step_avg:39.33ms train_loss:10.8259 tokens/s:2221559\n"
              "step:250/2245 val_loss:4.0957 train_time:29559ms step_avg:118.24ms\n"),
          "%s", shown);
    CHECK(!strcmp(shown, kept), "%s", kept);
    free(shown);
    free(kept);
}

TEST(steps_are_thinned_on_screen_only)
{
    capture_begin();
    Log *log = opened(false);
    for (int step = 1; step <= 2245; step++) {
        LogStep now = at_step(step, 2245, 4);
        log_step(log, &now);
    }
    closed(log);
    char *shown = capture_end(), *kept = contents("log.txt"), *json = contents("log.jsonl");
    CHECK(count(kept, "\n") == 2245 && count(json, "\n") == 2245);
    CHECK(count(shown, "\n") == 5 + 44 + 1, "%d", count(shown, "\n"));
    CHECK(strstr(shown, "step:2245/2245 ") && strstr(shown, "step:50/2245 ") &&
          !strstr(shown, "step:51/"));
    free(shown);
    free(kept);
    free(json);
}

TEST(events_are_json)
{
    Recipe recipe;
    Error err = {""};
    CHECK(recipe_find(&recipe, "tiny", &err) && recipe_finish(&recipe, &err), "%s", err.text);
    capture_begin();
    Log *log = opened(false);
    log_start(log, 0, &recipe, "--run \"a b\" \\ --seed 1", "cpu");
    LogStep odd = at_step(1, 3, 0.1 + 0.2);
    odd.mfu = NAN;
    odd.tokens_per_second = INFINITY;
    log_step(log, &odd);
    log_val(log, 1, 3, NAN, 1);
    static const char sample[] =
        "caf\xc3\xa9 \"q\" \\ \x01\x1b[31m\n\xff\xc3 \xed\xa0\x80 \x00 \xc2\x9b!\xe2\x82";
    log_sample(log, 1, sample, sizeof sample - 1);
    log_checkpoint(log, 1, "runs/x/1.ckpt", 0.25);
    log_begin(log, "end", 3);
    log_number(log, "seconds", -1.5e-300);
    log_string(log, "why", "");
    log_end(log);
    closed(log);
    char *shown = capture_end(), *json = contents("log.jsonl"), *kept = contents("log.txt");
    CHECK(strstr(json, "\"loss\":0.30000000000000004,") && strstr(json, "\"mfu\":null") &&
          strstr(json, "\"tokens_per_second\":null") &&
          strstr(json, "{\"event\":\"val\",\"step\":1,"));
    CHECK(strstr(json, "\"heads\":2,") && strstr(json, "\"layers\":\"- smv0") &&
          strstr(json, "\"command\":\"--run \\\"a b\\\" \\\\ --seed 1\""));
    CHECK(strstr(json, "caf\xc3\xa9 \\\"q\\\" \\\\ \\u0001\\u001b[31m\\n\xef\xbf\xbd\xef\xbf\xbd "
                       "\xef\xbf\xbd"),
          "%s", json);
    CHECK(strstr(json, "\\u0000 \xc2\x9b!\xef\xbf\xbd"), "a cut-off end: %s", json);
    CHECK(check_json(json) == 6);
    // on a terminal no control character gets through
    CHECK(!strpbrk(shown, "\x01\x1b") && !strstr(shown, "\xc2\x9b") &&
              strstr(shown, "\xef\xbf\xbd[31m\n"),
          "%s", shown);
    CHECK(!strcmp(shown, kept));
    free(shown);
    free(json);
    free(kept);
}

// Killed in the middle of a line at step 12, resumed from a checkpoint at step 10.
TEST(a_resumed_run_appends)
{
    Recipe recipe;
    Error err = {""};
    recipe_find(&recipe, "tiny", &err);
    capture_begin();
    Log *log = opened(false);
    log_start(log, 0, &recipe, "", "cpu");
    log_val(log, 0, 20, 5.5, 0);
    for (int step = 1; step <= 12; step++) {
        LogStep now = at_step(step, 20, step == 3 ? NAN : 10.0 / step);
        log_step(log, &now);
        if (step == 10) log_val(log, 10, 20, 1.25, 1);
    }
    closed(log);
    put("log.txt", "step:13/20 train_ti", "a");
    put("log.jsonl", "{\"event\":\"step\",\"step\":13,\"lo", "a");

    log = opened(true);
    const Series *train = log_train_curve(log), *val = log_val_curve(log);
    CHECK(train->n == 12 && val->n == 2, "%d %d", train->n, val->n);
    CHECK(isnan(train->y[2]) && train->y[11] == 10.0 / 12 && val->x[1] == 10 && val->y[1] == 1.25);
    log_start(log, 10, &recipe, "--resume", "cpu");
    CHECK(train->n == 10 && val->n == 2);
    for (int step = 11; step <= 13; step++) {
        LogStep now = at_step(step, 20, 7);
        log_step(log, &now);
    }
    closed(log);
    log = opened(true); // once more: the file alone tells which points count
    CHECK(log_train_curve(log)->n == 13 && log_train_curve(log)->y[10] == 7 &&
          log_val_curve(log)->n == 2);
    closed(log);
    char *shown = capture_end(), *kept = contents("log.txt"), *json = contents("log.jsonl");
    CHECK(!strstr(kept, "train_ti\n") && count(kept, "step:12/20 ") == 2 &&
          count(kept, "\n") == 2 + 12 + 3);
    CHECK(check_json(json) == 19);
    free(shown);
    free(kept);
    free(json);
}

TEST(half_a_line_is_all_there_is)
{
    put("log.txt", "no newline", "w");
    put("log.jsonl", "{\"event\":\"start\",\"step\":", "w");
    closed(opened(true));
    char *kept = contents("log.txt"), *json = contents("log.jsonl");
    CHECK(!kept[0] && !json[0], "%s%s", kept, json);
    free(kept);
    free(json);
}

// Lines of someone else's making are passed over.
TEST(foreign_lines)
{
    put("log.jsonl",
        "\n{}\n{\"event\":\"step\",\n{\"event\":\"step\",\"step\":null}\n"
        "{\"event\":\"step\",\"step\":4,\"loss\":null}\n{\"event\":\"val\",\"step\":1e999,\"loss\":"
        "1}\n",
        "w");
    Log *log = opened(true);
    CHECK(log_train_curve(log)->n == 1 && isnan(log_train_curve(log)->y[0]) &&
          log_val_curve(log)->n == 0);
    closed(log);
}

TEST(no_log_at_all)
{
    Error err;
    static const Recipe recipe;
    LogStep now = at_step(1, 2, 3);
    log_start(NULL, 0, &recipe, "", "");
    log_step(NULL, &now);
    log_val(NULL, 0, 1, 2, 3);
    log_sample(NULL, 0, "", 0);
    log_checkpoint(NULL, 0, "", 0);
    log_line(NULL, "%d", 1);
    log_begin(NULL, "", 0);
    log_number(NULL, "", 0);
    log_string(NULL, "", "");
    log_end(NULL);
    CHECK(log_train_curve(NULL)->n == 0 && log_val_curve(NULL)->n == 0 && log_close(NULL, &err));
}

TEST(places_that_cannot_be_written)
{
    Error err = {""};
    CHECK(!log_open("/nonexistent/run", false, &err) &&
              strstr(err.text, "/nonexistent/run/log.txt"),
          "%s", err.text);
    put("plain", "", "w");
    CHECK(!log_open(in_folder("plain"), true, &err) && strstr(err.text, "Not a directory"), "%s",
          err.text);
}

// A full disk: one warning, the run goes on, log_close tells.
TEST(full_disk)
{
    Error err = {""};
    unlink(in_folder("log.jsonl"));
    CHECK(symlink("/dev/full", in_folder("log.jsonl")) == 0);
    int stderr_was = dup(STDERR_FILENO),
        fd = open(in_folder("stderr"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    capture_begin();
    dup2(fd, STDERR_FILENO);
    Log *log = opened(false);
    for (int step = 1; step <= 3; step++) {
        LogStep now = at_step(step, 3, 1);
        log_step(log, &now);
    }
    bool ok = log_close(log, &err);
    dup2(stderr_was, STDERR_FILENO);
    close(stderr_was);
    close(fd);
    free(capture_end());
    char *said = contents("stderr"), *kept = contents("log.txt");
    CHECK(!ok && strstr(err.text, "log.jsonl: No space left"), "%s", err.text);
    CHECK(count(said, "warning:") == 1 && count(kept, "\n") == 3, "%s", said);
    free(said);
    free(kept);
    unlink(in_folder("log.jsonl"));
}

// On a terminal: a progress line, wiped before each line that stays.
TEST(progress_on_a_terminal)
{
    int master, slave, stderr_was = dup(STDERR_FILENO);
    if (openpty(&master, &slave, NULL, NULL, NULL)) {
        close(stderr_was);
        return; // a machine without pseudo-terminals
    }
    capture_begin();
    dup2(slave, STDERR_FILENO);
    Log *log = opened(false);
    LogStep now = at_step(30, 90, 2.5);
    log_step(log, &now);
    log_val(log, 30, 90, 2.5, 1);
    dup2(stderr_was, STDERR_FILENO);
    closed(log);
    free(capture_end());
    char said[512] = "";
    ssize_t size = read(master, said, sizeof said - 1);
    CHECK(size > 0 &&
              strstr(said, "\rstep 30 of 90  33%  loss 2.5000  2221559 tokens/s  7 s left\033[K"),
          "%s", said);
    CHECK(strstr(said, "left\033[K\r\033[K"), "%s", said);
    close(master);
    close(slave);
    close(stderr_was);
}

TEST(folders_of_runs)
{
    Error err = {""};
    char root[300], path[400], other[400];
    snprintf(root, sizeof root, "%s/runs", folder);
    CHECK(!log_folder(root, "", "tiny", true, path, sizeof path, &err) &&
              strstr(err.text, "no run of recipe tiny"),
          "%s", err.text);
    for (int i = 1; i <= 2; i++) {
        snprintf(other, sizeof other, "%s/tiny-%d", root, i);
        CHECK(log_folder(root, "", "tiny", false, path, sizeof path, &err) && !strcmp(path, other),
              "%s %s", path, err.text);
    }
    snprintf(other, sizeof other, "%s/tiny-41",
             root); // the number after the highest, holes left alone
    mkdir(other, 0777);
    snprintf(other, sizeof other, "%s/tiny-9x", root);
    mkdir(other, 0777);
    CHECK(log_folder(root, "", "tiny", false, path, sizeof path, &err) && strstr(path, "/tiny-42"),
          "%s", path);
    CHECK(log_folder(root, "", "mini", false, path, sizeof path, &err) && strstr(path, "/mini-1"),
          "%s", path);
    CHECK(log_folder(root, "mine", "tiny", false, path, sizeof path, &err) && strstr(path, "/mine"),
          "%s", err.text);
    // an empty folder is free, one with a log is taken, and only that can be resumed
    CHECK(log_folder(root, "mine", "tiny", false, path, sizeof path, &err), "%s", err.text);
    CHECK(!log_folder(root, "mine", "tiny", true, path, sizeof path, &err) &&
              strstr(err.text, "no run to resume"),
          "%s", err.text);
    closed(log_open(path, false, &err));
    CHECK(!log_folder(root, "mine", "tiny", false, path, sizeof path, &err) &&
              strstr(err.text, "already has a run"),
          "%s", err.text);
    CHECK(log_folder(root, "mine", "tiny", true, path, sizeof path, &err), "%s", err.text);
    CHECK(!log_folder("/dev/null", "", "tiny", false, path, sizeof path, &err) &&
              strstr(err.text, "/dev/null"),
          "%s", err.text);
    CHECK(!log_folder(root, "mine", "tiny", false, path, 20, &err) &&
              strstr(err.text, "longer than 20"),
          "%s", err.text);
}

int main(void)
{
    char command[64];
    if (!mkdtemp(folder)) return 1;
    RUN(lines_of_the_speedrun);
    RUN(steps_are_thinned_on_screen_only);
    RUN(events_are_json);
    RUN(a_resumed_run_appends);
    RUN(half_a_line_is_all_there_is);
    RUN(foreign_lines);
    RUN(no_log_at_all);
    RUN(places_that_cannot_be_written);
    RUN(full_disk);
    RUN(progress_on_a_terminal);
    RUN(folders_of_runs);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) ? 1 : TEST_SUMMARY();
}
