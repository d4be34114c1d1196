// The contract between the model and a device: fused operations, each one kernel on a GPU.
//
// A device is a table of functions (struct Ops). gpt.c, muon and the training loop call through it
// and never learn which device it is. ops/cpu implements it in plain C, once in float and once in
// double; that code is also the readable statement of the mathematics.
//
// Notation. T tokens, D model width, H heads, d head width (D = H d), F hidden width of the MLP,
// V padded vocabulary, C gate channels. Matrices are row-major. `real` below is the device's
// activation type (float or double on the CPU, bf16 on a GPU); `void *` marks it, and the model
// treats such buffers as opaque, sized by Ops.real_size. `float_acc` is the type of sums, gradients
// of parameters and statistics: `real` on the CPU, fp32 on a GPU; also opaque, sized by
// Ops.acc_size. Rotary tables, log-sum-exps, per-token losses and r = 1/rms are float_acc.
// Every weight an operation reads is a working copy in `real`; the stored parameter it comes from
// may be narrower or wider (dtype.h) and is touched only by `load_param` and the optimizers.
// The vector `scalars` of the recipe is float_acc; operations take a pointer to the entry they use.
//
// Accumulation: a parameter written "+=" is added to; everything else is overwritten. Outputs may
// not alias inputs unless the comment says so. Operations on a device run in call order.
// Errors: operations have none of their own; sizes are checked when a recipe is, and memory when it
// is taken (mem_alloc returns NULL).
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "error.h"

struct MuonBank; // muon.h
struct NsMethod; // ns.h

// What varies from step to step and is read by operations on the device, kept in one small
// structure so that a captured graph of the step can be replayed after rewriting it.
typedef struct {
    int32_t window_short, window_long; // attention windows in tokens
    double attn_scale;                 // softmax scale
    double muon_lr, muon_momentum;     // learning rate before lr_mul; weight of the old average
    double muon_wd;                    // weight decay before the learning rate
    double adam_alpha;                 // lr sqrt(1-beta2^t)/(1-beta1^t), before lr_mul
} StepState;

// How C = alpha op(A) op(B) + beta C reads its operands, as stored: N plain, T transposed.
typedef enum { MM_NN, MM_NT, MM_TN } MatmulKind;

// fp8 numbers of the head's operands (specification 2.7): a value divided by a scale, rounded to
// nearest and saturated. The quotient is stored in Ops.fp8_size bytes: its code in one byte where
// the device multiplies fp8, else as the `real` of the same value.
typedef enum { FP8_E4M3, FP8_E5M2 } Fp8Format;

typedef struct {
    double lr_mul; // of this tensor
    double beta1, beta2, eps;
} AdamConfig;

