// The search for coefficients: polynomials, inputs, and the cross-entropy method.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../ablate/cross_entropy.h"
#include "../../ablate/inputs.h"
#include "../../ablate/polynomial.h"
#include "../../ablate/svd.h"
#include "../test.h"

// The table cans (arXiv 2506.10935) is the chain of best polynomials on [0.001, 1], published with
// four decimals.
TEST(minimax_is_the_published_table)
{
    NsMethod cans;
    Error err;
    NsCoeff p[5];
    CHECK(ns_method_find(&cans, "cans5", &err), "%s", err.text);
    const double error = polynomial_minimax_chain(p, 5, 1e-3, 1, 1);
    for (int i = 0; i < 5; i++)
        CHECK(fabs(p[i].a - cans.coeff[i].a) < 6e-5 && fabs(p[i].b - cans.coeff[i].b) < 6e-5 &&
                  fabs(p[i].c - cans.coeff[i].c) < 6e-5,
              "row %d: %.6f %.6f %.6f", i, p[i].a, p[i].b, p[i].c);
    double worst = 0;
    for (double x = 1e-3; x <= 1; x += 1e-4)
        worst = fmax(worst, fabs(polynomial_chain(p, 5, x) - 1));
    CHECK(fabs(worst - error) < 1e-3 * error, "%g, the last step's error is %g", worst, error);
}

// No odd quintic does better than one whose error is as large at four points by turns.
TEST(minimax_oscillates)
{
    static const double low[] = {1e-3, 0.05, 0.3, 0.9, 0.99999};
    for (int i = 0; i < 5; i++) {
        NsCoeff p;
        const double error = polynomial_minimax(&p, low[i], 1);
        int turns = 0, sign = 0;
        double worst = 0;
        for (int k = 0; k <= 100000; k++) {
            const double off = polynomial_at(p, low[i] + (1 - low[i]) * k / 100000) - 1;
            worst = fmax(worst, fabs(off));
            const int now = fabs(off) < 0.999 * error ? sign : off > 0 ? 1 : -1;
            turns += now != sign;
            sign = now;
        }
        CHECK(worst <= error * (1 + 1e-9) + 1e-15, "[%g, 1]: %g, not %g", low[i], worst, error);
        CHECK(turns == 4 || low[i] > 0.9999, "[%g, 1]: %d extremes", low[i], turns);
    }
}

