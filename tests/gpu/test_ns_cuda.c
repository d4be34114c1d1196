// Orthogonalisation on the GPU against exact arithmetic: at most twice the error of the CPU's
// emulation of the same storage. Both product kernels: Hopper's and cuBLASLt's.
#include "ns_data.h"

void ns_use_hopper(bool yes);

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The median over the batch of the relative distance to the exact result: where a method is
// unstable in low precision (cans5 on matrices of a few rows), single matrices say nothing.
static double median_error(const float *x, const double *exact, int batch, size_t size)
{
    double *errors = malloc(sizeof(double) * (size_t)batch);
    for (int k = 0; k < batch; k++, x += size, exact += size) {
        double off = 0, all = 0;
        for (size_t i = 0; i < size; i++) {
            off += (x[i] - exact[i]) * (x[i] - exact[i]);
            all += exact[i] * exact[i];
        }
        errors[k] = sqrt(off / all);
    }
    qsort(errors, (size_t)batch, sizeof *errors, ascending);
    double median = errors[batch / 2];
    free(errors);
    return median;
}

// One method and shape, by both product kernels.
static void compare(const char *name, const char *storage, int batch, int rows, int cols)
{
    NsMethod m = method_with(name, storage);
    size_t size = (size_t)rows * cols, n = (size_t)batch * size;
    float *x = gaussians(100 + n, n), *cpu = malloc(n * sizeof(float)),
          *gpu = malloc(n * sizeof(float));
    double *exact = run_exact(&m, x, batch, rows, cols);
    run_f32(cpu, &m, x, batch, rows, cols);
    double theirs = median_error(cpu, exact, batch, size);
    for (int hopper = 0; hopper < 2; hopper++) {
        ns_use_hopper(hopper);
        CHECK(run_gpu(gpu, &m, x, DT_F32, batch, rows, cols) == 0);
        double ours = median_error(gpu, exact, batch, size);
        // fp32 without storage rounding differs by the order of its sums alone.
        CHECK(ours <= 2 * theirs + (m.storage == DT_F64 ? 0x1p-20 : 0),
              "%s %s %dx%dx%d%s: %.3g against %.3g", name, storage ? storage : "", batch, rows,
              cols, hopper ? "" : " cuBLASLt", ours, theirs);
        if (hopper && rows >= 768 && cols >= 768)
            printf("     %-11s %2d x %4d x %4d: error %.5f, CPU emulation %.5f\n", name, batch,
                   rows, cols, ours, theirs);
    }
    ns_use_hopper(true);
    free(x), free(cpu), free(gpu), free(exact);
}

static const char *const storages[] = {"bf16", "f16", "real"};

TEST(every_method_at_small_shapes)
{
    static const int shapes[][3] = {{65, 1, 1},    {65, 1, 12},   {65, 6, 12},
                                    {65, 12, 6},   {33, 32, 64},  {33, 33, 33},
                                    {5, 127, 250}, {5, 130, 129}, {3, 257, 384}};
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 3; t++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                compare(ns_method_name(i), storages[t], shapes[s][0], shapes[s][1], shapes[s][2]);
}

TEST(recipe_shapes)
{
    compare("turbo4", NULL, 1, 127, 1000);
    compare("turbo4", NULL, 3, 768, 768);
    compare("turbo4", NULL, 1, 768, 3072);
    compare("turbo-gram4", NULL, 1, 3072, 768);
    compare("s4-gram5", NULL, 1, 768, 3072);
    compare("polar5", NULL, 1, 768, 768);
    compare("turbo4", NULL, 22, 96, 384);
    compare("s4-gram4", NULL, 40, 96, 96);
}

// One method's input, which bf16, fp16 and fp32 all hold, and what the CPU makes of it in low
// precision and exactly.
typedef struct {
    NsMethod method;
    int batch, rows, cols;
    float *x, *plain;
    double *exact;
} Case;

// Gaussians times 2^exponent, rows and columns of uneven size: factors of others would show.
static Case new_case(const char *name, int batch, int rows, int cols, int exponent)
{
    const size_t n = (size_t)batch * rows * cols;
    Case c = {.method = method_with(name, NULL), .batch = batch, .rows = rows, .cols = cols};
    c.x = gaussians(200 + n, n), c.plain = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const int row = (int)(i / cols % rows), col = (int)(i % cols);
        const float x = ldexpf(c.x[i], exponent + row * 5 % 3 + col * 7 % 4 - 2);
        c.x[i] = round_f16(round_bf16(x)); // no more bits, but no less than fp16's smallest
    }
    c.exact = run_exact(&c.method, c.x, batch, rows, cols);
    run_f32(c.plain, &c.method, c.x, batch, rows, cols);
    return c;
}

static void free_case(Case *c) { free(c->x), free(c->plain), free(c->exact); }

// The GPU's result for the case's first `batch` matrices, which the caller frees.
static float *check_case(const Case *c, DType in, DType out, bool in_place, int batch)
{
    const size_t size = (size_t)c->rows * c->cols, n = batch * size;
    float *y = malloc(n * sizeof(float)), *plain = rounded(out, c->plain, n);
    const int failed = run_gpu_to(y, out, &c->method, c->x, in, in_place, batch, c->rows, c->cols);
    const double ours = mean_error(y, c->exact, batch, size),
                 theirs = mean_error(plain, c->exact, batch, size);
    CHECK(!failed && ours <= 2 * theirs, "%s %dx%dx%d, %s to %s%s: %.3g against %.3g, %d failed",
          c->method.name, batch, c->rows, c->cols, dtype_name(in), dtype_name(out),
          in_place ? " in place" : "", ours, theirs, failed);
    free(plain);
    return y;
}

