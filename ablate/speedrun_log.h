// Logs in the speedrun's format, and what ten published runs of the recipe reached at the same
// steps.
#ifndef ABLATE_SPEEDRUN_LOG_H
#define ABLATE_SPEEDRUN_LOG_H

#include <stdbool.h>

#include "../ops/error.h"

enum { SPEEDRUN_POINTS = 256, SPEEDRUN_STEPS = 2245, SPEEDRUN_LOGS = 10 };

typedef struct {
    int points, total; // validations by ascending step; the steps that the run says it has
    int step[SPEEDRUN_POINTS];
    double loss[SPEEDRUN_POINTS], ms[SPEEDRUN_POINTS]; // ms of training until then
} SpeedrunLog;

// The lines "step:K/N val_loss:L train_time:Tms .." that a log begins with or holds; others are
// skipped. Of a step that comes twice, as in a run that was resumed, the last one counts, and so
// does the last N. Fails without such a line, with too many, and when the file cannot be read.
bool speedrun_log_read(SpeedrunLog *log, const char *path, Error *err);
// The loss after `step` steps, NaN when there is none.
double speedrun_loss(const SpeedrunLog *log, int step);
// Whether the run is over and has all the steps of the recipe.
bool speedrun_is_whole(const SpeedrunLog *log);

// speedrun_recipe.md section 8.3: the ten logs of the recipe (four H100), and the mean of its
// parent's (record 43, eight H100). The i-th step with a validation after the start, NULL past the
// end.
typedef struct {
    int step;
    double mean, deviation, low, high, parent;
} SpeedrunReference;
const SpeedrunReference *speedrun_reference(int i);

#endif
