#include "timed_ops.h"

#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../muon.h"
#include "../ops/cuda/device.h"

enum { MAX_CALLS = 8192 };
static const size_t head_start_bytes = (size_t)1 << 30;

typedef struct {
    char name[64];
    double bytes, flops;
    cudaEvent_t begin, end;
} Call;

static const Ops *device;
static const TimedBatch *batch;
static Call calls[MAX_CALLS]; // calls[0] is an empty pair: what two events cost
static int n_calls;
static bool timing, recording; // recording: while nothing is timed
static void *filler;
static Ops timed;

static void check(cudaError_t status, const char *what)
{
    if (status == cudaSuccess) return;
    fprintf(stderr, "error: %s: %s\n", what, cudaGetErrorString(status));
    exit(1);
}

// NULL while nothing is timed.
static Call *begin_call(void)
{
    if (!timing) return NULL;
    if (n_calls == MAX_CALLS) {
        fprintf(stderr, "error: more than %d calls to time\n", MAX_CALLS);
        exit(1);
    }
    Call *call = &calls[n_calls++];
    if (!call->begin) {
        check(cudaEventCreate(&call->begin), "cudaEventCreate");
        check(cudaEventCreate(&call->end), "cudaEventCreate");
    }
    check(cudaEventRecord(call->begin, cuda_stream()), "cudaEventRecord");
    return call;
}

__attribute__((format(printf, 4, 5))) static void end_call(Call *call, double bytes, double flops,
                                                           const char *format, ...)
{
    if (!call) return;
    check(cudaEventRecord(call->end, cuda_stream()), "cudaEventRecord");
    va_list args;
    va_start(args, format);
    vsnprintf(call->name, sizeof call->name, format, args);
    va_end(args);
    call->bytes = bytes, call->flops = flops;
}

// timed_OP calls OP between two events. What follows the arguments: bytes, FLOPs, name of the row.
#define TIMED(op, parameters, arguments, ...)                                                      \
    static void timed_##op parameters                                                              \
    {                                                                                              \
        Call *call = begin_call();                                                                 \
        device->op arguments;                                                                      \
        if (call) end_call(call, __VA_ARGS__);                                                     \
    }

// A (T,D) tensor of activations, in bytes.
static double rows(int t, int d) { return 2.0 * t * d; }

static const char *const kinds[] = {"NN", "NT", "TN"};

static double matmul_bytes(int m, int n, int k, double beta, int size)
{
    return 2.0 * k * ((double)m + n) + (double)size * m * n * (beta != 0 ? 2 : 1);
}

static double pairs(const int32_t *window, int h, int d)
{
    return (window == &batch->step->window_long ? batch->long_pairs : batch->short_pairs) * h * d;
}

static const char *length(const int32_t *window)
{
    return window == &batch->step->window_long ? "long" : "short";
}

static double stored(DType dtype, size_t n) { return (double)dtype_size(dtype) * (double)n; }

// 3 m^2 n + m^3 FLOPs an iteration, symmetric products done in half; parameter, momentum and
// gradient read, the first two written, gradient cleared.
static double normuon_flops(const MuonBank *bank, const NsMethod *method)
{
    const double a = bank->rows, b = bank->cols, m = a < b ? a : b, n = a < b ? b : a;
    return bank->count * method->iterations * (3 * m * m * n + m * m * m);
}

static double fp8(int r, int c) { return (double)device->fp8_size * r * c; }

// As FLOPs of bf16, which take twice as long where fp8 is multiplied as such.
static double fp8_flops(int m, int n, int k)
{
    return (device->fp8_size == 1 ? 1.0 : 2.0) * m * n * k;
}

// clang-format off
TIMED(mem_zero, (void *p, size_t bytes), (p, bytes), (double)bytes, 0, "mem_zero %zu", bytes)
TIMED(mem_put, (void *to, const void *host, size_t bytes), (to, host, bytes), (double)bytes, 0,
      "mem_put %zu", bytes)
TIMED(load_param, (void *weight, DType to, const void *param, DType from, size_t n),
      (weight, to, param, from, n), stored(to, n) + stored(from, n), 0, "load_param %zu", n)
TIMED(accumulate, (void *grad, DType dtype, const void *delta, size_t n), (grad, dtype, delta, n),
      2 * stored(dtype, n) + 4.0 * (double)n, 0, "accumulate %zu", n)
TIMED(matmul, (void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
               double alpha, double beta),
      (c, a, b, kind, m, n, k, alpha, beta), matmul_bytes(m, n, k, beta, 2), 2.0 * m * n * k,
      "matmul %s %d x %d x %d%s", kinds[kind], m, n, k, beta != 0 ? " + C" : "")
TIMED(matmul_grad, (void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta),
      (c, a, b, kind, m, n, k, alpha, beta), matmul_bytes(m, n, k, beta, 4), 2.0 * m * n * k,
      "matmul_grad %s %d x %d x %d%s", kinds[kind], m, n, k, beta != 0 ? " + C" : "")
