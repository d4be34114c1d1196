// The MLP's activation, fp8 operands of the head, softcapped cross-entropy, and sums.
#include "ops_check.h"

#include "fp8_naive.h"

static int t, v;
static double grad_scale;
static int32_t targets[256];
static Nums *u, *logits, *loss, *w;

#define ON(nums) ((nums)->on[k])

// ---- relu2 -------------------------------------------------------------------------------------

TEST(relu2)
{
    for (int n = 0; n <= 1200; n += n < 9 ? 1 : 397) {
        Nums *h = nums_new(n + 8, 2), *r = nums_out(n + 8), *dr = nums_new(n + 8, 1);
        Nums *dh = nums_out(n + 8), *h2 = nums_new(n + 8, 0), *dr2 = nums_new(n + 8, 0);
        const double special[] = {0, -0.0, 1e18, -1e18, 1e-30, -1e30, 3, NAN};
        for (size_t i = 0; i < 8; i++) nums_set(h, (size_t)n + i, special[i]);
        nums_copy(h2, h), nums_copy(dr2, dr);
        for (int k = CPU; k <= CPU64; k++) {
            const Ops *ops = devices[k];
            ops->relu2_forward(ON(r), ON(h), h->n);
            ops->relu2_backward(ON(dh), ON(dr), ON(h), h->n);
            ops->relu2_backward(ON(dr2), ON(dr2), ON(h), h->n);
            ops->relu2_forward(ON(h2), ON(h2), h->n);
            for (size_t i = 0; i < h->n - 1; i++) { // squares and doubles round once
                const double x = h->start[i] > 0 ? h->start[i] : 0, g = 2 * x * dr->start[i];
                CHECK(nums_get(r, k, i) == (k == CPU ? (double)(float)(x * x) : x * x), "%g", x);
                CHECK(nums_get(dh, k, i) == (k == CPU ? (double)(float)g : g), "%g", x);
            }
            CHECK(isnan(nums_get(r, k, h->n - 1)) && isnan(nums_get(dh, k, h->n - 1)), "NaN");
        }
        CHECK(same_bits(h2, r) && same_bits(dr2, dh));
        nums_free();
    }
}

// ---- fp8 ---------------------------------------------------------------------------------------

// y = round(fp32(x) fp32(1 / scale)), the quotient's own rounding included, against the slow fp8;
// and its transpose.
static void quantize_case(Fp8Format format, const SmallFloat *fp8, double scale, int rows)
{
    enum { NUMBERS = 4096 };
    const int cols = NUMBERS / rows;
    Nums *x = nums_new(NUMBERS, 1), *y = nums_out(NUMBERS), *yt = nums_out(NUMBERS);
    const double special[] = {0,     -0.0,  INFINITY, -INFINITY, NAN,   1e30,
                              -1e30, 1e-40, 448,      449,       -57344};
    for (size_t i = 0; i < x->n; i++) {
        const double size = exp2(15 * x->start[(i * 7 + 5) % x->n]);
        nums_set(x, i, i < 11 ? special[i] : (double)(float)(x->start[i] * scale * size));
    }
    for (int k = CPU; k <= CPU64; k++) {
        devices[k]->quantize(ON(y), ON(yt), ON(x), format, scale, rows, cols);
        for (size_t i = 0; i < x->n; i++) {
            const float in = (float)nums_get(x, k, i);
            const double want = small_float_round(fp8, (double)(in * (float)(1 / scale)));
            const double got = nums_get(y, k, i);
            CHECK(isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want),
                  "%a to %a, not %a", (double)in, got, want);
            const double turned =
                nums_get(yt, k, i % (size_t)cols * (size_t)rows + i / (size_t)cols);
            CHECK(isnan(got) ? isnan(turned) : turned == got, "%a in the transpose, not %a", turned,
                  got);
        }
    }
    nums_free();
}

TEST(quantize)
{
    static SmallFloat e4m3, e5m2;
    small_float(&e4m3, 0x7e, 3, 7);
    small_float(&e5m2, 0x7b, 2, 15);
    const double scales[] = {1, 0x1p-9, 1.0 / 448,
                             0.06185895741317419}; // the last: sqrt(768) / 448
    const int rows[] = {16, 64, 256, 32};
    for (int i = 0; i < 4; i++) {
        quantize_case(FP8_E4M3, &e4m3, scales[i], rows[i]);
        quantize_case(FP8_E5M2, &e5m2, scales[i], rows[3 - i]);
    }
}

