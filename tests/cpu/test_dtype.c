// Conversions of dtype.h: every bf16 and f16 pattern, and floats of all sizes against the slow
// conversion that looks the value up.
#include "../../ops/dtype.h"

#include "../test.h"
#include "fp8_naive.h"

static SmallFloat e4m3, e5m2, half, brain;

static void make_formats(void)
{
    small_float(&e4m3, 0x7e, 3, 7); // 0x7f is NaN; 448 the largest
    small_float(&e5m2, 0x7b, 2, 15);
    small_float(&half, 0x7bff, 10, 15);
    small_float(&brain, 0x7f7f, 7, 127);
    CHECK(e4m3.value[0x7e] == 448 && e4m3.value[1] == 0x1p-9);
    CHECK(e5m2.value[0x7b] == 57344 && e5m2.value[1] == 0x1p-16);
    CHECK(half.value[0x7bff] == 65504 && half.value[1] == 0x1p-24);
}

static bool same_float(float a, float b)
{
    return f32_bits(a) == f32_bits(b) || (a != a && b != b);
}

TEST(every_pattern_returns)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float b = bf16_to_f32((uint16_t)h), f = f16_to_f32((uint16_t)h);
        const bool b_nan = (h & 0x7fff) > 0x7f80, f_nan = (h & 0x7fff) > 0x7c00;
        CHECK(isnan(b) == b_nan && isnan(f) == f_nan, "%04x", h);
        if (b_nan)
            CHECK(isnan(bf16_to_f32(bf16_from_f32(b))), "%04x", h);
        else
            CHECK(bf16_from_f32(b) == h && same_float(round_bf16(b), b), "%04x", h);
        if (f_nan)
            CHECK(isnan(f16_to_f32(f16_from_f32(f))), "%04x", h);
        else
            CHECK(f16_from_f32(f) == h && same_float(round_f16(f), f), "%04x", h);
        if ((h & 0x7fff) < 0x7f80)
            CHECK(fabs((double)b) == brain.value[h & 0x7fff] && !signbit(b) == !(h >> 15), "%04x",
                  h);
        if ((h & 0x7fff) < 0x7c00)
            CHECK(fabs((double)f) == half.value[h & 0x7fff] && !signbit(f) == !(h >> 15), "%04x",
                  h);
    }
    CHECK(bf16_to_f32(0x7f80) == INFINITY && f16_to_f32(0xfc00) == -INFINITY);
}

static void check_float(float x)
{
    const double wide = (double)x, four = small_float_round(&e4m3, wide);
    const double five = small_float_round(&e5m2, wide);
    double h = small_float_round(&half, wide), b = small_float_round(&brain, wide);
    if (fabs(wide) >= 65520) h = copysign(INFINITY, wide); // half way to 2^16, and no saturation
    if (fabs(wide) >= 0x1.ffp127) b = copysign(INFINITY, wide);
    CHECK(same_float(round_e4m3(x), (float)four), "e4m3 of %a is %a, not %a", wide,
          (double)round_e4m3(x), four);
    CHECK(same_float(round_e5m2(x), (float)five), "e5m2 of %a is %a, not %a", wide,
          (double)round_e5m2(x), five);
    CHECK(same_float(round_f16(x), (float)h), "f16 of %a is %a, not %a", wide, (double)round_f16(x),
          h);
    CHECK(same_float(round_bf16(x), (float)b), "bf16 of %a is %a, not %a", wide,
          (double)round_bf16(x), b);
    CHECK(same_float(f16_to_f32(f16_from_f32(x)), (float)h), "f16 bits of %a", wide);
}

// Every value of every format, the ties between neighbours, and the floats around each.
TEST(values_ties_and_neighbours)
{
    const SmallFloat *formats[] = {&e4m3, &e5m2, &half, &brain};
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < formats[f]->n; i++) {
            const double v = formats[f]->value[i], next = i + 1 < formats[f]->n
                                                              ? formats[f]->value[i + 1]
                                                              : 2 * v - formats[f]->value[i - 1];
            const float points[] = {(float)v, (float)(v / 2 + next / 2)};
            for (int k = 0; k < 2; k++)
                for (int sign = -1; sign <= 1; sign += 2) {
                    const float x = (float)sign * points[k];
                    check_float(x);
                    check_float(nextafterf(x, INFINITY));
                    check_float(nextafterf(x, -INFINITY));
                }
        }
}

TEST(floats_of_all_sizes)
{
    uint32_t bits = 1;
    for (int i = 0; i < 400000; i++) {
        bits = bits * 1664525u + 1013904223u; // Numerical Recipes' generator
        check_float(f32_from_bits(bits));
        check_float(f32_from_bits((bits & 0x87ffffff) | 0x38000000)); // 2^-15 to 1
    }
    for (uint32_t top = 0; top < 65536;
         top++) { // each sign, exponent and the fraction's first bits
        check_float(f32_from_bits(top << 16));
        check_float(f32_from_bits(top << 16 | 0x7fff));
        check_float(f32_from_bits(top << 16 | 0x8000));
        check_float(f32_from_bits(top << 16 | 0x8001));
    }
}

TEST(special_values)
{
    const float specials[] = {0.0f, -0.0f,     INFINITY,   -INFINITY,       NAN,
                              -NAN, 0x1p-149f, -0x1p-149f, 0x1.fffffep127f, -0x1.fffffep127f};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) check_float(specials[i]);
    CHECK(round_e4m3(INFINITY) == 448 && round_e4m3(-1e30f) == -448);
    CHECK(round_e5m2(INFINITY) == 57344 && round_e5m2(-1e30f) == -57344);
    CHECK(round_f16(1e6f) == INFINITY && round_bf16(0x1.fffffep127f) == INFINITY);
    CHECK(signbit(round_e4m3(-0.0f)) && signbit(round_e5m2(-1e-30f)) && signbit(round_f16(-0.0f)));
    // a signalling NaN stays a NaN although its fraction's bits are all below the cut
    CHECK(isnan(bf16_to_f32(bf16_from_f32(f32_from_bits(0x7f800001)))));
    CHECK(isnan(bf16_to_f32(bf16_from_f32(f32_from_bits(0xffffffff)))));
}

TEST(stored_arrays)
{
    static const DType types[] = {DT_F64, DT_F32, DT_BF16, DT_F16};
    static const size_t sizes[] = {8, 4, 2, 2};
    static const char *const names[] = {"f64", "f32", "bf16", "f16"};
    for (int k = 0; k < 4; k++) {
        unsigned char block[3 * 8 + 8];
        memset(block, 0xa5, sizeof block);
        CHECK(dtype_size(types[k]) == sizes[k] && !strcmp(dtype_name(types[k]), names[k]));
        for (size_t i = 0; i < 3; i++) dtype_set(block, types[k], i, (double)i - 1.5);
        for (size_t i = 0; i < 3; i++) CHECK(dtype_get(block, types[k], i) == (double)i - 1.5);
        for (size_t i = 3 * sizes[k]; i < sizeof block; i++) CHECK(block[i] == 0xa5);
        dtype_set(block, types[k], 1, 1.0 / 3);
        const float third = (float)(1.0 / 3);
        const double want[] = {1.0 / 3, (double)third, (double)round_bf16(third),
                               (double)round_f16(third)};
        CHECK(dtype_get(block, types[k], 1) == want[k]);
    }
}

int main(void)
{
    make_formats();
    RUN(every_pattern_returns);
    RUN(values_ties_and_neighbours);
    RUN(floats_of_all_sizes);
    RUN(special_values);
    RUN(stored_arrays);
    return TEST_SUMMARY();
}
