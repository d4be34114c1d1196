// Attention on the GPU, against ops_cpu_f64 over the same bf16 inputs. Our error may be twice that
// of a plain transcription in fp32 that rounds what tensor cores' kernels round (P, dS and the
// outputs, to bf16). Both paths run: wgmma and mma.sync.
#include "nums.h"

// ---- attention in plain bf16 -------------------------------------------------------------------

enum { MAX_DOCS = 1024, MAX_D = 128 };
static int t, h, d, n_docs;
static int32_t cu[MAX_DOCS + 1], window;
static double scale;
static Nums *qkv, *o, *lse, *d_o, *dqkv, *delta;

static int document(int p)
{
    int doc = 0;
    for (int i = 0; i < n_docs; i++)
        if (cu[i] <= p) doc = i;
    return doc;
}

static int first_key(int p)
{
    const int start = cu[document(p)];
    return window > p - start ? start : p - window;
}

static int last_query(int j)
{
    const int end = cu[document(j) + 1] - 1;
    return window > end - j ? end : j + window;
}

static float dot(const float *a, const float *b)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < d; i++) sum += a[i] * b[i];
    return sum;
}

static void add_scaled(float *y, float a, const float *x)
{
#pragma omp simd
    for (int i = 0; i < d; i++) y[i] += a * x[i];
}

static const float *row_of(int part, int p, int i)
{
    return qkv->plain + (((size_t)p * 3 + (size_t)part) * (size_t)h + (size_t)i) * (size_t)d;
}

static void plain_forward(void)
{
    const float sc = (float)scale;
#pragma omp parallel for schedule(dynamic, 8)
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            const int first = first_key(p);
            const size_t at = (size_t)p * h + i;
            float max = -INFINITY, sum = 0, out[MAX_D] = {0};
            for (int j = first; j <= p; j++)
                max = fmaxf(max, sc * dot(row_of(0, p, i), row_of(1, j, i)));
            for (int j = first; j <= p; j++) {
                const float prob = expf(sc * dot(row_of(0, p, i), row_of(1, j, i)) - max);
                sum += prob;
                add_scaled(out, round_bf16(prob), row_of(2, j, i));
            }
            for (int c = 0; c < d; c++) o->plain[at * d + c] = round_bf16(out[c] / sum);
            lse->plain[at] = max + logf(sum);
        }
}

static void plain_pair(float *prob, float *ds, int p, int j, int i)
{
    const size_t at = (size_t)p * h + i;
    *prob = expf((float)scale * dot(row_of(0, p, i), row_of(1, j, i)) - lse->plain[at]);
    *ds = *prob * (dot(d_o->plain + at * d, row_of(2, j, i)) - delta->plain[at]);
}

static void plain_backward(void)
{
    const float sc = (float)scale;
#pragma omp parallel for schedule(dynamic, 8)
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            const size_t at = (size_t)p * h + i;
            float sum[MAX_D] = {0}, prob, ds;
            delta->plain[at] = dot(d_o->plain + at * d, o->plain + at * d);
            for (int j = first_key(p); j <= p; j++) {
                plain_pair(&prob, &ds, p, j, i);
                add_scaled(sum, round_bf16(ds), row_of(1, j, i));
            }
            float *dq = dqkv->plain + ((size_t)p * 3 * h + i) * d;
            for (int c = 0; c < d; c++) dq[c] = round_bf16(sc * sum[c]);
        }
#pragma omp parallel for schedule(dynamic, 8)
    for (int j = 0; j < t; j++)
        for (int i = 0; i < h; i++) {
            float sum_k[MAX_D] = {0}, sum_v[MAX_D] = {0}, prob, ds;
            for (int p = j; p <= last_query(j); p++) {
                plain_pair(&prob, &ds, p, j, i);
                add_scaled(sum_k, round_bf16(ds), row_of(0, p, i));
                add_scaled(sum_v, round_bf16(prob), d_o->plain + ((size_t)p * h + i) * d);
            }
            float *dk = dqkv->plain + ((size_t)j * 3 * h + h + i) * d, *dv = dk + h * d;
            for (int c = 0; c < d; c++)
                dk[c] = round_bf16(sc * sum_k[c]), dv[c] = round_bf16(sum_v[c]);
        }
}

// ---- attention ---------------------------------------------------------------------------------

static struct {
    double ratio[2]; // worst of our error over the plain one: largest, root mean square
    double relative; // worst |error| / |exact|, as norms
} worst[2][4];
static const char *const names[4] = {"o", "dq", "dk", "dv"};

