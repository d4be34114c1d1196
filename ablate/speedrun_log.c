#include "speedrun_log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const SpeedrunReference reference[] = {
    {250, 4.1009, .0095, 4.0934, 4.1199, 4.0814},  {500, 3.8278, .0044, 3.8227, 3.8372, 3.8219},
    {750, 3.6736, .0024, 3.6708, 3.6773, 3.6688},  {1000, 3.5991, .0099, 3.5919, 3.6203, 3.5935},
    {1250, 3.5252, .0018, 3.5223, 3.5280, 3.5224}, {1500, 3.4439, .0015, 3.4418, 3.4460, 3.4422},
    {1750, 3.3798, .0015, 3.3783, 3.3825, 3.3782}, {2000, 3.3249, .0012, 3.3239, 3.3270, 3.3237},
    {2245, 3.2791, .0013, 3.2779, 3.2814, 3.2784},
};
enum { N_REFERENCE = sizeof reference / sizeof *reference };

const SpeedrunReference *speedrun_reference(int i)
{
    return i >= 0 && i < N_REFERENCE ? &reference[i] : NULL;
}

double speedrun_loss(const SpeedrunLog *log, int step)
{
    for (int i = 0; i < log->points; i++)
        if (log->step[i] == step) return log->loss[i];
    return NAN;
}

bool speedrun_is_whole(const SpeedrunLog *log)
{
    return log->total == SPEEDRUN_STEPS && isfinite(speedrun_loss(log, SPEEDRUN_STEPS));
}

// Keeps a validation in its place; what a resumed run did again replaces what was there.
static bool put(SpeedrunLog *log, int step, double loss, double ms)
{
    int at = 0;
    while (at < log->points && log->step[at] < step) at++;
    if (at == log->points || log->step[at] != step) {
        if (log->points == SPEEDRUN_POINTS) return false;
        for (int i = log->points++; i > at; i--)
            log->step[i] = log->step[i - 1], log->loss[i] = log->loss[i - 1],
            log->ms[i] = log->ms[i - 1];
    }
    log->step[at] = step, log->loss[at] = loss, log->ms[at] = ms;
    return true;
}

bool speedrun_log_read(SpeedrunLog *log, const char *path, Error *err)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    bool ok = true;
    *log = (SpeedrunLog){0};
    if (!file) return fail(err, "cannot open %s: %s", path, strerror(errno));
    while (ok && getline(&line, &room, file) >= 0) {
        int step, total, used = 0;
        double loss, ms;
        if (sscanf(line, "step:%9d/%9d val_loss:%lf train_time:%lfms%n", &step, &total, &loss, &ms,
                   &used) < 4 ||
            !used || step < 0)
            continue;
        log->total = total;
        ok = put(log, step, loss, ms) ||
             fail(err, "%s has more than %d validations", path, SPEEDRUN_POINTS);
    }
    if (ok && ferror(file)) ok = fail(err, "cannot read %s: %s", path, strerror(errno));
    free(line);
    fclose(file);
    return ok &&
           (log->points > 0 ||
            fail(err, "%s holds no line 'step:K/N val_loss:..': it is no log of a run", path));
}