TEST(chains)
{
    const NsCoeff p[2] = {{2, -1, 0}, {1.5, 0, -0.5}};
    CHECK(fabs(polynomial_chain(p, 2, 0.5) - (1.5 * 0.875 - 0.5 * pow(0.875, 5))) < 1e-15);
    CHECK(polynomial_chain(p, 0, 0.3) == 0.3);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Quartiles of single numbers; scales of rows and columns; the rank.
TEST(distributions)
{
    enum { M = 100, N = 400, SIZE = M * N };
    // The upper quartile: of N(0,1), of U(-1,1), of Cauchy's distribution, and, from tables of
    // stable laws, between those of alpha 1 and 2 (that of variance 2).
    static const struct {
        const char *name;
        double low, high;
    } want[] = {{"gaussian", 0.66, 0.69},
                {"uniform", 0.485, 0.515},
                {"levy1.0", 0.97, 1.03},
                {"levy1.5", 0.94, 0.99},
                {"levy1.75", 0.93, 0.98}};
    double *g = malloc(sizeof(double) * SIZE), *again = malloc(sizeof(double) * SIZE);
    for (int i = 0; i < 5; i++) {
        CHECK(inputs_fill(g, M, N, want[i].name, 7));
        CHECK(inputs_fill(again, M, N, want[i].name, 7));
        CHECK(!memcmp(g, again, sizeof(double) * SIZE), "%s: another draw", want[i].name);
        qsort(g, SIZE, sizeof *g, ascending);
        const double upper = g[3 * SIZE / 4], lower = g[SIZE / 4];
        CHECK(upper > want[i].low && upper < want[i].high && -lower > want[i].low &&
                  -lower < want[i].high,
              "%s: quartiles %.4f %.4f", want[i].name, lower, upper);
    }
    for (int rows = 0; rows < 2; rows++) { // the logarithms of their norms are N(0,1)
        CHECK(inputs_fill(g, M, N, rows ? "rows" : "columns", 3));
        const int count = rows ? M : N;
        double sum = 0, square = 0;
        for (int k = 0; k < count; k++) {
            double norm = 1e-300;
            for (int i = 0; i < (rows ? N : M); i++)
                norm += pow(g[rows ? k * N + i : i * N + k], 2);
            const double x = 0.5 * log(norm / (rows ? N : M));
            sum += x, square += x * x;
        }
        const double sd = sqrt(square / count - pow(sum / count, 2));
        CHECK(fabs(sd - 1) < 3 / sqrt(2.0 * count) + 0.02, "rows %d: sd %.3f", rows, sd);
    }
    CHECK(inputs_fill(g, M, N, "low-rank", 3));
    double *polar = malloc(sizeof(double) * SIZE), sigma[M];
    svd_polar(polar, sigma, g, M, N);
    qsort(sigma, M, sizeof *sigma, ascending);
    CHECK(sigma[M - 6] > 10 * sigma[M - 7], "rank 6 of 100: %.3g, then %.3g", sigma[M - 6],
          sigma[M - 7]);
    CHECK(!inputs_fill(g, M, N, "levy", 1) && !inputs_fill(g, M, N, "", 1));
    free(g), free(again), free(polar);
}

// Wide as it is, tall on its side; what is not a number shows.
TEST(matrices_of_tensors)
{
    float tensor[2 * 6] = {9, 9, 9, 9, 9, 9, 1, 2, 3, 4, 5, 6};
    double g[6];
    CHECK(inputs_matrix(g, tensor, DT_F32, 1, 2, 3) && g[0] == 1 && g[3] == 4 && g[5] == 6);
    CHECK(inputs_matrix(g, tensor, DT_F32, 1, 3, 2) && g[0] == 1 && g[1] == 3 && g[3] == 2);
    tensor[11] = NAN;
    CHECK(!inputs_matrix(g, tensor, DT_F32, 1, 2, 3) && inputs_matrix(g, tensor, DT_F32, 0, 2, 3));
    tensor[0] = -INFINITY;
    CHECK(!inputs_matrix(g, tensor, DT_F32, 0, 2, 3));
}

// What each normaliser promises; and that AOL's effect is that of its definition.
TEST(normalisers)
{
    enum { M = 24, N = 40, SIZE = M * N };
    const double delta = 0.02;
    double g[SIZE], x[SIZE], polar[SIZE], sigma[M];
    for (int i = 0; inputs_name(i); i++) {
        CHECK(inputs_fill(g, M, N, inputs_name(i), 5));
        double norm[4];
        for (int k = NS_NORM_NONE; k <= NS_NORM_SCHATTEN4; k++) {
            memcpy(x, g, sizeof x);
            inputs_normalize(x, M, N, (NsNorm)k, delta);
            svd_polar(polar, sigma, x, M, N);
            norm[k] = 0;
            for (int j = 0; j < M; j++) norm[k] = fmax(norm[k], sigma[j]);
            double square = 0, fourth = 0;
            for (int j = 0; j < M; j++) square += pow(sigma[j], 2), fourth += pow(sigma[j], 4);
            if (k == NS_NORM_FROBENIUS) CHECK(fabs(sqrt(square) * (1 + delta) - 1) < 1e-12);
            if (k == NS_NORM_SCHATTEN4)
                CHECK(fabs(sqrt(fourth) * pow(1 + delta, 2) - (1 + delta)) < 1e-12);
            if (k != NS_NORM_NONE)
                CHECK(norm[k] <= 1 / sqrt(1 + delta) + 1e-12, "%s, %d: %g", inputs_name(i), k,
                      norm[k]);
        }
        CHECK(norm[NS_NORM_SCHATTEN4] >= norm[NS_NORM_FROBENIUS], "%s", inputs_name(i));
        memcpy(x, g, sizeof x);
        inputs_normalize(x, M, N, NS_NORM_AOL, delta);
        for (int r = 0; r < M; r++) {
            double sum = 0;
            for (int j = 0; j < M; j++) {
                double dot = 0;
                for (int c = 0; c < N; c++) dot += g[r * N + c] * g[j * N + c];
                sum += fabs(dot);
            }
            CHECK(fabs(x[r * N] - g[r * N] / sqrt((1 + delta) * sum)) <= 1e-12 * fabs(x[r * N]));
        }
    }
    memset(x, 0, sizeof x);
    inputs_normalize(x, M, N, NS_NORM_AOL, 0);
    for (int i = 0; i < SIZE; i++) CHECK(x[i] == 0);
}

TEST(cross_entropy)
{
    enum { EACH = 32 };
    double sigma[2 * EACH];
    for (int i = 0; i < EACH; i++) // one spectrum narrow, one wide
        sigma[i] = 0.3 + 0.6 * i / (EACH - 1), sigma[EACH + i] = pow(0.001, 1 - i / (EACH - 1.0));
    const Spectra s = {2, EACH, sigma};
    NsMethod start;
    Error err;
    CHECK(ns_method_find(&start, "turbo4", &err));
    const double before = spectra_loss(&s, start.coeff, 4);
    CrossEntropy how = {100, 60, 0.1, 0.5, 0.1, 3, NULL};
    NsCoeff p[4], q[4];
    memcpy(p, start.coeff, sizeof p), memcpy(q, p, sizeof q);
    const double after = cross_entropy_search(&how, &s, p, 4);
    CHECK(after < 0.97 * before, "%g to %g", before, after);
    CHECK(after == spectra_loss(&s, p, 4));
    CHECK(cross_entropy_search(&how, &s, q, 4) == after && !memcmp(p, q, sizeof p),
          "another result");
    for (double x = 0; x <= 1.02; x += 0.01)
        CHECK(fabs(polynomial_chain(p, 4, x)) < 1.1 + sqrt(after), "%g at %g",
              polynomial_chain(p, 4, x), x);
    how.spread = 1, how.generations = 2; // most candidates diverge: what was there stays
    CHECK(cross_entropy_search(&how, &s, p, 4) <= after);
    const NsCoeff wild[1] = {{1e200, 1e300, 1e300}};
    CHECK(isinf(spectra_loss(&s, wild, 1)));
}

int main(void)
{
    RUN(minimax_is_the_published_table);
    RUN(minimax_oscillates);
    RUN(chains);
    RUN(distributions);
    RUN(matrices_of_tensors);
    RUN(normalisers);
    RUN(cross_entropy);
    return TEST_SUMMARY();
}
