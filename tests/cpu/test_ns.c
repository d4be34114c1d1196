// Orthogonalisation on the CPU against fp64 polar factors, closed forms, published errors, and a
// plain low-precision computation.
#include "../../ns.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../golden/golden.h"
#include "../test.h"
#include "ns_naive.h"
#include "../../ablate/svd.h"

static uint64_t seed_state;

static double uniform(void) // SplitMix64
{
    uint64_t z = seed_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static double gaussian(void)
{
    return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

static double *gaussian_matrix(uint64_t seed, size_t n)
{
    double *x = malloc(n * sizeof(double));
    seed_state = seed;
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)gaussian();
    return x;
}

static NsMethod method_with(const char *name, const char *storage)
{
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    if (storage) CHECK(ns_method_set_storage(&method, storage, &err), "%s", err.text);
    return method;
}

static int run_f64(const NsMethod *method, double *x, int batch, int m, int n, int at_once)
{
    void *work = malloc(ns_workspace_size(method, at_once, m, n, sizeof(double)));
    int failed = ns_orthogonalize_f64(method, x, batch, m, n, work, at_once);
    free(work);
    return failed;
}

static int run_f32(const NsMethod *method, float *x, int batch, int m, int n, int at_once)
{
    void *work = malloc(ns_workspace_size(method, at_once, m, n, sizeof(float)));
    int failed = ns_orthogonalize_f32(method, x, batch, m, n, work, at_once);
    free(work);
    return failed;
}

// out = the method in float arithmetic on x given in double.
static int run_narrow(double *out, const NsMethod *method, const double *x, int m, int n)
{
    size_t size = (size_t)m * n;
    float *f = malloc(size * sizeof(float));
    for (size_t i = 0; i < size; i++) f[i] = (float)x[i];
    int failed = run_f32(method, f, 1, m, n, 1);
    for (size_t i = 0; i < size; i++) out[i] = f[i];
    free(f);
    return failed;
}

static double norm(const double *x, size_t n) { return naive_norm(x, n); }

static double distance(const double *x, const double *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(sum);
}

static double polar_error(const double *y, const double *polar, int m, int n)
{
    return distance(y, polar, (size_t)m * n) / sqrt(m < n ? m : n);
}

// ---- exact arithmetic -------------------------------------------------------------------------

static const int shapes[][2] = {{1, 1}, {1, 12}, {6, 12}, {12, 6}, {64, 64}, {48, 192}};
enum { SHAPES = 6, LARGEST = NAIVE_LARGEST };

// What the iteration does to a singular value.
static double polynomial(const NsMethod *m, double x)
{
    for (int k = 0; k < m->iterations; k++)
        x = x * (m->coeff[k].a + x * x * (m->coeff[k].b + x * x * m->coeff[k].c));
    return x;
}

// Row orthogonal inputs have closed forms: one singular value in, the polynomial of it out.
TEST(closed_forms)
{
    for (int i = 0; ns_method_name(i); i++) {
        NsMethod m = method_with(ns_method_name(i), "real");
        double d[4] = {3, -2, 0.5, 7}, x[16] = {0};
        for (int k = 0; k < 4; k++) x[5 * k] = d[k];
        double square = 9 + 4 + 0.25 + 49, fourth = sqrt(81 + 16 + 0.0625 + 2401);
        CHECK(run_f64(&m, x, 1, 4, 4, 1) == 0);
        for (int k = 0; k < 4; k++) {
            double w = 1 + m.delta;
            double in = m.norm == NS_NORM_FROBENIUS ? d[k] / (w * sqrt(square) + m.eps)
                        : m.norm == NS_NORM_AOL     ? d[k] / sqrt(w * d[k] * d[k] + m.eps)
                                                    : d[k] / sqrt(w * fourth + m.eps);
            CHECK_NEAR(x[5 * k], polynomial(&m, in), 1e-12);
        }
        for (int k = 0; k < 16; k++)
            if (k % 5) CHECK_NEAR(x[k], 0, 0);
    }
    NsMethod turbo = method_with("turbo4", "real"); // specification 9.2 #15
    CHECK_NEAR(polynomial(&turbo, 0.99015), 1.138, 5e-4);
    CHECK_NEAR(polynomial(&turbo, 0.01), 0.9813, 5e-5);
}

// Every method and table reaches the polar factor as nearly as its polynomial allows on the
// spectrum; the error against the polar factor is then known from the singular values alone.
TEST(frobenius_error_follows_the_polynomial)
{
    enum { M = 24, N = 40 };
    double *g = gaussian_matrix(11, M * N), polar[M * N], sigma[M], x[M * N];
    svd_polar(polar, sigma, g, M, N);
    const char *const tables[] = {"jordan", "you", "polar_express", "cans", "turbo_ga", "cubic"};
    for (int t = 0; t < 6; t++)
        for (int k = 1; k <= NS_MAX_ITERATIONS; k++) {
            NsMethod m = method_with("you5", "real");
            Error err;
            CHECK(ns_method_set_coeffs(&m, tables[t], k, &err), "%s", err.text);
            memcpy(x, g, sizeof x);
            run_f64(&m, x, 1, M, N, 1);
            double sum = 0, scale = norm(g, M * N) + m.eps;
            for (int i = 0; i < M; i++) sum += pow(polynomial(&m, sigma[i] / scale) - 1, 2);
            CHECK_NEAR(polar_error(x, polar, M, N), sqrt(sum / M), 1e-9);
        }
    free(g);
}

TEST(gram_is_standard)
{
    const char *const names[] = {"turbo4", "turbo5",      "polar5",  "muon5",
                                 "you5",   "turbo-gram5", "s4-gram5"};
    const char *const restarts[] = {"", "2", "1,3", "1,2,3"};
    for (int i = 0; i < 7; i++)
        for (int s = 0; s < SHAPES; s++) {
            int rows = shapes[s][0], cols = shapes[s][1];
            size_t size = (size_t)rows * cols;
            NsMethod m = method_with(names[i], "real");
            Error err;
            double *g = gaussian_matrix(20 + (uint64_t)s, size), x[LARGEST], y[LARGEST];
            memcpy(x, g, size * sizeof(double));
            ns_method_set_gram(&m, false, NULL, &err);
            run_f64(&m, x, 1, rows, cols, 1);
            for (int r = 0; r < 4; r++) {
                memcpy(y, g, size * sizeof(double));
                CHECK(ns_method_set_gram(&m, true, restarts[r], &err), "%s", err.text);
                run_f64(&m, y, 1, rows, cols, 1);
                CHECK_NEAR(distance(x, y, size), 0, 1e-10 * norm(x, size));
            }
            free(g);
        }
}

// By shape, wide and tall matrices go through the gram variant, and the others do not: bit for bit.
TEST(by_shape)
{
    static const int sizes[][2] = {{24, 24}, {24, 47}, {24, 48}, {96, 24}, {1, 1}, {1, 2}};
    for (int s = 0; s < 6; s++) {
        const int rows = sizes[s][0], cols = sizes[s][1];
        const size_t size = (size_t)rows * cols;
        const bool gram = rows >= 2 * cols || cols >= 2 * rows;
        NsMethod m = method_with("turbo5", NULL),
                 same = method_with(gram ? "turbo-gram5" : "turbo5", NULL);
        double *g = gaussian_matrix(50, size), *x = malloc(size * sizeof *x);
        memcpy(x, g, size * sizeof *x);
        ns_method_set_by_shape(&m);
        run_f64(&m, g, 1, rows, cols, 1);
        run_f64(&same, x, 1, rows, cols, 1);
        CHECK(!memcmp(x, g, size * sizeof *x), "%d x %d", rows, cols);
        free(g), free(x);
    }
}

// ---- every method and storage -----------------------------------------------------------------

// Exact symmetries: sign, powers of two where eps is negligible, transposition; and batches,
// threads.
TEST(symmetries)
{
    const char *const storages[] = {"bf16", "f16", "real"};
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 3; t++)
            for (int s = 0; s < SHAPES; s++) {
                int rows = shapes[s][0], cols = shapes[s][1];
                size_t size = (size_t)rows * cols;
                NsMethod m = method_with(ns_method_name(i), storages[t]);
                double *g = gaussian_matrix(30 + (uint64_t)s, 3 * size);
                float *x = malloc(3 * size * sizeof(float)), *y = malloc(3 * size * sizeof(float));
                for (size_t k = 0; k < 3 * size; k++) x[k] = y[k] = (float)g[k];
                CHECK(run_f32(&m, x, 3, rows, cols, 1) == 0);
                CHECK(run_f32(&m, y, 3, rows, cols, 3) == 0);
                CHECK(!memcmp(x, y, 3 * size * sizeof(float)), "%s: threads matter", m.name);
                for (size_t k = 0; k < size; k++) y[k] = -(float)g[size + k];
                run_f32(&m, y, 1, rows, cols, 1);
                size_t differ = 0, off_grid = 0;
                for (size_t k = 0; k < size; k++) {
                    differ += y[k] != -x[size + k];
                    off_grid += m.storage == DT_BF16  ? x[k] != round_bf16(x[k])
                                : m.storage == DT_F16 ? x[k] != round_f16(x[k])
                                                      : 0;
                }
                CHECK(!off_grid, "%s: %zu numbers are not %s", m.name, off_grid, storages[t]);
                CHECK(!differ, "%s: PE(-G) is not -PE(G)", m.name);
                for (int a = 0; a < rows; a++)
                    for (int b = 0; b < cols; b++)
                        y[b * rows + a] = (float)g[2 * size + a * cols + b];
                run_f32(&m, y, 1, cols, rows, 1);
                for (int a = 0; a < rows && rows != cols; a++)
                    for (int b = 0; b < cols; b++)
                        differ += y[b * rows + a] != x[2 * size + a * cols + b];
                CHECK(!differ, "%s: a tall matrix is not its transpose", m.name);
                free(g), free(x), free(y);
            }
}

