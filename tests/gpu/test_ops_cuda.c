// Each CUDA operation against the double CPU device on the same inputs, twice for the same bits;
// those that state their roundings against the float device, bit for bit. Attention and the
// optimizer's matrices have programs of their own.
#include "gpu_check.h"

static const Ops *const exact = &ops_cpu_f64;
static const double eps = 1.1920928955078125e-7;

static const struct {
    int t, d;
} shapes[] = {{1, 128}, {2, 64}, {33, 768}, {7, 1032}, {129, 3072}, {5, 8192}, {5003, 768}};
#define FOR_SHAPES(t, d)                                                                           \
    for (size_t s_ = 0; s_ < sizeof shapes / sizeof *shapes; s_++, free_arrays())                  \
        for (int t = shapes[s_].t, d = shapes[s_].d, once_ = 1; once_; once_ = 0)

static Array *stream(const char *name, int t, int d)
{
    return array(name, DT_BF16, (size_t)t * (size_t)d, 1);
}

static Array *numbers(const char *name, size_t n) { return array(name, DT_F32, n, 1); }

// A normed stream with its r, consistent to bf16 rounding: what backward is given.
static void normed(Array *y, Array *r, int t, int d)
{
    for (int p = 0; p < t; p++) {
        double sum = 0, *row = y->exact + (size_t)p * d;
        for (int j = 0; j < d; j++) sum += row[j] * row[j];
        set_number(r, (size_t)p, 0.5 + fabs(r->exact[p]));
        for (int j = 0; j < d; j++) set_number(y, (size_t)p * d + j, row[j] / sqrt(sum / d));
    }
}

// Roundings along a kernel's path to one number of a row: a lane's products, the tree, and a few.
enum { ROW_DEPTH = 64 };
// The same to a sum over all rows: 5003 rows over 528 blocks give a thread up to 10 of them.
enum { SUM_DEPTH = 10 * 32 + 64 };

TEST(norm_and_its_gradient)
{
    FOR_SHAPES(t, d)
    {
        Array *x = stream("x", t, d), *y = stream("y", t, d), *r = numbers("r", (size_t)t);
        RUN_TWICE(cuda->norm_forward(y->gpu, r->gpu, x->gpu, t, d, eps));
        exact->norm_forward(y->exact, r->exact, x->exact, t, d, eps);
        CHECK_ARRAY(y, ROW_DEPTH);
        CHECK_ARRAY(r, ROW_DEPTH);
        free_arrays();

        Array *dx = stream("dx", t, d), *dy = stream("dy", t, d);
        y = stream("y", t, d), r = numbers("r", (size_t)t);
        normed(y, r, t, d);
        RUN_TWICE(cuda->norm_backward(dx->gpu, dy->gpu, y->gpu, r->gpu, t, d));
        exact->norm_backward(dx->exact, dy->exact, y->exact, r->exact, t, d);
        CHECK_ARRAY(dx, ROW_DEPTH);
    }
}

TEST(mix_norm)
{
    for (int with_skip = 0; with_skip < 2; with_skip++) FOR_SHAPES(t, d)
        {
            Array *x = stream("x", t, d), *y = stream("y", t, d), *r = numbers("r", (size_t)t);
            Array *skip = stream("skip", t, d), *gate = numbers("skip_gate", 1);
            Array *x0 = stream("x0", t, d), *lambda = numbers("lambda", 2);
            // In place, as the model uses it at inference.
            RUN_TWICE(cuda->mix_norm_forward(x->gpu, y->gpu, r->gpu, x->gpu,
                                             with_skip ? skip->gpu : NULL, gate->gpu, x0->gpu,
                                             lambda->gpu, t, d, eps));
            exact->mix_norm_forward(x->exact, y->exact, r->exact, x->exact,
                                    with_skip ? skip->exact : NULL, gate->exact, x0->exact,
                                    lambda->exact, t, d, eps);
            CHECK_ARRAY(x, ROW_DEPTH);
            CHECK_ARRAY(y, ROW_DEPTH);
            CHECK_ARRAY(r, ROW_DEPTH);
        }
}