static const DType dtypes[] = {DT_F32, DT_BF16, DT_F16};
static const char *const main_methods[] = {"turbo4", "s4-gram5", "turbo-gram4", "muon5"};
enum { DTYPES = 3, MAIN_METHODS = 4 };

// In another memory the output's dtype decides how the result is rounded last, and no more.
TEST(every_pair_of_dtypes)
{
    static const int shapes[][3] = {{65, 6, 12},   {65, 12, 6},   {3, 200, 328},
                                    {3, 328, 200}, {3, 127, 250}, {3, 250, 127}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < MAIN_METHODS; k++) {
            const int batch = shapes[s][0];
            const size_t n = (size_t)batch * shapes[s][1] * shapes[s][2];
            Case c = new_case(main_methods[k], batch, shapes[s][1], shapes[s][2], 0);
            for (int in = 0; in < DTYPES; in++) {
                float *whole = check_case(&c, dtypes[in], DT_F32, false, batch);
                for (int out = 0; out < DTYPES; out++) {
                    float *y = check_case(&c, dtypes[in], dtypes[out], false, batch);
                    float *expected = rounded(dtypes[out], whole, n);
                    CHECK(!count_differing(y, expected, n), "%s %dx%d: %s to %s is not as rounded",
                          main_methods[k], c.rows, c.cols, dtype_name(dtypes[in]),
                          dtype_name(dtypes[out]));
                    free(y), free(expected);
                }
                free(check_case(&c, dtypes[in], dtypes[in], true, batch));
                free(whole);
            }
            free_case(&c);
        }
}

// Inputs near both ends of what fp16 holds; their squares are far beyond.
TEST(the_range_of_f16)
{
    static const int shapes[][3] = {{65, 6, 12}, {3, 200, 328}, {3, 328, 200}, {3, 127, 250}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < MAIN_METHODS; k++)
            for (int e = 0; e < 2; e++) {
                const int batch = shapes[s][0];
                Case c = new_case(main_methods[k], batch, shapes[s][1], shapes[s][2], e ? 10 : -12);
                free(check_case(&c, DT_F16, DT_F16, false, batch));
                free(check_case(&c, DT_F16, DT_F16, true, batch));
                free_case(&c);
            }
}

TEST(tall)
{
    static const int shapes[][2] = {{3072, 768}, {1000, 127}, {640, 64}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < MAIN_METHODS; k++) {
            Case c = new_case(main_methods[k], 3, shapes[s][0], shapes[s][1], 0);
            for (int t = 0; t < DTYPES; t++)
                for (int in_place = 0; in_place < 2; in_place++)
                    for (int batch = 1; batch <= 3; batch += 2)
                        free(check_case(&c, dtypes[t], dtypes[t], in_place, batch));
            free_case(&c);
        }
}

// So many that they take the big tiles, of which they fill a part.
TEST(many_matrices_of_few_rows)
{
    static const int shapes[][3] = {
        {300, 72, 200}, {300, 200, 72}, {600, 64, 64}, {150, 136, 264}, {150, 264, 136}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < MAIN_METHODS; k++) {
            const int batch = shapes[s][0];
            Case c = new_case(main_methods[k], batch, shapes[s][1], shapes[s][2], 0);
            for (int t = 0; t < DTYPES; t++)
                free(check_case(&c, dtypes[t], dtypes[t], t != 0, batch));
            free_case(&c);
        }
}

TEST(zeros_and_poison)
{
    static const int shapes[][2] = {{6, 12}, {127, 250}, {256, 384}, {384, 256}};
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 3; t++)
            for (int s = 0; s < 4; s++) {
                NsMethod m = method_with(ns_method_name(i), storages[t]);
                int rows = shapes[s][0], cols = shapes[s][1];
                size_t size = (size_t)rows * cols;
                float *x = gaussians(9, 4 * size), *y = malloc(4 * size * sizeof(float)),
                      *z = malloc(size * sizeof(float));
                memset(x, 0, size * sizeof(float));
                x[size + 5] = NAN, x[3 * size - 2] = -INFINITY;
                for (int hopper = 0; hopper < 4; hopper++) { // 2, 3: inputs where they lie
                    const DType dtype = hopper < 2 ? DT_F32 : hopper == 2 ? DT_BF16 : DT_F16;
                    ns_use_hopper(hopper > 0);
                    CHECK(run_gpu(y, &m, x, dtype, 4, rows, cols) == 2, "%s", m.name);
                    CHECK(run_gpu(z, &m, x + 3 * size, dtype, 1, rows, cols) == 0);
                    // cuBLASLt chooses its kernels by the batch.
                    const double tolerance = hopper && m.storage != DT_F64 ? 0 : 0.5;
                    size_t wrong = 0;
                    for (size_t k = 0; k < size; k++)
                        wrong += y[k] != 0 || !isnan(y[size + k]) || !isnan(y[2 * size + k]) ||
                                 !(fabs(y[3 * size + k] - z[k]) <= tolerance);
                    CHECK(!wrong, "%s %s %dx%d: %zu numbers", m.name, storages[t], rows, cols,
                          wrong);
                }
                free(x), free(y), free(z);
            }
}

int main(void)
{
    find_gpu();
    RUN(every_method_at_small_shapes);
    RUN(recipe_shapes);
    RUN(every_pair_of_dtypes);
    RUN(the_range_of_f16);
    RUN(tall);
    RUN(many_matrices_of_few_rows);
    RUN(zeros_and_poison);
    return TEST_SUMMARY();
}
