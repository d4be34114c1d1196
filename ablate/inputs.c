#include "inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../ops/random.h"

static const char *const names[] = {"gaussian", "uniform", "levy1.0", "levy1.5",
                                    "levy1.75", "rows",    "columns", "low-rank"};
enum { N_NAMES = sizeof names / sizeof *names };

const char *inputs_name(int i) { return i >= 0 && i < N_NAMES ? names[i] : NULL; }

static double normal(uint64_t *state)
{
    const double u = random_uniform(state), v = random_uniform(state);
    return sqrt(-2 * log1p(-u)) * cos(2 * M_PI * v);
}

// Symmetric alpha-stable (Chambers, Mallows and Stuck 1976).
static double stable(double alpha, uint64_t *state)
{
    const double v = M_PI * (random_uniform(state) - 0.5), w = -log1p(-random_uniform(state));
    return sin(alpha * v) / pow(cos(v), 1 / alpha) *
           pow(cos((1 - alpha) * v) / w, (1 - alpha) / alpha);
}

static void scale(double *g, int m, int n, bool rows, uint64_t *state)
{
    for (int k = 0; k < (rows ? m : n); k++) {
        const double factor = exp(normal(state));
        for (int i = 0; i < (rows ? n : m); i++) g[rows ? k * n + i : i * n + k] *= factor;
    }
}

// 0.03 of the noise that is there, plus L R / sqrt(rank).
static void low_rank(double *g, int m, int n, uint64_t *state)
{
    const int rank = m < 32 ? 1 : m / 16;
    double *row = malloc(sizeof(double) * (size_t)rank * (size_t)n);
    for (int i = 0; i < rank * n; i++) row[i] = normal(state);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) g[i * n + j] *= 0.03;
        for (int r = 0; r < rank; r++) {
            const double left = normal(state) / sqrt(rank);
            for (int j = 0; j < n; j++) g[i * n + j] += left * row[r * n + j];
        }
    }
    free(row);
}

bool inputs_fill(double *g, int m, int n, const char *name, uint64_t seed)
{
    uint64_t state = random_mix(seed);
    const bool levy = !strncmp(name, "levy", 4), uniform = !strcmp(name, "uniform");
    int known = 0;
    while (known < N_NAMES && strcmp(names[known], name)) known++;
    if (known == N_NAMES) return false;
    for (int i = 0; i < m * n; i++)
        g[i] = levy      ? stable(atof(name + 4), &state)
               : uniform ? 2 * random_uniform(&state) - 1
                         : normal(&state);
    if (!strcmp(name, "rows") || !strcmp(name, "columns")) scale(g, m, n, *name == 'r', &state);
    if (!strcmp(name, "low-rank")) low_rank(g, m, n, &state);
    return true;
}

bool inputs_matrix(double *g, const void *tensor, DType dtype, int64_t b, int64_t rows,
                   int64_t cols)
{
    bool finite = true;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            const double x = dtype_get(tensor, dtype, (size_t)((b * rows + i) * cols + j));
            g[rows <= cols ? i * cols + j : j * rows + i] = x;
            finite = finite && isfinite(x);
        }
    return finite;
}

void inputs_normalize(double *g, int m, int n, NsNorm norm, double delta)
{
    double *sums = calloc((size_t)m, sizeof(double)), square = 0, gram_square = 0;
    for (int i = 0; i < m * n; i++) square += g[i] * g[i];
    for (int i = 0; i < m && (norm == NS_NORM_AOL || norm == NS_NORM_SCHATTEN4); i++)
        for (int j = 0; j < m; j++) {
            double dot = 0;
            for (int k = 0; k < n; k++) dot += g[i * n + k] * g[j * n + k];
            sums[i] += fabs(dot);
            gram_square += dot * dot;
        }
    for (int i = 0; i < m; i++) {
        const double size = norm == NS_NORM_FROBENIUS   ? pow((1 + delta) * sqrt(square), 2)
                            : norm == NS_NORM_SCHATTEN4 ? (1 + delta) * sqrt(gram_square)
                            : norm == NS_NORM_AOL       ? (1 + delta) * sums[i]
                                                        : 1;
        for (int k = 0; k < n; k++) g[i * n + k] *= size > 0 ? 1 / sqrt(size) : 0;
    }
    free(sums);
}