TEST(scales)
{
    const double factors[] = {0x1p100, 0x1p30, 0x1p10};
    enum { M = 12, N = 20 };
    double *g = gaussian_matrix(41, M * N);
    float x[M * N], y[M * N];
    for (int i = 0; ns_method_name(i); i++) {
        NsMethod m = method_with(ns_method_name(i), NULL);
        for (int k = 0; k < M * N; k++) x[k] = (float)(g[k] * 0x1p20); // eps already negligible
        run_f32(&m, x, 1, M, N, 1);
        for (int f = 0; f < 3; f++) {
            for (int k = 0; k < M * N; k++) y[k] = (float)(g[k] * factors[f]);
            CHECK(run_f32(&m, y, 1, M, N, 1) == 0);
            double off = 0, size = 0;
            for (int k = 0; k < M * N; k++) off += fabs(x[k] - y[k]), size += fabs(x[k]);
            CHECK_NEAR(off, 0, 2e-3 * size); // a few flips of a last place where eps still shows
        }
        for (int k = 0; k < M * N; k++)
            y[k] = (float)(g[k] * 0x1p-120); // eps rules: shrunk, not NaN
        CHECK(run_f32(&m, y, 1, M, N, 1) == 0);
        for (int k = 0; k < M * N; k++) CHECK(fabsf(y[k]) < 1e-25f);
    }
    NsMethod m = method_with("turbo4", "real"); // eps is absolute in the units of G
    double small[M * N], sums, s;
    for (int k = 0; k < M * N; k++) small[k] = g[k] * 1e-4;
    m.iterations = 1, m.coeff[0] = (NsCoeff){1, 0, 0}; // the normaliser alone
    run_f64(&m, small, 1, M, N, 1);
    for (int a = 0; a < M; a++) {
        sums = 0;
        for (int b = 0; b < M; b++) {
            s = 0;
            for (int k = 0; k < N; k++) s += g[a * N + k] * g[b * N + k] * 1e-8;
            sums += fabs(s);
        }
        s = 1 / sqrt(1.02 * sums + 1e-6);
        for (int k = 0; k < N; k++) CHECK_NEAR(small[a * N + k], s * g[a * N + k] * 1e-4, 1e-13);
    }
    free(g);
}

