// QK-norm with rotary and value mix, and the output gate on the GPU, against ops_cpu_f64 over the
// same bf16 inputs: outputs may be off by twice the rounding to bf16.
#include "nums.h"

static int t, h, d; // tokens, heads, numbers in a head

// Every number within two roundings to its type and `noise`, the worst case of sums in fp32.
static void check_rounded(const char *what, Nums *x, double noise)
{
    fetch(x);
    const double unit = x->type == DT_BF16 ? 0x1p-8 : 0x1p-23;
    size_t wrong = 0, where = 0;
    for (size_t i = 0; i < x->n; i++)
        if (!(fabs(x->got[i] - x->exact[i]) <= unit * fabs(x->exact[i]) + noise)) {
            if (wrong++ == 0) where = i;
        }
    CHECK(wrong == 0, "%s T %d H %d d %d: %zu of %zu are off, the first at %zu: %.9g, exact %.9g",
          what, t, h, d, wrong, x->n, where, x->got[where], x->exact[where]);
}

static void qkv_case(int active, bool has_ve)
{
    enum { VOCAB = 50 };
    const size_t n = (size_t)t * h * d;
    const double eps = 0x1p-23;
    int32_t *ids = malloc((size_t)t * 4), *ids_gpu;
    for (int p = 0; p < t; p++) ids[p] = (int32_t)((random_number() + 1) / 2 * VOCAB);
    ids_gpu = gpu_ints(ids, (size_t)t);
    Nums *in = nums(3 * n, DT_BF16, 2), *out = nums(3 * n, DT_BF16, NAN);
    Nums *cosine = nums((size_t)t * active + 1, DT_F32, 1),
         *sine = nums((size_t)t * active + 1, DT_F32, 1);
    Nums *s = nums(2, DT_F32, 1), *ve = nums((size_t)VOCAB * h * d, DT_BF16, 1);
    Nums *grad = nums(3 * n, DT_BF16, 1), *din = nums(3 * n, DT_BF16, NAN);
    Nums *ds = nums(2, DT_F32, 1), *dve = nums(n, DT_BF16, 1);
    const double ds_start[2] = {ds->exact[0], ds->exact[1]};
    void *in_bytes = bytes_of(in), *grad_bytes = bytes_of(grad), *dve_bytes = bytes_of(dve);
    poison(out), poison(din);
#define FORWARD(ops, from, to, where)                                                              \
    (ops)->qkv_forward(to, from, cosine->where, sine->where, active, s->where,                     \
                       has_ve ? ve->where : NULL, (ops) == gpu ? ids_gpu : ids, t, h, d, eps)
#define BACKWARD(ops, from, to, where)                                                             \
    (ops)->qkv_backward(to, ds->where, has_ve ? dve->where : NULL, from, in->where, cosine->where, \
                        sine->where, active, s->where, has_ve ? ve->where : NULL,                  \
                        (ops) == gpu ? ids_gpu : ids, t, h, d, eps)
    FORWARD(&ops_cpu_f64, in->exact, out->exact, exact);
    BACKWARD(&ops_cpu_f64, grad->exact, din->exact, exact);
    FORWARD(gpu, in->on_gpu, out->on_gpu, on_gpu);
    BACKWARD(gpu, grad->on_gpu, din->on_gpu, on_gpu);
    const double sums = (d + 16) * 0x1p-24; // of numbers up to 2 in magnitude, r near 1
    check_rounded("qkv", out, sums * 4);
    check_rounded("dqkv", din, sums * 16);
    check_rounded("dve", dve, 0x1p-8 * 2); // += rounds the sum of two numbers up to 2
    double terms[2] = {fabs(ds_start[0]), fabs(ds_start[1])};
    for (int p = 0; p < t; p++)
        for (int c = 0; c < h * d; c++) {
            const double g = grad->exact[((size_t)p * 3 + 2) * h * d + c];
            terms[0] += fabs(g * in->exact[((size_t)p * 3 + 2) * h * d + c]);
            terms[1] += fabs(g * ve->exact[(size_t)ids[p] * h * d + c]);
        }
    // A lane adds at most h d / 32 products of each of its tokens, then 40 sums across lanes,
    // warps.
    const double chain = ((double)h * d / 32 * (t / (8 * 528) + 1) + 40) * 0x1p-24;
    check_rounded("ds", ds, chain * fmax(terms[0], terms[1]));
    CHECK(has_ve || (ds->got[1] == ds_start[1] && same_bytes(dve, dve_bytes)));

    void *out_bytes = bytes_of(out), *din_bytes = bytes_of(din), *ds_bytes = bytes_of(ds);
    void *dve_after = bytes_of(dve);
    gpu->mem_put(out->on_gpu, in_bytes, in->n * 2); // in place, twice the same bits
    FORWARD(gpu, out->on_gpu, out->on_gpu, on_gpu);
    gpu->mem_put(din->on_gpu, grad_bytes, grad->n * 2);
    gpu->mem_put(dve->on_gpu, dve_bytes, dve->n * 2);
    const float start[2] = {(float)ds_start[0], (float)ds_start[1]};
    gpu->mem_put(ds->on_gpu, start, sizeof start);
    BACKWARD(gpu, din->on_gpu, din->on_gpu, on_gpu);
    CHECK(same_bytes(out, out_bytes) && same_bytes(din, din_bytes) && same_bytes(ds, ds_bytes) &&
          same_bytes(dve, dve_after));
    free(in_bytes), free(grad_bytes), free(dve_bytes), free(out_bytes), free(din_bytes);
    free(ds_bytes), free(dve_after), free(ids);
    gpu->mem_free(ids_gpu);
    free_all();
}