typedef struct Ops {
    const char *name;           // "cpu", "cpu-f64", "cuda"
    size_t real_size, acc_size; // bytes of one `real`, one float_acc
    DType real_type, acc_type;
    size_t fp8_size; // bytes of one stored fp8 number
    // Logits that the head computes at once: few enough for a CPU's caches, enough to fill a GPU.
    size_t head_slice;

    // ---- memory --------------------------------------------------------------------------------
    void *(*mem_alloc)(size_t bytes); // zeroed; NULL when it cannot be had
    void (*mem_free)(void *p);
    void (*mem_zero)(void *p, size_t bytes);
    // In order with the operations. `host` may be overwritten once mem_put returns, which does not
    // wait for the device; mem_get does.
    void (*mem_put)(void *device, const void *host, size_t bytes);
    void (*mem_get)(void *host, const void *device, size_t bytes);
    void (*sync)(void); // returns when all operations so far are done
    // Bytes of the device's own workspaces, taken already or at first use; of its memory, what is
    // free and what there is. NULL where memory is the host's.
    void (*mem_info)(size_t *own, size_t *free, size_t *total);
    // Begins a named phase on the profiler's time line, after ending the one before; NULL only ends
    // it. NULL where there is no profiler to tell.
    void (*phase)(const char *name);

    // ---- parameters ----------------------------------------------------------------------------
    // weight[i] = param[i] for i < n: the working copy (real or float_acc as `to` says) of a stored
    // tensor of dtype `from`.
    void (*load_param)(void *weight, DType to, const void *param, DType from, size_t n);
    // grad[i] = R(grad[i] + R(delta[i])), R rounding to grad's dtype (bf16 for Adam's tensors and
    // the gates, specification 3.4): how one micro-batch's gradient joins the stored sum.
    void (*accumulate)(void *grad, DType dtype, const void *delta, size_t n); // delta: float_acc

    // ---- matrix products -----------------------------------------------------------------------
    // C (M,N) = alpha op(A) op(B) + beta C with the sum over K in float_acc.
    //   MM_NN: A (M,K) B (K,N)    MM_NT: A (M,K) B (N,K)    MM_TN: A (K,M) B (K,N)
    // Rows are contiguous: leading dimensions are the stored column counts.
    void (*matmul)(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                   double alpha, double beta); // C real
    void (*matmul_grad)(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                        double alpha, double beta); // C float_acc: gradients of matrices
    // C (M,N) = alpha A (M,K) B (N,K)^T + beta C of fp8 numbers, C real, or float_acc where
    // c_is_acc. M, N and K are multiples of 16. A product of two e4m3 operands (the forward) may
    // sum in the tensor cores' own precision; one with e5m2 (a gradient) sums in float_acc.
    void (*matmul_fp8)(void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                       Fp8Format b_format, int m, int n, int k, double alpha, double beta);

    // ---- embedding (specification 2.2) ---------------------------------------------------------
    // e_p = embed[ids_p]; x_p = e_p + mu sigmoid(gate . e_p[0..C)) e_{p-1} for p > 0, x_0 = e_0;
    // x0 = r x, r = rsqrt(mean x^2 + eps).  x0 (T,D), r (T), embed (V,D), gate (C), mu one scalar.
    void (*embed_forward)(void *x0, void *r, const int32_t *ids, const void *embed,
                          const void *gate, const void *mu, int t, int d, int c, double eps);
    // From dx0 (T,D): de (T,D) = gradient of each gathered row; dgate (C) +=, dmu +=.
    void (*embed_backward)(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                           const void *r, const int32_t *ids, const void *embed, const void *gate,
                           const void *mu, int t, int d, int c);
    // grad[v] = R(grad[v] + R(sum over p with ids_p = v of de_p)), in an order that depends on the
    // ids alone, so that it is deterministic.  grad (V,D) of dtype; de (T,D); order (T): positions
    // sorted by (ids_p, p).
    void (*embed_scatter)(void *grad, DType dtype, const void *de, const int32_t *ids,
                          const int32_t *order, int t, int d);

    // out[i] = R(scale table[rows_i]) for i < n: rows of a table that go elsewhere. out (n,D) and
    // table are of dtype, rows (n) on the device.
    void (*gather_rows)(void *out, const void *table, DType dtype, const int32_t *rows,
                        double scale, int n, int d);

    // ---- residual stream (specification 2.3) ---------------------------------------------------
    // x = lambda[0] (x_in + sigmoid(skip_gate) skip) + lambda[1] x0; y = r x, r = rsqrt(mean x^2 +
    // eps).  All (T,D) but r (T). skip and skip_gate may be NULL. x may be x_in.
    void (*mix_norm_forward)(void *x, void *y, void *r, const void *x_in, const void *skip,
                             const void *skip_gate, const void *x0, const void *lambda, int t,
                             int d, double eps);
    // dx: gradient with respect to x along the residual; dy with respect to y. Total g = dx +
    // r (dy - y mean(dy y)).  dx = lambda0 g (in place: now the gradient of x_in); dskip = lambda0
    // sigma g; dx0 += lambda1 g; dlambda[0,1] +=, dskip_gate +=.
    void (*mix_norm_backward)(void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                              const void *dy, const void *y, const void *r, const void *x_in,
                              const void *skip, const void *skip_gate, const void *x0,
                              const void *lambda, int t, int d);
    // y = r x, rows of D; and its backward dx += r (dy - y mean(dy y)).
    void (*norm_forward)(void *y, void *r, const void *x, int t, int d, double eps);
    void (*norm_backward)(void *dx, const void *dy, const void *y, const void *r, int t, int d);
    // y = norm(x - beta x_back); backward: dx = g, dx_back = -beta g, dbeta -= sum g x_back with
    // g = r (dy - y mean(dy y)).
    void (*backout_norm_forward)(void *y, void *r, const void *x, const void *x_back,
                                 const void *beta, int t, int d, double eps);
    void (*backout_norm_backward)(void *dx, void *dx_back, void *dbeta, const void *dy,
                                  const void *y, const void *r, const void *x_back,
                                  const void *beta, int t, int d);
    // dst += src, n numbers of type real: gradients that meet (skips, x_back).
    void (*add)(void *dst, const void *src, size_t n);

    // ---- attention (specification 2.4) ---------------------------------------------------------
    // From qkv (T,3,H,d) as the projection left it: q, k = rotary(norm(.)) per head, channel j < A
    // paired with j + d/2, rotation by minus the angle; v = s[0] v + s[1] ve[ids] (s[1] unused when
    // ve is NULL).  out (T,3,H,d); cos, sin (at least T, A): A active frequencies; ve (V,D). out
    // may be qkv.
    void (*qkv_forward)(void *out, const void *qkv, const void *cos, const void *sin, int a,
                        const void *s, const void *ve, const int32_t *ids, int t, int h, int d,
                        double eps);
    // dqkv (T,3,H,d) from dout; ds[0,1] +=; dve (T,D) += s[1] dv (NULL when ve is).
    // dqkv may be dout.
    void (*qkv_backward)(void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                         const void *cos, const void *sin, int a, const void *s, const void *ve,
                         const int32_t *ids, int t, int h, int d, double eps);
    // Softmax attention over keys j with max(c, p - w) <= j <= p, c the start of p's document,
    // w = *window tokens, logits scaled by *scale.  o (T,H,d), lse (T,H) = log sum exp.
    // Documents: cu (n_docs + 1) ascending from 0 to T, empty ones allowed.
    void (*attention_forward)(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                              const int32_t *window, const double *scale, int t, int h, int d);
    // Row p of attention_forward's o alone, for a query whose document begins at `first`: keys j
    // with max(first, p - w) <= j <= p.  o (H,d), qkv (at least p + 1,3,H,d): generation's cache.
    void (*attention_decode)(void *o, const void *qkv, int p, int first, const int32_t *window,
                             const double *scale, int h, int d);
    // delta (T,H) is scratch: the rows' dO . O.
    void (*attention_backward)(void *dqkv, void *delta, const void *d_o, const void *o,
                               const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                               const int32_t *window, const double *scale, int t, int h, int d);
    // y[p,h,:] = sigmoid(gate[h,:] . a[p,0..C)) o[p,h,:].  gate (H,C), a (T,D) the normed input.
    // y may be o.
    void (*gate_forward)(void *y, const void *o, const void *a, const void *gate, int t, int h,
                         int d, int c);
    // d_o = g dy; da[p,0..C) +=; dgate (H,C) +=.  d_o may be dy.
    void (*gate_backward)(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                          const void *a, const void *gate, int t, int h, int d, int c);

    // ---- MLP (specification 2.5) ---------------------------------------------------------------
    // r = max(h,0)^2 and dh = 2 max(h,0) dr.  n numbers; r may be h, dh may be dr.
    void (*relu2_forward)(void *r, const void *h, size_t n);
    void (*relu2_backward)(void *dh, const void *dr, const void *h, size_t n);

    // ---- head and loss (specification 2.6, 2.7, 3.1, 3.2) --------------------------------------
    // y (R,C) and yt (C,R), its transpose, = fp8(x / scale) of x (R,C) real. R and C are multiples
    // of 16.
    void (*quantize)(void *y, void *yt, const void *x, Fp8Format format, double scale, int rows,
                     int cols);
    // loss[p] = -log softmax(cap sigmoid(u[p]/div))[target_p] over all V columns. With grad_scale
    // != 0, u is replaced by grad_scale dloss/du.  u (T,V), loss (T).
    void (*softcap_loss)(void *loss, void *u, const int32_t *targets, double grad_scale, int t,
                         int v, double cap, double div);
    // The same loss with the gradient as the e5m2 operand of the head's backward products: g (T,V)
    // and gt (V,T), its transpose, = e5m2(bf16(grad_scale dloss/du) / scale). u is scratch
    // afterwards. T and V are multiples of 16.
    void (*softcap_loss_fp8)(void *loss, void *g, void *gt, void *u, const int32_t *targets,
                             double grad_scale, double scale, int t, int v, double cap, double div);
    // *total += the sum of n float_acc numbers, in double and in fixed order; total on the device.
    void (*sum)(double *total, const void *x, size_t n);

    // ---- optimizers ----------------------------------------------------------------------------
    // One Adam step of a tensor with per-operation rounding to its state dtype (specification 4.2):
    // m = R(R(b1 m) + (1-b1) g), v likewise with g^2, q = R(R(sqrt v) + eps), p = R(p - R(R(m/q)
    // a)), a = step->adam_alpha lr_mul.  All arrays of n numbers; g, p of `dtype`, m and v of
    // `dtype`.
    void (*adam)(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
                 const AdamConfig *config, const StepState *step);
    // NorMuon update of a bank; see muon.h.
    void (*normuon)(const struct MuonBank *bank, const struct NsMethod *method,
                    const StepState *step, void *workspace);
    size_t (*normuon_workspace)(const struct MuonBank *bank, const struct NsMethod *method);

    // ---- recordings: NULL on a device that queues an operation as fast as it does it ------------
    // From record on operations are noted and not done; recorded ends that and returns what replay
    // queues in one call, any number of times, NULL where there was none. Arguments are as they
    // were, pointers with them; what these point to is read when it runs. Between the two calls
    // nothing is put, got, taken, freed or waited for, and no operation comes with shapes that it
    // has not had before. forget may be called while the device is still at it.
    void (*record)(void); // NULL as well where recordings are not wanted
    void *(*recorded)(void);
    void (*replay)(void *recording);
    void (*forget)(void *recording);

    // ---- algorithms: NULL on a device that has one for each operation --------------------------
    // Whether the algorithm of a product that comes for the first time is chosen by timing it. Off
    // at first: for the shapes of training and validation it is worth the time, for those of
    // samples it is not.
    void (*tune)(bool on);
    // The algorithms chosen while tune was on, as text (plans.h) that the caller frees; NULL when
    // there is no memory.
    char *(*plans_text)(void);
    // Products that come for the first time from now on use the algorithms that the text names for
    // them, before those of an earlier call. False when it is for another GPU or version of the
    // library, or is no such text.
    bool (*plans_restore)(const char *text, Error *err);
} Ops;

static inline void ops_phase(const Ops *ops, const char *name)
{
    if (ops->phase) ops->phase(name);
}

extern const Ops ops_cpu;     // activations in float
extern const Ops ops_cpu_f64; // activations in double: the tests' yardstick

#endif