TEST(zeros_and_poison)
{
    enum { M = 6, N = 12, SIZE = M * N };
    const char *const storages[] = {"bf16", "f16", "real"};
    double *g = gaussian_matrix(51, 4 * SIZE);
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 3; t++) {
            NsMethod m = method_with(ns_method_name(i), storages[t]);
            float zero[SIZE] = {0}, x[4 * SIZE], y[SIZE];
            CHECK(run_f32(&m, zero, 1, M, N, 1) == 0);
            for (int k = 0; k < SIZE; k++) CHECK(zero[k] == 0);
            for (int k = 0; k < 4 * SIZE; k++) x[k] = (float)g[k];
            x[SIZE + 5] = NAN, x[2 * SIZE + 70] = -INFINITY;
            memcpy(y, x + 3 * SIZE, sizeof y);
            CHECK(run_f32(&m, x, 4, M, N, 2) == 2);
            CHECK(run_f32(&m, y, 1, M, N, 1) == 0);
            for (int k = 0; k < SIZE; k++)
                CHECK(isfinite(x[k]) && isnan(x[SIZE + k]) && isnan(x[2 * SIZE + k]));
            CHECK(!memcmp(y, x + 3 * SIZE, sizeof y), "poison spread to a neighbour");
            m.eps = 0; // nothing then keeps zeros from a division by zero but the code
            CHECK(run_f32(&m, zero, 1, M, N, 1) == 0 && zero[0] == 0);
            memset(x, 0, sizeof x); // one row alone: the others stay zero
            x[3] = 2;
            CHECK(run_f32(&m, x, 1, M, N, 1) == 0);
            for (int k = 0; k < SIZE; k++) CHECK(k == 3 ? x[k] != 0 && isfinite(x[k]) : x[k] == 0);
        }
    NsMethod none = method_with("muon5", "real"); // without a normaliser 10 leaves every domain
    Error err;
    ns_method_set_norm(&none, "none", &err);
    ns_method_set_coeffs(&none, "jordan", 8, &err);
    float x[SIZE];
    for (int k = 0; k < SIZE; k++) x[k] = 10 * (float)g[k];
    CHECK(run_f32(&none, x, 1, M, N, 1) == 1 && isnan(x[0]), "divergence is reported");
    free(g);
}

