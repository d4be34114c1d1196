// The CPU device: its memory, its parameters, and the table of its operations.
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

static void *mem_alloc(size_t bytes)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    void *p = rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
    return p ? memset(p, 0, rounded) : NULL;
}

static void mem_zero(void *p, size_t bytes) { memset(p, 0, bytes); }
static void mem_copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
static void sync_nothing(void) {}

void cpu_load_param(void *weight, DType to, const void *param, DType from, size_t n)
{
#pragma omp parallel for
    for (size_t i = 0; i < n; i++) store_rounded(weight, to, i, load_stored(param, from, i));
}

void cpu_accumulate(void *grad, DType dtype, const void *delta, size_t n)
{
    const real *x = delta;
#pragma omp parallel for
    for (size_t i = 0; i < n; i++)
        store_rounded(grad, dtype, i, load_stored(grad, dtype, i) + round_stored(x[i], dtype));
}

const Ops ops_cpu_real = {
    .name = REAL_TYPE == DT_F32 ? "cpu" : "cpu-f64",
    .real_size = sizeof(real),
    .acc_size = sizeof(real),
    .real_type = REAL_TYPE,
    .acc_type = REAL_TYPE,
    .fp8_size = sizeof(real),
    .head_slice = 1 << 24,
    .mem_alloc = mem_alloc,
    .mem_free = free,
    .mem_zero = mem_zero,
    .mem_put = mem_copy,
    .mem_get = mem_copy,
    .sync = sync_nothing,
    .load_param = cpu_load_param,
    .accumulate = cpu_accumulate,
    .matmul = cpu_matmul,
    .matmul_grad = cpu_matmul,
    .matmul_fp8 = cpu_matmul_fp8,
    .embed_forward = cpu_embed_forward,
    .embed_backward = cpu_embed_backward,
    .embed_scatter = cpu_embed_scatter,
    .gather_rows = cpu_gather_rows,
    .mix_norm_forward = cpu_mix_norm_forward,
    .mix_norm_backward = cpu_mix_norm_backward,
    .norm_forward = cpu_norm_forward,
    .norm_backward = cpu_norm_backward,
    .backout_norm_forward = cpu_backout_norm_forward,
    .backout_norm_backward = cpu_backout_norm_backward,
    .add = cpu_add,
    .qkv_forward = cpu_qkv_forward,
    .qkv_backward = cpu_qkv_backward,
    .attention_forward = cpu_attention_forward,
    .attention_decode = cpu_attention_decode,
    .attention_backward = cpu_attention_backward,
    .gate_forward = cpu_gate_forward,
    .gate_backward = cpu_gate_backward,
    .relu2_forward = cpu_relu2_forward,
    .relu2_backward = cpu_relu2_backward,
    .quantize = cpu_quantize,
    .softcap_loss = cpu_softcap_loss,
    .softcap_loss_fp8 = cpu_softcap_loss_fp8,
    .sum = cpu_sum,
    .adam = cpu_adam,
    .normuon = cpu_normuon,
    .normuon_workspace = cpu_normuon_workspace,
};
