// A growing list of points.
#ifndef RUN_SERIES_H
#define RUN_SERIES_H

#include <stdbool.h>
#include <stdlib.h>

typedef struct {
    double *x, *y;
    int n, capacity;
} Series;

// False when there is no memory; the series is then as it was.
static inline bool series_add(Series *series, double x, double y)
{
    if (series->n == series->capacity) {
        int capacity = series->capacity ? 2 * series->capacity : 256;
        double *xs = realloc(series->x, (size_t)capacity * sizeof *xs);
        if (xs) series->x = xs;
        double *ys = xs ? realloc(series->y, (size_t)capacity * sizeof *ys) : NULL;
        if (!ys) return false;
        series->y = ys;
        series->capacity = capacity;
    }
    series->x[series->n] = x;
    series->y[series->n++] = y;
    return true;
}

static inline void series_free(Series *series)
{
    free(series->x);
    free(series->y);
    *series = (Series){0};
}

#endif