// Distance to the same method in exact arithmetic: at most twice that of the naive program, whose
// storage is the same.
TEST(rounding_error_is_at_most_twice_the_naive)
{
    const char *const storages[] = {"bf16", "f16"};
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 2; t++)
            for (int s = 3; s < SHAPES; s++) {
                int rows = shapes[s][0], cols = shapes[s][1];
                if (rows > cols) continue;
                size_t size = (size_t)rows * cols;
                NsMethod m = method_with(ns_method_name(i), storages[t]);
                NsMethod exact = method_with(ns_method_name(i), "real");
                double *g = gaussian_matrix(61 + (uint64_t)s, size), x[LARGEST], y[LARGEST],
                       z[LARGEST];
                memcpy(x, g, size * sizeof(double));
                memcpy(z, g, size * sizeof(double));
                run_f64(&exact, x, 1, rows, cols, 1);
                run_narrow(y, &m, g, rows, cols);
                naive(z, &m, rows, cols);
                double ours = distance(x, y, size), theirs = distance(x, z, size);
                CHECK(ours <= 2 * theirs, "%s %s %dx%d: %g against %g", m.name, storages[t], rows,
                      cols, ours / norm(x, size), theirs / norm(x, size));
                free(g);
            }
}

// float without storage rounding is double up to float's own rounding, which the iteration
// amplifies as it does the smallest singular values.
TEST(float_follows_double)
{
    for (int i = 0; ns_method_name(i); i++)
        for (int s = 0; s < SHAPES; s++) {
            int rows = shapes[s][0], cols = shapes[s][1];
            size_t size = (size_t)rows * cols;
            NsMethod m = method_with(ns_method_name(i), "real");
            double *g = gaussian_matrix(71 + (uint64_t)s, size), x[LARGEST], y[LARGEST];
            memcpy(x, g, size * sizeof(double));
            run_f64(&m, x, 1, rows, cols, 1);
            run_narrow(y, &m, g, rows, cols);
            double slope = 1; // of the polynomial at 0; the gram form iterates on squares
            for (int k = 0; k < m.iterations; k++) slope *= m.coeff[k].a;
            double e = distance(x, y, size) / norm(x, size);
            CHECK(e <= (m.gram ? slope * slope : slope) * 0x1p-24, "%s %dx%d: %g", m.name, rows,
                  cols, e);
            free(g);
        }
}

