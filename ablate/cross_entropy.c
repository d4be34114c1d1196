#include "cross_entropy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../ops/random.h"
#include "polynomial.h"

enum { MAX_NUMBERS = 3 * NS_MAX_ITERATIONS };

typedef struct {
    double loss, x[MAX_NUMBERS]; // a b c of each triple
} Candidate;

double spectra_loss(const Spectra *s, const NsCoeff *p, int k)
{
    double sum = 0, excess = 0;
    for (int i = 0; i < s->matrices; i++) {
        double square = 0;
        for (int j = 0; j < s->each; j++) {
            const double off = polynomial_chain(p, k, s->sigma[i * s->each + j]) - 1;
            square += off * off;
        }
        sum += sqrt(square / s->each);
    }
    for (int i = 1; i <= 102; i++)
        excess = fmax(excess, fabs(polynomial_chain(p, k, i / 100.0)) - 1.1);
    const double loss = sum / s->matrices + excess * excess;
    return isfinite(loss) ? loss : INFINITY;
}

static double normal(uint64_t *state)
{
    const double u = random_uniform(state), v = random_uniform(state);
    return sqrt(-2 * log1p(-u)) * cos(2 * M_PI * v);
}

static int by_loss(const void *a, const void *b)
{
    const double x = ((const Candidate *)a)->loss, y = ((const Candidate *)b)->loss;
    return (x > y) - (x < y);
}

static void to_triples(NsCoeff *p, const double *x, int k)
{
    for (int i = 0; i < k; i++) p[i] = (NsCoeff){x[3 * i], x[3 * i + 1], x[3 * i + 2]};
}

double cross_entropy_search(const CrossEntropy *how, const Spectra *s, NsCoeff *p, int k)
{
    const int n = 3 * k, count = how->population;
    const int elite = fmax(2, fmin(count, how->elite * count));
    Candidate *drawn = malloc(sizeof *drawn * (size_t)count),
              best = {.loss = spectra_loss(s, p, k)};
    double mean[MAX_NUMBERS] = {0}, deviation[MAX_NUMBERS];
    uint64_t state = random_mix(how->seed);
    for (int i = 0; i < k; i++)
        mean[3 * i] = p[i].a, mean[3 * i + 1] = p[i].b, mean[3 * i + 2] = p[i].c;
    memcpy(best.x, mean, sizeof mean);
    for (int i = 0; i < n; i++) deviation[i] = how->spread * fmax(fabs(mean[i]), 0.1);

    for (int g = 0; g < how->generations; g++) {
        for (int c = 0; c < count; c++)
            for (int i = 0; i < n; i++) drawn[c].x[i] = mean[i] + deviation[i] * normal(&state);
#pragma omp parallel for
        for (int c = 0; c < count; c++) {
            NsCoeff triples[NS_MAX_ITERATIONS];
            to_triples(triples, drawn[c].x, k);
            drawn[c].loss = spectra_loss(s, triples, k);
        }
        qsort(drawn, (size_t)count, sizeof *drawn, by_loss);
        if (drawn[0].loss < best.loss) best = drawn[0];
        for (int i = 0; i < n; i++) {
            double sum = 0, square = 0;
            for (int c = 0; c < elite; c++) sum += drawn[c].x[i];
            for (int c = 0; c < elite; c++) square += pow(drawn[c].x[i] - sum / elite, 2);
            const double old = how->momentum;
            mean[i] = old * mean[i] + (1 - old) * sum / elite;
            deviation[i] = old * deviation[i] + (1 - old) * sqrt(square / elite);
        }
        if (how->progress) how->progress(g + 1, how->generations, best.loss);
    }
    to_triples(p, best.x, k);
    free(drawn);
    return best.loss;
}
