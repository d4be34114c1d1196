// Adam with a rounding to the state's type after every operation (specification 4.2).
#include "cpu.h"

// A fused multiply-add would skip a rounding that the specification has; gcc's -std=c11 never
// fuses.
#pragma STDC FP_CONTRACT OFF

enum { CHUNK = 1 << 14 }; // numbers a thread takes at a time: five arrays stay in its L2 cache

typedef struct {
    real beta1, rest1, beta2, rest2, eps, alpha;
} Coefficients;

static inline real square_root(real x)
{
    return sizeof(real) == 4 ? (real)sqrtf((float)x) : (real)sqrt(x);
}

// Inlined with `t` constant, so that each type's loop is free of branches and vectorises.
__attribute__((always_inline)) static inline void adam_chunk(void *restrict p, void *restrict m,
                                                             void *restrict v,
                                                             const void *restrict g, DType t,
                                                             size_t from, size_t to, Coefficients c)
{
    for (size_t i = from; i < to; i++) {
        real gi = load_stored(g, t, i);
        real mi = round_stored(c.beta1 * load_stored(m, t, i), t);
        mi = round_stored(mi + c.rest1 * gi, t);
        real vi = round_stored(c.beta2 * load_stored(v, t, i), t);
        vi = round_stored(vi + c.rest2 * (gi * gi), t);
        real q = round_stored(round_stored(square_root(vi), t) + c.eps, t);
        real delta = round_stored(round_stored(mi / q, t) * c.alpha, t);
        store_rounded(m, t, i, mi);
        store_rounded(v, t, i, vi);
        store_rounded(p, t, i, load_stored(p, t, i) - delta);
    }
}

void cpu_adam(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
              const AdamConfig *config, const StepState *step)
{
    const Coefficients c = {
        .beta1 = (real)config->beta1,
        .rest1 = (real)(1 - config->beta1),
        .beta2 = (real)config->beta2,
        .rest2 = (real)(1 - config->beta2),
        .eps = (real)config->eps,
        .alpha = (real)(step->adam_alpha * config->lr_mul),
    };
    const long chunks = (long)((n + CHUNK - 1) / CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (long k = 0; k < chunks; k++) {
        size_t from = (size_t)k * CHUNK, to = n - from < CHUNK ? n : from + CHUNK;
        switch (dtype) {
        case DT_F64:
            adam_chunk(p, m, v, g, DT_F64, from, to, c);
            break;
        case DT_F32:
            adam_chunk(p, m, v, g, DT_F32, from, to, c);
            break;
        case DT_BF16:
            adam_chunk(p, m, v, g, DT_BF16, from, to, c);
            break;
        case DT_F16:
            adam_chunk(p, m, v, g, DT_F16, from, to, c);
            break;
        }
    }
}