// Numbers [start, start + n) of every `stride` of x. The floors: one rounding to bf16, which plain
// may be lucky to escape where there are few numbers, and the sums in fp32, which plain adds in
// another order.
static void check_part(const char *what, const Nums *x, size_t start, size_t n, size_t stride,
                       double noise)
{
    double top = 0, ours = 0, plain = 0, ours2 = 0, plain2 = 0, exact2 = 0;
    size_t count = 0;
    for (size_t row = start; row < x->n; row += stride)
        for (size_t i = row; i < row + n; i++, count++) {
            const double e = fabs(x->got[i] - x->exact[i]), f = fabs(x->plain[i] - x->exact[i]);
            if (!(e <= ours)) ours = e;
            if (!(f <= plain)) plain = f;
            top = fmax(top, fabs(x->exact[i]));
            ours2 += e * e, plain2 += f * f, exact2 += x->exact[i] * x->exact[i];
        }
    const double rounding = count < 4096 ? 0x1p-9 * top : 0;
    CHECK(ours <= 2 * plain + rounding + noise,
          "%s T %d H %d d %d w %d docs %d %s: off by %.3g, plain by %.3g, of %.3g", what, t, h, d,
          window, n_docs, portable ? "mma" : "wgmma", ours, plain, top);
    const double rms = sqrt(ours2 / (double)count), plain_rms = sqrt(plain2 / (double)count);
    CHECK(rms <= 2 * plain_rms + rounding + noise, "%s T %d H %d d %d w %d: rms %.3g, plain %.3g",
          what, t, h, d, window, rms, plain_rms);
    for (int k = 0; k < 4; k++)
        if (strcmp(what, names[k]) == 0 && count >= 4096 && plain > noise) {
            const int path = portable;
            worst[path][k].ratio[0] = fmax(worst[path][k].ratio[0], ours / plain);
            worst[path][k].ratio[1] = fmax(worst[path][k].ratio[1], rms / plain_rms);
            worst[path][k].relative = fmax(worst[path][k].relative, sqrt(ours2 / exact2));
        }
}

static int32_t *cu_gpu, *window_gpu;
static double *scale_gpu;

static void run_gpu(void)
{
    poison(o), poison(lse), poison(dqkv), poison(delta);
    gpu->attention_forward(o->on_gpu, lse->on_gpu, qkv->on_gpu, cu_gpu, n_docs, window_gpu,
                           scale_gpu, t, h, d);
    gpu->attention_backward(dqkv->on_gpu, delta->on_gpu, d_o->on_gpu, o->on_gpu, lse->on_gpu,
                            qkv->on_gpu, cu_gpu, n_docs, window_gpu, scale_gpu, t, h, d);
}

static void make_attention(void)
{
    const size_t n = (size_t)t * h * d;
    qkv = nums(3 * n, DT_BF16, 1.7), d_o = nums(n, DT_BF16, 1);
    o = nums(n, DT_BF16, NAN), lse = nums((size_t)t * h, DT_F32, NAN);
    dqkv = nums(3 * n, DT_BF16, NAN), delta = nums((size_t)t * h, DT_F32, NAN);
    cu_gpu = gpu_ints(cu, (size_t)n_docs + 1), window_gpu = gpu_ints(&window, 1);
    scale_gpu = gpu->mem_alloc(8);
    gpu->mem_put(scale_gpu, &scale, 8);
}

static void run_exact(void)
{
    ops_cpu_f64.attention_forward(o->exact, lse->exact, qkv->exact, cu, n_docs, &window, &scale, t,
                                  h, d);
    ops_cpu_f64.attention_backward(dqkv->exact, delta->exact, d_o->exact, o->exact, lse->exact,
                                   qkv->exact, cu, n_docs, &window, &scale, t, h, d);
}

static void free_attention(void)
{
    free_all();
    gpu->mem_free(cu_gpu), gpu->mem_free(window_gpu), gpu->mem_free(scale_gpu);
}

