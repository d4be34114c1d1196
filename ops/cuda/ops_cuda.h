// The operations of the CUDA device, as declared and described in ops.h. real = bf16, float_acc =
// fp32; all of them run on the device's one stream (cuda.cuh) and return at once.
#ifndef OPS_CUDA_OPS_CUDA_H
#define OPS_CUDA_OPS_CUDA_H

// Before the extern "C" block: in C++ these hold templates.
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "../../muon.h"
#include "../../ns.h"
#include "../ops.h"

void cuda_load_param(void *weight, DType to, const void *param, DType from, size_t n);
void cuda_accumulate(void *grad, DType dtype, const void *delta, size_t n);
void cuda_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                 double alpha, double beta);
void cuda_matmul_grad(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                      double alpha, double beta);
// A product with M = 1 by a kernel of its own (gemv.cu). False, and nothing done, for what that
// kernel cannot read in vectors of 16 bytes.
bool cuda_gemv(void *c, const void *a, const void *b, MatmulKind kind, int n, int k, double alpha,
               double beta);
void cuda_embed_forward(void *x0, void *r, const int32_t *ids, const void *embed, const void *gate,
                        const void *mu, int t, int d, int c, double eps);
void cuda_embed_backward(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                         const void *r, const int32_t *ids, const void *embed, const void *gate,
                         const void *mu, int t, int d, int c);
void cuda_embed_scatter(void *grad, DType dtype, const void *de, const int32_t *ids,
                        const int32_t *order, int t, int d);
void cuda_gather_rows(void *out, const void *table, DType dtype, const int32_t *rows, double scale,
                      int n, int d);
void cuda_mix_norm_forward(void *x, void *y, void *r, const void *x_in, const void *skip,
                           const void *skip_gate, const void *x0, const void *lambda, int t, int d,
                           double eps);
void cuda_mix_norm_backward(void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                            const void *dy, const void *y, const void *r, const void *x_in,
                            const void *skip, const void *skip_gate, const void *x0,
                            const void *lambda, int t, int d);
void cuda_norm_forward(void *y, void *r, const void *x, int t, int d, double eps);
void cuda_norm_backward(void *dx, const void *dy, const void *y, const void *r, int t, int d);
void cuda_backout_norm_forward(void *y, void *r, const void *x, const void *x_back,
                               const void *beta, int t, int d, double eps);
void cuda_backout_norm_backward(void *dx, void *dx_back, void *dbeta, const void *dy, const void *y,
                                const void *r, const void *x_back, const void *beta, int t, int d);
void cuda_add(void *dst, const void *src, size_t n);
void cuda_qkv_forward(void *out, const void *qkv, const void *cos, const void *sin, int a,
                      const void *s, const void *ve, const int32_t *ids, int t, int h, int d,
                      double eps);
void cuda_qkv_backward(void *dqkv, void *ds, void *dve, const void *dout, const void *qkv,
                       const void *cos, const void *sin, int a, const void *s, const void *ve,
                       const int32_t *ids, int t, int h, int d, double eps);
void cuda_attention_forward(void *o, void *lse, const void *qkv, const int32_t *cu, int n_docs,
                            const int32_t *window, const double *scale, int t, int h, int d);
void cuda_attention_decode(void *o, const void *qkv, int p, int first, const int32_t *window,
                           const double *scale, int h, int d);
void cuda_attention_backward(void *dqkv, void *delta, const void *d_o, const void *o,
                             const void *lse, const void *qkv, const int32_t *cu, int n_docs,
                             const int32_t *window, const double *scale, int t, int h, int d);
void cuda_gate_forward(void *y, const void *o, const void *a, const void *gate, int t, int h, int d,
                       int c);
void cuda_gate_backward(void *d_o, void *da, void *dgate, const void *dy, const void *o,
                        const void *a, const void *gate, int t, int h, int d, int c);
void cuda_relu2_forward(void *r, const void *h, size_t n);
void cuda_relu2_backward(void *dh, const void *dr, const void *h, size_t n);
void cuda_matmul_fp8(void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                     Fp8Format b_format, int m, int n, int k, double alpha, double beta);
void cuda_quantize(void *y, void *yt, const void *x, Fp8Format format, double scale, int rows,
                   int cols);
void cuda_softcap_loss(void *loss, void *u, const int32_t *targets, double grad_scale, int t, int v,
                       double cap, double div);
void cuda_softcap_loss_fp8(void *loss, void *g, void *gt, void *u, const int32_t *targets,
                           double grad_scale, double scale, int t, int v, double cap, double div);
void cuda_sum(double *total, const void *x, size_t n);
void cuda_adam(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
               const AdamConfig *config, const StepState *step);
void cuda_normuon(const struct MuonBank *bank, const struct NsMethod *method, const StepState *step,
                  void *workspace);
size_t cuda_normuon_workspace(const struct MuonBank *bank, const struct NsMethod *method);
void cuda_tune(bool on);
char *cuda_plans_text(void);
bool cuda_plans_restore(const char *text, Error *err);

#ifdef __cplusplus
}
#endif

#endif
