#include "samples.h"

#include <math.h>
#include <stdlib.h>

#include "../run/safetensors.h"
#include "inputs.h"
#include "svd.h"

static double frobenius(const double *x, size_t size)
{
    double sum = 0;
    for (size_t i = 0; i < size; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

void sample_apply(double *y, const Sample *s, const NsMethod *method, double factor)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    float *x = malloc(sizeof(float) * size);
    void *work = malloc(ns_workspace_size(method, 1, s->m, s->n, sizeof(float)));
    for (size_t i = 0; i < size; i++) x[i] = (float)(factor * s->g[i]);
    ns_orthogonalize_f32(method, x, 1, s->m, s->n, work, 1);
    for (size_t i = 0; i < size; i++) y[i] = x[i];
    free(x), free(work);
}

double sample_distance(const double *y, const Sample *s)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    double off = 0;
    for (size_t i = 0; i < size; i++) off += (y[i] - s->polar[i]) * (y[i] - s->polar[i]);
    return sqrt(off) / frobenius(s->polar, size);
}

double sample_orthogonality(const double *y, int m, int n)
{
    double off = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j <= i; j++) {
            double dot = -(i == j);
            for (int k = 0; k < n; k++) dot += y[(size_t)i * n + k] * y[(size_t)j * n + k];
            off += (i == j ? 1 : 2) * dot * dot;
        }
    return sqrt(off / m);
}

double sample_descent(const double *y, const Sample *s)
{
    const size_t size = (size_t)s->m * (size_t)s->n;
    double along = 0, exact = 0;
    for (size_t i = 0; i < size; i++) along += s->g[i] * y[i], exact += s->g[i] * s->polar[i];
    return along / exact * frobenius(s->polar, size) / frobenius(y, size);
}

double sample_largest(const Sample *s)
{
    double most = 0;
    for (int i = 0; i < s->m; i++) most = fmax(most, s->sigma[i]);
    return most;
}

void sample_decompose(Sample *s)
{
    if (s->polar) return;
    s->polar = malloc(sizeof(double) * (size_t)s->m * (size_t)s->n);
    s->sigma = malloc(sizeof(double) * (size_t)s->m);
    svd_polar(s->polar, s->sigma, s->g, s->m, s->n);
}

static bool random_samples(const Studies *o, SampleStudy *study, void *context, Error *err)
{
    for (int z = 0; z < o->n_sizes; z++)
        for (int i = 0; i < o->n_inputs; i++)
            for (int seed = 1; seed <= o->seeds; seed++) {
                const int m = o->size[z].m, n = o->size[z].n;
                Sample s = {
                    o->input[i], m,   n, seed, malloc(sizeof(double) * (size_t)m * (size_t)n),
                    NULL,        NULL};
                bool ok = inputs_fill(s.g, m, n, s.input, o->seed << 20 | (uint64_t)seed) ||
                          fail(err, "no distribution '%.40s'", s.input);
                ok = ok && study(context, &s, err);
                free(s.g), free(s.polar), free(s.sigma);
                if (!ok) return false;
            }
    return true;
}

// Matrix b of a tensor (.., r, c), wide side along rows.
static bool momentum_sample(SampleStudy *study, void *context, const void *data,
                            const SafetensorsTensor *in, int b, int seed, Error *err)
{
    const int64_t r = in->shape[in->ndim - 2], c = in->shape[in->ndim - 1];
    Sample s = {"momentum",
                (int)(r < c ? r : c),
                (int)(r < c ? c : r),
                seed,
                malloc(sizeof(double) * (size_t)(r * c)),
                NULL,
                NULL};
    const bool ok = (inputs_matrix(s.g, data, (DType)in->dtype, b, r, c) ||
                     fail(err, "%s holds numbers that are not finite", in->name)) &&
                    study(context, &s, err);
    free(s.g), free(s.polar), free(s.sigma);
    return ok;
}

static bool momentum_samples(const Studies *o, SampleStudy *study, void *context, Error *err)
{
    enum { MIN_SIDE = 16, MAX_SIDE = 1024 };
    Safetensors file;
    bool ok = true, any = false;
    if (!safetensors_open(&file, o->momentum, err)) return false;
    for (int e = 0; ok && e < file.header.count; e++) {
        const SafetensorsTensor *in = &file.header.entries[e].tensor;
        if (in->ndim != 3 || in->dtype > ST_F16 || in->shape[0] < 1 || in->shape[1] < MIN_SIDE ||
            in->shape[2] < MIN_SIDE || in->shape[1] > MAX_SIDE || in->shape[2] > 4 * MAX_SIDE)
            continue;
        any = true;
        const size_t numbers = (size_t)(in->shape[0] * in->shape[1] * in->shape[2]);
        void *data = malloc(numbers * safetensors_dtype_size(in->dtype));
        ok = data ? safetensors_read(&file, in->name, in->dtype, 3, in->shape, data, err)
                  : fail(err, "%s: no memory for %s", o->momentum, in->name);
        const int count = (int)in->shape[0], wanted = o->momentum_matrices;
        for (int k = 0; ok && k < wanted && k < count; k++) // spread over the layers
            ok = momentum_sample(study, context, data, in,
                                 (int)((int64_t)k * count / wanted) % count, k + 1, err);
        free(data);
    }
    safetensors_close(&file);
    return ok && (any || fail(err, "%s holds no bank of matrices", o->momentum));
}

bool samples_each(const Studies *studies, SampleStudy *study, void *context, Error *err)
{
    return random_samples(studies, study, context, err) &&
           (!studies->momentum || momentum_samples(studies, study, context, err));
}