static void attention_case(void)
{
    make_attention();
    run_exact();
    plain_forward();
    plain_backward();
    // Sums of d products in fp32, any order: (d + 8) 2^-24 of the sum of their magnitudes.
    const double sums = (d + 8) * 0x1p-24, logit = scale * d * 1.7 * 1.7, dp = d * 1.7;
    for (int path = 0; path < 2; path++) {
        use_path(path);
        run_gpu();
        fetch(o), fetch(lse), fetch(dqkv);
        const size_t width = (size_t)h * d;
        check_part("o", o, 0, width, width, sums * 1.7);
        check_part("lse", lse, 0, (size_t)h, (size_t)h, sums * (1 + logit));
        check_part("dq", dqkv, 0, width, 3 * width, sums * scale * dp * 1.7);
        check_part("dk", dqkv, width, width, 3 * width, sums * scale * dp * 1.7);
        check_part("dv", dqkv, 2 * width, width, 3 * width, sums * logit);
        void *first[] = {bytes_of(o), bytes_of(lse), bytes_of(dqkv)};
        run_gpu();
        CHECK(same_bytes(o, first[0]) && same_bytes(lse, first[1]) && same_bytes(dqkv, first[2]),
              "T %d H %d d %d w %d: a second run gives other bits", t, h, d, window);
        for (int i = 0; i < 3; i++) free(first[i]);
    }
    use_path(0);
    free_attention();
}

static void add_document(int length)
{
    if (length > t - cu[n_docs]) length = t - cu[n_docs];
    cu[n_docs + 1] = cu[n_docs] + length;
    n_docs++;
}

// One document; or empty ones at both ends and in between, one of 300 tokens, short ones; or
// hundreds of up to 6 tokens.
static void set_documents(int many)
{
    static const int lengths[] = {0, 0,   5, 300, 1, 0,   0, 0,    64, 63,
                                  0, 130, 7, 1,   1, 500, 0, 1000, 0};
    n_docs = 0;
    if (many == 2)
        for (int i = 0; n_docs < 900; i++) add_document(i % 7);
    else if (many)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) add_document(lengths[i]);
    add_document(t);
    if (many) add_document(0), add_document(0);
}

TEST(attention_small_shapes)
{
    static const int sizes[] = {1, 63, 64, 65, 200}, heads[] = {1, 2, 6},
                     windows[] = {0, 1, 63, 64, 127, 128, 384, INT32_MAX};
    scale = 0.1;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 8; k++)
                for (int many = 0; many < 2; many++) {
                    t = sizes[i], h = heads[j], d = (i + j + k + many) % 2 ? 64 : 128;
                    window = windows[k];
                    set_documents(many);
                    attention_case();
                }
}

TEST(attention_larger_shapes)
{
    static const int windows[] = {0, 1, 63, 64, 127, 128, 384, 5000};
    for (int k = 0; k < 8; k++)
        for (int many = 0; many < 3; many++)
            for (d = 64; d <= 128; d += 64) {
                t = 1000, h = 2, window = windows[k], scale = 0.13;
                set_documents(many);
                attention_case();
                if (window < 128 || (d == 64 && many)) continue;
                t = 4096, h = window == 128 ? 6 : 1;
                set_documents(many);
                attention_case();
            }
}

// Runs copies of the slice at hand behind each other, in so many documents, and fetches the last.
static void run_copies(int copies, int docs)
{
    enum { QKV, D_O, O, LSE, DQKV, DELTA, N };
    Nums *of[N] = {qkv, d_o, o, lse, dqkv, delta};
    char *all[N];
    int32_t *starts = calloc((size_t)docs + 1, sizeof *starts), total = t * copies;
    for (int i = 0; i < N; i++) {
        const size_t bytes = of[i]->n * dtype_size(of[i]->type);
        void *bits = bytes_of(of[i]);
        all[i] = gpu->mem_alloc(bytes * (size_t)copies);
        if (!all[i] || !starts) abort();
        for (int k = 0; k < copies; k++) gpu->mem_put(all[i] + (size_t)k * bytes, bits, bytes);
        free(bits);
    }
    for (int i = 0; i <= docs; i++) starts[i] = i * (total / docs);
    int32_t *starts_gpu = gpu_ints(starts, (size_t)docs + 1);
    gpu->attention_forward(all[O], all[LSE], all[QKV], starts_gpu, docs, window_gpu, scale_gpu,
                           total, h, d);
    gpu->attention_backward(all[DQKV], all[DELTA], all[D_O], all[O], all[LSE], all[QKV], starts_gpu,
                            docs, window_gpu, scale_gpu, total, h, d);
    for (int i = 0; i < N; i++) {
        void *own = of[i]->on_gpu;
        of[i]->on_gpu = all[i] + of[i]->n * dtype_size(of[i]->type) * (size_t)(copies - 1);
        fetch(of[i]);
        of[i]->on_gpu = own;
        gpu->mem_free(all[i]);
    }
    gpu->mem_free(starts_gpu);
    free(starts);
}

