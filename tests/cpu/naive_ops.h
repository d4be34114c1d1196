// Every operation of ops.h again, as the plainest loops that its formula allows: included once with
// NUM = double, the yardstick, and once with NUM = float, whose error is what float costs anyway.
// NAIVE(name) appends a suffix. Nothing here is shared with ops/cpu.
#ifndef NUM // read alone, by a linter
#define NUM double
#define NAIVE(name) name
#endif

static NUM NAIVE(sigmoid_of)(NUM z) { return 1 / (1 + (NUM)exp((double)-z)); }

// r and y = r x of one row.
static NUM NAIVE(rms_row)(NUM *y, const NUM *x, int d, double eps)
{
    NUM sum = 0;
    for (int j = 0; j < d; j++) sum += x[j] * x[j];
    NUM r = (NUM)pow((double)(sum / (NUM)d + (NUM)eps), -0.5);
    for (int j = 0; j < d; j++) y[j] = r * x[j];
    return r;
}

// g = r (dy - y mean(dy y)) of one row.
static void NAIVE(rms_row_gradient)(NUM *g, const NUM *dy, const NUM *y, NUM r, int d)
{
    NUM mean = 0;
    for (int j = 0; j < d; j++) mean += dy[j] * y[j];
    mean /= (NUM)d;
    for (int j = 0; j < d; j++) g[j] = r * (dy[j] - y[j] * mean);
}

static void NAIVE(norm_forward)(void *y, void *r, const void *x, int t, int d, double eps)
{
    for (int p = 0; p < t; p++)
        ((NUM *)r)[p] = NAIVE(rms_row)((NUM *)y + p * d, (const NUM *)x + p * d, d, eps);
}

static void NAIVE(norm_backward)(void *dx, const void *dy, const void *y, const void *r, int t,
                                 int d)
{
    NUM g[MAX_WIDTH];
    for (int p = 0; p < t; p++) {
        NAIVE(rms_row_gradient)
        (g, (const NUM *)dy + p * d, (const NUM *)y + p * d, ((const NUM *)r)[p], d);
        for (int j = 0; j < d; j++) ((NUM *)dx)[p * d + j] += g[j];
    }
}

static void NAIVE(mix_norm_forward)(void *x, void *y, void *r, const void *x_in, const void *skip,
                                    const void *skip_gate, const void *x0, const void *lambda,
                                    int t, int d, double eps)
{
    const NUM *l = lambda, *in = x_in, *s = skip, *z = x0;
    for (int i = 0; i < t * d; i++) {
        NUM sum = in[i];
        if (skip) sum += NAIVE(sigmoid_of)(*(const NUM *)skip_gate) * s[i];
        ((NUM *)x)[i] = l[0] * sum + l[1] * z[i];
    }
    NAIVE(norm_forward)(y, r, x, t, d, eps);
}

static void NAIVE(mix_norm_backward)(void *dx, void *dskip, void *dx0, void *dlambda,
                                     void *dskip_gate, const void *dy, const void *y, const void *r,
                                     const void *x_in, const void *skip, const void *skip_gate,
                                     const void *x0, const void *lambda, int t, int d)
{
    const NUM *l = lambda, *in = x_in, *s = skip, *z = x0;
    NUM *g = dx, *dl = dlambda, sigma = 0, of_skip = 0;
    NAIVE(norm_backward)(g, dy, y, r, t, d);
    if (skip) sigma = NAIVE(sigmoid_of)(*(const NUM *)skip_gate);
    for (int i = 0; i < t * d; i++) {
        dl[0] += g[i] * (skip ? in[i] + sigma * s[i] : in[i]);
        dl[1] += g[i] * z[i];
        ((NUM *)dx0)[i] += l[1] * g[i];
        if (skip) {
            ((NUM *)dskip)[i] = l[0] * sigma * g[i];
            of_skip += l[0] * g[i] * s[i];
        }
        g[i] *= l[0];
    }
    if (skip) *(NUM *)dskip_gate += sigma * (1 - sigma) * of_skip;
}

static void NAIVE(backout_norm_forward)(void *y, void *r, const void *x, const void *x_back,
                                        const void *beta, int t, int d, double eps)
{
    NUM *difference = malloc((size_t)(t * d) * sizeof(NUM));
    for (int i = 0; i < t * d; i++)
        difference[i] = ((const NUM *)x)[i] - *(const NUM *)beta * ((const NUM *)x_back)[i];
    NAIVE(norm_forward)(y, r, difference, t, d, eps);
    free(difference);
}

