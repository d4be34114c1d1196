// Every CUDA operation of one micro-batch of the speedrun recipe, alone: µs, TFLOP/s or GB/s, and
// the floor, which is the time to move the operation's bytes at 4.25 TB/s or to do its products at
// the rate of the largest product here. Each figure is the mean of `repeats` calls after 3, with
// the buffers' contents random; operands of 50 MB or more do not stay in the L2 cache.
//
//   make build/bench/op_bench && build/bench/op_bench [tokens, 32768 when left out]
#include "../ops/cuda/device.h"
#include "../run/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Ops *ops;

static double now_us(void) { return now_ms() * 1e3; }

static void *random_reals(size_t n)
{
    enum { CHUNK = 1 << 20 };
    static uint16_t host[CHUNK];
    if (host[0] == 0) {
        uint64_t state = 1;
        for (int i = 0; i < CHUNK; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            host[i] = bf16_from_f32((float)((double)(state >> 11) * 0x1p-52 - 1));
        }
    }
    char *p = ops->mem_alloc(n * 2);
    if (!p) {
        fprintf(stderr, "error: out of GPU memory for %zu numbers\n", n);
        exit(1);
    }
    for (size_t i = 0; i < n; i += CHUNK)
        ops->mem_put(p + 2 * i, host, 2 * (n - i < CHUNK ? n - i : CHUNK));
    return p;
}

static double started;
static int repeats = 20;
static double best_rate; // of products, FLOP/s

static void report(const char *what, double bytes, double flops)
{
    const double us = (now_us() - started) / repeats, moved = bytes / 4.25e12 * 1e6;
    if (flops > 0) {
        if (flops / us * 1e6 > best_rate) best_rate = flops / us * 1e6;
        printf("%-34s %9.1f us %8.1f TFLOP/s\n", what, us, flops / us * 1e-6);
    } else {
        printf("%-34s %9.1f us %8.1f GB/s    floor %7.1f us  %5.2f x\n", what, us,
               bytes / us * 1e-3, moved, us / moved);
    }
}

#define MEASURE(what, bytes, flops, ...)                                                           \
    do {                                                                                           \
        for (int i_ = 0; i_ < 3; i_++) __VA_ARGS__;                                                \
        ops->sync();                                                                               \
        started = now_us();                                                                        \
        for (int i_ = 0; i_ < repeats; i_++) __VA_ARGS__;                                          \
        ops->sync();                                                                               \
        report(what, bytes, flops);                                                                \
    } while (0)

static void products(int t, void *big, void *wide, void *small, void *weight, void *grad)
{
    enum { D = 768, F = 3072, V = 50304 };
    const int slice = (1 << 24) / V / 16 * 16;
    const struct {
        const char *what;
        MatmulKind kind;
        int m, n, k;
        bool is_grad;
        double beta;
    } cases[] = {
        {"qkv", MM_NT, t, 3 * D, D, false, 0},
        {"qkv dx", MM_NN, t, D, 3 * D, false, 1},
        {"qkv dw", MM_TN, 3 * D, D, t, true, 1},
        {"attention out", MM_NT, t, D, D, false, 1},
        {"attention out dw", MM_TN, D, D, t, true, 1},
        {"mlp up", MM_NN, t, F, D, false, 0},
        {"mlp up dx", MM_NT, t, D, F, false, 0},
        {"mlp up dw", MM_TN, D, F, t, true, 1},
        {"mlp down", MM_NT, t, D, F, false, 1},
        {"mlp down dx", MM_NN, t, F, D, false, 0},
        {"head, a slice of rows", MM_NT, slice, V, D, false, 0},
        {"head dx, a slice", MM_NN, slice, D, V, false, 0},
        {"head dw, a slice", MM_TN, V, D, slice, true, 1},
        {"head, 4096 rows", MM_NT, 4096, V, D, false, 0},
        {"head dx, 4096 rows", MM_NN, 4096, D, V, false, 0},
        {"head dw, 4096 rows", MM_TN, V, D, 4096, true, 1},
        {"8192 cubed", MM_NT, 8192, 8192, 8192, false, 0},
    };
    (void)small;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int m = cases[i].m, n = cases[i].n, k = cases[i].k;
        const double flops = 2.0 * m * n * k;
        void *a = big, *b = cases[i].kind == MM_TN ? wide : weight;
        if (cases[i].is_grad)
            MEASURE(cases[i].what, 0, flops,
                    ops->matmul_grad(grad, a, b, cases[i].kind, m, n, k, 1, cases[i].beta));
        else
            MEASURE(cases[i].what, 0, flops,
                    ops->matmul(wide, a, b, cases[i].kind, m, n, k, 1, cases[i].beta));
    }
}

