// Which orthogonaliser for which use, derived from the tables.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "page_parts.h"
#include "speedrun_log.h"
#include "statistics.h"
#include "studies.h"

// The method whose value is the least of those that `allowed` lets through (NULL: all); NULL when
// there is none. The value comes back in *least.
typedef double MethodValue(const Page *p, const char *method);
static const char *least_of(const Page *p, MethodValue *value, MethodValue *allowed, double *least)
{
    const char *best = NULL;
    *least = INFINITY;
    for (int i = 0; page_method(i); i++) {
        const double now = value(p, page_method(i));
        if (!(now < *least) || (allowed && !(allowed(p, page_method(i)) > 0))) continue;
        *least = now, best = page_method(i);
    }
    return best;
}

// Of the speedrun's two banks on the GPU, as soon as polar5's are known there; else of `tiny`.
static bool has_gpu_momentum(const Page *p)
{
    return isfinite(page_gpu_error(p, 768, 768, "momentum", "polar5") +
                    page_gpu_error(p, 768, 3072, "momentum", "polar5"));
}

static double momentum_error(const Page *p, const char *method)
{
    if (!has_gpu_momentum(p)) return page_named_error(p, "momentum", 0, 0, method);
    return 0.5 * (page_gpu_error(p, 768, 768, "momentum", method) +
                  page_gpu_error(p, 768, 3072, "momentum", method));
}

static double gaussian_error(const Page *p, const char *method)
{
    return page_named_error(p, "gaussian", 0, 0, method);
}

static double hard_error(const Page *p, const char *method)
{
    return 0.5 * (page_named_error(p, "columns", 0, 0, method) +
                  page_named_error(p, "low-rank", 0, 0, method));
}

static double microseconds(const Page *p, const char *method)
{
    const double us = page_gpu_us(p, 22, 768, 3072, method);
    char key[96];
    if (isfinite(us)) return us;
    snprintf(key, sizeof key, "%s,%d,%d", method, p->m, p->n);
    return page_mean(&p->time, key, "us");
}

static double is_as_polar5(const Page *p, const char *method) // 1 or -1: on momentum, within 2 %
{
    return momentum_error(p, method) <= 1.02 * momentum_error(p, "polar5") ? 1 : -1;
}

static double is_of_four(const Page *p, const char *method)
{
    (void)p;
    return strchr(method, '4') && !strchr(method, '5') ? 1 : -1;
}

// Of the methods whose loss is not told apart from the lowest, the one with the least time: of a
// step on the GPU, as far as it is the method's (`pooled` then says how losses differ), of its
// orthogonalisation on the CPU.
static const char *fastest_trained(const Page *p, const char *lowest, const GpuTraining *pooled,
                                   double *time)
{
    const Csv *c = pooled ? &p->gpu.training : &p->training;
    double best[MAX_ROWS], loss[MAX_ROWS], ms[MAX_ROWS];
    const int step = pooled ? pooled->last : page_step_below(c, INFINITY),
              n_best = page_losses(c, lowest, step, best, ms);
    const char *fastest = lowest;
    *time = INFINITY;
    for (int i = 0; page_trained(c, i); i++) {
        const char *name = page_trained(c, i);
        const int n = page_losses(c, name, step, loss, ms);
        const double chance =
            pooled ? page_pooled_p(pooled, mean_of(loss, n) - mean_of(best, n_best), n, n_best)
                   : welch(loss, n, best, n_best);
        const double took = pooled ? page_gpu_own_ms(p, name, step) : page_tiny_ms(p, name);
        if (chance >= 0.05 && took < *time) fastest = name, *time = took;
    }
    return fastest;
}

static const char *lowest_loss(const Csv *c, double *lowest)
{
    double loss[MAX_ROWS], ms[MAX_ROWS];
    const char *name = NULL;
    const int step = page_step_below(c, INFINITY);
    *lowest = INFINITY;
    for (int i = 0; page_trained(c, i); i++) {
        const int n = page_losses(c, page_trained(c, i), step, loss, ms);
        if (mean_of(loss, n) < *lowest) *lowest = mean_of(loss, n), name = page_trained(c, i);
    }
    return name;
}

// The methods that the runs do not tell apart from the lowest, or "none".
static void others_like(Page *p, const GpuTraining *t)
{
    int found = 0, n, n_best;
    for (int i = 0; page_trained(&p->gpu.training, i); i++) {
        const char *name = page_trained(&p->gpu.training, i);
        const double off =
            page_gpu_loss(p, name, t->last, &n) - page_gpu_loss(p, t->method, t->last, &n_best);
        if (!strcmp(name, t->method) || page_pooled_p(t, off, n, n_best) < 0.05) continue;
        fprintf(p->out, "%s %s", found++ ? "," : "", name);
    }
    if (!found) fprintf(p->out, " none");
}

