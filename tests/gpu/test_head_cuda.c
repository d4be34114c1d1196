// The fp8 head on the GPU: operands and the loss's gradient against the float CPU device, products
// against the double one.
#include "gpu_check.h"

// A stored fp8 number, whichever way this GPU holds it.
static double fp8_get(const unsigned char *p, size_t i, Fp8Format format)
{
    if (cuda->fp8_size == 2) return dtype_get(p, DT_BF16, i);
    const int bits = format == FP8_E4M3 ? 3 : 2, bias = format == FP8_E4M3 ? 7 : 15;
    const int e = (p[i] & 127) >> bits, m = p[i] & ((1 << bits) - 1);
    if (format == FP8_E4M3 ? (p[i] & 127) == 127 : e == 31) return NAN;
    const double x = e ? ldexp(1 + ldexp(m, -bits), e - bias) : ldexp(m, 1 - bias - bits);
    return p[i] & 128 ? -x : x;
}

static void *fp8_new(size_t n)
{
    void *p = cuda->mem_alloc(n * cuda->fp8_size);
    if (!p) abort();
    return p;
}

static unsigned char *fp8_host(const void *gpu, size_t n)
{
    unsigned char *p = malloc(n * cuda->fp8_size);
    cuda->mem_get(p, gpu, n * cuda->fp8_size);
    return p;
}

TEST(quantize)
{
    static const int shapes[][2] = {{16, 16}, {48, 768}, {768, 112}, {2064, 144}, {4096, 768}};
    static const double sizes[] = {1e-4, 1, 3e4};
    for (size_t s = 0; s < 5; s++)
        for (int j = 0; j < 6; j++, free_arrays()) {
            const int rows = shapes[s][0], cols = shapes[s][1];
            const size_t n = (size_t)rows * (size_t)cols;
            const Fp8Format format = j % 2 ? FP8_E5M2 : FP8_E4M3;
            const double scale = j % 3 ? 1.0 / 448 : 0.06185895741317419;
            Array *x = array("x", DT_BF16, n, sizes[j / 2]);
            const double special[] = {NAN, -INFINITY, INFINITY, -0.0, 1e30, 1e-38};
            for (size_t i = 0; i < 6; i++) set_number(x, i * 17 % n, special[i]);
            float *in = malloc(n * sizeof *in), *out = malloc(n * sizeof *out),
                  *turned = malloc(n * sizeof *turned);
            for (size_t i = 0; i < n; i++) in[i] = (float)x->exact[i];
            ops_cpu.quantize(out, turned, in, format, scale, rows, cols);
            void *y = fp8_new(n), *yt = fp8_new(n);
            put_arrays();
            cuda->quantize(y, yt, x->gpu, format, scale, rows, cols);
            unsigned char *got = fp8_host(y, n), *got_t = fp8_host(yt, n);
            size_t wrong = 0;
            for (size_t i = 0; i < n; i++) {
                const double g = fp8_get(got, i, format), t = fp8_get(got_t, i, format);
                wrong += isnan(out[i]) ? !isnan(g) : g != (double)out[i];
                wrong += isnan(turned[i]) ? !isnan(t) : t != (double)turned[i];
            }
            CHECK(wrong == 0, "%d x %d, %s, size %g: %zu wrong", rows, cols,
                  j % 2 ? "e5m2" : "e4m3", sizes[j / 2], wrong);
            cuda->mem_free(y), cuda->mem_free(yt);
            free(got), free(got_t), free(in), free(out), free(turned);
        }
}