TEST(qkv_norm_rotary_value_mix)
{
    static const int sizes[] = {1, 7, 65, 1000, 10000}, heads[] = {1, 2, 6, 7};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            for (d = 64; d <= 128; d += 64) {
                t = sizes[i], h = heads[j];
                qkv_case((i + j) % 3 == 0 ? d / 2 : (i + j) % 3 == 1 ? d / 4 : 5, (i + j) % 2);
            }
}

static void gate_case(int channels)
{
    const size_t n = (size_t)t * h * d;
    Nums *out = nums(n, DT_BF16, 2), *y = nums(n, DT_BF16, NAN), *a = nums(n, DT_BF16, 1);
    Nums *gate = nums((size_t)h * channels, DT_BF16, 1), *dy = nums(n, DT_BF16, 1);
    Nums *grad = nums(n, DT_BF16, NAN), *da = nums(n, DT_BF16, 1);
    Nums *dgate = nums((size_t)h * channels, DT_F32, 1);
    void *out_bytes = bytes_of(out), *dy_bytes = bytes_of(dy), *da_bytes = bytes_of(da);
    void *dgate_bytes = bytes_of(dgate);
    poison(y), poison(grad);
#define GATE(ops, from, to, where)                                                                 \
    (ops)->gate_forward(to, from, a->where, gate->where, t, h, d, channels)
#define GATE_BACKWARD(ops, from, to, where)                                                        \
    (ops)->gate_backward(to, da->where, dgate->where, from, out->where, a->where, gate->where, t,  \
                         h, d, channels)
    GATE(&ops_cpu_f64, out->exact, y->exact, exact);
    GATE_BACKWARD(&ops_cpu_f64, dy->exact, grad->exact, exact);
    GATE(gpu, out->on_gpu, y->on_gpu, on_gpu);
    GATE_BACKWARD(gpu, dy->on_gpu, grad->on_gpu, on_gpu);
    // g: the sum of `channels` products and exp. dz: g (1 - g) <= 1/4 times a sum of d products of
    // magnitude up to 2, then h (da) or t (dgate) of them.
    const double sums = (channels + 16) * 0x1p-24;
    const double dz = 0.25 * 2 * d * (sums + (d + 16) * 0x1p-24);
    check_rounded("gate", y, 2 * sums);
    check_rounded("d_o", grad, sums);
    check_rounded("da", da, h * dz + 0x1p-8);
    check_rounded("dgate", dgate, t * (dz + 0.5 * d * (t / 528.0 + 16) * 0x1p-24));
    void *y_bytes = bytes_of(y), *grad_bytes = bytes_of(grad), *da_after = bytes_of(da);
    void *dgate_after = bytes_of(dgate);
    gpu->mem_put(y->on_gpu, out_bytes, n * 2); // in place
    GATE(gpu, y->on_gpu, y->on_gpu, on_gpu);
    gpu->mem_put(grad->on_gpu, dy_bytes, n * 2);
    gpu->mem_put(da->on_gpu, da_bytes, n * 2);
    gpu->mem_put(dgate->on_gpu, dgate_bytes, dgate->n * 4);
    GATE_BACKWARD(gpu, grad->on_gpu, grad->on_gpu, on_gpu);
    CHECK(same_bytes(y, y_bytes) && same_bytes(grad, grad_bytes) && same_bytes(da, da_after) &&
          same_bytes(dgate, dgate_after));
    free(out_bytes), free(dy_bytes), free(da_bytes), free(dgate_bytes);
    free(y_bytes), free(grad_bytes), free(da_after), free(dgate_after);
    free_all();
}

TEST(output_gate)
{
    static const int sizes[] = {1, 9, 65, 1000, 10000}, heads[] = {1, 2, 6, 7},
                     channels[] = {12, 1, 64};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            for (d = 64; d <= 128; d += 64) {
                t = sizes[i], h = heads[j];
                gate_case(channels[(i + j) % 3]);
            }
}

int main(int argc, char **argv)
{
    const int status = open_gpu();
    if (status >= 0) return status;
    if (is_quick(argc, argv)) {
        t = 200, h = 2;
        for (d = 64; d <= 128; d += 64) {
            qkv_case(d / 4, true);
            gate_case(12);
        }
        return TEST_SUMMARY();
    }
    RUN(qkv_norm_rotary_value_mix);
    RUN(output_gate);
    return TEST_SUMMARY();
}