TEST(mix_norm_gradient)
{
    for (int with_skip = 0; with_skip < 2; with_skip++) FOR_SHAPES(t, d)
        {
            Array *dx = stream("dx", t, d), *dskip = stream("dskip", t, d);
            Array *dx0 = stream("dx0", t, d), *dlambda = numbers("dlambda", 2);
            Array *dgate = numbers("dskip_gate", 1), *dy = stream("dy", t, d);
            Array *y = stream("y", t, d), *r = numbers("r", (size_t)t);
            Array *x_in = stream("x_in", t, d), *skip = stream("skip", t, d);
            Array *gate = numbers("skip_gate", 1), *x0 = stream("x0", t, d);
            Array *lambda = numbers("lambda", 2);
            normed(y, r, t, d);
            RUN_TWICE(
                cuda->mix_norm_backward(dx->gpu, with_skip ? dskip->gpu : NULL, dx0->gpu,
                                        dlambda->gpu, with_skip ? dgate->gpu : NULL, dy->gpu,
                                        y->gpu, r->gpu, x_in->gpu, with_skip ? skip->gpu : NULL,
                                        with_skip ? gate->gpu : NULL, x0->gpu, lambda->gpu, t, d));
            exact->mix_norm_backward(dx->exact, with_skip ? dskip->exact : NULL, dx0->exact,
                                     dlambda->exact, with_skip ? dgate->exact : NULL, dy->exact,
                                     y->exact, r->exact, x_in->exact,
                                     with_skip ? skip->exact : NULL, with_skip ? gate->exact : NULL,
                                     x0->exact, lambda->exact, t, d);
            CHECK_ARRAY(dx, ROW_DEPTH);
            CHECK_ARRAY(dskip, ROW_DEPTH);
            CHECK_ARRAY(dx0, ROW_DEPTH);
            const size_t n = (size_t)t * (size_t)d;
            const double g = norm_of(dx->exact, n) / fabs(lambda->exact[0]);
            const double sk = norm_of(skip->exact, n);
            CHECK_SUM(dlambda, 0, g * (norm_of(x_in->exact, n) + sk), SUM_DEPTH);
            CHECK_SUM(dlambda, 1, g * norm_of(x0->exact, n), SUM_DEPTH);
            CHECK_SUM(dgate, 0, fabs(lambda->exact[0]) * g * sk, SUM_DEPTH);
        }
}

TEST(backout_norm_and_its_gradient)
{
    FOR_SHAPES(t, d)
    {
        Array *x = stream("x", t, d), *y = stream("y", t, d), *r = numbers("r", (size_t)t);
        Array *back = stream("x_back", t, d), *beta = numbers("beta", 1);
        RUN_TWICE(
            cuda->backout_norm_forward(y->gpu, r->gpu, x->gpu, back->gpu, beta->gpu, t, d, eps));
        exact->backout_norm_forward(y->exact, r->exact, x->exact, back->exact, beta->exact, t, d,
                                    eps);
        CHECK_ARRAY(y, ROW_DEPTH);
        CHECK_ARRAY(r, ROW_DEPTH);
        free_arrays();

        Array *dx = stream("dx", t, d), *dback = stream("dx_back", t, d);
        Array *dbeta = numbers("dbeta", 1), *dy = stream("dy", t, d);
        y = stream("y", t, d), r = numbers("r", (size_t)t);
        back = stream("x_back", t, d), beta = numbers("beta", 1);
        normed(y, r, t, d);
        RUN_TWICE(cuda->backout_norm_backward(dx->gpu, dback->gpu, dbeta->gpu, dy->gpu, y->gpu,
                                              r->gpu, back->gpu, beta->gpu, t, d));
        exact->backout_norm_backward(dx->exact, dback->exact, dbeta->exact, dy->exact, y->exact,
                                     r->exact, back->exact, beta->exact, t, d);
        CHECK_ARRAY(dx, ROW_DEPTH);
        CHECK_ARRAY(dback, ROW_DEPTH);
        const size_t n = (size_t)t * (size_t)d;
        CHECK_SUM(dbeta, 0, norm_of(dx->exact, n) * norm_of(back->exact, n), SUM_DEPTH);
    }
}