// A validation chunk of 262144 tokens. Its last 2048 are a document, whose reference is that of the
// document alone; or, in one document of all, the same from the window's length on.
TEST(attention_of_a_validation_chunk)
{
    enum { COPIES = 128 };
    t = 2048, h = 1, d = 128, window = 896, scale = 0.1, n_docs = 0;
    add_document(t);
    make_attention();
    run_exact();
    plain_forward();
    plain_backward();
    const double sums = (d + 8) * 0x1p-24, logit = scale * d * 1.7 * 1.7, dp = d * 1.7;
    const size_t width = (size_t)d;
    for (int path = 0; path < 2; path++) {
        use_path(path);
        for (int one = 0; one < 2; one++) {
            const size_t first = one ? (size_t)window : 0;
            run_copies(COPIES, one ? 1 : COPIES);
            check_part("o", o, first * width, width, width, sums * 1.7);
            check_part("lse", lse, first, 1, 1, sums * (1 + logit));
            for (int i = 0; i < 3; i++)
                check_part(i == 0   ? "dq"
                           : i == 1 ? "dk"
                                    : "dv",
                           dqkv, (3 * first + (size_t)i) * width, width, 3 * width,
                           i == 2 ? sums * logit : sums * scale * dp * 1.7);
        }
    }
    use_path(0);
    free_attention();
}

TEST(attention_large_logits)
{
    t = 70, h = 1, d = 64, window = 1000, scale = 1000;
    set_documents(0);
    make_attention();
    for (size_t i = 0; i < qkv->n; i++) // q = e_0; k = -e_0 but for key 5, +e_0
        if (i / 64 % 3 < 2) qkv->exact[i] = i % 64 ? 0 : i / 64 % 3 == 1 && i / 192 != 5 ? -1 : 1;
    put(qkv);
    run_gpu();
    fetch(o), fetch(lse), fetch(dqkv);
    for (int p = 5; p < t; p++) {
        CHECK(lse->got[p] == 1000, "%g", lse->got[p]);
        for (int j = 0; j < 64; j++) CHECK(o->got[p * 64 + j] == qkv->exact[5 * 192 + 128 + j]);
    }
    for (size_t i = 0; i < dqkv->n; i++) CHECK(isfinite(dqkv->got[i]));
    free_attention();
}

// A NaN in q, k, v or dO reaches every output that depends on it.
TEST(attention_passes_nan_on)
{
    t = 400, h = 2, d = 128, window = 128, scale = 0.1;
    for (int part = 0; part < 4; part++)
        for (int path = 0; path < 2; path++) {
            use_path(path);
            set_documents(1);
            make_attention();
            (part < 3 ? qkv->exact + (200 * 3 + part) * h * d : d_o->exact + 200 * h * d)[9] = NAN;
            put(qkv), put(d_o);
            run_exact();
            run_gpu();
            fetch(o), fetch(dqkv);
            size_t expected = 0, missed = 0;
            for (size_t i = 0; i < o->n; i++)
                if (isnan(o->exact[i])) expected++, missed += !isnan(o->got[i]);
            for (size_t i = 0; i < dqkv->n; i++)
                if (isnan(dqkv->exact[i])) expected++, missed += !isnan(dqkv->got[i]);
            CHECK(expected > 0 && missed == 0, "part %d: %zu of %zu NaN are missing", part, missed,
                  expected);
            free_attention();
        }
    use_path(0);
}

int main(int argc, char **argv)
{
    const int status = open_gpu();
    if (status >= 0) return status;
    RUN(attention_large_logits);
    RUN(attention_passes_nan_on);
    if (is_quick(argc, argv)) {
        t = 200, h = 2, scale = 0.1, window = 64;
        for (d = 64; d <= 128; d += 64) {
            set_documents(1);
            attention_case();
        }
        return TEST_SUMMARY();
    }
    RUN(attention_of_a_validation_chunk);
    RUN(attention_small_shapes);
    RUN(attention_larger_shapes);
    for (int path = 0; path < 2; path++)
        for (int k = 0; k < 4; k++)
            printf("%s %s: at most %.2f of plain bf16's largest error, %.2f of its rms; rms %.2e\n",
                   path ? "mma.sync" : "wgmma   ", names[k], worst[path][k].ratio[0],
                   worst[path][k].ratio[1], worst[path][k].relative);
    return TEST_SUMMARY();
}
