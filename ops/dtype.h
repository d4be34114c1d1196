// Storage types and their exact conversions. Arithmetic is never done in a storage type: a value is
// widened, computed with, and rounded once (to nearest, ties to even) when it is stored.
#ifndef OPS_DTYPE_H
#define OPS_DTYPE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { DT_F64, DT_F32, DT_BF16, DT_F16 } DType;

static inline size_t dtype_size(DType t) { return t == DT_F64 ? 8 : t == DT_F32 ? 4 : 2; }

static inline const char *dtype_name(DType t)
{
    static const char *const names[] = {"f64", "f32", "bf16", "f16"};
    return names[t];
}

static inline uint32_t f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float bf16_to_f32(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }

static inline uint16_t bf16_from_f32(float x)
{
    uint32_t u = f32_bits(x);
    uint16_t rounded = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
    return (u & 0x7fffffffu) > 0x7f800000u ? (uint16_t)((u >> 16) | 0x40) : rounded; // quiet NaN
}

static inline float round_bf16(float x) { return bf16_to_f32(bf16_from_f32(x)); }

// x rounded to a format with (23 - drop) fraction bits whose smallest normal number is min_normal.
// Normal: round in the integer. Subnormal: adding `magic`, whose last place is the format's
// smallest subnormal, makes the addition itself round. Both are to nearest, ties to even.
static inline float round_narrow(float x, int drop, float min_normal, float magic)
{
    float a = fabsf(x);
    uint32_t u = f32_bits(a);
    uint32_t kept = (u + (1u << (drop - 1)) - 1 + ((u >> drop) & 1)) >> drop << drop;
    float y = a < min_normal ? (a + magic) - magic : a < INFINITY ? f32_from_bits(kept) : a;
    return copysignf(y, x);
}

// IEEE half; overflow goes to infinity, as a cast does.
static inline float round_f16(float x)
{
    float y = round_narrow(x, 13, 0x1p-14f, 0x1.8p-1f);
    return fabsf(y) > 65504.0f ? copysignf(INFINITY, y) : y;
}

// fp8 with saturation, as the GPU's conversion instruction does it; the values come back widened.
static inline float round_e4m3(float x)
{
    float y = round_narrow(x, 20, 0x1p-6f, 0x1.8p14f);
    return fabsf(y) > 448.0f ? copysignf(448.0f, y) : y;
}

static inline float round_e5m2(float x)
{
    float y = round_narrow(x, 21, 0x1p-14f, 0x1.8p7f);
    return fabsf(y) > 57344.0f ? copysignf(57344.0f, y) : y;
}

// IEEE half bits of a value that round_f16 leaves unchanged, and back.
static inline uint16_t f16_from_f32(float x)
{
    float y = round_f16(x), a = fabsf(y);
    uint32_t sign = f32_bits(y) >> 31 << 15;
    if (a != a) return (uint16_t)(sign | 0x7e00);
    if (a == INFINITY) return (uint16_t)(sign | 0x7c00);
    if (a < 0x1p-14f) return (uint16_t)(sign | (uint32_t)(a * 0x1p24f));
    return (uint16_t)(sign | (((f32_bits(a) >> 13) - (112u << 10)) & 0x7fff));
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t e = h >> 10 & 31, m = h & 1023;
    float a = e == 0    ? (float)m * 0x1p-24f
              : e == 31 ? (m ? NAN : INFINITY)
                        : f32_from_bits(((e + 112) << 23) | (m << 13));
    return h & 0x8000 ? -a : a;
}

// The i-th number of a stored array, widened; and a number rounded once to the storage type.
static inline double dtype_get(const void *p, DType t, size_t i)
{
    switch (t) {
    case DT_F64:
        return ((const double *)p)[i];
    case DT_F32:
        return (double)((const float *)p)[i];
    case DT_BF16:
        return (double)bf16_to_f32(((const uint16_t *)p)[i]);
    case DT_F16:
        return (double)f16_to_f32(((const uint16_t *)p)[i]);
    }
    return 0;
}

static inline void dtype_set(void *p, DType t, size_t i, double x)
{
    switch (t) {
    case DT_F64:
        ((double *)p)[i] = x;
        break;
    case DT_F32:
        ((float *)p)[i] = (float)x;
        break;
    case DT_BF16:
        ((uint16_t *)p)[i] = bf16_from_f32((float)x);
        break;
    case DT_F16:
        ((uint16_t *)p)[i] = f16_from_f32((float)x);
        break;
    }
}

#endif