// ---- embedding ---------------------------------------------------------------------------------

enum { VOCAB = 301 };

// Token ids, half of them one frequent id, and the positions sorted by (id, position). With 129
// tokens all of them are that id.
static void make_ids(int32_t *ids, int32_t *order, int t)
{
    int n = 0;
    for (int p = 0; p < t; p++)
        ids[p] = t == 129 || random_uniform() < 0
                     ? 17
                     : (int)((random_uniform() + 1) / 2 * VOCAB) % VOCAB;
    for (int v = 0; v < VOCAB; v++)
        for (int p = 0; p < t; p++)
            if (ids[p] == v) order[n++] = p;
}

TEST(embedding_and_its_gradient)
{
    FOR_SHAPES(t, d)
    {
        const int c = s_ % 3 == 0 ? 12 : s_ % 3 == 1 ? 64 : 1;
        int32_t *ids = calloc((size_t)t, sizeof *ids), *order = calloc((size_t)t, sizeof *order);
        make_ids(ids, order, t);
        int32_t *gpu_ids = put_ints(ids, (size_t)t);
        Array *x0 = stream("x0", t, d), *r = numbers("r", (size_t)t);
        Array *embed = stream("embed", VOCAB, d), *gate = array("gate", DT_BF16, (size_t)c, 0.3);
        Array *mu = numbers("mu", 1);
        RUN_TWICE(cuda->embed_forward(x0->gpu, r->gpu, gpu_ids, embed->gpu, gate->gpu, mu->gpu, t,
                                      d, c, eps));
        exact->embed_forward(x0->exact, r->exact, ids, embed->exact, gate->exact, mu->exact, t, d,
                             c, eps);
        CHECK_ARRAY(x0, ROW_DEPTH);
        CHECK_ARRAY(r, ROW_DEPTH);
        free_arrays();

        Array *de = stream("de", t, d), *dgate = numbers("dgate", (size_t)c);
        Array *dmu = numbers("dmu", 1), *dx0 = stream("dx0", t, d);
        x0 = stream("x0", t, d), r = numbers("r", (size_t)t);
        embed = stream("embed", VOCAB, d), gate = array("gate", DT_BF16, (size_t)c, 0.3);
        mu = numbers("mu", 1);
        normed(x0, r, t, d);
        RUN_TWICE(cuda->embed_backward(de->gpu, dgate->gpu, dmu->gpu, dx0->gpu, x0->gpu, r->gpu,
                                       gpu_ids, embed->gpu, gate->gpu, mu->gpu, t, d, c));
        exact->embed_backward(de->exact, dgate->exact, dmu->exact, dx0->exact, x0->exact, r->exact,
                              ids, embed->exact, gate->exact, mu->exact, t, d, c);
        CHECK_ARRAY(de, ROW_DEPTH);
        // |gamma_p| is about |r dx_p| |e|; times the channel's e, itself of size 1 to 4.
        const double size = norm_of(dx0->exact, (size_t)t * (size_t)d) * 4 *
                            sqrt((double)t * (double)d) * (1 + fabs(mu->exact[0]));
        CHECK_SUM(dmu, 0, size, SUM_DEPTH);
        for (int j = 0; j < c; j++) CHECK_SUM(dgate, (size_t)j, size * 4, SUM_DEPTH);
        cuda->mem_free(gpu_ids);
        free(ids);
        free(order);
    }
}