TIMED(matmul_fp8, (void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                   Fp8Format b_format, int m, int n, int k, double alpha, double beta),
      (c, c_is_acc, a, a_format, b, b_format, m, n, k, alpha, beta),
      fp8(m, k) + fp8(n, k) + (beta != 0 ? 2 : 1) * (c_is_acc ? 2 : 1) * rows(m, n),
      fp8_flops(m, n, k), "matmul_fp8 %d x %d x %d%s", m, n, k, beta != 0 ? " + C" : "")
TIMED(embed_forward, (void *x0, void *r, const int32_t *ids, const void *embed, const void *gate,
                      const void *mu, int t, int d, int c, double eps),
      (x0, r, ids, embed, gate, mu, t, d, c, eps), 2 * rows(t, d), 0, "embed_forward")
TIMED(embed_backward, (void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                       const void *r, const int32_t *ids, const void *embed, const void *gate,
                       const void *mu, int t, int d, int c),
      (de, dgate, dmu, dx0, x0, r, ids, embed, gate, mu, t, d, c), 4 * rows(t, d), 0,
      "embed_backward")
TIMED(embed_scatter, (void *grad, DType dtype, const void *de, const int32_t *ids,
                      const int32_t *order, int t, int d),
      (grad, dtype, de, ids, order, t, d),
      rows(t, d) + 2 * stored(dtype, (size_t)d) * batch->distinct_ids, 0, "embed_scatter")
TIMED(mix_norm_forward, (void *x, void *y, void *r, const void *x_in, const void *skip,
                         const void *skip_gate, const void *x0, const void *lambda, int t, int d,
                         double eps),
      (x, y, r, x_in, skip, skip_gate, x0, lambda, t, d, eps), (skip ? 5 : 4) * rows(t, d), 0,
      "mix_norm_forward%s", skip ? ", skip" : "")
TIMED(mix_norm_backward, (void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                          const void *dy, const void *y, const void *r, const void *x_in,
                          const void *skip, const void *skip_gate, const void *x0,
                          const void *lambda, int t, int d),
      (dx, dskip, dx0, dlambda, dskip_gate, dy, y, r, x_in, skip, skip_gate, x0, lambda, t, d),
      (skip ? 10 : 8) * rows(t, d), 0, "mix_norm_backward%s", skip ? ", skip" : "")
TIMED(norm_forward, (void *y, void *r, const void *x, int t, int d, double eps),
      (y, r, x, t, d, eps), 2 * rows(t, d), 0, "norm_forward")
TIMED(norm_backward, (void *dx, const void *dy, const void *y, const void *r, int t, int d),
      (dx, dy, y, r, t, d), 4 * rows(t, d), 0, "norm_backward")
TIMED(backout_norm_forward, (void *y, void *r, const void *x, const void *x_back, const void *beta,
                             int t, int d, double eps),
      (y, r, x, x_back, beta, t, d, eps), 3 * rows(t, d), 0, "backout_norm_forward")
TIMED(backout_norm_backward, (void *dx, void *dx_back, void *dbeta, const void *dy, const void *y,
                              const void *r, const void *x_back, const void *beta, int t, int d),
      (dx, dx_back, dbeta, dy, y, r, x_back, beta, t, d), 5 * rows(t, d), 0,
      "backout_norm_backward")
TIMED(add, (void *dst, const void *src, size_t n), (dst, src, n), 6.0 * (double)n, 0, "add")
TIMED(qkv_forward, (void *out, const void *qkv, const void *cos, const void *sin, int a,
                    const void *s, const void *ve, const int32_t *ids, int t, int h, int d,
                    double eps),
      (out, qkv, cos, sin, a, s, ve, ids, t, h, d, eps), (ve ? 7 : 6) * rows(t, h * d), 0,
      "qkv_forward%s", ve ? ", value embedding" : "")
TIMED(qkv_backward, (void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                     const void *cos, const void *sin, int a, const void *s, const void *ve,
                     const int32_t *ids, int t, int h, int d, double eps),
      (dqkv, ds, dve, dout, qkv, cos, sin, a, s, ve, ids, t, h, d, eps),
      (ve ? 12 : 9) * rows(t, h * d), 0, "qkv_backward%s", ve ? ", value embedding" : "")
TIMED(attention_forward, (void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                          const int32_t *window, const double *scale, int t, int h, int d),
      (o, lse, qkv, cu, n_docs, window, scale, t, h, d), 4 * rows(t, h * d),
      4 * pairs(window, h, d), "attention_forward, %s", length(window))
TIMED(attention_backward, (void *dqkv, void *delta, const void *d_o, const void *o,
                           const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                           const int32_t *window, const double *scale, int t, int h, int d),
      (dqkv, delta, d_o, o, lse, qkv, cu, n_docs, window, scale, t, h, d), 8 * rows(t, h * d),
      10 * pairs(window, h, d), "attention_backward, %s", length(window))
TIMED(gate_forward, (void *y, const void *o, const void *a, const void *gate, int t, int h, int d,
                     int c),
      (y, o, a, gate, t, h, d, c), 2 * rows(t, h * d), 0, "gate_forward")