// The head with fp8 operands, a slice of n rows: everything but the sum of its losses.
static void head(int n, const int32_t *targets, void *x, void *grad, void *loss)
{
    enum { D = 768, V = 50304 };
    const double nv = (double)n * V, nd = (double)n * D, vd = (double)V * D;
    const double size = (double)ops->fp8_size, flops = 2 * nv * D;
    if (n == 0) return;
    void *u = random_reals((size_t)nv), *w = random_reals((size_t)vd);
    void *w8 = ops->mem_alloc((size_t)(vd * size)), *w8t = ops->mem_alloc((size_t)(vd * size));
    void *x8 = ops->mem_alloc((size_t)(nd * size)), *x8t = ops->mem_alloc((size_t)(nd * size));
    void *g8 = ops->mem_alloc((size_t)(nv * size)), *g8t = ops->mem_alloc((size_t)(nv * size));
    if (!w8 || !w8t || !x8 || !x8t || !g8 || !g8t) {
        printf("head: out of memory\n");
        return;
    }
    printf("head, a slice of %d rows\n", n);
    MEASURE("quantize the head's weight", (2 + 2 * size) * vd, 0,
            ops->quantize(w8, w8t, w, FP8_E4M3, 0x1p-9, V, D));
    MEASURE("quantize x", (2 + 2 * size) * nd, 0,
            ops->quantize(x8, x8t, x, FP8_E4M3, 0.06186, n, D));
    MEASURE("softcap_loss, losses alone", 2 * nv, 0,
            ops->softcap_loss(loss, u, targets, 0, n, V, 30, 7.5));
    MEASURE("softcap_loss, bf16 in place", 4 * nv, 0,
            ops->softcap_loss(loss, u, targets, 0.125, n, V, 30, 7.5));
    MEASURE("softcap_loss_fp8, g and its transpose", (2 + 3 * size) * nv, 0,
            ops->softcap_loss_fp8(loss, g8, g8t, u, targets, 0.125, 1.0 / 448, n, V, 30, 7.5));
    MEASURE("fp8 logits", 0, flops,
            ops->matmul_fp8(u, false, x8, FP8_E4M3, w8, FP8_E4M3, n, V, D, 1e-4, 0));
    MEASURE("fp8 dx", 0, flops,
            ops->matmul_fp8(x, false, g8, FP8_E5M2, w8t, FP8_E4M3, n, D, V, 1e-4, 0));
    MEASURE("fp8 dw, first slice", 0, flops,
            ops->matmul_fp8(grad, true, g8t, FP8_E5M2, x8t, FP8_E4M3, V, D, n, 1e-4, 0));
    MEASURE("fp8 dw, a later slice", 0, flops,
            ops->matmul_fp8(grad, true, g8t, FP8_E5M2, x8t, FP8_E4M3, V, D, n, 1e-4, 1));
    void *const taken[] = {u, w, w8, w8t, x8, x8t, g8, g8t};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) ops->mem_free(taken[i]);
}

