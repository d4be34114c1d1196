#include "plot_axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double kHuge = 1e100; // values beyond are drawn at the end of the axis

double axis_place(const Axis *axis, double value, double start, double end)
{
    double low = axis->low, high = axis->high;
    if (axis->logarithmic) {
        value = log(fmax(value, low * 1e-3));
        low = log(low);
        high = log(high);
    }
    double t = (value - low) / (high - low);
    return start + (end - start) * fmin(fmax(t, -1), 2);
}

const char *axis_label(const Axis *axis, int tick, char *text, size_t size)
{
    double value = axis->tick[tick], size_of = fabs(value);
    if (axis->decimals < 0 || size_of >= 1e7)
        snprintf(text, size, size_of >= 1e7 || (size_of < 1e-3 && size_of > 0) ? "%.0e" : "%g",
                 value);
    else if (axis->decimals == 0 && size_of >= 10000 && fmod(value, 1000) == 0)
        snprintf(text, size, "%.0fk", value / 1000);
    else
        snprintf(text, size, "%.*f", axis->decimals, value);
    return text;
}

// Steps of 1, 2 or 5 times a power of ten, about `wanted` of them; whole ones when asked.
static void linear_ticks(Axis *axis, int wanted, bool whole)
{
    double rough = (axis->high - axis->low) / wanted, power = pow(10, floor(log10(rough)));
    double step = rough / power < 1.5   ? power
                  : rough / power < 3.5 ? 2 * power
                  : rough / power < 7.5 ? 5 * power
                                        : 10 * power;
    if (whole && step < 1) step = 1;
    axis->decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    if (axis->decimals > 9) axis->decimals = -1;
    double first = ceil(axis->low / step - 1e-9);
    for (axis->n_ticks = 0; axis->n_ticks < AXIS_MAX_TICKS; axis->n_ticks++) {
        double value = (first + axis->n_ticks) * step;
        if (value > axis->high + 1e-9 * step) break;
        axis->tick[axis->n_ticks] = value;
    }
}

// 1, 2, 5, 10, ... over few decades, powers of ten over more, every k-th of those over very many.
static void log_ticks(Axis *axis)
{
    static const int parts[3] = {1, 2, 5};
    int low = (int)floor(log10(axis->low)), high = (int)ceil(log10(axis->high));
    bool fine = high - low <= 4;
    int stride = (high - low) / 10 + 1;
    axis->decimals = -1;
    axis->n_ticks = 0;
    for (int power = low; power <= high; power += fine ? 1 : stride)
        for (int i = 0; i < (fine ? 3 : 1); i++) {
            double value = parts[i] * pow(10, power);
            if (value >= axis->low * (1 - 1e-9) && value <= axis->high * (1 + 1e-9) &&
                axis->n_ticks < AXIS_MAX_TICKS)
                axis->tick[axis->n_ticks++] = value;
        }
}

void axis_fit_range(Axis *axis, double low, double high, bool logarithmic, bool whole)
{
    *axis = (Axis){.low = low, .high = high, .logarithmic = logarithmic};
    if (logarithmic)
        log_ticks(axis);
    else
        linear_ticks(axis, 7, whole);
}

void axis_fit_x(Axis *axis, const Series *train, const Series *val, bool logarithmic)
{
    const Series *both[2] = {train, val};
    *axis = (Axis){.logarithmic = logarithmic, .low = logarithmic, .high = logarithmic ? 10 : 1};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < both[k]->n; i++)
            if (isfinite(both[k]->x[i])) axis->high = fmax(axis->high, fmin(both[k]->x[i], kHuge));
    if (logarithmic)
        log_ticks(axis);
    else
        linear_ticks(axis, 9, true);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void widen(Axis *axis, double value)
{
    if (!isfinite(value) || fabs(value) > kHuge) return;
    axis->low = fmin(axis->low, value);
    axis->high = fmax(axis->high, value);
}

// The training losses: all of them, or all but the highest two in a hundred when those reach more
// than twice as high above the median as the rest.
static bool widen_train(Axis *axis, const Series *train)
{
    double *sorted = malloc(((size_t)train->n + 1) * sizeof *sorted);
    if (!sorted) return false;
    int n = 0;
    for (int i = 0; i < train->n; i++)
        if (isfinite(train->y[i]) && fabs(train->y[i]) <= kHuge) sorted[n++] = train->y[i];
    if (n) {
        qsort(sorted, (size_t)n, sizeof *sorted, by_value);
        double median = sorted[n / 2], most = sorted[(int)((n - 1) * 0.98)], top = sorted[n - 1];
        double first = sorted[n - 1]; // where training began is never an outlier
        for (int i = 0; i < train->n; i++)
            if (isfinite(train->y[i])) {
                first = train->y[i];
                break;
            }
        most = fmax(most, fmin(first, kHuge));
        widen(axis, sorted[0]);
        widen(axis, top - median > 2 * (most - median) ? most : top);
    }
    free(sorted);
    return true;
}

bool axis_fit_y(Axis *axis, const Series *train, const Series *val, const PlotLine *lines,
                int n_lines)
{
    *axis = (Axis){.low = INFINITY, .high = -INFINITY};
    if (!widen_train(axis, train)) return false;
    for (int i = 0; i < val->n; i++) widen(axis, val->y[i]);
    for (int i = 0; i < n_lines; i++) widen(axis, lines[i].y);
    if (!(axis->low <= axis->high)) *axis = (Axis){.low = 0, .high = 1};
    axis->logarithmic = axis->low > 0 && axis->high > 1000 * axis->low;
    if (axis->logarithmic) {
        axis->low *= 0.8;
        axis->high *= 1.25;
        log_ticks(axis);
        return true;
    }
    // room around the curves, and something to show when all values are one
    double margin = fmax(0.06 * (axis->high - axis->low), fmax(1e-6 * fabs(axis->high), 1e-9));
    double low = axis->low - margin;
    axis->low = axis->low >= 0 && low < 0 ? 0 : low;
    axis->high += margin;
    linear_ticks(axis, 7, false);
    // a tick that nearly touches the bottom becomes it
    if (axis->n_ticks > 1 && axis->tick[0] - axis->low < 0.25 * (axis->tick[1] - axis->tick[0]))
        axis->low = axis->tick[0];
    return true;
}