TEST(embedding_scatter)
{
    FOR_SHAPES(t, d)
    for (int wide = 0; wide < 2; wide++, free_arrays()) {
        int32_t *ids = calloc((size_t)t, sizeof *ids), *order = calloc((size_t)t, sizeof *order);
        make_ids(ids, order, t);
        int32_t *gpu_ids = put_ints(ids, (size_t)t), *gpu_order = put_ints(order, (size_t)t);
        const DType type = wide ? DT_F32 : DT_BF16;
        Array *grad = array("grad", type, (size_t)VOCAB * (size_t)d, 1), *de = stream("de", t, d);
        RUN_TWICE(cuda->embed_scatter(grad->gpu, type, de->gpu, gpu_ids, gpu_order, t, d));
        exact->embed_scatter(grad->exact, DT_F64, de->exact, ids, order, t, d);
        CHECK_ARRAY(grad, t < 64 ? t : 64); // t/2 additions of random signs: the root of that many
        cuda->mem_free(gpu_ids);
        cuda->mem_free(gpu_order);
        free(ids);
        free(order);
    }
}

TEST(rows_gathered)
{
    FOR_SHAPES(t, d)
    for (int wide = 0; wide < 2; wide++, free_arrays()) {
        int32_t *ids = calloc((size_t)t, sizeof *ids), *order = calloc((size_t)t, sizeof *order);
        make_ids(ids, order, t);
        int32_t *gpu_ids = put_ints(ids, (size_t)t);
        const DType type = wide ? DT_F32 : DT_BF16;
        Array *table = array("table", type, (size_t)VOCAB * (size_t)d, 1);
        Array *out = array("out", type, (size_t)t * (size_t)d, 1);
        RUN_TWICE(cuda->gather_rows(out->gpu, table->gpu, type, gpu_ids, 1.0 / 3, t, d));
        exact->gather_rows(out->exact, table->exact, DT_F64, ids, 1.0 / 3, t, d);
        CHECK_ARRAY(out, 2);
        cuda->mem_free(gpu_ids);
        free(ids);
        free(order);
    }
}

// ---- numbers on their own ----------------------------------------------------------------------

static const size_t lengths[] = {1, 7, 8, 4099, 1 << 20};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

TEST(relu2_and_add)
{
    for (int i = 0; i < N_LENGTHS; i++, free_arrays()) {
        const size_t n = lengths[i];
        Array *h = array("h", DT_BF16, n, 1), *r = array("r", DT_BF16, n, 1);
        Array *dh = array("dh", DT_BF16, n, 1), *dst = array("dst", DT_BF16, n, 1);
        RUN_TWICE(cuda->relu2_forward(r->gpu, h->gpu, n);
                  cuda->relu2_backward(dh->gpu, dh->gpu, h->gpu, n);
                  cuda->add(dst->gpu, h->gpu, n));
        exact->relu2_forward(r->exact, h->exact, n);
        exact->relu2_backward(dh->exact, dh->exact, h->exact, n);
        exact->add(dst->exact, h->exact, n);
        CHECK_ARRAY(r, 2);
        CHECK_ARRAY(dh, 2);
        CHECK_ARRAY(dst, 1);
    }
}

// The GPU's numbers, once widened, must be the float CPU device's.
static void check_bits(const Array *a, const void *cpu, DType type)
{
    size_t wrong = 0;
    for (size_t i = 0; i < a->n; i++) {
        double x = dtype_get(a->result, a->type, i), y = dtype_get(cpu, type, i);
        if (!(x == y || (x != x && y != y))) {
            if (wrong++ == 0)
                fprintf(stderr, "%s[%zu] = %.9g, the CPU has %.9g\n", a->name, i, x, y);
        }
    }
    CHECK(wrong == 0, "%zu of %zu numbers of %s differ", wrong, a->n, a->name);
}