// Products of fp8 numbers: C = alpha A B^T + beta C, of either kind of C.
TEST(matmul_fp8)
{
    enum { M = 16, N = 48, K = 80 };
    Nums *a = nums_new(M * K, 4), *b = nums_new(N * K, 4), *c = nums_new(M * N, 1);
    for (int k = CPU; k <= CPU64; k++) {
        devices[k]->matmul_fp8(ON(c), k == CPU, ON(a), FP8_E5M2, ON(b), FP8_E4M3, M, N, K, 0.25, 2);
        for (size_t i = 0; i < c->n; i++) {
            double sum = 2 * c->start[i], size = fabs(sum);
            for (size_t j = 0; j < K; j++) {
                const double x = a->start[i / N * K + j] * b->start[i % N * K + j] / 4;
                sum += x, size += fabs(x);
            }
            CHECK_NEAR(nums_get(c, k, i), sum, K * (k == CPU ? 0x1p-24 : 0x1p-53) * size);
        }
    }
    nums_free();
}

// ---- loss --------------------------------------------------------------------------------------

static void forward(const Ops *ops, int k) // on a copy: u is replaced by its gradient
{
    memcpy(ON(u), ON(logits), logits->n * dtype_size(device_type[k]));
    ops->softcap_loss(ON(loss), ON(u), targets, grad_scale, t, v, 30, 7.5);
}

static double sum_of_losses(void)
{
    const double saved = grad_scale;
    grad_scale = 0;
    forward(devices[CPU64], CPU64);
    grad_scale = saved;
    return saved * nums_dot(w, loss);
}

static void make_loss(double size)
{
    logits = nums_new(t * v, size), u = nums_out(t * v), loss = nums_out(t), w = nums_new(t, 0);
    for (int p = 0; p < t; p++) {
        targets[p] = (int32_t)((check_random() + 1) / 2 * v);
        nums_set(w, (size_t)p, 1);
    }
    targets[0] = v - 1, targets[t - 1] = 0;
}

// Specification 9.2, 11: du = 4 s (1 - s) (p - onehot) / A, by the naive loops and by differences.
TEST(softcap)
{
    const int tokens[] = {1, 7, 65}, widths[] = {128, 384, 50304, 2, 65};
    for (int i = 0; i < 15; i++) {
        t = tokens[i % 3], v = widths[i / 3], grad_scale = i % 2 ? 1 : 0.125;
        if (v > 1000 && t > 7) t = 16;
        make_loss(i % 4 == 3 ? 40 : 5);
        run_everywhere(forward, NULL);
        // a loss is a difference of logits: its terms are two numbers of at most 30
        CHECK_NUMS(loss, v < 64 ? v : 64, 60);
        CHECK_NUMS(u, v < 64 ? v : 64, 1);
        Nums *du = nums_out(t * v);
        nums_copy(du, u);
        if (v < 1000) check_differences("u", logits, du, sum_of_losses, 60);
        nums_free();
    }
}

// Without a gradient the loss is the same; what is left in u is then nobody's.
TEST(softcap_without_gradient)
{
    t = 65, v = 384, grad_scale = 0.5;
    make_loss(5);
    Nums *with = nums_out(t);
    for (int k = CPU; k <= CPU64; k++) forward(devices[k], k);
    nums_copy(with, loss);
    grad_scale = 0;
    for (int k = CPU; k <= CPU64; k++) forward(devices[k], k);
    CHECK(same_bits(with, loss));
    nums_free();
}

TEST(softcap_extremes)
{
    t = 6, v = 128, grad_scale = 1;
    make_loss(0);
    const double at[] = {0, 1e30, -1e30, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < logits->n; i++) nums_set(logits, i, at[i / 128]);
    nums_set(logits, 5 * 128 + 3, 0);
    for (int k = CPU; k <= CPU64; k++) {
        const double unit = k == CPU ? 0x1p-24 : 0x1p-53;
        forward(devices[k], k);
        for (size_t p = 0; p < 5; p++) {
            CHECK_NEAR(nums_get(loss, k, p), log(128), 8 * unit * log(128));
            for (size_t j = 0; j < 128; j++) {
                const double onehot = (int)j == targets[p];
                CHECK_NEAR(nums_get(u, k, p * 128 + j), p ? 0 : 1.0 / 128 - onehot, 8 * unit);
            }
        }
        CHECK(isnan(nums_get(loss, k, 5)));
    }
    nums_free();
}

