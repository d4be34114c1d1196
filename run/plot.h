// A loss curve as SVG: the training loss as a light line with its running mean over it, validations
// as marked points, reference values as dashed lines. It follows the reader's light or dark theme.
#ifndef RUN_PLOT_H
#define RUN_PLOT_H

#include "../ops/error.h"
#include "series.h"

typedef struct {
    double y;
    const char *label; // the value is written behind it: "floor of the corpus" becomes "... 1.234"
} PlotLine;

typedef struct {
    const char *title, *subtitle; // what ran, and how it ended
    const Series *train, *val;    // by step; points that are not finite are left out
    const PlotLine *lines;        // may be NULL when n_lines is 0
    int n_lines;
    bool log_x; // steps on a logarithmic axis, from 1
} Plot;

// Writes the file whole or not at all. Any number of points, of any size, makes a readable picture:
// the y axis leaves out the rarest outliers, which then touch its end.
bool plot_write(const Plot *plot, const char *path, Error *err);

#endif