static void NAIVE(backout_norm_backward)(void *dx, void *dx_back, void *dbeta, const void *dy,
                                         const void *y, const void *r, const void *x_back,
                                         const void *beta, int t, int d)
{
    for (int i = 0; i < t * d; i++) ((NUM *)dx)[i] = 0;
    NAIVE(norm_backward)(dx, dy, y, r, t, d);
    for (int i = 0; i < t * d; i++) {
        ((NUM *)dx_back)[i] = -*(const NUM *)beta * ((NUM *)dx)[i];
        *(NUM *)dbeta -= ((NUM *)dx)[i] * ((const NUM *)x_back)[i];
    }
}

static NUM NAIVE(smear)(const void *gate, const NUM *e, int c)
{
    NUM z = 0;
    for (int j = 0; j < c; j++) z += ((const NUM *)gate)[j] * e[j];
    return NAIVE(sigmoid_of)(z);
}

static void NAIVE(embed_forward)(void *x0, void *r, const int32_t *ids, const void *embed,
                                 const void *gate, const void *mu, int t, int d, int c, double eps)
{
    NUM x[MAX_WIDTH];
    for (int p = 0; p < t; p++) {
        const NUM *e = (const NUM *)embed + ids[p] * d;
        for (int j = 0; j < d; j++) {
            x[j] = e[j];
            if (p > 0)
                x[j] += *(const NUM *)mu * NAIVE(smear)(gate, e, c) *
                        ((const NUM *)embed)[ids[p - 1] * d + j];
        }
        ((NUM *)r)[p] = NAIVE(rms_row)((NUM *)x0 + p * d, x, d, eps);
    }
}

// Specification 3.3 scattering from each row to itself and the one before.
static void NAIVE(embed_backward)(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                                  const void *r, const int32_t *ids, const void *embed,
                                  const void *gate, const void *mu, int t, int d, int c)
{
    NUM dx[MAX_WIDTH], *out = de;
    const NUM m = *(const NUM *)mu;
    for (int i = 0; i < t * d; i++) out[i] = 0;
    for (int p = 0; p < t; p++) {
        NAIVE(rms_row_gradient)
        (dx, (const NUM *)dx0 + p * d, (const NUM *)x0 + p * d, ((const NUM *)r)[p], d);
        for (int j = 0; j < d; j++) out[p * d + j] += dx[j];
        if (p == 0) continue;
        const NUM *e = (const NUM *)embed + ids[p] * d, *last = (const NUM *)embed + ids[p - 1] * d;
        const NUM s = NAIVE(smear)(gate, e, c);
        NUM gamma = 0;
        for (int j = 0; j < d; j++) {
            out[(p - 1) * d + j] += m * s * dx[j];
            gamma += dx[j] * last[j];
        }
        *(NUM *)dmu += s * gamma;
        for (int j = 0; j < c; j++) {
            ((NUM *)dgate)[j] += m * s * (1 - s) * gamma * e[j];
            out[p * d + j] += m * s * (1 - s) * gamma * ((const NUM *)gate)[j];
        }
    }
}

static void NAIVE(turn)(NUM *y, const NUM *x, const NUM *c, const NUM *s, int a, int d, int sense)
{
    for (int j = 0; j < d / 2; j++) {
        const NUM re = x[j], im = x[j + d / 2];
        y[j] = j < a ? re * c[j] + (NUM)sense * im * s[j] : re;
        y[j + d / 2] = j < a ? im * c[j] - (NUM)sense * re * s[j] : im;
    }
}

static void NAIVE(qkv_forward)(void *out, const void *qkv, const void *cos, const void *sin, int a,
                               const void *s, const void *ve, const int32_t *ids, int t, int h,
                               int d, double eps)
{
    const NUM *x = qkv, *cs = cos, *sn = sin, *sv = s;
    NUM normed[MAX_WIDTH];
    for (int p = 0; p < t; p++)
        for (int i = 0; i < 3 * h; i++, x += d) {
            NUM *y = (NUM *)out + (p * 3 * h + i) * d;
            if (i < 2 * h) {
                NAIVE(rms_row)(normed, x, d, eps);
                NAIVE(turn)(y, normed, cs + p * a, sn + p * a, a, d, 1);
                continue;
            }
            for (int j = 0; j < d; j++) {
                y[j] = sv[0] * x[j];
                if (ve) y[j] += sv[1] * ((const NUM *)ve)[(ids[p] * h + i - 2 * h) * d + j];
            }
        }
}