TIMED(gate_backward, (void *d_o, void *da, void *dgate, const void *dy, const void *o,
                      const void *a, const void *gate, int t, int h, int d, int c),
      (d_o, da, dgate, dy, o, a, gate, t, h, d, c), 3 * rows(t, h * d), 0, "gate_backward")
TIMED(relu2_forward, (void *r, const void *h, size_t n), (r, h, n), 4.0 * (double)n, 0,
      "relu2_forward")
TIMED(relu2_backward, (void *dh, const void *dr, const void *h, size_t n), (dh, dr, h, n),
      6.0 * (double)n, 0, "relu2_backward")
TIMED(quantize, (void *y, void *yt, const void *x, Fp8Format format, double scale, int r, int c),
      (y, yt, x, format, scale, r, c), rows(r, c) + 2 * fp8(r, c), 0, "quantize %d x %d", r, c)
TIMED(softcap_loss, (void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                     double cap, double div),
      (loss, u, targets, grad_scale, t, v, cap, div), 2 * rows(t, v), 0, "softcap_loss %d x %d", t,
      v)
TIMED(softcap_loss_fp8, (void *loss, void *g, void *gt, void *u, const int32_t *targets,
                         double grad_scale, double scale, int t, int v, double cap, double div),
      (loss, g, gt, u, targets, grad_scale, scale, t, v, cap, div), rows(t, v) + 2 * fp8(t, v), 0,
      "softcap_loss_fp8 %d x %d", t, v)
TIMED(sum, (double *total, const void *x, size_t n), (total, x, n), 4.0 * (double)n, 0, "sum %zu", n)
TIMED(adam, (void *p, void *m, void *v, const void *g, DType dtype, size_t n,
             const AdamConfig *config, const StepState *step),
      (p, m, v, g, dtype, n, config, step), 7 * stored(dtype, n), 0, "adam %zu", n)
TIMED(normuon, (const MuonBank *bank, const NsMethod *method, const StepState *step,
                void *workspace),
      (bank, method, step, workspace),
      5 * stored(bank->dtype, (size_t)bank->count * (size_t)bank->rows * (size_t)bank->cols),
      normuon_flops(bank, method), "normuon %d x %d x %d", bank->count, bank->rows, bank->cols)
// clang-format on

const Ops *timed_ops(const Ops *ops)
{
    device = ops;
    timed = *ops; // what is not wrapped is not timed
    timed.record = NULL;
#define WRAP(op) timed.op = timed_##op
    WRAP(mem_zero), WRAP(mem_put), WRAP(load_param), WRAP(accumulate), WRAP(matmul);
    WRAP(matmul_grad), WRAP(embed_forward), WRAP(embed_backward), WRAP(embed_scatter);
    WRAP(mix_norm_forward), WRAP(mix_norm_backward), WRAP(norm_forward), WRAP(norm_backward);
    WRAP(backout_norm_forward), WRAP(backout_norm_backward), WRAP(add), WRAP(qkv_forward);
    WRAP(qkv_backward), WRAP(attention_forward), WRAP(attention_backward), WRAP(gate_forward);
    WRAP(gate_backward), WRAP(relu2_forward), WRAP(relu2_backward), WRAP(quantize);
    WRAP(softcap_loss), WRAP(softcap_loss_fp8), WRAP(matmul_fp8), WRAP(sum), WRAP(adam),
        WRAP(normuon);
#undef WRAP
    return &timed;
}

void timed_record(bool on)
{
    recording = on;
    timed.record = on && !timing ? device->record : NULL;
}

void timed_head_start(void)
{
    if (!filler) filler = device->mem_alloc(head_start_bytes);
    for (int i = 0; i < 16 && filler; i++)
        check(cudaMemsetAsync(filler, 0, head_start_bytes, cuda_stream()), "cudaMemsetAsync");
}

void timed_start(const TimedBatch *of)
{
    batch = of;
    n_calls = 0;
    timing = true;
    timed_record(recording);
    timed_head_start();
    end_call(begin_call(), 0, 0, "an empty pair of events");
}

static double elapsed_us(const Call *call)
{
    float ms;
    check(cudaEventElapsedTime(&ms, call->begin, call->end), "cudaEventElapsedTime");
    return (double)ms * 1e3;
}

int timed_stop(TimedOp *out)
{
    int n = 0;
    timing = false;
    timed_record(recording);
    device->sync();
    const double empty = elapsed_us(&calls[0]);
    for (int i = 1; i < n_calls; i++) {
        const Call *call = &calls[i];
        int row = 0;
        while (row < n && strcmp(out[row].name, call->name)) row++;
        if (row == TIMED_MAX_ROWS) {
            fprintf(stderr, "error: more than %d kinds of calls\n", TIMED_MAX_ROWS);
            exit(1);
        }
        if (row == n) {
            out[n] = (TimedOp){.calls = 0};
            snprintf(out[n++].name, sizeof out[0].name, "%s", call->name);
        }
        const double us = elapsed_us(call) - empty;
        out[row].calls++;
        out[row].us += us > 0 ? us : 0;
        out[row].bytes += call->bytes;
        out[row].flops += call->flops;
    }
    return n;
}