TEST(adam)
{
    static const DType types[] = {DT_F32, DT_BF16};
    const AdamConfig config = {.lr_mul = 75, .beta1 = 0.65, .beta2 = 0.95, .eps = 1e-8};
    const StepState step = {.adam_alpha = 0.008 * 0.3122};
    StepState *gpu_step = cuda->mem_alloc(sizeof step);
    cuda->mem_put(gpu_step, &step, sizeof step);
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 2; j++, free_arrays()) {
            const size_t n = lengths[i];
            Array *p = array("p", types[j], n, 1), *m = array("m", types[j], n, 0.01);
            Array *v = array("v", types[j], n, 0.01), *g = array("g", types[j], n, 0.01);
            for (size_t k = 0; k < n; k++) set_number(v, k, v->exact[k] * v->exact[k]);
            if (n > 8) set_number(v, 3, 0), set_number(g, 3, 0), set_number(g, 4, 1e-30);
            RUN_TWICE(cuda->adam(p->gpu, m->gpu, v->gpu, g->gpu, types[j], n, &config, gpu_step));
            ops_cpu.adam(p->initial, m->initial, v->initial, g->initial, types[j], n, &config,
                         &step);
            check_bits(p, p->initial, types[j]);
            check_bits(m, m->initial, types[j]);
            check_bits(v, v->initial, types[j]);
        }
    cuda->mem_free(gpu_step);
}

TEST(load_param_and_accumulate)
{
    static const DType types[] = {DT_F32, DT_BF16, DT_F16};
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 9; j++, free_arrays()) {
            const size_t n = lengths[i];
            const DType to = types[j / 3], from = types[j % 3];
            Array *weight = array("weight", to, n, 1), *param = array("param", from, n, 1);
            Array *grad = array("grad", to, n, 1), *delta = array("delta", DT_F32, n, 1);
            RUN_TWICE(cuda->load_param(weight->gpu, to, param->gpu, from, n);
                      cuda->accumulate(grad->gpu, to, delta->gpu, n));
            ops_cpu.load_param(weight->initial, to, param->initial, from, n);
            ops_cpu.accumulate(grad->initial, to, delta->initial, n);
            check_bits(weight, weight->initial, to);
            check_bits(grad, grad->initial, to);
        }
}

TEST(sum)
{
    for (int i = 0; i < N_LENGTHS; i++, free_arrays()) {
        Array *x = array("x", DT_F32, lengths[i], 1);
        put_arrays();
        double got[2], want = 1, start[2] = {1, 1};
        double *total = cuda->mem_alloc(sizeof start);
        cuda->mem_put(total, start, sizeof start);
        for (int k = 0; k < 2; k++) cuda->sum(total + k, x->gpu, lengths[i]);
        cuda->mem_get(got, total, sizeof got);
        exact->sum(&want, x->exact, lengths[i]);
        CHECK_NEAR(got[0], want, 1e-9); // both add in double
        CHECK(got[0] == got[1], "two sums differ");
        cuda->mem_free(total);
    }
}

TEST(memory)
{
    char host[100], back[100];
    char *p = cuda->mem_alloc(sizeof host);
    for (size_t i = 0; i < sizeof host; i++) host[i] = (char)(i + 1);
    cuda->mem_get(back, p, sizeof back);
    for (size_t i = 0; i < sizeof back; i++) CHECK(back[i] == 0, "at %zu", i);
    cuda->mem_put(p + 10, host, 50);
    cuda->mem_zero(p + 20, 10);
    cuda->sync();
    cuda->mem_get(back, p, sizeof back);
    CHECK(back[9] == 0 && back[10] == 1 && back[20] == 0 && back[30] == 21 && back[60] == 0);
    cuda->mem_free(p);
    cuda->mem_free(NULL);
    CHECK(cuda->mem_alloc((size_t)1 << 50) == NULL, "a petabyte");
    p = cuda->mem_alloc(0);
    CHECK(p != NULL, "memory of no bytes is not a failure");
    cuda->mem_free(p);
}

// ---- loss and products -------------------------------------------------------------------------

