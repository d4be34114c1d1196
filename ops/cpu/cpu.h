// What the files of the CPU device share: the activation type `real`, widening and rounding of
// stored values, and the operations' prototypes. Every file here is compiled twice, with real =
// float and, under -DREAL_DOUBLE, with real = double; the renames below keep both in one program.
#ifndef OPS_CPU_CPU_H
#define OPS_CPU_CPU_H

#include <stdlib.h>

#include "../../muon.h"
#include "../../ns.h"
#include "../exp.h"
#include "../ops.h"

#ifdef REAL_DOUBLE
typedef double real;
#define REAL_TYPE DT_F64
#define cpu_load_param cpu_load_param_f64
#define cpu_accumulate cpu_accumulate_f64
#define cpu_matmul cpu_matmul_f64
#define cpu_matmul_own cpu_matmul_own_f64
#define cpu_matmul_fp8 cpu_matmul_fp8_f64
#define cpu_embed_forward cpu_embed_forward_f64
#define cpu_embed_backward cpu_embed_backward_f64
#define cpu_embed_scatter cpu_embed_scatter_f64
#define cpu_gather_rows cpu_gather_rows_f64
#define cpu_mix_norm_forward cpu_mix_norm_forward_f64
#define cpu_mix_norm_backward cpu_mix_norm_backward_f64
#define cpu_norm_forward cpu_norm_forward_f64
#define cpu_norm_backward cpu_norm_backward_f64
#define cpu_backout_norm_forward cpu_backout_norm_forward_f64
#define cpu_backout_norm_backward cpu_backout_norm_backward_f64
#define cpu_add cpu_add_f64
#define cpu_qkv_forward cpu_qkv_forward_f64
#define cpu_qkv_backward cpu_qkv_backward_f64
#define cpu_attention_forward cpu_attention_forward_f64
#define cpu_attention_decode cpu_attention_decode_f64
#define cpu_attention_backward cpu_attention_backward_f64
#define cpu_gate_forward cpu_gate_forward_f64
#define cpu_gate_backward cpu_gate_backward_f64
#define cpu_relu2_forward cpu_relu2_forward_f64
#define cpu_relu2_backward cpu_relu2_backward_f64
#define cpu_quantize cpu_quantize_f64
#define cpu_softcap_loss cpu_softcap_loss_f64
#define cpu_softcap_loss_fp8 cpu_softcap_loss_fp8_f64
#define cpu_sum cpu_sum_f64
#define cpu_adam cpu_adam_f64
#define cpu_normuon cpu_normuon_f64
#define cpu_normuon_workspace cpu_normuon_workspace_f64
#define ns_orthogonalize_real ns_orthogonalize_f64
#define ops_cpu_real ops_cpu_f64
#else
typedef float real;
#define REAL_TYPE DT_F32
#define ns_orthogonalize_real ns_orthogonalize_f32
#define ops_cpu_real ops_cpu
#endif

// dtype.h's access in `real`; in float the detour through double is exact and compiles away.
static inline real load_stored(const void *p, DType t, size_t i)
{
    return (real)dtype_get(p, t, i);
}
static inline void store_rounded(void *p, DType t, size_t i, real x)
{
    dtype_set(p, t, i, (double)x);
}

// x as it would be read back after being stored as t.
static inline real round_stored(real x, DType t)
{
    switch (t) {
    case DT_F64:
        return x;
    case DT_F32:
        return (real)(float)x;
    case DT_BF16:
        return (real)round_bf16((float)x);
    case DT_F16:
        return (real)round_f16((float)x);
    }
    return x;
}

static inline real real_exp(real x)
{
#ifdef REAL_DOUBLE
    return exp(x);
#else
    return exp_f32(x);
#endif
}

static inline real sigmoid(real x) { return 1 / (1 + real_exp(-x)); }