// The gradient is rounded to bf16 and then to e5m2, and on the way once more to bf16: e5m2 numbers
// are 25 % apart at most, so that a result may be the other neighbour, and in 1 of 100 is.
static void loss_case(int t, int v, double size, double grad_scale, double cap)
{
    const size_t n = (size_t)t * (size_t)v;
    Array *u = array("u", DT_BF16, n, size), *loss = array("loss", DT_F32, (size_t)t, 0);
    float *in = malloc(n * sizeof *in), *g = malloc(n * sizeof *g), *gt = malloc(n * sizeof *gt);
    float *plain = malloc((size_t)t * sizeof *plain);
    int32_t *targets = malloc((size_t)t * sizeof *targets);
    for (int p = 0; p < t; p++) targets[p] = p == 0 ? v - 1 : (int)((long)p * 7919 % v);
    for (size_t i = 0; i < n; i++) in[i] = (float)u->exact[i];
    int32_t *gpu_targets = put_ints(targets, (size_t)t);
    ops_cpu_f64.softcap_loss(loss->exact, u->exact, targets, 0, t, v, cap, 7.5);
    ops_cpu.softcap_loss_fp8(plain, g, gt, in, targets, grad_scale, 1.0 / 448, t, v, cap, 7.5);
    void *gpu_g = fp8_new(n), *gpu_gt = fp8_new(n);
    for (int run = 0; run < 2; run++) {
        put_arrays();
        cuda->softcap_loss_fp8(loss->gpu, gpu_g, gpu_gt, u->gpu, gpu_targets, grad_scale, 1.0 / 448,
                               t, v, cap, 7.5);
        cuda->mem_get(loss->result, loss->gpu, loss->bytes);
    }
    // s is right to a few roundings, which the cap multiplies in the exponent.
    for (int p = 0; p < t; p++) CHECK_SUM(loss, (size_t)p, 1, (int)(8 * cap));
    unsigned char *got = fp8_host(gpu_g, n), *got_t = fp8_host(gpu_gt, n);
    size_t other = 0, far = 0, turned = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = fp8_get(got, i, FP8_E5M2), want = (double)g[i];
        other += x != want;
        far += !(fabs(x - want) <= 0.25 * fmax(fabs(x), fabs(want)) + 0x1p-16);
        turned += x != fp8_get(got_t, i % (size_t)v * (size_t)t + i / (size_t)v, FP8_E5M2);
    }
    CHECK(far == 0 && turned == 0, "%d x %d: %zu far, %zu in the transpose", t, v, far, turned);
    CHECK(other <= n / 50, "%d x %d: %zu of %zu are neighbours", t, v, other, n);
    for (int p = 0; p < t; p++) // the target's column has no rounding but the two
        CHECK(fabs(fp8_get(got, (size_t)p * (size_t)v + (size_t)targets[p], FP8_E5M2) -
                   (double)g[(size_t)p * (size_t)v + (size_t)targets[p]]) <=
                  0.25 * fabs((double)g[(size_t)p * (size_t)v + (size_t)targets[p]]),
              "target of row %d", p);
    if (size == 0 && v == 50304) // specification 3.2
        for (size_t i = 0; i < n; i++)
            if (fp8_get(got, i, FP8_E5M2) !=
                grad_scale * ((int)(i % 50304) == targets[i / 50304] ? -448 : 0.009765625))
                far++;
    CHECK(far == 0, "step 0: %zu wrong", far);
    cuda->mem_free(gpu_g), cuda->mem_free(gpu_gt), cuda->mem_free(gpu_targets);
    free(in), free(g), free(gt), free(plain), free(targets), free(got), free(got_t);
    free_arrays();
}

TEST(softcap_loss_fp8)
{
    loss_case(16, 384, 6, 0.125, 30);
    loss_case(48, 2176, 1, 1, 30);
    loss_case(16, 65536, 6, 0.125, 30);
    loss_case(272, 50304, 3, 0.125, 30);
    loss_case(16, 50304, 0, 0.125, 30);
    loss_case(16, 50304, 0, 1, 30);
    loss_case(32, 384, 200, 1, 30); // beyond the clamp on both sides
    loss_case(16, 4224, 1, 1, 1000);
}

// fp8 values in [-2, 2]; the double device multiplies the same values.
static void product_case(int m, int n, int k, bool grad, bool forward, double beta)
{
    const Fp8Format fa = forward ? FP8_E4M3 : FP8_E5M2;
    const size_t mk = (size_t)m * (size_t)k, nk = (size_t)n * (size_t)k;
    Array *a = array("a", DT_BF16, mk, 1), *b = array("b", DT_BF16, nk, 1);
    Array *c = array("c", grad ? DT_F32 : DT_BF16, (size_t)m * (size_t)n, 1);
    void *a8 = fp8_new(mk), *a8t = fp8_new(mk), *b8 = fp8_new(nk), *b8t = fp8_new(nk);
    put_arrays();
    cuda->quantize(a8, a8t, a->gpu, fa, 0.5, m, k);
    cuda->quantize(b8, b8t, b->gpu, FP8_E4M3, 0.5, n, k);
    double *out = malloc((mk > nk ? mk : nk) * sizeof *out);
    ops_cpu_f64.quantize(a->exact, out, a->exact, fa, 0.5, m, k);
    ops_cpu_f64.quantize(b->exact, out, b->exact, FP8_E4M3, 0.5, n, k);
    free(out);
    RUN_TWICE(cuda->matmul_fp8(c->gpu, grad, a8, fa, b8, FP8_E4M3, m, n, k, 0.03125, beta));
    ops_cpu_f64.matmul(c->exact, a->exact, b->exact, MM_NT, m, n, k, 0.03125, beta);
    // Hopper's fp8 sums keep 14 bits: to the forward's end, or, for gradients, over 128 products.
    // In units of 2^-24 that is 2^10 for each 32 products added.
    CHECK_ARRAY(c, 1024 * ((forward ? k : k < 128 ? k : 128) / 32 + 1) + k / 16);
    cuda->mem_free(a8), cuda->mem_free(a8t), cuda->mem_free(b8), cuda->mem_free(b8t);
    free_arrays();
}

TEST(products_of_fp8)
{
    static const int sizes[][3] = {{16, 384, 128}, {272, 768, 768}, {48, 128, 2176}, {384, 64, 16}};
    for (size_t i = 0; i < 4; i++)
        for (int beta = 0; beta < 2; beta++) {
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], false, true, 0);
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], false, false, beta);
            product_case(sizes[i][0], sizes[i][1], sizes[i][2], true, false, beta);
        }
}

int main(void)
{
    find_gpu();
    RUN(quantize);
    RUN(softcap_loss_fp8);
    RUN(products_of_fp8);
    return TEST_SUMMARY();
}
