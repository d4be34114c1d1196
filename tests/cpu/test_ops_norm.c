// RMS norm, the residual mix, the backout and add, forward and backward.
#include "ops_check.h"

static const double eps = 0x1p-23; // what PyTorch takes when no epsilon is given
static int t, d;

static Nums *x, *x_in, *y, *r, *w, *wx, *dx, *skip, *gate, *x0, *lambda, *dskip, *dx0, *dlambda,
    *dgate, *back, *beta, *dback, *dbeta;

#define ON(nums) ((nums) ? (nums)->on[k] : NULL)

// ---- norm --------------------------------------------------------------------------------------

static void norm_forward(const Ops *ops, int k)
{
    ops->norm_forward(ON(y), ON(r), ON(x), t, d, eps);
}
static void norm_backward(const Ops *ops, int k)
{
    ops->norm_backward(ON(dx), ON(w), ON(y), ON(r), t, d);
}

static double norm_loss(void)
{
    norm_forward(devices[CPU64], CPU64);
    return nums_dot(w, y);
}

static void norm_case(double scale)
{
    x = nums_new(t * d, scale), w = nums_new(t * d, 1), dx = nums_new(t * d, 1);
    y = nums_out(t * d), r = nums_out(t);
    run_everywhere(norm_forward, norm_backward);
    CHECK_NUMS(y, d, 0);
    CHECK_NUMS(r, d, 0);
    CHECK_NUMS(dx, d, 0);
    if (scale == 1 && t < 100) check_differences("x", x, dx, norm_loss, 100);
    nums_free();
}

TEST(norm)
{
    const int tokens[] = {1, 7, 65, 200}, widths[] = {64, 128, 384, 768, 65};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 5; j++) {
            t = tokens[i], d = widths[j];
            for (double scale = 1e-12; scale <= 1e12; scale *= 1e6) norm_case(scale);
        }
}

TEST(norm_of_zeros_and_nan)
{
    t = 3, d = 64;
    x = nums_new(t * d, 0), y = nums_out(t * d), r = nums_out(t);
    nums_set(x, 70, NAN);
    nums_set(x, 2 * 64, 5);
    for (int k = CPU; k <= CPU64; k++) {
        norm_forward(devices[k], k);
        for (size_t i = 0; i < 64; i++) {
            CHECK(nums_get(y, k, i) == 0);
            CHECK(isnan(nums_get(y, k, 64 + i)));
            // sqrt(D) at most, short of it by eps / (2 mean x^2) of itself
            CHECK_NEAR(nums_get(y, k, 128 + i), i ? 0 : 8, 8 * eps * 64 / 25);
        }
        CHECK_NEAR(nums_get(r, k, 0), 1 / sqrt(eps), 1e-3);
    }
    nums_free();
}

// ---- mix ---------------------------------------------------------------------------------------

static void mix_forward(const Ops *ops, int k)
{
    ops->mix_norm_forward(ON(x), ON(y), ON(r), ON(x_in), ON(skip), ON(gate), ON(x0), ON(lambda), t,
                          d, eps);
}

static void mix_backward(const Ops *ops, int k)
{
    ops->mix_norm_backward(ON(dx), ON(dskip), ON(dx0), ON(dlambda), ON(dgate), ON(w), ON(y), ON(r),
                           ON(x_in), ON(skip), ON(gate), ON(x0), ON(lambda), t, d);
}

static double mix_loss(void)
{
    mix_forward(devices[CPU64], CPU64);
    return nums_dot(w, y) + nums_dot(wx, x);
}

static void mix_case(bool with_skip)
{
    const int n = t * d;
    x_in = nums_new(n, 1), x0 = nums_new(n, 1), lambda = nums_new(2, 1);
    nums_set(lambda, 0, 1.125), nums_set(lambda, 1, -0.75); // far from 0, where norms are rough
    skip = with_skip ? nums_new(n, 1) : NULL, gate = with_skip ? nums_new(1, 1.5) : NULL;
    x = nums_out(n), y = nums_out(n), r = nums_out(t);
    w = nums_new(n, 1), wx = nums_new(n, 1), dx = nums_new(n, 0);
    for (size_t i = 0; i < dx->n; i++) nums_set(dx, i, wx->start[i]);
    dskip = with_skip ? nums_out(n) : NULL, dgate = with_skip ? nums_new(1, 1) : NULL;
    dx0 = nums_new(n, 1), dlambda = nums_new(2, 1);
    run_everywhere(mix_forward, mix_backward);
    CHECK_NUMS(x, d, 0);
    CHECK_NUMS(y, d, 0);
    CHECK_NUMS(r, d, 0);
    CHECK_NUMS(dx, d, 0);
    CHECK_NUMS(dx0, d, 0);
    CHECK_NUMS(dlambda, d, 2 * nums_sum_abs(dx));
    for (size_t i = 0; i < dx->n; i++)
        dx->start[i] = NAN; // in place: it became the gradient of x_in
    check_differences("x_in", x_in, dx, mix_loss, 60);
    check_differences("x0", x0, dx0, mix_loss, 60);
    check_differences("lambda", lambda, dlambda, mix_loss, 2);
    if (with_skip) {
        CHECK_NUMS(dskip, d, 0);
        CHECK_NUMS(dgate, d, nums_sum_abs(dx));
        check_differences("skip", skip, dskip, mix_loss, 60);
        check_differences("skip gate", gate, dgate, mix_loss, 1);
    }
    nums_free();
}

