// Orthogonalisation on the GPU against exact arithmetic: at most twice the error of the CPU's
// emulation of the same storage. Both product kernels: Hopper's and cuBLASLt's.
#include "ns_data.h"

#include "../test.h"

void ns_use_hopper(bool yes);

static NsMethod method_with(const char *name, const char *storage)
{
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    if (storage) CHECK(ns_method_set_storage(&method, storage, &err), "%s", err.text);
    return method;
}

static void store(void *to, DType dtype, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) dtype_set(to, dtype, i, x[i]);
}

// y = the method on x by the GPU, given and returned as `dtype`; the number of NaN matrices. The
// workspace ends in a guard.
static int run_gpu(float *y, const NsMethod *m, const float *x, DType dtype, int batch, int rows,
                   int cols)
{
    size_t n = (size_t)batch * rows * cols,
           work_bytes = ns_workspace_size_cuda(m, batch, rows, cols);
    void *host = malloc(n * dtype_size(dtype));
    store(host, dtype, x, n);
    char *gpu = device_copy(host, n * dtype_size(dtype)), *work = device_room(work_bytes + 64);
    CHECK(ns_orthogonalize_cuda(m, gpu, dtype, batch, rows, cols, work, NULL) == 0);
    int failed = ns_failed_cuda(work, NULL);
    MUST(cudaMemcpy(host, gpu, n * dtype_size(dtype), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++) y[i] = (float)dtype_get(host, dtype, i);
    unsigned char guard[64];
    MUST(cudaMemcpy(guard, work + work_bytes, 64, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 64; i++) CHECK(guard[i] == 0xa5, "written past the workspace");
    MUST(cudaFree(gpu));
    MUST(cudaFree(work));
    free(host);
    return failed;
}

static void run_f32(float *y, const NsMethod *m, const float *x, int batch, int rows, int cols)
{
    void *work = malloc(ns_workspace_size(m, 8, rows, cols, sizeof(float)));
    memcpy(y, x, (size_t)batch * rows * cols * sizeof(float));
    ns_orthogonalize_f32(m, y, batch, rows, cols, work, 8);
    free(work);
}

static double *run_exact(const NsMethod *m, const float *x, int batch, int rows, int cols)
{
    NsMethod exact = *m;
    exact.storage = DT_F64;
    size_t n = (size_t)batch * rows * cols;
    double *y = malloc(n * sizeof(double));
    for (size_t i = 0; i < n; i++) y[i] = x[i];
    void *work = malloc(ns_workspace_size(&exact, 8, rows, cols, sizeof(double)));
    ns_orthogonalize_f64(&exact, y, batch, rows, cols, work, 8);
    free(work);
    return y;
}

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

static size_t count_differing(const float *x, const float *y, size_t n)
{
    size_t differing = 0;
    for (size_t i = 0; i < n; i++) differing += memcmp(x + i, y + i, sizeof *x) != 0;
    return differing;
}

// Bit for bit: again, by every dtype that holds the input, and in another place of another batch
// (of so many that the same tiles are chosen: fewer matrices of 768 take smaller ones).
TEST(same_bits)
{
    static const int shapes[][3] = {{8, 768, 3072}, {9, 768, 768}, {3, 127, 1000}, {3, 6, 12}};
    const char *const names[] = {"turbo4", "s4-gram5"};
    for (int s = 0; s < 4; s++)
        for (int k = 0; k < 2; k++) {
            NsMethod m = method_with(names[k], NULL);
            int batch = shapes[s][0], rows = shapes[s][1], cols = shapes[s][2];
            int part = batch > 4 ? 4 : 1, before = batch - part;
            size_t size = (size_t)rows * cols, n = batch * size;
            float *x = gaussians(7, n), *y = malloc(n * sizeof(float)),
                  *z = malloc(n * sizeof(float));
            for (size_t i = 0; i < n; i++) x[i] = round_bf16(x[i]);
            CHECK(run_gpu(y, &m, x, DT_F32, batch, rows, cols) == 0);
            for (int again = 0; again < 2; again++) {
                CHECK(run_gpu(z, &m, x, DT_F32, batch, rows, cols) == 0);
                CHECK(!count_differing(y, z, n), "%s: not deterministic", names[k]);
            }
            if (m.storage == DT_BF16) {
                CHECK(run_gpu(z, &m, x, DT_BF16, batch, rows, cols) == 0);
                CHECK(!count_differing(y, z, n), "%s: the input's dtype matters", names[k]);
            }
            CHECK(run_gpu(z, &m, x + before * size, DT_F32, part, rows, cols) == 0);
            size_t differing = count_differing(y + before * size, z, part * size);
            CHECK(!differing, "%s %dx%d: the batch matters, %zu numbers", names[k], rows, cols,
                  differing);
            free(x), free(y), free(z);
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
                for (int hopper = 0; hopper < 3; hopper++) { // 2: 16-bit inputs where they lie
                    const DType dtype = hopper == 2 ? DT_BF16 : DT_F32;
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

// With a relative eps powers of two change no bit, and no scale matters.
TEST(scales)
{
    enum { M = 130, N = 200, SIZE = M * N };
    float *g = gaussians(41, SIZE), *x = malloc(sizeof(float) * SIZE),
          *y = malloc(sizeof(float) * SIZE), *z = malloc(sizeof(float) * SIZE);
    const double factors[] = {1e-12, 1e-6, 1, 1e6, 1e12};
    for (int i = 0; ns_method_name(i); i++) {
        NsMethod m = method_with(ns_method_name(i), NULL);
        Error err;
        CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
        CHECK(run_gpu(y, &m, g, DT_F32, 1, M, N) == 0);
        for (int e = -90; e <= 120; e += 30) { // no subnormals
            for (int k = 0; k < SIZE; k++) x[k] = ldexpf(g[k], e);
            CHECK(run_gpu(z, &m, x, DT_F32, 1, M, N) == 0);
            size_t differing = count_differing(y, z, SIZE);
            // Frobenius divides by a norm that is no power of two.
            CHECK(!differing, "%s: 2^%d changes %zu", m.name, e, differing);
        }
        for (int f = 0; f < 5; f++) {
            for (int k = 0; k < SIZE; k++) x[k] = (float)(g[k] * factors[f]);
            CHECK(run_gpu(z, &m, x, DT_F32, 1, M, N) == 0);
            double off = 0, size = 0;
            for (int k = 0; k < SIZE; k++)
                off += pow((double)z[k] - y[k], 2), size += pow((double)y[k], 2);
            // cans5 in bf16 amplifies roundings of the input more than any other.
            CHECK(sqrt(off / size) < (strcmp(m.name, "cans5") ? 0.05 : 0.1), "%s at %g: %g", m.name,
                  factors[f], sqrt(off / size));
        }
    }
    free(g), free(x), free(y), free(z);
}

static double distance(const float *x, const float *y, size_t n)
{
    double off = 0, size = 0;
    for (size_t i = 0; i < n; i++) off += pow((double)x[i] - y[i], 2), size += pow((double)y[i], 2);
    return sqrt(off / size);
}

// 16-bit inputs are multiplied where they lie: the same result as from a copy in fp32, up to the
// storage's roundings, at every scale, and bit for bit where squares fit into fp32.
TEST(inputs_where_they_lie)
{
    static const int shapes[][3] = {{8, 768, 768}, {2, 200, 328}, {3, 127, 1000}};
    static const char *const names[] = {"turbo4",      "polar5",   "s4-polar4", "turbo-gram4",
                                        "turbo-gram5", "s4-gram4", "s4-gram5"};
    for (int s = 0; s < 3; s++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            NsMethod m = method_with(names[k], NULL);
            Error err;
            CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
            const int batch = shapes[s][0], rows = shapes[s][1], cols = shapes[s][2];
            const size_t n = (size_t)batch * rows * cols;
            float *x = gaussians(19, n), *y = malloc(n * sizeof(float)),
                  *z = malloc(n * sizeof(float)), *first = malloc(n * sizeof(float));
            for (size_t i = 0; i < n; i++) x[i] = round_bf16(x[i]);
            CHECK(run_gpu(y, &m, x, DT_F32, batch, rows, cols) == 0);
            CHECK(run_gpu(first, &m, x, DT_BF16, batch, rows, cols) == 0);
            for (int e = -80; e <= 80; e += 16) {
                for (size_t i = 0; i < n; i++) x[i] = ldexpf(x[i], e);
                CHECK(run_gpu(z, &m, x, DT_BF16, batch, rows, cols) == 0);
                for (size_t i = 0; i < n; i++) x[i] = ldexpf(x[i], -e);
                // A second round of gram iterations amplifies the first one's roundings.
                CHECK(distance(z, y, n) < (m.restarts ? 0.05 : 0.01), "%s at 2^%d: %g", names[k], e,
                      distance(z, y, n));
                size_t differing = count_differing(first, z, n);
                CHECK(!differing || abs(e) > 16 || m.norm == NS_NORM_FROBENIUS,
                      "%s at 2^%d: %zu numbers", names[k], e, differing);
            }
            free(x), free(y), free(z), free(first);
        }
}

// Squares far outside fp32's range, in more blocks than the GPU has at once: A is computed again,
// all of it at one scale, and the same each time.
TEST(far_from_one)
{
    enum { BATCH = 64, ROWS = 832, COLS = 840 };
    static const char *const names[] = {"turbo4", "s4-polar4"};
    const size_t n = (size_t)BATCH * ROWS * COLS;
    float *g = malloc(n * sizeof(float)), *x = malloc(n * sizeof(float)),
          *y = malloc(n * sizeof(float)), *z = malloc(n * sizeof(float));
    uint64_t state = 23;
    for (size_t i = 0; i < n; i++)
        g[i] = round_bf16((float)(random_bits(&state) >> 40) * 0x1p-23f - 1);
    for (int k = 0; k < 2; k++) {
        NsMethod m = method_with(names[k], NULL);
        Error err;
        CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
        CHECK(run_gpu(y, &m, g, DT_BF16, BATCH, ROWS, COLS) == 0);
        for (int e = -80; e <= 70; e += 150) {
            for (size_t i = 0; i < n; i++) x[i] = ldexpf(g[i], e);
            CHECK(run_gpu(z, &m, x, DT_BF16, BATCH, ROWS, COLS) == 0);
            for (int b = 0; b < BATCH; b++) {
                const size_t at = (size_t)b * ROWS * COLS;
                const double apart = distance(z + at, y + at, (size_t)ROWS * COLS);
                CHECK(apart < 0.01, "%s at 2^%d, matrix %d: %g", names[k], e, b, apart);
            }
            float *again = malloc(n * sizeof(float));
            CHECK(run_gpu(again, &m, x, DT_BF16, BATCH, ROWS, COLS) == 0);
            CHECK(!count_differing(z, again, n), "%s at 2^%d: not deterministic", names[k], e);
            free(again);
        }
    }
    free(g), free(x), free(y), free(z);
}

// Whole banks and large matrices, by our kernels and by cuBLASLt's: as far apart as the storage's
// roundings make them.
TEST(full_sizes)
{
    static const struct {
        const char *method;
        int batch, rows, cols;
    } cases[] = {{"turbo4", 22, 768, 3072},      {"turbo4", 40, 768, 768},
                 {"turbo-gram4", 22, 768, 3072}, {"s4-gram4", 40, 768, 768},
                 {"turbo4", 1, 4096, 16384},     {"turbo-gram4", 1, 4096, 16384},
                 {"s4-polar4", 1, 4096, 4096}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        NsMethod m = method_with(cases[i].method, NULL);
        const int batch = cases[i].batch, rows = cases[i].rows, cols = cases[i].cols;
        const size_t n = (size_t)batch * rows * cols;
        float *x = malloc(n * sizeof(float)), *y = malloc(n * sizeof(float)),
              *z = malloc(n * sizeof(float));
        uint64_t state = 5;
        for (size_t k = 0; k < n; k++)
            x[k] = round_bf16((float)(random_bits(&state) >> 40) * 0x1p-23f - 1);
        CHECK(run_gpu(y, &m, x, DT_BF16, batch, rows, cols) == 0);
        ns_use_hopper(false);
        CHECK(run_gpu(z, &m, x, DT_BF16, batch, rows, cols) == 0);
        ns_use_hopper(true);
        const double apart = distance(y, z, n);
        printf("     %-11s %2d x %4d x %5d: %.5f from cuBLASLt's\n", cases[i].method, batch, rows,
               cols, apart);
        CHECK(apart < 0.03, "%s %dx%dx%d: %g", cases[i].method, batch, rows, cols, apart);
        free(x), free(y), free(z);
    }
}

int main(void)
{
    find_gpu();
    RUN(every_method_at_small_shapes);
    RUN(recipe_shapes);
    RUN(same_bits);
    RUN(zeros_and_poison);
    RUN(scales);
    RUN(inputs_where_they_lie);
    RUN(far_from_one);
    RUN(full_sizes);
    return TEST_SUMMARY();
}
