// cpu_matmul and cpu_matmul_own in float and double against a plain sum in double.
//
// Both the product and the yardstick are sums of K+3 rounded operations (alpha, beta and the final
// addition are three), so each is within gamma sum|a||b| of the truth, gamma = n u / (1 - n u), u
// half an ulp of 1 (Higham, section 3.1); the test allows the two together. Underflow adds at most
// the least subnormal number per operation.
#include "../../ops/cpu/cpu.h"
#include "../test.h"

#include <float.h>

#ifdef _OPENMP
#include <omp.h>
#endif

typedef void Matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta);
Matmul cpu_matmul_f64, cpu_matmul_own_f64;

typedef struct {
    const char *name;
    Matmul *matmul;
    DType type;
} Variant;

static const Variant variants[] = {
    {"cpu_matmul", cpu_matmul, DT_F32},
    {"cpu_matmul_own", cpu_matmul_own, DT_F32},
    {"cpu_matmul_f64", cpu_matmul_f64, DT_F64},
    {"cpu_matmul_own_f64", cpu_matmul_own_f64, DT_F64},
};
enum { VARIANTS = sizeof variants / sizeof *variants };
static const char *const kinds[] = {"NN", "NT", "TN"};

// An array of a variant's type that starts one number past malloc's alignment.
typedef struct {
    char *block;
    void *data;
    size_t size; // bytes
} Array;

static double get(const void *x, DType t, size_t i)
{
    return t == DT_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

static void set(void *x, DType t, size_t i, double value)
{
    if (t == DT_F64)
        ((double *)x)[i] = value;
    else
        ((float *)x)[i] = (float)value;
}

// n numbers uniform in scale * (-1, 1).
static Array array_new(DType t, size_t n, double scale, uint64_t seed)
{
    Array x = {malloc((n + 1) * dtype_size(t)), NULL, n * dtype_size(t)};
    if (!x.block) {
        fprintf(stderr, "test_matmul: no memory\n");
        exit(1);
    }
    x.data = x.block + dtype_size(t);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        set(x.data, t, i, scale * ((double)(seed >> 11) * 0x1p-52 - 1));
    }
    return x;
}

typedef struct {
    MatmulKind kind;
    int m, n, k;
    double alpha, beta, scale; // of A and of B
} Problem;

typedef struct {
    Array a, b, before, c;
} Arrays;

static Arrays arrays_new(DType t, const Problem *p)
{
    size_t mn = (size_t)p->m * p->n;
    return (Arrays){array_new(t, (size_t)p->m * p->k, p->scale, 1),
                    array_new(t, (size_t)p->k * p->n, p->scale, 2),
                    array_new(t, mn, p->scale * p->scale, 3),
                    array_new(t, mn, p->scale * p->scale, 3)};
}

static void arrays_free(Arrays *x)
{
    free(x->a.block), free(x->b.block), free(x->before.block), free(x->c.block);
}

static void call(const Variant *v, const Problem *p, Arrays *x)
{
    v->matmul(x->c.data, x->a.data, x->b.data, p->kind, p->m, p->n, p->k, p->alpha, p->beta);
}

// Whether c[i,j] is within the bound.
static bool element_ok(const Variant *v, const Problem *p, const Arrays *x, size_t i, size_t j)
{
    size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    double sum = 0, size = 0, before = get(x->before.data, v->type, i * n + j);
    for (size_t q = 0; q < k; q++) {
        double y = get(x->a.data, v->type, p->kind == MM_TN ? q * m + i : i * k + q) *
                   get(x->b.data, v->type, p->kind == MM_NT ? j * k + q : q * n + j);
        sum += y;
        size += fabs(y);
    }
    double expected = p->alpha * sum + (p->beta == 0 ? 0 : p->beta * before);
    double u = v->type == DT_F64 ? DBL_EPSILON / 2 : (double)FLT_EPSILON / 2;
    double least = v->type == DT_F64 ? DBL_TRUE_MIN : (double)FLT_TRUE_MIN;
    double operations = (double)k + 3, gamma = operations * u / (1 - operations * u);
    double bound = gamma * (fabs(p->alpha) * size + fabs(p->beta * before)) + operations * least;
    double got = get(x->c.data, v->type, i * n + j);
    if (fabs(got - expected) <= 2 * bound) return true;
    fprintf(stderr, "%s %s %dx%dx%d alpha %g beta %g: c[%zu,%zu] = %.17g, expected %.17g +- %.3g\n",
            v->name, kinds[p->kind], p->m, p->n, p->k, p->alpha, p->beta, i, j, got, expected,
            2 * bound);
    return false;
}

