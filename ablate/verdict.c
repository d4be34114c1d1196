// verdict: what runs of the speedrun recipe reached, beside its published logs
// (scripts/speedrun.sh).
//
//   build/verdict runs/speedrun-1/log.txt runs/speedrun-2/log.txt ...
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "speedrun_log.h"
#include "statistics.h"

enum { USAGE = 2, MOST = 256 };

// The speedrun's rule: a mean loss of 3.28 or less, at p < 0.01; time is training alone.
static const double kLoss = 3.28, kP = 0.01;

static void by_run(const SpeedrunLog *logs, char *const *paths, int n)
{
    printf("%-40s %12s %12s %12s\n", "run", "steps", "seconds", "loss");
    for (int i = 0; i < n; i++) {
        const int last = logs[i].points - 1;
        printf("%-40s %7d/%-5d %11.3f %12.4f\n", paths[i], logs[i].step[last], logs[i].total,
               logs[i].ms[last] / 1e3, logs[i].loss[last]);
    }
}

// A step's mean is inside when it is within the ten runs' range, wider by one deviation each side.
static void by_step(const SpeedrunLog *logs, int n)
{
    printf("\n%5s %5s %9s   %s\n", "step", "runs", "ours",
           "ten logs of the recipe on 4 H100: mean (low to high); parent on 8 H100");
    for (int i = 0; speedrun_reference(i); i++) {
        const SpeedrunReference *r = speedrun_reference(i);
        double loss[MOST];
        int runs = 0;
        for (int k = 0; k < n; k++) {
            const double x = speedrun_loss(&logs[k], r->step);
            if (isfinite(x)) loss[runs++] = x;
        }
        if (!runs) continue;
        const double mean = mean_of(loss, runs);
        printf("%5d %5d %9.4f   %.4f (%.4f to %.4f); %.4f   %s\n", r->step, runs, mean, r->mean,
               r->low, r->high, r->parent,
               mean < r->low - r->deviation    ? "below"
               : mean > r->high + r->deviation ? "ABOVE"
                                               : "inside");
    }
}

static void judge(const SpeedrunLog *logs, int n)
{
    double loss[MOST], seconds[MOST];
    int whole = 0;
    for (int i = 0; i < n; i++)
        if (speedrun_is_whole(&logs[i])) {
            loss[whole] = speedrun_loss(&logs[i], SPEEDRUN_STEPS);
            seconds[whole++] = logs[i].ms[logs[i].points - 1] / 1e3;
        }
    printf("\n");
    if (whole < n)
        printf("%d of %d runs have not the recipe's %d steps: a trial, no record attempt\n",
               n - whole, n, SPEEDRUN_STEPS);
    if (!whole) return;
    const double p = student_mean_below(loss, whole, kLoss);
    printf("time    %.3f s, sd %.3f (the recipe's logs: 266.660 s, sd 0.101, on 4 H100)\n",
           mean_of(seconds, whole), deviation_of(seconds, whole));
    printf("loss    %.5f, sd %.5f, of %d runs (the recipe's logs: 3.2791, sd 0.0013)\n",
           mean_of(loss, whole), deviation_of(loss, whole), whole);
    if (whole < 2)
        printf("p       needs two runs or more: --runs N\n");
    else
        printf("p       %.4f, one-sided, that runs with a mean of %.2f or more come out so low\n",
               p, kLoss);
    printf("verdict %s\n",
           whole < 2 ? (loss[0] <= kLoss ? "reached 3.28 once; nothing is shown by one run"
                                         : "one run, which did not reach 3.28")
           : p < kP
               ? "a mean of 3.28 or less at p < 0.01: within the speedrun's rule on the loss"
               : "not shown at p < 0.01 that the mean is 3.28 or less: more runs, or no record");
}

int main(int argc, char **argv)
{
    static SpeedrunLog logs[MOST];
    Error err;
    if (argc < 2 || argc - 1 > MOST || argv[1][0] == '-') {
        fprintf(stderr, "usage: verdict LOG..., the log.txt of runs, at most %d\n", MOST);
        return USAGE;
    }
    for (int i = 1; i < argc; i++)
        if (!speedrun_log_read(&logs[i - 1], argv[i], &err)) {
            fprintf(stderr, "error: %s\n", err.text);
            return 1;
        }
    by_run(logs, argv + 1, argc - 1);
    by_step(logs, argc - 1);
    judge(logs, argc - 1);
    return 0;
}
