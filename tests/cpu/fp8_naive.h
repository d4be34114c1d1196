// A slow conversion to any small float format, from the list of its values: the nearest, between
// two the one whose code is even.
#ifndef TESTS_CPU_FP8_NAIVE_H
#define TESTS_CPU_FP8_NAIVE_H

#include <math.h>

typedef struct {
    int n;
    double value[65536]; // of codes 0, 1, ..., ascending: all values that are not negative
} SmallFloat;

// Codes up to and with `last`; bits of fraction and the exponent's bias.
static inline void small_float(SmallFloat *f, int last, int fraction, int bias)
{
    f->n = last + 1;
    for (int code = 0; code <= last; code++) {
        const int exponent = code >> fraction, m = code & ((1 << fraction) - 1);
        f->value[code] = exponent ? ldexp(m + (1 << fraction), exponent - bias - fraction)
                                  : ldexp(m, 1 - bias - fraction);
    }
}

// Saturates: what is beyond the last value goes to it.
static inline double small_float_round(const SmallFloat *f, double x)
{
    if (isnan(x)) return x;
    const double a = fabs(x);
    int low = 0, high = f->n - 1; // value[low] <= a < value[high + 1]
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (f->value[middle] <= a)
            low = middle;
        else
            high = middle - 1;
    }
    if (low + 1 < f->n) {
        const double below = a - f->value[low], above = f->value[low + 1] - a;
        if (above < below || (above == below && low % 2 == 1)) low++;
    }
    return copysign(f->value[low], x);
}

#endif