static void NAIVE(qkv_backward)(void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                                const void *cos, const void *sin, int a, const void *s,
                                const void *ve, const int32_t *ids, int t, int h, int d, double eps)
{
    const NUM *cs = cos, *sn = sin, *sv = s;
    NUM normed[MAX_WIDTH], dn[MAX_WIDTH];
    for (int p = 0; p < t; p++)
        for (int i = 0; i < 3 * h; i++) {
            const NUM *x = (const NUM *)qkv + (p * 3 * h + i) * d;
            const NUM *dy = (const NUM *)dout + (p * 3 * h + i) * d;
            NUM *dx = (NUM *)dqkv + (p * 3 * h + i) * d;
            if (i < 2 * h) {
                NUM r = NAIVE(rms_row)(normed, x, d, eps);
                NAIVE(turn)(dn, dy, cs + p * a, sn + p * a, a, d, -1);
                NAIVE(rms_row_gradient)(dx, dn, normed, r, d);
                continue;
            }
            for (int j = 0; j < d; j++) {
                ((NUM *)ds)[0] += dy[j] * x[j];
                dx[j] = sv[0] * dy[j];
                if (!ve) continue;
                ((NUM *)ds)[1] += dy[j] * ((const NUM *)ve)[(ids[p] * h + i - 2 * h) * d + j];
                ((NUM *)dve)[(p * h + i - 2 * h) * d + j] += sv[1] * dy[j];
            }
        }
}

// Whether key j is visible to query p, by the words of the contract.
static bool NAIVE(visible)(const int32_t *cu, int n_docs, int window, int p, int j)
{
    bool together = false;
    for (int i = 0; i < n_docs; i++)
        together |= cu[i] <= p && p < cu[i + 1] && cu[i] <= j && j < cu[i + 1];
    return together && j <= p && p - j <= window;
}

static NUM NAIVE(inner)(const NUM *a, const NUM *b, int d)
{
    NUM sum = 0;
    for (int j = 0; j < d; j++) sum += a[j] * b[j];
    return sum;
}

static void NAIVE(attention_forward)(void *o, void *lse, const void *qkv, const int32_t *cu,
                                     int n_docs, const int32_t *window, const double *scale, int t,
                                     int h, int d)
{
    const NUM *x = qkv;
    NUM *logit = malloc((size_t)t * sizeof(NUM));
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            NUM max = -INFINITY, sum = 0, *out = (NUM *)o + (p * h + i) * d;
            for (int j = 0; j <= p; j++) {
                logit[j] = (NUM)*scale *
                           NAIVE(inner)(x + (p * 3 * h + i) * d, x + (j * 3 * h + h + i) * d, d);
                if (NAIVE(visible)(cu, n_docs, *window, p, j) && !(logit[j] <= max)) max = logit[j];
            }
            for (int c = 0; c < d; c++) out[c] = 0;
            for (int j = 0; j <= p; j++) {
                if (!NAIVE(visible)(cu, n_docs, *window, p, j)) continue;
                const NUM e = (NUM)exp((double)(logit[j] - max));
                sum += e;
                for (int c = 0; c < d; c++) out[c] += e * x[(j * 3 * h + 2 * h + i) * d + c];
            }
            for (int c = 0; c < d; c++) out[c] /= sum;
            ((NUM *)lse)[p * h + i] = max + (NUM)log((double)sum);
        }
    free(logit);
}

