// Windowed softmax attention over packed documents, and the output gate.
#include "ops_check.h"

static int t, h, d, c, n_docs;
static int32_t cu[32], window;
static double scale;
static Nums *qkv, *o, *lse, *w, *dqkv, *delta, *a, *gate, *y, *d_o, *da, *dgate;

#define ON(nums) ((nums)->on[k])

static void attention_forward(const Ops *ops, int k)
{
    ops->attention_forward(ON(o), ON(lse), ON(qkv), cu, n_docs, &window, &scale, t, h, d);
}

static void attention_backward(const Ops *ops, int k)
{
    ops->attention_backward(ON(dqkv), ON(delta), ON(w), ON(o), ON(lse), ON(qkv), cu, n_docs,
                            &window, &scale, t, h, d);
}

static double attention_loss(void)
{
    attention_forward(devices[CPU64], CPU64);
    return nums_dot(w, o);
}

// Documents of the lengths given, -1 at the end.
static void make_attention(int heads, int width, const int *lengths)
{
    h = heads, d = width, t = 0, n_docs = 0, cu[0] = 0;
    for (; *lengths >= 0; lengths++) cu[++n_docs] = t += *lengths;
    qkv = nums_new(3 * t * h * d, 1.5), o = nums_out(t * h * d), lse = nums_out(t * h);
    w = nums_new(t * h * d, 1), dqkv = nums_out(3 * t * h * d), delta = nums_out(t * h);
}

static void attention_case(int heads, int width, const int *lengths)
{
    make_attention(heads, width, lengths);
    run_everywhere(attention_forward, attention_backward);
    CHECK_NUMS(o, d, 0);
    CHECK_NUMS(lse, d, scale * d * 2.25);
    CHECK_NUMS(dqkv, d, scale * 1.5 * d * 1.5); // scale dS q, where dS may cancel
    CHECK_NUMS(delta, d, d * 1.5);
    check_differences("qkv", qkv, dqkv, attention_loss, t < 60 ? 12 : 4);
    nums_free();
}

TEST(documents_heads_windows)
{
    static const int docs[][8] = {{1, -1},           {7, -1},
                                  {65, -1},          {0, 1, -1},
                                  {1, 0, -1},        {0, 0, 3, 0, 0, 4, 0, -1},
                                  {1, 1, 1, 62, -1}, {0, 64, 0, 1, 0, -1},
                                  {130, -1},         {100, 30, 0, -1}};
    const int heads[] = {1, 2, 6}, windows[] = {0, 1, 3, 63, 64, 65, 128, INT32_MAX};
    scale = 0.1;
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 8; j++) {
            window = windows[j];
            attention_case(heads[(i + j) % 3], (i + j / 3) % 2 ? 64 : 128, docs[i]);
        }
}

// Specification 9.2, 6: with w = 128 the first key of a 300-token document is the last one that
// query 128 sees, and query 129 does not see it. Only that key has a value.
TEST(window_is_inclusive)
{
    make_attention(1, 64, (int[]){300, 0, 20, -1});
    window = 128, scale = 0.1;
    for (size_t i = 0; i < qkv->n; i++) nums_set(qkv, i, 0);
    for (size_t i = 0; i < 64; i++) nums_set(qkv, 128 + i, 1);
    for (int k = CPU; k <= CPU64; k++) {
        attention_forward(devices[k], k);
        for (int p = 0; p < t; p++) {
            const int seen = p >= 300 ? p - 299 : p < 128 ? p + 1 : 129;
            const double want = p <= 128 ? 1.0 / seen : 0, ulp = k == CPU ? 0x1p-23 : 0x1p-52;
            CHECK_NEAR(nums_get(o, k, (size_t)p * 64), want, 2 * ulp * want);
            CHECK_NEAR(nums_get(lse, k, (size_t)p), log(seen), 4 * ulp * log(seen));
        }
    }
    nums_free();
}

// Specification 9.2, 7: empty documents change no bit, wherever they are.
TEST(empty_documents_have_no_effect)
{
    window = 40, scale = 0.1;
    make_attention(2, 64, (int[]){30, 1, 64, -1});
    Nums *out = nums_out(t * h * d), *grad = nums_out(3 * t * h * d);
    const int32_t padded[] = {0, 0, 0, 30, 30, 31, 31, 31, 95, 95, 95};
    for (int round = 0; round < 2; round++) {
        for (int k = CPU; k <= CPU64; k++) {
            attention_forward(devices[k], k);
            attention_backward(devices[k], k);
        }
        if (round) break;
        nums_copy(out, o), nums_copy(grad, dqkv);
        memcpy(cu, padded, sizeof padded);
        n_docs = (int)(sizeof padded / sizeof *padded) - 1;
    }
    CHECK(same_bits(out, o) && same_bits(grad, dqkv));
    nums_free();
}

// Logits of +-1000 pick one key; what the others would add is below the smallest number.
TEST(large_logits)
{
    make_attention(1, 64, (int[]){70, -1});
    window = 1000, scale = 1000;
    for (size_t i = 0; i < qkv->n; i++) // q = e_0; k = -e_0 but for key 5, +e_0
        if (i / 64 % 3 < 2) nums_set(qkv, i, i % 64 ? 0 : i / 64 % 3 == 1 && i / 192 != 5 ? -1 : 1);
    for (int k = CPU; k <= CPU64; k++) {
        attention_forward(devices[k], k);
        attention_backward(devices[k], k);
        for (int p = 5; p < t; p++) {
            CHECK(nums_get(lse, k, (size_t)p) == 1000);
            for (size_t j = 0; j < 64; j++)
                CHECK(nums_get(o, k, (size_t)p * 64 + j) == nums_get(qkv, k, 5 * 192 + 128 + j));
        }
        for (size_t i = 0; i < dqkv->n; i++) CHECK(isfinite(nums_get(dqkv, k, i)));
    }
    nums_free();
}