// Parallel loops that also sum into a few numbers split their rows into this many blocks whatever
// the number of threads, and add the blocks' sums in order: the bits do not depend on the threads.
enum { SUM_BLOCKS = 64, MAX_GATE_CHANNELS = 64 }; // the latter is the recipe's bound
static inline int block_start(int block, int rows)
{
    return (int)((long)block * rows / SUM_BLOCKS);
}

// The operations, as declared and described in ops.h.
void cpu_load_param(void *weight, DType to, const void *param, DType from, size_t n);
void cpu_accumulate(void *grad, DType dtype, const void *delta, size_t n);
void cpu_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                double alpha, double beta);
// The same by our own code, whatever cpu_matmul was built to call.
void cpu_matmul_own(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta);
void cpu_embed_forward(void *x0, void *r, const int32_t *ids, const void *embed, const void *gate,
                       const void *mu, int t, int d, int c, double eps);
void cpu_embed_backward(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                        const void *r, const int32_t *ids, const void *embed, const void *gate,
                        const void *mu, int t, int d, int c);
void cpu_embed_scatter(void *grad, DType dtype, const void *de, const int32_t *ids,
                       const int32_t *order, int t, int d);
void cpu_gather_rows(void *out, const void *table, DType dtype, const int32_t *rows, double scale,
                     int n, int d);
void cpu_mix_norm_forward(void *x, void *y, void *r, const void *x_in, const void *skip,
                          const void *skip_gate, const void *x0, const void *lambda, int t, int d,
                          double eps);
void cpu_mix_norm_backward(void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                           const void *dy, const void *y, const void *r, const void *x_in,
                           const void *skip, const void *skip_gate, const void *x0,
                           const void *lambda, int t, int d);
void cpu_norm_forward(void *y, void *r, const void *x, int t, int d, double eps);
void cpu_norm_backward(void *dx, const void *dy, const void *y, const void *r, int t, int d);
void cpu_backout_norm_forward(void *y, void *r, const void *x, const void *x_back, const void *beta,
                              int t, int d, double eps);
void cpu_backout_norm_backward(void *dx, void *dx_back, void *dbeta, const void *dy, const void *y,
                               const void *r, const void *x_back, const void *beta, int t, int d);
void cpu_add(void *dst, const void *src, size_t n);
void cpu_qkv_forward(void *out, const void *qkv, const void *cos, const void *sin, int a,
                     const void *s, const void *ve, const int32_t *ids, int t, int h, int d,
                     double eps);
void cpu_qkv_backward(void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                      const void *cos, const void *sin, int a, const void *s, const void *ve,
                      const int32_t *ids, int t, int h, int d, double eps);
void cpu_attention_forward(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                           const int32_t *window, const double *scale, int t, int h, int d);
void cpu_attention_decode(void *o, const void *qkv, int p, int first, const int32_t *window,
                          const double *scale, int h, int d);
void cpu_attention_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                            const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                            const int32_t *window, const double *scale, int t, int h, int d);
void cpu_gate_forward(void *y, const void *o, const void *a, const void *gate, int t, int h, int d,
                      int c);
void cpu_gate_backward(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                       const void *a, const void *gate, int t, int h, int d, int c);
void cpu_relu2_forward(void *r, const void *h, size_t n);
void cpu_relu2_backward(void *dh, const void *dr, const void *h, size_t n);
void cpu_matmul_fp8(void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                    Fp8Format b_format, int m, int n, int k, double alpha, double beta);
void cpu_quantize(void *y, void *yt, const void *x, Fp8Format format, double scale, int rows,
                  int cols);
void cpu_softcap_loss(void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                      double cap, double div);
void cpu_softcap_loss_fp8(void *loss, void *g, void *gt, void *u, const int32_t *targets,
                          double grad_scale, double scale, int t, int v, double cap, double div);
void cpu_sum(double *total, const void *x, size_t n);
void cpu_adam(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
              const AdamConfig *config, const StepState *step);
void cpu_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                 void *workspace);
size_t cpu_normuon_workspace(const MuonBank *bank, const NsMethod *method);

#endif