// Computes the problem and checks `samples` elements, or all when there are no more than that.
static void check_problem(const Variant *v, Problem p, size_t samples)
{
    Arrays x = arrays_new(v->type, &p);
    call(v, &p, &x);
    size_t mn = (size_t)p.m * p.n, step = mn > samples ? mn / samples | 1 : 1, bad = 0;
    for (size_t e = 0; e < mn && !bad; e += step) bad += !element_ok(v, &p, &x, e / p.n, e % p.n);
    if (mn) bad += !element_ok(v, &p, &x, p.m - 1, p.n - 1);
    CHECK(bad == 0);
    arrays_free(&x);
}

TEST(small_and_odd_shapes)
{
    static const int ms[] = {1, 3, 4, 5, 8, 12, 13, 25, 127}, ns[] = {1, 2, 12, 16, 31, 33, 100};
    static const int ks[] = {0, 1, 2, 15, 16, 17, 63, 385};
    static const double scalars[][2] = {{1, 0}, {1, 1}, {-0.5, 0}, {0.3, -1.7}, {2, 0.25}};
    int turn = 0;
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t q = 0; q < sizeof ks / sizeof *ks; q++)
                for (int kind = MM_NN; kind <= MM_TN; kind++)
                    for (int v = 0; v < VARIANTS; v++) {
                        const double *s = scalars[turn++ % 5];
                        check_problem(&variants[v],
                                      (Problem){kind, ms[i], ns[j], ks[q], s[0], s[1], 1}, 300);
                    }
}

TEST(several_blocks_in_each_direction)
{
    static const int shapes[][3] = {
        {250, 3110, 400}, {3000, 12, 6}, {500, 40, 800}, {7, 2000, 770}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = MM_NN; kind <= MM_TN; kind++)
            for (int v = 0; v < VARIANTS; v++) {
                Problem p = {kind, shapes[i][0], shapes[i][1], shapes[i][2], 1.5, -1, 1};
                check_problem(&variants[v], p, 1000);
            }
}

TEST(empty_results_touch_nothing)
{
    for (int v = 0; v < VARIANTS; v++) {
        double c[2] = {7, 7}, a[2] = {1, 1};
        variants[v].matmul(c, a, a, MM_NN, 0, 1, 1, 1, 0);
        variants[v].matmul(c, a, a, MM_NN, 1, 0, 1, 1, 0);
        CHECK(c[0] == 7 && c[1] == 7);
    }
}

TEST(huge_and_tiny_scales)
{
    for (int v = 0; v < VARIANTS; v++)
        for (int kind = MM_NN; kind <= MM_TN; kind++) {
            double big = variants[v].type == DT_F64 ? 1e150 : 1e17;
            check_problem(&variants[v], (Problem){kind, 29, 50, 90, 1, 1, big}, 2000);
            check_problem(&variants[v], (Problem){kind, 29, 50, 90, 1, 1, 1 / big}, 2000);
            check_problem(&variants[v], (Problem){kind, 29, 50, 90, 0.5, 1, 0}, 2000);
        }
}

// Every shape class: few rows, one tile, edges, several blocks.
static const int classes[][3] = {{2, 70, 40}, {12, 64, 40}, {41, 70, 40}, {300, 100, 500}};
enum { CLASSES = sizeof classes / sizeof *classes };

TEST(beta_zero_does_not_read_c)
{
    for (int v = 0; v < VARIANTS; v++)
        for (int i = 0; i < CLASSES; i++)
            for (int kind = MM_NN; kind <= MM_TN; kind++)
                for (int k = 0; k <= classes[i][2]; k += classes[i][2]) {
                    Problem p = {kind, classes[i][0], classes[i][1], k, 1, 0, 1};
                    Arrays x = arrays_new(variants[v].type, &p);
                    size_t mn = (size_t)p.m * p.n, nans = 0;
                    for (size_t e = 0; e < mn; e++) set(x.c.data, variants[v].type, e, NAN);
                    call(&variants[v], &p, &x);
                    for (size_t e = 0; e < mn; e++)
                        nans += isnan(get(x.c.data, variants[v].type, e));
                    CHECK(nans == 0, "%s %s class %d k %d", variants[v].name, kinds[kind], i, k);
                    arrays_free(&x);
                }
}

