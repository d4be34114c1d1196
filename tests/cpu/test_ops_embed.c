// Embedding with smear, its gradient, and the scatter into the table.
#include "ops_check.h"

static const double eps = 0x1p-23;
static int t, d, c;
static int32_t ids[512], order[512];
static Nums *embed, *gate, *mu, *x0, *r, *w, *de, *dgate, *dmu, *table;

#define ON(nums) ((nums)->on[k])

static void forward(const Ops *ops, int k)
{
    ops->embed_forward(ON(x0), ON(r), ids, ON(embed), ON(gate), ON(mu), t, d, c, eps);
}

static void backward(const Ops *ops, int k)
{
    ops->embed_backward(ON(de), ON(dgate), ON(dmu), ON(w), ON(x0), ON(r), ids, ON(embed), ON(gate),
                        ON(mu), t, d, c);
}

static double loss(void)
{
    forward(devices[CPU64], CPU64);
    return nums_dot(w, x0);
}

// Tokens below `vocab`, and the positions sorted by (token, position).
static void draw_ids(int vocab)
{
    int n = 0;
    for (int p = 0; p < t; p++) ids[p] = (int32_t)((check_random() + 1) / 2 * vocab);
    for (int v = 0; v < vocab; v++)
        for (int p = 0; p < t; p++)
            if (ids[p] == v) order[n++] = p;
}

static void make_case(int vocab, double of_mu)
{
    draw_ids(vocab);
    embed = nums_new(vocab * d, 1), gate = nums_new(c, 1), mu = nums_new(1, 0);
    nums_set(mu, 0, of_mu);
    x0 = nums_out(t * d), r = nums_out(t), w = nums_new(t * d, 1), de = nums_out(t * d);
    dgate = nums_new(c, 1), dmu = nums_new(1, 1);
}

// de is per position; the table's gradient is its sum over the positions of a token.
static void sum_by_token(void)
{
    table = nums_new((int)embed->n, 0);
    double *sum = table->on[CPU64];
    for (int p = 0; p < t; p++)
        for (int j = 0; j < d; j++) sum[ids[p] * d + j] += nums_get(de, CPU64, (size_t)(p * d + j));
}

TEST(forward_and_backward)
{
    const int tokens[] = {1, 2, 7, 65, 200}, widths[] = {64, 128, 384},
              channels[] = {1, 12, 64}; // 64: the most that a recipe may have
    for (int i = 0; i < 15; i++) {
        t = tokens[i % 5], d = widths[i / 5], c = channels[i % 3];
        make_case(i % 2 ? 1 + t / 2 : 3 * t, i % 4 == 3 ? 0 : 0.75);
        run_everywhere(forward, backward);
        CHECK_NUMS(x0, d, 0);
        CHECK_NUMS(r, d, 0);
        CHECK_NUMS(de, d, 0);
        CHECK_NUMS(dgate, d, 2 * nums_sum_abs(de));
        CHECK_NUMS(dmu, d, 2 * nums_sum_abs(de));
        sum_by_token();
        check_differences("embed", embed, table, loss, 100);
        if (t > 1) {
            if (nums_get(mu, CPU64, 0) != 0) check_differences("gate", gate, dgate, loss, 64);
            check_differences("mu", mu, dmu, loss, 1);
        }
        nums_free();
    }
}

// Specification 9.2, 9: with mu = 0 the smear is the identity, and with a gate of zeros dmu is half
// the sum of dx[p] . e[p-1].
TEST(smear_at_init)
{
    t = 65, d = 128, c = 12;
    make_case(40, 0);
    for (int j = 0; j < c; j++) nums_set(gate, (size_t)j, 0);
    nums_set(dmu, 0, 0);
    run_everywhere(forward, backward);
    Nums *gathered = nums_new(t * d, 0), *normed = nums_out(t * d), *rms = nums_out(t);
    Nums *dx = nums_new(t * d, 0);
    for (int p = 0; p < t; p++)
        for (int j = 0; j < d; j++)
            nums_set(gathered, (size_t)(p * d + j), embed->start[ids[p] * d + j]);
    for (int k = CPU; k <= CPU64; k++) {
        devices[k]->norm_forward(ON(normed), ON(rms), ON(gathered), t, d, eps);
        devices[k]->norm_backward(ON(dx), ON(w), ON(normed), ON(rms), t, d);
    }
    double sum = 0;
    for (size_t i = (size_t)d; i < dx->n; i++)
        sum += nums_get(dx, CPU64, i) * gathered->start[i - (size_t)d];
    CHECK_NEAR(nums_get(dmu, CPU64, 0), 0.5 * sum, 1e-12);
    for (size_t i = 0; i < dx->n; i++) {
        CHECK_NEAR(nums_get(x0, CPU64, i), nums_get(normed, CPU64, i), 1e-15);
        CHECK_NEAR(nums_get(de, CPU64, i), nums_get(dx, CPU64, i), 1e-14);
    }
    for (size_t j = 0; j < dgate->n; j++) CHECK(nums_get(dgate, CPU64, j) == dgate->start[j]);
    nums_free();
}

