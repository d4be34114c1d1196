// QK-norm, rotary and value mix.
#include "ops_check.h"

static const double eps = 0x1p-23;
static int t, h, d, active;
static int32_t ids[512];
static Nums *qkv, *out, *cosines, *sines, *s, *ve, *w, *dqkv, *ds, *dve;

#define ON(nums) ((nums) ? (nums)->on[k] : NULL)

static void forward(const Ops *ops, int k)
{
    ops->qkv_forward(ON(out), ON(qkv), ON(cosines), ON(sines), active, ON(s), ON(ve), ids, t, h, d,
                     eps);
}

static void backward(const Ops *ops, int k)
{
    ops->qkv_backward(ON(dqkv), ON(ds), ON(dve), ON(w), ON(qkv), ON(cosines), ON(sines), active,
                      ON(s), ON(ve), ids, t, h, d, eps);
}

static double loss(void)
{
    forward(devices[CPU64], CPU64);
    return nums_dot(w, out);
}

enum { VOCAB = 20 };

static void make_case(bool with_ve)
{
    const int n = 3 * t * h * d;
    qkv = nums_new(n, 1), out = nums_out(n), s = nums_new(2, 1), w = nums_new(n, 1);
    cosines = nums_new(t * active, 1), sines = nums_new(t * active, 1);
    for (int p = 0; p < t; p++)
        for (int j = 0; j < active; j++) {
            const double angle = p * pow(1024, -(double)j / active);
            nums_set(cosines, (size_t)(p * active + j), (double)(float)cos(angle));
            nums_set(sines, (size_t)(p * active + j), (double)(float)sin(angle));
        }
    dqkv = nums_out(n), ds = nums_new(2, 1);
    ve = with_ve ? nums_new(VOCAB * h * d, 1) : NULL;
    dve = with_ve ? nums_new(t * h * d, 1) : NULL;
    for (int p = 0; p < t; p++) ids[p] = (int32_t)((check_random() + 1) / 2 * VOCAB);
}

TEST(forward_and_backward)
{
    const int tokens[] = {1, 7, 65, 150}, heads[] = {1, 2, 6}, actives[] = {16, 32, 1, 0};
    for (int i = 0; i < 24; i++) {
        t = tokens[i % 4], h = heads[i % 3], d = i / 4 % 2 ? 64 : 128, active = actives[i / 6];
        make_case(i / 2 % 2);
        run_everywhere(forward, backward);
        const double terms = 1.5 * nums_sum_abs(w);
        CHECK_NUMS(out, d, 0);
        CHECK_NUMS(dqkv, d, 0);
        CHECK_NUMS(ds, h * d, terms);
        check_differences("qkv", qkv, dqkv, loss, 60);
        check_differences("s", s, ds, loss, ve ? 2 : 1);
        if (ve) {
            CHECK_NUMS(dve, d, 0);
            Nums *table = nums_new((int)ve->n, 0); // dve is per position
            double *sum = table->on[CPU64];
            for (int j = 0; j < t * h * d; j++)
                sum[ids[j / (h * d)] * h * d + j % (h * d)] +=
                    nums_get(dve, CPU64, (size_t)j) - dve->start[j];
            check_differences("ve", ve, table, loss, 60);
        } else {
            CHECK(nums_get(ds, CPU, 1) == ds->start[1] && nums_get(ds, CPU64, 1) == ds->start[1]);
        }
        nums_free();
    }
}

// Specification 9.2, 5: pairs (j, j + d/2) keep their norm, q . k depends on the distance alone,
// and channels past the active frequencies are only normed.
TEST(rotary)
{
    t = 60, h = 1, d = 128, active = 32;
    make_case(false);
    for (size_t i = 0; i < qkv->n; i++) nums_set(qkv, i, qkv->start[i % (3 * 128)]);
    forward(devices[CPU64], CPU64);
    const double *y = out->on[CPU64];
    double square[2] = {0, 0};
    for (int i = 0; i < 256; i++) square[i / 128] += qkv->start[i] * qkv->start[i] / d;
    for (int p = 0; p < t; p++)
        for (int i = 0; i < 256; i++) {
            const int head = i / 128, j = i % 64;
            const double *in = qkv->start + head * 128, *at = y + p * 384 + head * 128;
            const double norm = sqrt(square[head] + eps);
            CHECK_NEAR(hypot(at[j], at[j + 64]), hypot(in[j], in[j + 64]) / norm, 1e-6);
            if (j >= 32) CHECK_NEAR(at[i % 128], in[i % 128] / norm, 1e-14);
        }
    for (int distance = 0; distance < t; distance += 7)
        for (int p = distance; p < t; p++) {
            double dot = 0, first = 0;
            for (int j = 0; j < 128; j++) {
                dot += y[p * 384 + j] * y[(p - distance) * 384 + 128 + j];
                first += y[distance * 384 + j] * y[128 + j];
            }
            CHECK_NEAR(dot, first, 128 * 0x1p-23); // the tables here are floats
        }
    // The sense: position 1, frequency 1, turns (1, 0) to (cos 1, -sin 1).
    for (size_t i = 384; i < 768; i++) nums_set(qkv, i, i == 384 ? 1 : 0);
    forward(devices[CPU64], CPU64);
    const double unit = sqrt(128) / sqrt(1 + 128 * eps);
    CHECK_NEAR(y[384], unit * cos(1), 1e-6);
    CHECK_NEAR(y[384 + 64], -unit * sin(1), 1e-6);
    nums_free();
}

TEST(in_place)
{
    t = 65, h = 2, d = 64, active = 16;
    make_case(true);
    Nums *apart = nums_out(3 * t * h * d), *ds2 = nums_new(2, 0), *dve2 = nums_new(t * h * d, 0);
    nums_copy(ds2, ds), nums_copy(dve2, dve), nums_copy(apart, w);
    for (int k = CPU; k <= CPU64; k++) {
        forward(devices[k], k);
        backward(devices[k], k);
        devices[k]->qkv_backward(ON(w), ON(ds2), ON(dve2), ON(w), ON(qkv), ON(cosines), ON(sines),
                                 active, ON(s), ON(ve), ids, t, h, d, eps);
    }
    CHECK(same_bits(w, dqkv) && same_bits(ds2, ds) && same_bits(dve2, dve));
    nums_copy(apart, out);
    out = qkv;
    for (int k = CPU; k <= CPU64; k++) forward(devices[k], k);
    CHECK(same_bits(qkv, apart));
    nums_free();
}

TEST(zeros_and_nan)
{
    t = 3, h = 2, d = 64, active = 16;
    make_case(false);
    for (size_t i = 0; i < qkv->n; i++) nums_set(qkv, i, 0);
    nums_set(qkv, 3 * 128 + 70, NAN); // position 1, q, head 1
    for (int k = CPU; k <= CPU64; k++) {
        forward(devices[k], k);
        backward(devices[k], k);
        for (size_t i = 0; i < out->n; i++) {
            const bool hit = i / 64 == 7;
            CHECK(hit ? isnan(nums_get(out, k, i)) : nums_get(out, k, i) == 0);
            CHECK(hit ? isnan(nums_get(dqkv, k, i)) : isfinite(nums_get(dqkv, k, i)));
        }
    }
    nums_free();
}

int main(void)
{
    RUN(forward_and_backward);
    RUN(rotary);
    RUN(in_place);
    RUN(zeros_and_nan);
    return TEST_SUMMARY();
}
