// Lines with points over one pair of axes, named where they end: a figure as SVG. It follows the
// reader's light or dark theme.
#ifndef ABLATE_FIGURE_H
#define ABLATE_FIGURE_H

#include "../ops/error.h"
#include "../run/series.h"

enum { FIGURE_MAX = 12 };

typedef struct {
    const char *title, *finding; // what is shown; what it says, in one sentence
    const char *x_name, *y_name; // with units
    bool log_x, log_y;
    bool whole_x; // x counts something
    bool points;  // no lines between the points
    int x_labels; // places on the x axis, at 0, 1, .., when it has names instead of numbers
    const char *const *x_label;
    int n;
    const char *label[FIGURE_MAX];
    Series
        line[FIGURE_MAX]; // values that are not finite, or not positive on a log axis, are left out
} Figure;

// The line of that label, added when it is not there; the last one when there is no room.
Series *figure_line(Figure *figure, const char *label);
// Writes the file whole or not at all; a figure without points is an error.
bool figure_write(const Figure *figure, const char *path, Error *err);
void figure_free(Figure *figure);

#endif