TEST(mix)
{
    const int tokens[] = {1, 7, 65, 130}, widths[] = {64, 128, 768};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++) {
            t = tokens[i], d = widths[j];
            mix_case(false);
            mix_case(true);
        }
}

TEST(mix_in_place)
{
    t = 7, d = 128;
    const int n = t * d;
    x_in = nums_new(n, 1), skip = nums_new(n, 1), gate = nums_new(1, 1), x0 = nums_new(n, 1);
    lambda = nums_new(2, 1), y = nums_out(n), r = nums_out(t), x = nums_out(n);
    Nums *apart = nums_out(n), *normed = nums_out(n);
    for (int k = CPU; k <= CPU64; k++) mix_forward(devices[k], k);
    nums_copy(apart, x), nums_copy(normed, y);
    x = x_in;
    for (int k = CPU; k <= CPU64; k++) mix_forward(devices[k], k);
    CHECK(same_bits(x, apart) && same_bits(y, normed));
    nums_free();
}

// Specification 9.2, 10, one slot: with lambda (1, 0) a pop adds sigmoid(-1.5) of the skip, exactly
// as written, and the x0 of another slot does not enter.
TEST(mix_at_init)
{
    t = 5, d = 64;
    const int n = t * d;
    x_in = nums_new(n, 1), skip = nums_new(n, 1), gate = nums_new(1, 0), x0 = nums_new(n, 1);
    lambda = nums_new(2, 0), y = nums_out(n), r = nums_out(t), x = nums_out(n);
    nums_set(gate, 0, -1.5);
    nums_set(lambda, 0, 1);
    mix_forward(devices[CPU64], CPU64);
    for (size_t i = 0; i < x->n; i++)
        CHECK_NEAR(nums_get(x, CPU64, i), x_in->start[i] + 0.18242552380635635 * skip->start[i],
                   1e-15);
    skip = gate = NULL;
    for (int k = CPU; k <= CPU64; k++) mix_forward(devices[k], k);
    CHECK(same_bits(x, x_in));
    nums_free();
}

// ---- backout -----------------------------------------------------------------------------------

static void backout_forward(const Ops *ops, int k)
{
    ops->backout_norm_forward(ON(y), ON(r), ON(x), ON(back), ON(beta), t, d, eps);
}

static void backout_backward(const Ops *ops, int k)
{
    ops->backout_norm_backward(ON(dx), ON(dback), ON(dbeta), ON(w), ON(y), ON(r), ON(back),
                               ON(beta), t, d);
}

static double backout_loss(void)
{
    backout_forward(devices[CPU64], CPU64);
    return nums_dot(w, y);
}

TEST(backout)
{
    const int tokens[] = {1, 7, 65, 130}, widths[] = {64, 128, 768};
    for (int i = 0; i < 12; i++) {
        t = tokens[i % 4], d = widths[i / 4];
        const int n = t * d;
        x = nums_new(n, 1), back = nums_new(n, 1), beta = nums_new(1, 1), w = nums_new(n, 1);
        y = nums_out(n), r = nums_out(t), dx = nums_out(n), dback = nums_out(n);
        dbeta = nums_new(1, 3);
        run_everywhere(backout_forward, backout_backward);
        CHECK_NUMS(y, d, 0);
        CHECK_NUMS(r, d, 0);
        CHECK_NUMS(dx, d, 0);
        CHECK_NUMS(dback, d, 0);
        CHECK_NUMS(dbeta, d, nums_sum_abs(dx));
        check_differences("x", x, dx, backout_loss, 60);
        check_differences("x_back", back, dback, backout_loss, 60);
        check_differences("beta", beta, dbeta, backout_loss, 1);
        nums_free();
    }
}

TEST(add)
{
    for (int n = 0; n <= 1000; n += n < 3 ? 1 : 199) {
        x = nums_new(n, 1), y = nums_new(n, 1);
        for (int k = CPU; k <= CPU64; k++) {
            devices[k]->add(ON(x), ON(y), (size_t)n);
            for (size_t i = 0; i < x->n; i++) {
                const double sum = x->start[i] + y->start[i];
                CHECK(nums_get(x, k, i) == (k == CPU ? (double)(float)sum : sum));
                CHECK(nums_get(y, k, i) == y->start[i]);
            }
        }
        nums_free();
    }
}

int main(void)
{
    RUN(norm);
    RUN(norm_of_zeros_and_nan);
    RUN(mix);
    RUN(mix_in_place);
    RUN(mix_at_init);
    RUN(backout);
    RUN(add);
    return TEST_SUMMARY();
}