TEST(softcap_loss)
{
    static const int rows[] = {1, 3, 17}, widths[] = {384, 2176, 32128, 50304, 65536};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            for (int k = 0; k < 3; k++, free_arrays()) {
                const int t = rows[i], v = widths[j];
                const double grad_scale = k == 0 ? 0 : 0.125, cap = k == 2 ? 1000 : 30, div = 7.5;
                Array *u = array("u", DT_BF16, (size_t)t * (size_t)v, k == 1 ? 1 : 6);
                Array *loss = numbers("loss", (size_t)t);
                int32_t targets[17];
                for (int p = 0; p < t; p++) targets[p] = p == 0 ? v - 1 : (p * 7919) % v;
                int32_t *gpu_targets = put_ints(targets, (size_t)t);
                RUN_TWICE(
                    cuda->softcap_loss(loss->gpu, u->gpu, gpu_targets, grad_scale, t, v, cap, div));
                exact->softcap_loss(loss->exact, u->exact, targets, grad_scale, t, v, cap, div);
                // s is right to a few roundings, which the cap multiplies in the exponent.
                const int depth = (int)(8 * cap);
                for (int p = 0; p < t; p++) CHECK_SUM(loss, (size_t)p, 1, depth);
                size_t wrong = 0;
                for (size_t q = 0; q < u->n; q++) {
                    double got = dtype_get(u->result, DT_BF16, q), want = u->exact[q];
                    // Rounded to bf16 twice: what the sum's pass keeps, and the result.
                    double allowed = fabs(want) * (2 * 0x1p-8 + 2 * depth * 0x1p-24) +
                                     grad_scale * cap / div * 0x1p-24;
                    // The target's has softmax - 1, which cancels.
                    if (q % (size_t)v == (size_t)targets[q / (size_t)v]) {
                        const double s = 1 / (1 + exp(-dtype_get(u->initial, DT_BF16, q) / div));
                        allowed += grad_scale * cap / div * s * (1 - s) * 2 * depth * 0x1p-24;
                    }
                    if (grad_scale == 0) allowed = 0, want = dtype_get(u->initial, DT_BF16, q);
                    if (!(fabs(got - want) <= allowed)) {
                        if (wrong++ == 0)
                            fprintf(stderr, "t %d v %d: du[%zu] = %.9g, expected %.9g\n", t, v, q,
                                    got, want);
                    }
                }
                CHECK(wrong == 0, "%zu of %zu gradients", wrong, u->n);
                cuda->mem_free(gpu_targets);
            }
}

TEST(matrix_products)
{
    static const struct {
        int m, n, k;
    } sizes[] = {{1, 384, 128},  {33, 2304, 768}, {128, 768, 3072},
                 {768, 64, 257}, {3072, 768, 1},  {257, 1024, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = MM_NN; kind <= MM_TN; kind++)
            for (int j = 0; j < 4; j++, free_arrays()) {
                int m = sizes[i].m, n = sizes[i].n, k = sizes[i].k;
                // Row lengths are multiples of 8 in the model: widths and the padded vocabulary.
                if (kind == MM_TN) m = (m + 7) / 8 * 8;
                if (kind != MM_TN) k = (k + 7) / 8 * 8;
                const double alpha = j % 2 ? 0.03125 : 1, beta = j % 2;
                const DType type = j / 2 ? DT_F32 : DT_BF16;
                Array *a = stream("a", m, k), *b = stream("b", n, k);
                Array *c = array("c", type, (size_t)m * (size_t)n, 1);
                RUN_TWICE((j / 2 ? cuda->matmul_grad : cuda->matmul)(
                    c->gpu, a->gpu, b->gpu, (MatmulKind)kind, m, n, k, alpha, beta));
                exact->matmul(c->exact, a->exact, b->exact, (MatmulKind)kind, m, n, k, alpha, beta);
                // Tensor cores add 16 products at a time and truncate: two half-units each.
                CHECK_ARRAY(c, 2 * (k / 16 + 16));
            }
}

int main(void)
{
    find_gpu();
    RUN(memory);
    RUN(norm_and_its_gradient);
    RUN(mix_norm);
    RUN(mix_norm_gradient);
    RUN(backout_norm_and_its_gradient);
    RUN(embedding_and_its_gradient);
    RUN(embedding_scatter);
    RUN(rows_gathered);
    RUN(relu2_and_add);
    RUN(adam);
    RUN(load_param_and_accumulate);
    RUN(sum);
    RUN(softcap_loss);
    RUN(matrix_products);
    return TEST_SUMMARY();
}