int main(int argc, char **argv)
{
    enum { D = 768, F = 3072, V = 50304, C = 12 };
    Error err;
    char description[256];
    if (!ops_cuda_find(&ops, description, sizeof description, &err)) {
        fprintf(stderr, "error: %s\n", err.text);
        return 1;
    }
    const int t = argc > 1 ? atoi(argv[1]) : 32768;
    if (t < 1 || t > 1 << 20) {
        fprintf(stderr, "error: tokens are 1 to 1048576\n");
        return 2;
    }
    const size_t td = (size_t)t * D, tf = (size_t)t * F, vd = (size_t)V * D;
    const double stream = 2.0 * (double)td;
    printf("%s, %d tokens\n", description, t);
    void *s[8];
    for (int i = 0; i < 8; i++) s[i] = random_reals(td);
    const size_t product = (size_t)4096 * V > 4 * td ? (size_t)4096 * V : 4 * td;
    void *big = random_reals(product), *wide = random_reals(product);
    void *weight = random_reals((size_t)8192 * 8192), *grad = ops->mem_alloc(vd * 4);
    void *embed = random_reals(vd), *moments = random_reals(2 * vd);
    float *acc = ops->mem_alloc((size_t)t * 4), *scalar = ops->mem_alloc(1024 * 4);
    int32_t *ids = malloc((size_t)t * 4), *order = malloc((size_t)t * 4);
    uint64_t state = 1;
    for (int p = 0; p < t; p++) { // roughly Zipf: id from 1/u
        state = state * 6364136223846793005u + 1442695040888963407u;
        double u = ((double)(state >> 11) + 0.5) * 0x1p-53;
        ids[p] = (int)(exp(u * log(V)) - 1) % V;
    }
    int n = 0;
    int32_t *start = calloc(V + 1, 4);
    for (int p = 0; p < t; p++) start[ids[p] + 1]++;
    for (int v = 0; v < V; v++) {
        if (start[v + 1] > n) n = start[v + 1];
        start[v + 1] += start[v];
    }
    for (int p = 0; p < t; p++) order[start[ids[p]]++] = p;
    printf("the most frequent id has %d positions\n", n);
    int32_t *gpu_ids = ops->mem_alloc((size_t)t * 4), *gpu_order = ops->mem_alloc((size_t)t * 4);
    ops->mem_put(gpu_ids, ids, (size_t)t * 4);
    ops->mem_put(gpu_order, order, (size_t)t * 4);

    products(t, big, wide, s[0], weight, grad);
    MEASURE("embed_forward", 2 * stream, 0,
            ops->embed_forward(s[0], acc, gpu_ids, embed, weight, scalar, t, D, C, 1e-7));
    MEASURE("embed_backward", 4 * stream, 0,
            ops->embed_backward(s[0], scalar + 2, scalar, s[1], s[2], acc, gpu_ids, embed, weight,
                                scalar + 100, t, D, C));
    MEASURE("embed_scatter", stream, 0,
            ops->embed_scatter(moments, DT_BF16, s[0], gpu_ids, gpu_order, t, D));
    MEASURE("mix_norm_forward", 4 * stream, 0,
            ops->mix_norm_forward(s[0], s[1], acc, s[2], NULL, NULL, s[3], scalar, t, D, 1e-7));
    MEASURE("mix_norm_backward", 7 * stream, 0,
            ops->mix_norm_backward(s[0], NULL, s[1], scalar, NULL, s[2], s[3], acc, s[4], NULL,
                                   NULL, s[5], scalar + 8, t, D));
    MEASURE("mix_norm_backward, skip", 9 * stream, 0,
            ops->mix_norm_backward(s[0], s[6], s[1], scalar, scalar + 4, s[2], s[3], acc, s[4],
                                   s[7], scalar + 5, s[5], scalar + 8, t, D));
    MEASURE("norm_forward", 2 * stream, 0, ops->norm_forward(s[0], acc, s[1], t, D, 1e-7));
    MEASURE("norm_backward", 4 * stream, 0, ops->norm_backward(s[0], s[1], s[2], acc, t, D));
    MEASURE("backout_norm_forward", 3 * stream, 0,
            ops->backout_norm_forward(s[0], acc, s[1], s[2], scalar, t, D, 1e-7));
    MEASURE(
        "backout_norm_backward", 5 * stream, 0,
        ops->backout_norm_backward(s[0], s[1], scalar, s[2], s[3], acc, s[4], scalar + 8, t, D));
    MEASURE("add", 3 * stream, 0, ops->add(s[0], s[1], td));
    MEASURE("relu2_forward", 4.0 * (double)tf, 0, ops->relu2_forward(wide, big, tf));
    MEASURE("relu2_backward", 6.0 * (double)tf, 0, ops->relu2_backward(wide, wide, big, tf));
    head(t < 16384 ? t / 16 * 16 : 16384, gpu_ids, s[0], grad, acc);
    const AdamConfig config = {.lr_mul = 1, .beta1 = 0.65, .beta2 = 0.95, .eps = 1e-8};
    StepState *step = ops->mem_alloc(sizeof *step);
    MEASURE("adam bf16 (V,D)", 14.0 * (double)vd, 0,
            ops->adam(embed, moments, (char *)moments + 2 * vd, grad, DT_BF16, vd, &config, step));
    MEASURE("accumulate bf16 (V,D)", 8.0 * (double)vd, 0,
            ops->accumulate(embed, DT_BF16, grad, vd));
    MEASURE("load_param bf16 < f32 (V,D)", 6.0 * (double)vd, 0,
            ops->load_param(embed, DT_BF16, grad, DT_F32, vd));
    MEASURE("sum of T losses", 4.0 * t, 0, ops->sum((void *)(scalar + 512), acc, (size_t)t));
    return 0;
}
