// What a run says and keeps: lines in the speedrun's format on standard output and in log.txt, one
// JSON object per event in log.jsonl, and a progress line on a terminal.
//
//   step:0/2245 val_loss:10.8258 train_time:0ms step_avg:0.03ms
//   step:1/2245 train_time:118ms step_avg:117.98ms train_loss:10.8258 tokens/s:2222000 mfu:41.2%
//       mfu_measured:51.6%   (the same line)
//
// log.txt has every line. On standard output, lines of training steps are thinned out: the first
// five, the last, and about fifty between. The progress line goes to standard error, and only when
// that is a terminal. Every line is handed to the system at once, so a killed run keeps its log; a
// resumed run appends, after removing what a kill left of a last line.
//
// All functions accept a NULL log and then do nothing: ranks other than the first have none. Once a
// file cannot be written (a full disk), one warning is printed, the run goes on, and log_close says
// so.
#ifndef RUN_LOG_H
#define RUN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../gpt/recipe.h"
#include "../ops/error.h"
#include "series.h"

typedef struct Log Log;

typedef struct {
    int step, total; // training steps done with this one, and of the whole run
    double train_ms; // of training so far, validations left out
    double loss;     // mean per token
    double lr_factor, momentum;
    int window_long;          // tokens
    int64_t tokens;           // trained on so far
    double tokens_per_second; // of this step
    // Of this step, as fractions (mfu.h): of the peak that the device's name promises, and of what
    // a product reached at start-up; NAN when not known.
    double mfu, mfu_measured;
} LogStep;

// The folder of a run below `root`, made when it is a new one. `name` "" is <recipe>-<n>: the next
// free number for a new run, the highest for a resumed one. False when a new run's folder already
// has a log, a resumed one's has none, or it cannot be made.
bool log_folder(const char *root, const char *name, const char *recipe, bool resume, char *path,
                size_t size, Error *err);

// Opens (resume: continues) log.txt and log.jsonl in the folder. A resumed log has the earlier
// curves. NULL when they cannot be written.
Log *log_open(const char *folder, bool resume, Error *err);
// False when some of the log could not be written. NULL is closed without complaint.
bool log_close(Log *log, Error *err);

// The beginning or the continuation at a step: the event carries the command, the device and every
// field of the recipe. Points of the curves after the step are dropped: they are trained again.
void log_start(Log *log, int step, const Recipe *recipe, const char *command, const char *device);
void log_step(Log *log, const LogStep *now);
void log_val(Log *log, int step, int total, double loss, double train_ms);
void log_sample(Log *log, int step, const char *text, size_t length);
void log_checkpoint(Log *log, int step, const char *path, double seconds);
// A line of text to standard output and log.txt, without its newline.
__attribute__((format(printf, 2, 3))) void log_line(Log *log, const char *format, ...);

// Any other event: begin, its values, end. Not-a-number and infinity become null.
void log_begin(Log *log, const char *event, int step);
void log_number(Log *log, const char *key, double value);
void log_string(Log *log, const char *key, const char *value);
void log_end(Log *log);

// Training and validation loss by step; a NULL log has empty ones.
const Series *log_train_curve(const Log *log);
const Series *log_val_curve(const Log *log);

#endif