// The question behind all tables, as far as the runs at the speedrun's width answer it.
static void loss_per_second(Page *p, const GpuTraining *t, const char *fast)
{
    int n, n_base;
    double deviation;
    GpuTraining early;
    const SpeedrunReference *end = NULL, *same = NULL;
    const double base = page_gpu_loss(p, "turbo4", t->last, &n_base),
                 off = page_gpu_loss(p, fast, t->last, &n) - base;
    if (!isfinite(off)) return;
    fprintf(p->out, "Which one gives the lowest loss per second on real training? ");
    if (!strcmp(fast, "turbo4"))
        fprintf(p->out, "None is shown to be better than turbo4");
    else
        fprintf(p->out, "By these runs %s: %.4f lower than turbo4 at step %d (p %.4f", fast, -off,
                t->last, page_pooled_p(t, off, n, n_base));
    const double wider = page_published_p(t->last, off, n, n_base, &deviation);
    if (strcmp(fast, "turbo4") && isfinite(wider))
        fprintf(p->out, "; %.2f with the wider spread of the recipe's published logs", wider);
    if (strcmp(fast, "turbo4")) fprintf(p->out, ")");
    if (t->before && page_gpu_best(p, t->before, &early) && strcmp(fast, "turbo4")) {
        const double then =
            page_gpu_loss(p, fast, t->before, &n) - page_gpu_loss(p, "turbo4", t->before, &n_base);
        fprintf(p->out, " and %.4f at step %d (p %.4f)", -then, t->before,
                page_pooled_p(&early, then, n, n_base));
    }
    if (isfinite(page_gpu_banks_ms(p, fast) - page_gpu_banks_ms(p, "turbo4")))
        fprintf(p->out, ", for %+.2f ms of a step's %.0f",
                page_gpu_banks_ms(p, fast) - page_gpu_banks_ms(p, "turbo4"),
                page_gpu_own_ms(p, "turbo4", t->last));
    fprintf(p->out,
            ". They say nothing of the schedule's end, %d steps on, where such a lead may be gone",
            SPEEDRUN_STEPS - t->last);
    for (int i = 0; speedrun_reference(i); i++) {
        end = speedrun_reference(i);
        if (end->step == t->last) same = end;
    }
    if (same && end->step > same->step)
        fprintf(p->out,
                ": the recipe's published logs are %.4f above those of its parent (on other GPUs), "
                "which has "
                "polar5, at step %d, and %.4f at %d",
                same->mean - same->parent, same->step, end->mean - end->parent, end->step);
    fprintf(p->out, ". So turbo4 stays the recipe's default.\n\n");
}

void page_advice(Page *p)
{
    double value, ms;
    GpuTraining t;
    const char *name, *fast = NULL;
    fprintf(p->out, "## Which orthogonaliser for which use\n\nBy the tables below, and no further "
                    "than they reach.\n\n| use | take | why |\n|---|---|---|\n"
                    "| the recipe to the letter, or laying a run beside its logs | turbo4 | they "
                    "were made with it |\n");
    if ((name = least_of(p, momentum_error, NULL, &value)))
        fprintf(p->out,
                "| the nearest to U Vᵀ on real momentum | %s | polar error %.3f (%s); turbo4 %.3f, "
                "polar5 "
                "%.3f |\n",
                name, value, has_gpu_momentum(p) ? "the speedrun's banks" : "`tiny`",
                momentum_error(p, "turbo4"), momentum_error(p, "polar5"));
    if (isfinite(momentum_error(p, "polar5")) &&
        (name = least_of(p, microseconds, is_as_polar5, &value)))
        fprintf(
            p->out,
            "| as near as polar5 on real momentum, in the least time | %s | %.0f µs at %s; polar5 "
            "%.0f, turbo4 %.0f |\n",
            name, value,
            isfinite(page_gpu_us(p, 22, 768, 3072, name))
                ? "22 x 768 x 3072 on the GPU"
                : "the largest Gaussian on one thread of the CPU",
            microseconds(p, "polar5"), microseconds(p, "turbo4"));
    if ((name = least_of(p, hard_error, NULL, &value)))
        fprintf(p->out,
                "| badly scaled columns, or low rank and noise | %s | mean error of the two %.3f; "
                "turbo4 %.3f |\n",
                name, value, hard_error(p, "turbo4"));
    if ((name = least_of(p, gaussian_error, is_of_four, &value)))
        fprintf(
            p->out,
            "| well-conditioned matrices, four iterations | %s | error on Gaussians %.3f; turbo4 "
            "%.3f |\n",
            name, value, gaussian_error(p, "turbo4"));
    if ((name = lowest_loss(&p->training, &value))) {
        const char *tiny = fastest_trained(p, name, NULL, &ms);
        fprintf(p->out,
                "| training `tiny` on a CPU | %s | loss not told apart from the lowest (%s, %.4f)",
                tiny, name, value);
        if (isfinite(ms))
            fprintf(p->out,
                    ", and %.1f ms a step to orthogonalise (one thread), the least of those", ms);
        fprintf(p->out, " |\n");
    }
    if (page_gpu_best(p, 0, &t)) {
        fast = fastest_trained(p, t.method, &t, &ms);
        fprintf(p->out,
                "| training `speedrun` on a GPU, to step %d | %s | the lowest loss is %s's, %.4f; "
                "not told apart from it:",
                t.last, fast, t.method, t.loss);
        others_like(p, &t);
        fprintf(p->out, "; of these %.1f ms a step is the least |\n", ms);
    }
    fputc('\n', p->out);
    if (fast) loss_per_second(p, &t, fast);
}
