// Adam with a rounding to the state's type after every operation (specification 4.2), bit for bit
// what ops/cpu/adam.c does in float; and the stored sums and working copies of parameters.
#include "pointwise.cuh"

namespace
{

template <typename T> __device__ __forceinline__ float round_stored(float x)
{
    T stored;
    store_rounded(&stored, 0, x);
    return load_stored(&stored, 0);
}

// The intrinsics keep the compiler from fusing a multiplication and an addition, which would skip a
// rounding that the specification has.
template <typename T> struct AdamStep {
    T *p, *m, *v;
    const T *g;
    float beta1, rest1, beta2, rest2, eps;
    double lr_mul;
    const StepState *step;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float pi[Count::kCount], mi[Count::kCount], vi[Count::kCount], gi[Count::kCount];
        load_points<Count>(pi, p, i);
        load_points<Count>(mi, m, i);
        load_points<Count>(vi, v, i);
        load_points<Count>(gi, g, i);
        const float alpha = (float)__dmul_rn(step->adam_alpha, lr_mul);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) {
            const float g2 = __fmul_rn(gi[j], gi[j]);
            mi[j] = round_stored<T>(__fmul_rn(beta1, mi[j]));
            mi[j] = round_stored<T>(__fadd_rn(mi[j], __fmul_rn(rest1, gi[j])));
            vi[j] = round_stored<T>(__fmul_rn(beta2, vi[j]));
            vi[j] = round_stored<T>(__fadd_rn(vi[j], __fmul_rn(rest2, g2)));
            const float root = round_stored<T>(__fsqrt_rn(vi[j]));
            const float q = round_stored<T>(__fadd_rn(root, eps));
            const float ratio = round_stored<T>(__fdiv_rn(mi[j], q));
            pi[j] = __fsub_rn(pi[j], round_stored<T>(__fmul_rn(ratio, alpha)));
        }
        store_points<Count>(m, i, mi);
        store_points<Count>(v, i, vi);
        store_points<Count>(p, i, pi);
    }
};

template <typename T> struct Accumulate {
    T *grad;
    const float *delta;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float sum[Count::kCount], x[Count::kCount];
        load_points<Count>(sum, grad, i);
        load_points<Count>(x, delta, i);
#pragma unroll
        for (int j = 0; j < Count::kCount; j++) sum[j] += round_stored<T>(x[j]);
        store_points<Count>(grad, i, sum);
    }
};

template <typename To, typename From> struct Convert {
    To *to;
    const From *from;

    template <typename Count> __device__ void operator()(size_t i, Count) const
    {
        float x[Count::kCount];
        load_points<Count>(x, from, i);
        store_points<Count>(to, i, x);
    }
};

} // namespace

void cuda_adam(void *p, void *m, void *v, const void *g, DType dtype, size_t n,
               const AdamConfig *config, const StepState *step)
{
    const bool aligned = aligned16(p) && aligned16(m) && aligned16(v) && aligned16(g);
    with_dtype(dtype, [&](auto *tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        const AdamStep<T> work = {(T *)p,
                                  (T *)m,
                                  (T *)v,
                                  (const T *)g,
                                  (float)config->beta1,
                                  (float)(1 - config->beta1),
                                  (float)config->beta2,
                                  (float)(1 - config->beta2),
                                  (float)config->eps,
                                  config->lr_mul,
                                  step};
        launch_points(n, aligned, work);
    });
}

void cuda_accumulate(void *grad, DType dtype, const void *delta, size_t n)
{
    with_dtype(dtype, [&](auto *tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        launch_points(n, aligned16(grad) && aligned16(delta),
                      Accumulate<T>{(T *)grad, (const float *)delta});
    });
}

void cuda_load_param(void *weight, DType to, const void *param, DType from, size_t n)
{
    with_dtype(to, [&](auto *to_tag) {
        with_dtype(from, [&](auto *from_tag) {
            using To = std::remove_pointer_t<decltype(to_tag)>;
            using From = std::remove_pointer_t<decltype(from_tag)>;
            launch_points(n, aligned16(weight) && aligned16(param),
                          Convert<To, From>{(To *)weight, (const From *)param});
        });
    });
}