// A NaN in row i of op(A), in column j of op(B), or in C with beta != 0 appears where it should and
// nowhere else, padding included.
TEST(nan_goes_where_it_should)
{
    for (int v = 0; v < VARIANTS; v++)
        for (int c = 0; c < CLASSES; c++)
            for (int kind = MM_NN; kind <= MM_TN; kind++) {
                DType t = variants[v].type;
                Problem p = {kind, classes[c][0], classes[c][1], classes[c][2], 1, 1, 1};
                Arrays x = arrays_new(t, &p);
                int i = p.m - 1, j = p.n - 1, q = p.k / 2, wrong = 0;
                set(x.a.data, t, kind == MM_TN ? (size_t)q * p.m + i : (size_t)i * p.k + q, NAN);
                set(x.b.data, t, kind == MM_NT ? (size_t)j * p.k + q : (size_t)q * p.n + j, NAN);
                set(x.c.data, t, 1, NAN);
                call(&variants[v], &p, &x);
                for (int r = 0; r < p.m; r++)
                    for (int s = 0; s < p.n; s++) {
                        bool expected = r == i || s == j || (r == 0 && s == 1);
                        wrong += expected != !!isnan(get(x.c.data, t, (size_t)r * p.n + s));
                    }
                CHECK(wrong == 0, "%s %s class %d: %d", variants[v].name, kinds[kind], c, wrong);
                arrays_free(&x);
            }
}

TEST(inside_a_parallel_region)
{
    enum { CALLS = 12 };
    for (int v = 0; v < VARIANTS; v++) {
        Problem p = {MM_NT, 130, 128, 512, 1, 0, 1};
        Arrays x[CALLS];
        for (int i = 0; i < CALLS; i++) x[i] = arrays_new(variants[v].type, &p);
#pragma omp parallel for schedule(dynamic)
        for (int i = 0; i < CALLS; i++) call(&variants[v], &p, &x[i]);
        size_t bad = 0;
        for (int i = 0; i < CALLS; i++) {
            for (int e = 0; e < p.m * p.n; e += 37)
                bad += !element_ok(&variants[v], &p, &x[i], e / p.n, e % p.n);
            bad += memcmp(x[i].c.data, x[0].c.data, x[0].c.size) != 0;
        }
        CHECK(bad == 0);
        for (int i = 0; i < CALLS; i++) arrays_free(&x[i]);
    }
}

TEST(same_bits_every_time)
{
    for (int v = 0; v < VARIANTS; v++)
        for (int c = 0; c < CLASSES; c++)
            for (int kind = MM_NN; kind <= MM_TN; kind++) {
                Problem p = {kind, classes[c][0], classes[c][1], classes[c][2], 0.7, 0, 1};
                Arrays x = arrays_new(variants[v].type, &p), y = arrays_new(variants[v].type, &p);
                call(&variants[v], &p, &x);
                call(&variants[v], &p, &y);
                CHECK(!memcmp(x.c.data, y.c.data, x.c.size), "%s class %d", variants[v].name, c);
#ifdef _OPENMP
                bool own = variants[v].matmul == cpu_matmul_own ||
                           variants[v].matmul == cpu_matmul_own_f64;
                int before = omp_get_max_threads();
                for (int threads = 1; own && threads <= 5; threads += 2) {
                    omp_set_num_threads(threads);
                    call(&variants[v], &p, &y);
                    CHECK(!memcmp(x.c.data, y.c.data, x.c.size), "%s class %d, %d threads",
                          variants[v].name, c, threads);
                }
                omp_set_num_threads(before);
#endif
                arrays_free(&x);
                arrays_free(&y);
            }
}

int main(void)
{
    RUN(small_and_odd_shapes);
    RUN(several_blocks_in_each_direction);
    RUN(empty_results_touch_nothing);
    RUN(huge_and_tiny_scales);
    RUN(beta_zero_does_not_read_c);
    RUN(nan_goes_where_it_should);
    RUN(inside_a_parallel_region);
    RUN(same_bits_every_time);
    return TEST_SUMMARY();
}
