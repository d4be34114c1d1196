// e^x for loops over many numbers.
#ifndef OPS_EXP_H
#define OPS_EXP_H

#include "dtype.h"

// e^x = 2^n e^r with |r| <= ln2/2 and a degree-6 polynomial, within 2 ulp, written without a call
// or a branch so that loops over it become vector code. Underflows to 0 below -87.
static inline float exp_f32(float x)
{
    float clamped = x > -87.0f ? (x < 88.0f ? x : 88.0f) : -87.0f; // a NaN too
    float n = (clamped * 0x1.715476p+0f + 0x1.8p23f) - 0x1.8p23f;  // x / ln2 to the nearest integer
    float r = (clamped - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;   // ln2 in two parts
    float p =
        1 +
        r * (1 + r * (0.5f + r * (0x1.555556p-3f +
                                  r * (0x1.55555p-5f + r * (0x1.1112p-7f + r * 0x1.6c2p-10f)))));
    float y = p * f32_from_bits((uint32_t)((int32_t)n + 127) << 23);
    return x < -87.0f ? 0.0f : x != x ? x : y;
}

#endif