// turbo_muon.md section 2: polar errors of Gaussian matrices in bf16. The published mean must lie
// within three standard errors of the mean over our matrices.
TEST(published_errors)
{
    enum { DRAWS = 16 };
    static const struct {
        const char *method;
        int n, draws;
        double published;
    } rows[] = {
        {"muon5", 64, DRAWS, .214}, {"you5", 64, DRAWS, .068}, {"turbo4-you", 64, DRAWS, .089},
        {"muon5", 256, 6, .209},    {"you5", 256, 6, .094},    {"turbo4-you", 256, 6, .093},
    };
    double *polar[2][DRAWS], *g[2][DRAWS], *y = malloc(sizeof(double) * 256 * 256);
    for (int big = 0; big < 2; big++)
        for (int d = 0; d < (big ? 6 : DRAWS); d++) {
            int n = big ? 256 : 64;
            g[big][d] = gaussian_matrix(100 + (uint64_t)(big * DRAWS + d), (size_t)n * n);
            polar[big][d] = malloc(sizeof(double) * (size_t)n * n);
            svd_polar(polar[big][d], NULL, g[big][d], n, n);
        }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        NsMethod m = method_with(rows[i].method, "bf16");
        int n = rows[i].n, draws = rows[i].draws;
        double sum = 0, squares = 0;
        for (int d = 0; d < draws; d++) {
            run_narrow(y, &m, g[n == 256][d], n, n);
            double e = polar_error(y, polar[n == 256][d], n, n);
            sum += e, squares += e * e;
        }
        double mean = sum / draws, deviation = sqrt((squares - draws * mean * mean) / (draws - 1));
        printf("     %-10s n = %3d: polar error %.4f +- %.4f, published %.3f\n", m.name, n, mean,
               deviation / sqrt(draws), rows[i].published);
        CHECK_NEAR(mean, rows[i].published,
                   3 * deviation / sqrt(draws) + 0.0005); // + its last digit
    }
    free(y);
    for (int big = 0; big < 2; big++)
        for (int d = 0; d < (big ? 6 : DRAWS); d++) free(g[big][d]), free(polar[big][d]);
}

