// The clock that durations are measured with.
#ifndef RUN_CLOCK_H
#define RUN_CLOCK_H

#include <time.h>

// Milliseconds since some moment, of a clock that nobody sets.
static inline double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

#endif
