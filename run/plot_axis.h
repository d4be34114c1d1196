// An axis of a plot: its range, its ticks at round numbers, and where a value lies on it.
#ifndef RUN_PLOT_AXIS_H
#define RUN_PLOT_AXIS_H

#include <stdbool.h>
#include <stddef.h>

#include "plot.h"

enum { AXIS_MAX_TICKS = 16 };

typedef struct {
    double low, high; // finite, low < high
    bool logarithmic; // then low > 0
    double tick[AXIS_MAX_TICKS];
    int n_ticks;
    int decimals; // of the labels; -1: powers of ten
} Axis;

// Steps of both series, from 0, or from 1 when logarithmic.
void axis_fit_x(Axis *axis, const Series *train, const Series *val, bool logarithmic);
// Losses and reference values. Validations are all inside; of the training losses the highest two
// in a hundred may be left out when they would flatten the rest. Logarithmic when values differ by
// more than a factor of 1000. False without memory.
bool axis_fit_y(Axis *axis, const Series *train, const Series *val, const PlotLine *lines,
                int n_lines);
// A range at hand, low < high, low > 0 when logarithmic; ticks at whole numbers only when asked.
void axis_fit_range(Axis *axis, double low, double high, bool logarithmic, bool whole);
// `start` at the axis's low end, `end` at its high end; beyond them, at most one length further.
double axis_place(const Axis *axis, double value, double start, double end);
// The text of a tick; returns `text`.
const char *axis_label(const Axis *axis, int tick, char *text, size_t size);

#endif