// The smear crosses documents (it knows none), reads the raw row before, and stops at position 0.
TEST(smear_by_hand)
{
    t = 2, d = 64, c = 12;
    make_case(2, 0.5);
    ids[0] = 1, ids[1] = 0;
    forward(devices[CPU64], CPU64);
    const double *e = embed->start, *before = e + d;
    double z = 0, x[2][64], mean[2] = {0, 0};
    for (int j = 0; j < c; j++) z += gate->start[j] * e[j];
    for (int j = 0; j < d; j++) {
        x[0][j] = before[j];
        x[1][j] = e[j] + 0.5 / (1 + exp(-z)) * before[j];
        for (int p = 0; p < 2; p++) mean[p] += x[p][j] * x[p][j] / d;
    }
    for (int p = 0; p < 2; p++)
        for (int j = 0; j < d; j++)
            CHECK_NEAR(nums_get(x0, CPU64, (size_t)(p * d + j)), x[p][j] / sqrt(mean[p] + eps),
                       1e-14);
    nums_free();
}

TEST(nan_reaches_its_rows)
{
    t = 4, d = 64, c = 12;
    make_case(4, 0.5);
    for (int p = 0; p < t; p++) ids[p] = p;
    nums_set(embed, 64 + 40, NAN); // token 1, past the gate's channels
    for (int k = CPU; k <= CPU64; k++) {
        forward(devices[k], k);
        for (size_t i = 0; i < x0->n; i++)
            CHECK(isnan(nums_get(x0, k, i)) == (i / 64 == 1 || i / 64 == 2), "%zu", i);
    }
    nums_free();
}

// ---- scatter -----------------------------------------------------------------------------------

// In order of position, in the device's type, rounded to the stored type, and then added and
// rounded.
static void scatter_case(DType dtype, int vocab, int k)
{
    draw_ids(vocab);
    const size_t n = (size_t)(vocab * d);
    de = nums_new(t * d, 1);
    void *grad = malloc(n * dtype_size(dtype)), *want = malloc(n * dtype_size(dtype));
    for (size_t i = 0; i < n; i++) {
        dtype_set(grad, dtype, i, check_random());
        dtype_set(want, dtype, i, dtype_get(grad, dtype, i));
    }
    for (int v = 0; v < vocab; v++)
        for (int j = 0; j < d; j++) {
            double sum = 0, rounded;
            bool hit = false;
            for (int p = 0; p < t; p++)
                if (ids[p] == v) {
                    sum += nums_get(de, k, (size_t)(p * d + j));
                    if (k == CPU) sum = (double)(float)sum;
                    hit = true;
                }
            dtype_set(&rounded, dtype, 0, sum);
            const size_t at = (size_t)(v * d + j);
            const double total = dtype_get(want, dtype, at) + dtype_get(&rounded, dtype, 0);
            if (hit) dtype_set(want, dtype, at, total);
        }
    devices[k]->embed_scatter(grad, dtype, ON(de), ids, order, t, d);
    CHECK(!memcmp(grad, want, n * dtype_size(dtype)), "%s, %d tokens of %d", dtype_name(dtype), t,
          vocab);
    free(grad);
    free(want);
    nums_free();
}

TEST(scatter)
{
    const int tokens[] = {1, 7, 65, 500};
    d = 64;
    for (int i = 0; i < 4; i++) {
        t = tokens[i];
        for (int threads = 1; threads <= 2; threads++) {
            set_threads(threads);
            for (int vocab = 1; vocab <= 625; vocab *= 5) {
                scatter_case(DT_F32, vocab, CPU);
                scatter_case(DT_BF16, vocab, CPU);
                scatter_case(DT_F64, vocab, CPU64);
            }
        }
    }
}

static void gather_case(DType dtype, int k)
{
    const int32_t rows[] = {3, 0, 4, 3};
    double stored;
    void *table = calloc(5 * 64, dtype_size(dtype)), *out = calloc(4 * 64, dtype_size(dtype));
    for (size_t i = 0; i < 5 * 64; i++) dtype_set(table, dtype, i, check_random());
    devices[k]->gather_rows(out, table, dtype, rows, 1.0 / 3, 4, 64);
    for (size_t i = 0; i < 4 * 64; i++) {
        const double x = dtype_get(table, dtype, (size_t)rows[i / 64] * 64 + i % 64);
        dtype_set(&stored, dtype, 0, k == CPU ? (double)((float)(1.0 / 3) * (float)x) : x / 3);
        CHECK_NEAR(dtype_get(out, dtype, i), dtype_get(&stored, dtype, 0), 1e-15);
    }
    free(table);
    free(out);
}

TEST(gather)
{
    gather_case(DT_F32, CPU);
    gather_case(DT_BF16, CPU);
    gather_case(DT_F64, CPU64);
}

int main(void)
{
    RUN(forward_and_backward);
    RUN(smear_at_init);
    RUN(smear_by_hand);
    RUN(nan_reaches_its_rows);
    RUN(scatter);
    RUN(gather);
    return TEST_SUMMARY();
}