TEST(nan_reaches_its_readers)
{
    make_attention(1, 64, (int[]){10, 10, -1});
    window = 3, scale = 0.1;
    nums_set(qkv, 4 * 192 + 64, NAN); // a key: seen by queries 4 to 7
    nums_set(qkv, 15 * 192, NAN);     // a query
    for (int k = CPU; k <= CPU64; k++) {
        attention_forward(devices[k], k);
        for (size_t p = 0; p < (size_t)t; p++)
            CHECK(isnan(nums_get(o, k, p * 64)) == ((p >= 4 && p <= 7) || p == 15), "query %zu", p);
    }
    nums_free();
}

// ---- gate --------------------------------------------------------------------------------------

static void gate_forward(const Ops *ops, int k)
{
    ops->gate_forward(ON(y), ON(o), ON(a), ON(gate), t, h, d, c);
}

static void gate_backward(const Ops *ops, int k)
{
    ops->gate_backward(ON(d_o), ON(da), ON(dgate), ON(w), ON(o), ON(a), ON(gate), t, h, d, c);
}

static double gate_loss(void)
{
    gate_forward(devices[CPU64], CPU64);
    return nums_dot(w, y);
}

static void make_gate(double size)
{
    const int n = t * h * d;
    o = nums_new(n, 1), a = nums_new(n, 1.5), gate = nums_new(h * c, size), y = nums_out(n);
    w = nums_new(n, 1), d_o = nums_out(n), da = nums_new(n, 1), dgate = nums_new(h * c, 1);
}

TEST(gates)
{
    const int tokens[] = {1, 7, 65, 150}, heads[] = {1, 2, 6},
              channels[] = {1, 12, 64}; // 64: the most that a recipe may have
    for (int i = 0; i < 12; i++) {
        t = tokens[i % 4], h = heads[i % 3], d = i % 2 ? 64 : 128, c = channels[i / 4];
        make_gate(0.5);
        run_everywhere(gate_forward, gate_backward);
        CHECK_NUMS(y, d, 0);
        CHECK_NUMS(d_o, d, 0);
        CHECK_NUMS(da, d, 0);
        CHECK_NUMS(dgate, d, 0);
        check_differences("o", o, d_o, gate_loss, 30);
        check_differences("a", a, da, gate_loss, 200);
        check_differences("gate", gate, dgate, gate_loss, 30);
        nums_free();
    }
}

// Specification 9.2, 8: gates of zero halve exactly.
TEST(gate_at_init)
{
    t = 7, h = 2, d = 64, c = 12;
    make_gate(0);
    run_everywhere(gate_forward, gate_backward);
    for (int k = CPU; k <= CPU64; k++)
        for (size_t i = 0; i < y->n; i++) {
            CHECK(nums_get(y, k, i) == o->start[i] / 2);
            CHECK(nums_get(d_o, k, i) == w->start[i] / 2);
            CHECK(nums_get(da, k, i) == da->start[i]);
        }
    nums_free();
}

// A gate far from zero is 0 or 1, with no gradient and no NaN.
TEST(saturated_gates)
{
    t = 7, h = 2, d = 64, c = 12;
    make_gate(1);
    for (size_t i = 0; i < a->n; i++) nums_set(a, i, 1e4);
    for (size_t i = 0; i < gate->n; i++) nums_set(gate, i, i < 12 ? 1e4 : -1e4);
    for (int k = CPU; k <= CPU64; k++) {
        gate_forward(devices[k], k);
        gate_backward(devices[k], k);
        for (size_t i = 0; i < y->n; i++) // the float exponential ends at e^88
            CHECK_NEAR(nums_get(y, k, i), i / 64 % 2 ? 0 : o->start[i], 1e-38);
        for (size_t i = 0; i < dgate->n; i++)
            CHECK_NEAR(nums_get(dgate, k, i), dgate->start[i], 1e-29);
    }
    nums_free();
}

TEST(gate_in_place)
{
    t = 65, h = 2, d = 64, c = 12;
    make_gate(1);
    Nums *apart = nums_out(t * h * d);
    for (int k = CPU; k <= CPU64; k++) gate_forward(devices[k], k);
    nums_copy(apart, y), nums_copy(y, o);
    for (int k = CPU; k <= CPU64; k++)
        devices[k]->gate_forward(ON(y), ON(y), ON(a), ON(gate), t, h, d, c);
    CHECK(same_bits(y, apart));

    Nums *da2 = nums_new(t * h * d, 0), *dgate2 = nums_new(h * c, 0);
    nums_copy(da2, da), nums_copy(dgate2, dgate);
    for (int k = CPU; k <= CPU64; k++) {
        gate_backward(devices[k], k);
        devices[k]->gate_backward(ON(w), ON(da2), ON(dgate2), ON(w), ON(o), ON(a), ON(gate), t, h,
                                  d, c);
    }
    CHECK(same_bits(w, d_o) && same_bits(da2, da) && same_bits(dgate2, dgate));
    nums_free();
}

int main(void)
{
    RUN(documents_heads_windows);
    RUN(window_is_inclusive);
    RUN(empty_documents_have_no_effect);
    RUN(large_logits);
    RUN(nan_reaches_its_readers);
    RUN(gates);
    RUN(gate_at_init);
    RUN(saturated_gates);
    RUN(gate_in_place);
    return TEST_SUMMARY();
}