// With a relative eps no scale matters; powers of two change no bit, in no storage.
TEST(relative_eps)
{
    static const char *const storages[] = {"bf16", "f16", "real"};
    const double factors[] = {1e-12, 1e-6, 1e6, 1e12};
    enum { M = 12, N = 20 };
    double *g = gaussian_matrix(43, M * N);
    for (int k = 0; k < M * N; k++) g[k] = (float)g[k];
    for (int i = 0; ns_method_name(i); i++)
        for (int t = 0; t < 3; t++) {
            NsMethod m = method_with(ns_method_name(i), storages[t]);
            Error err;
            CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
            float x[M * N], y[M * N];
            for (int k = 0; k < M * N; k++) x[k] = (float)g[k];
            CHECK(run_f32(&m, x, 1, M, N, 1) == 0);
            for (int e = -90; e <= 120; e += 15) { // no subnormals
                for (int k = 0; k < M * N; k++) y[k] = (float)ldexp(g[k], e);
                CHECK(run_f32(&m, y, 1, M, N, 1) == 0);
                CHECK(!memcmp(x, y, sizeof x), "%s %s: 2^%d", m.name, storages[t], e);
            }
            NsMethod exact = m;
            exact.storage = DT_F64;
            double reference[M * N], scaled[M * N];
            memcpy(reference, g, sizeof reference);
            CHECK(run_f64(&exact, reference, 1, M, N, 1) == 0);
            for (int f = 0; f < 4; f++) {
                for (int k = 0; k < M * N; k++) scaled[k] = g[k] * factors[f];
                CHECK(run_f64(&exact, scaled, 1, M, N, 1) == 0);
                for (int k = 0; k < M * N; k++) CHECK_NEAR(scaled[k], reference[k], 1e-10);
            }
            memset(y, 0, sizeof y);
            CHECK(run_f32(&m, y, 1, M, N, 1) == 0);
            for (int k = 0; k < M * N; k++) CHECK(y[k] == 0);
        }
    free(g);
}

// The same methods from PyTorch in float64.
TEST(golden)
{
    GoldenFile f = golden_open("tests/golden/ns.txt");
    int entries = 0, cases = 0;
    for (char *kind; (kind = golden_next(&f));) {
        if (!strcmp(kind, "sketch")) {
            entries = (int)golden_int(&f);
            continue;
        }
        char label[40];
        Error err;
        NsMethod m = method_with("muon5", "real");
        snprintf(label, sizeof label, "%s", golden_word(&f));
        CHECK(ns_method_set_norm(&m, golden_word(&f), &err), "%s", err.text);
        m.delta = golden_double(&f);
        m.eps = golden_double(&f);
        char table[40];
        snprintf(table, sizeof table, "%s", golden_word(&f));
        CHECK(ns_method_set_coeffs(&m, table, (int)golden_int(&f), &err), "%s", err.text);
        m.gram = golden_int(&f) != 0;
        for (int left = (int)golden_int(&f); left > 0; left--) m.restarts |= 1u << golden_int(&f);
        int rows = (int)golden_int(&f), cols = (int)golden_int(&f);
        uint64_t seed = (uint64_t)golden_int(&f);
        double scale = golden_double(&f), polar = golden_double(&f),
               orthogonality = golden_double(&f);
        size_t size = (size_t)rows * cols;
        GoldenSketch expected = {.n = size};
        golden_read_sketch(&f, &expected, entries);
        double x[LARGEST], reference[LARGEST], sum = 0;
        for (size_t i = 0; i < size; i++) x[i] = scale * (2 * golden_uniform(seed, i) - 1);
        if (rows <= cols) svd_polar(reference, NULL, x, rows, cols);
        CHECK(run_f64(&m, x, 1, rows, cols, 1) == 0);
        double error = golden_error(&expected, x, size);
        CHECK(error <= 1e-10, "%s %dx%d: %g", label, rows, cols, error);
        if (rows <= cols) { // both errors, which also judges svd.h
            CHECK_NEAR(polar_error(x, reference, rows, cols), polar, 1e-9);
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < rows; j++) {
                    double dot = i == j ? -1 : 0;
                    for (int k = 0; k < cols; k++) dot += x[i * cols + k] * x[j * cols + k];
                    sum += dot * dot;
                }
            CHECK_NEAR(sqrt(sum / rows), orthogonality, 1e-9);
        }
        cases++;
    }
    CHECK(cases > 200, "%d cases", cases);
}

int main(void)
{
    RUN(closed_forms);
    RUN(frobenius_error_follows_the_polynomial);
    RUN(gram_is_standard);
    RUN(by_shape);
    RUN(symmetries);
    RUN(scales);
    RUN(zeros_and_poison);
    RUN(rounding_error_is_at_most_twice_the_naive);
    RUN(float_follows_double);
    RUN(published_errors);
    RUN(relative_eps);
    RUN(golden);
    return TEST_SUMMARY();
}