// One logit far above the others: the loss is the difference of two softcaps, and no exponential
// overflows.
TEST(softcap_of_a_peak)
{
    t = 2, v = 128, grad_scale = 1;
    make_loss(0);
    for (size_t i = 0; i < logits->n; i++) nums_set(logits, i, i % 128 == 5 ? 1000 : -1000);
    targets[0] = 5, targets[1] = 6;
    for (int k = CPU; k <= CPU64; k++) {
        forward(devices[k], k);
        // 127 terms below the rounding of 1 that they are added to
        CHECK_NEAR(nums_get(loss, k, 0), 127 * exp(-30), k == CPU ? 0x1p-23 : 128 * 0x1p-53);
        CHECK_NEAR(nums_get(loss, k, 1), 30, 1e-5);
    }
    nums_free();
}

// Specification 9.2, 12: zero logits over 50304 columns leave p = 1/50304 in every column but the
// target's, 0.009765625 in e5m2 once divided by the scale 1/448, and -448 in the target's.
TEST(fp8_gradient_at_step_0)
{
    t = 3, v = 50304;
    for (grad_scale = 1; grad_scale >= 0.125; grad_scale /= 8) {
        make_loss(0);
        Nums *g = nums_out(t * v), *gt = nums_out(t * v);
        for (int k = CPU; k <= CPU64; k++) {
            forward(devices[k], k);
            const size_t other = targets[1] == 7 ? 8 : 7;
            CHECK_NEAR(grad_scale * (double)round_bf16(1 / 50304.0f), grad_scale * 1.990795e-05,
                       0.5e-11);
            CHECK_NEAR(nums_get(u, k, 50304 + other), grad_scale / 50304, 0x1p-20 / 50304);
            memcpy(ON(u), ON(logits), logits->n * dtype_size(device_type[k]));
            devices[k]->softcap_loss_fp8(ON(loss), ON(g), ON(gt), ON(u), targets, grad_scale,
                                         1.0 / 448, t, v, 30, 7.5);
            for (size_t p = 0; p < 3; p++)
                CHECK_NEAR(nums_get(loss, k, p), 10.825840, 0.5e-6 + 10.83 * 0x1p-23);
            for (size_t i = 0; i < u->n; i++) {
                const double want =
                    grad_scale * ((int)(i % 50304) == targets[i / 50304] ? -448 : 0.009765625);
                CHECK(nums_get(g, k, i) == want, "%a", nums_get(g, k, i));
                CHECK(nums_get(gt, k, i % 50304 * 3 + i / 50304) == want, "in the transpose");
            }
        }
        nums_free();
    }
    CHECK_NEAR(0.009765625 / 448, 2.17983e-05, 0.5e-10); // dequantised
}

TEST(sum)
{
    for (int n = 0; n <= 100000; n = n * 7 + 1) {
        Nums *x = nums_new(n, 1);
        for (int k = CPU; k <= CPU64; k++) {
            double exact = 0, total = 0;
            for (size_t i = 0; i < x->n; i++) exact += x->start[i];
            devices[k]->sum(&total, ON(x), x->n);
            CHECK(total == exact); // numbers of 24 bits: no rounding
            devices[k]->sum(&total, ON(x), x->n);
            CHECK(total == 2 * exact, "the second sum is added to the first");
        }
        nums_free();
    }
    float two[2] = {1, NAN};
    double total = 0;
    ops_cpu.sum(&total, two, 2);
    CHECK(isnan(total));
}

int main(void)
{
    RUN(relu2);
    RUN(quantize);
    RUN(matmul_fp8);
    RUN(softcap);
    RUN(softcap_without_gradient);
    RUN(softcap_extremes);
    RUN(softcap_of_a_peak);
    RUN(fp8_gradient_at_step_0);
    RUN(sum);
    return TEST_SUMMARY();
}