static void NAIVE(attention_backward)(void *dqkv, void *delta, const void *d_o, const void *o,
                                      const void *lse, const void *qkv, const int32_t *cu,
                                      int n_docs, const int32_t *window, const double *scale, int t,
                                      int h, int d)
{
    const NUM *x = qkv, sc = (NUM)*scale;
    NUM *dx = dqkv;
    for (int i = 0; i < t * 3 * h * d; i++) dx[i] = 0;
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            const int q = (p * 3 * h + i) * d;
            const NUM *dy = (const NUM *)d_o + (p * h + i) * d;
            const NUM del = NAIVE(inner)(dy, (const NUM *)o + (p * h + i) * d, d);
            ((NUM *)delta)[p * h + i] = del;
            for (int j = 0; j <= p; j++) {
                if (!NAIVE(visible)(cu, n_docs, *window, p, j)) continue;
                const int k = (j * 3 * h + h + i) * d, v = k + h * d;
                const NUM logit = sc * NAIVE(inner)(x + q, x + k, d);
                const NUM prob = (NUM)exp((double)(logit - ((const NUM *)lse)[p * h + i]));
                const NUM ds = prob * (NAIVE(inner)(dy, x + v, d) - del);
                for (int c = 0; c < d; c++) {
                    dx[q + c] += sc * ds * x[k + c];
                    dx[k + c] += sc * ds * x[q + c];
                    dx[v + c] += prob * dy[c];
                }
            }
        }
}

static void NAIVE(gate_forward)(void *y, const void *o, const void *a, const void *gate, int t,
                                int h, int d, int c)
{
    for (int i = 0; i < t * h * d; i++) {
        const NUM *channels = (const NUM *)a + i / (h * d) * h * d;
        const NUM *row = (const NUM *)gate + i / d % h * c;
        ((NUM *)y)[i] = NAIVE(sigmoid_of)(NAIVE(inner)(row, channels, c)) * ((const NUM *)o)[i];
    }
}

static void NAIVE(gate_backward)(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                                 const void *a, const void *gate, int t, int h, int d, int c)
{
    for (int p = 0; p < t; p++)
        for (int i = 0; i < h; i++) {
            const int at = (p * h + i) * d;
            const NUM *channels = (const NUM *)a + p * h * d, *row = (const NUM *)gate + i * c;
            const NUM g = NAIVE(sigmoid_of)(NAIVE(inner)(row, channels, c));
            const NUM dg = NAIVE(inner)((const NUM *)dy + at, (const NUM *)o + at, d);
            for (int j = 0; j < d; j++) ((NUM *)d_o)[at + j] = g * ((const NUM *)dy)[at + j];
            for (int j = 0; j < c; j++) {
                ((NUM *)dgate)[i * c + j] += g * (1 - g) * dg * channels[j];
                ((NUM *)da)[p * h * d + j] += g * (1 - g) * dg * row[j];
            }
        }
}

static void NAIVE(softcap_loss)(void *loss, void *u, const int32_t *targets, double grad_scale,
                                int t, int v, double cap, double div)
{
    NUM *s = malloc((size_t)v * sizeof(NUM)), *e = malloc((size_t)v * sizeof(NUM));
    for (int p = 0; p < t; p++) {
        NUM *row = (NUM *)u + p * v, sum = 0;
        for (int j = 0; j < v; j++) {
            s[j] = NAIVE(sigmoid_of)(row[j] / (NUM)div);
            sum += e[j] = (NUM)exp((double)((NUM)cap * s[j] - (NUM)cap / 2));
        }
        // cppcheck-suppress invalidFunctionArg ; there is at least one column
        const NUM lse = (NUM)cap / 2 + (NUM)log((double)sum);
        ((NUM *)loss)[p] = lse - (NUM)cap * s[targets[p]];
        for (int j = 0; j < v && grad_scale != 0; j++)
            row[j] = (NUM)(grad_scale * cap / div) * s[j] * (1 - s[j]) *
                     (e[j] / sum - (NUM)(j == targets[p]));
    }
    free(s);
    free(e);
}

static const Ops NAIVE(naive) = {
    .embed_forward = NAIVE(embed_forward),
    .embed_backward = NAIVE(embed_backward),
    .mix_norm_forward = NAIVE(mix_norm_forward),
    .mix_norm_backward = NAIVE(mix_norm_backward),
    .norm_forward = NAIVE(norm_forward),
    .norm_backward = NAIVE(norm_backward),
    .backout_norm_forward = NAIVE(backout_norm_forward),
    .backout_norm_backward = NAIVE(backout_norm_backward),
    .qkv_forward = NAIVE(qkv_forward),
    .qkv_backward = NAIVE(qkv_backward),
    .attention_forward = NAIVE(attention_forward),
    .attention_backward = NAIVE(attention_backward),
    .gate_forward = NAIVE(gate_forward),
    .gate_backward = NAIVE(gate_backward),
    .softcap_loss = NAIVE(softcap_loss),
};

#undef NUM
#undef NAIVE
