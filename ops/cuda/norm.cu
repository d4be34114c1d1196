// RMS norm and the residual stream around it: lambda-mix, skip, backout (specification 2.1, 2.3,
// 2.6).
//
// All are bound by memory: each row is read once into registers, worked on in fp32, and written
// once. The backward kernels that also sum into scalars run as at most kSumBlocks blocks and leave
// one partial sum a block; a second kernel of one block adds those.
#include "rows.cuh"

namespace
{

// y = r x with r = rsqrt(mean x^2 + eps), x in fp32.
template <typename Shape>
__device__ __forceinline__ void norm_and_store(bf16 *y, float *r, const float (&x)[Shape::kVecs][8],
                                               int d, float eps)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sum += x[i][j] * x[i][j];
    const float scale = 1.0f / sqrtf(group_sum<Shape>(sum) / (float)d + eps);
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float out[8];
#pragma unroll
        for (int j = 0; j < 8; j++) out[j] = scale * x[i][j];
        const int at = row_column<Shape>(i);
        if (at < d) store8(y + at, pack8(out));
    }
    if (row_lane<Shape>() == 0) *r = scale;
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    mix_norm_forward_kernel(bf16 *x, bf16 *y, float *r, const bf16 *x_in, const bf16 *skip,
                            const float *skip_gate, const bf16 *x0, const float *lambda, int t,
                            int d, float eps)
{
    const int row = first_row<Shape>();
    if (row >= t) return;
    const size_t at_row = (size_t)row * d;
    const float l0 = lambda[0], l1 = lambda[1], gate = skip ? sigmoidf(*skip_gate) : 0.0f;
    const Row<Shape> in = load_row<Shape>(x_in + at_row, d);
    const Row<Shape> start = load_row<Shape>(x0 + at_row, d);
    Row<Shape> other = {};
    if (skip) other = load_row<Shape>(skip + at_row, d);
    float mixed[Shape::kVecs][8];
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float a[8], b[8], s[8];
        unpack8(a, in.v[i]);
        unpack8(b, start.v[i]);
        unpack8(s, other.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) mixed[i][j] = l0 * (a[j] + gate * s[j]) + l1 * b[j];
        const int at = row_column<Shape>(i);
        if (at < d) store8(x + at_row + at, pack8(mixed[i]));
    }
    norm_and_store<Shape>(y + at_row, r + row, mixed, d, eps);
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    norm_forward_kernel(bf16 *y, float *r, const bf16 *x, int t, int d, float eps)
{
    const int row = first_row<Shape>();
    if (row >= t) return;
    const Row<Shape> in = load_row<Shape>(x + (size_t)row * d, d);
    float value[Shape::kVecs][8];
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) unpack8(value[i], in.v[i]);
    norm_and_store<Shape>(y + (size_t)row * d, r + row, value, d, eps);
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    backout_norm_forward_kernel(bf16 *y, float *r, const bf16 *x, const bf16 *x_back,
                                const float *beta, int t, int d, float eps)
{
    const int row = first_row<Shape>();
    if (row >= t) return;
    const float b = *beta;
    const Row<Shape> in = load_row<Shape>(x + (size_t)row * d, d);
    const Row<Shape> back = load_row<Shape>(x_back + (size_t)row * d, d);
    float value[Shape::kVecs][8];
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float other[8];
        unpack8(value[i], in.v[i]);
        unpack8(other, back.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) value[i][j] -= b * other[j];
    }
    norm_and_store<Shape>(y + (size_t)row * d, r + row, value, d, eps);
}

// g = r (dy - y mean): eight numbers of the norm's gradient.
__device__ __forceinline__ void norm_gradient(float (&g)[8], Vec8 dy, Vec8 y, float r, float mean)
{
    float a[8], b[8];
    unpack8(a, dy);
    unpack8(b, y);
#pragma unroll
    for (int j = 0; j < 8; j++) g[j] = r * (a[j] - b[j] * mean);
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    norm_backward_kernel(bf16 *dx, const bf16 *dy, const bf16 *y, const float *r, int t, int d)
{
    const int row = first_row<Shape>();
    if (row >= t) return;
    const size_t at_row = (size_t)row * d;
    const Row<Shape> grad = load_row<Shape>(dy + at_row, d), out = load_row<Shape>(y + at_row, d);
    const Row<Shape> sum = load_row<Shape>(dx + at_row, d);
    const float mean = row_dot(grad, out) / (float)d, scale = r[row];
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float g[8], total[8];
        norm_gradient(g, grad.v[i], out.v[i], scale, mean);
        unpack8(total, sum.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) total[j] += g[j];
        const int at = row_column<Shape>(i);
        if (at < d) store8(dx + at_row + at, pack8(total));
    }
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    mix_norm_backward_kernel(bf16 *dx, bf16 *dskip, bf16 *dx0, float *partial, const bf16 *dy,
                             const bf16 *y, const float *r, const bf16 *x_in, const bf16 *skip,
                             const float *skip_gate, const bf16 *x0, const float *lambda, int t,
                             int d)
{
    const float l0 = lambda[0], l1 = lambda[1], gate = skip ? sigmoidf(*skip_gate) : 0.0f;
    float sum_in = 0, sum_x0 = 0, sum_skip = 0; // of G x_in, G x0, G skip
    for (int row = first_row<Shape>(); row < t; row += (int)gridDim.x * Shape::kRows) {
        const size_t at_row = (size_t)row * d;
        const Row<Shape> grad = load_row<Shape>(dy + at_row, d);
        const Row<Shape> out = load_row<Shape>(y + at_row, d);
        const Row<Shape> residual = load_row<Shape>(dx + at_row, d);
        const float mean = row_dot(grad, out) / (float)d, scale = r[row];
#pragma unroll
        for (int i = 0; i < Shape::kVecs; i++) {
            const int at = row_column<Shape>(i);
            if (at >= d) continue;
            float g[8], a[8], b[8];
            norm_gradient(g, grad.v[i], out.v[i], scale, mean);
            unpack8(a, residual.v[i]);
#pragma unroll
            for (int j = 0; j < 8; j++) g[j] += a[j];
            unpack8(a, load8(x_in + at_row + at));
#pragma unroll
            for (int j = 0; j < 8; j++) sum_in += g[j] * a[j];
            unpack8(a, load8(x0 + at_row + at));
            unpack8(b, load8(dx0 + at_row + at));
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum_x0 += g[j] * a[j];
                b[j] += l1 * g[j];
            }
            store8(dx0 + at_row + at, pack8(b));
#pragma unroll
            for (int j = 0; j < 8; j++) b[j] = l0 * g[j];
            store8(dx + at_row + at, pack8(b));
            if (!skip) continue;
            unpack8(a, load8(skip + at_row + at));
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum_skip += g[j] * a[j];
                b[j] *= gate;
            }
            store8(dskip + at_row + at, pack8(b));
        }
    }
    leave_partial(partial, 0, sum_in);
    leave_partial(partial, 1, sum_x0);
    leave_partial(partial, 2, sum_skip);
}

__global__ void __launch_bounds__(kRowThreads)
    mix_norm_scalars_kernel(float *dlambda, float *dskip_gate, const float *partial, int blocks,
                            const float *skip_gate, const float *lambda)
{
    const double in = total_of(partial, 0, blocks), x0 = total_of(partial, 1, blocks);
    const double skip = total_of(partial, 2, blocks);
    if (threadIdx.x > 0) return;
    const float gate = skip_gate ? sigmoidf(*skip_gate) : 0.0f;
    dlambda[0] += (float)(in + (double)gate * skip);
    dlambda[1] += (float)x0;
    if (skip_gate) *dskip_gate += (float)((double)(lambda[0] * gate * (1 - gate)) * skip);
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    backout_norm_backward_kernel(bf16 *dx, bf16 *dx_back, float *partial, const bf16 *dy,
                                 const bf16 *y, const float *r, const bf16 *x_back,
                                 const float *beta, int t, int d)
{
    const float b = *beta;
    float sum = 0; // of g x_back
    for (int row = first_row<Shape>(); row < t; row += (int)gridDim.x * Shape::kRows) {
        const size_t at_row = (size_t)row * d;
        const Row<Shape> grad = load_row<Shape>(dy + at_row, d);
        const Row<Shape> out = load_row<Shape>(y + at_row, d);
        const float mean = row_dot(grad, out) / (float)d, scale = r[row];
#pragma unroll
        for (int i = 0; i < Shape::kVecs; i++) {
            const int at = row_column<Shape>(i);
            if (at >= d) continue;
            float g[8], back[8];
            norm_gradient(g, grad.v[i], out.v[i], scale, mean);
            unpack8(back, load8(x_back + at_row + at));
            store8(dx + at_row + at, pack8(g));
#pragma unroll
            for (int j = 0; j < 8; j++) {
                sum += g[j] * back[j];
                g[j] *= -b;
            }
            store8(dx_back + at_row + at, pack8(g));
        }
    }
    leave_partial(partial, 0, sum);
}

__global__ void __launch_bounds__(kRowThreads)
    backout_scalar_kernel(float *dbeta, const float *partial, int blocks)
{
    const double sum = total_of(partial, 0, blocks);
    if (threadIdx.x == 0) *dbeta -= (float)sum;
}

} // namespace

void cuda_mix_norm_forward(void *x, void *y, void *r, const void *x_in, const void *skip,
                           const void *skip_gate, const void *x0, const void *lambda, int t, int d,
                           double eps)
{
    with_row_shape(d, [&](auto shape) {
        mix_norm_forward_kernel<decltype(shape)>
            <<<row_blocks(shape, t), kRowThreads, 0, cuda_stream()>>>(
                (bf16 *)x, (bf16 *)y, (float *)r, (const bf16 *)x_in, (const bf16 *)skip,
                (const float *)skip_gate, (const bf16 *)x0, (const float *)lambda, t, d,
                (float)eps);
    });
    CHECK_LAUNCH();
}

void cuda_mix_norm_backward(void *dx, void *dskip, void *dx0, void *dlambda, void *dskip_gate,
                            const void *dy, const void *y, const void *r, const void *x_in,
                            const void *skip, const void *skip_gate, const void *x0,
                            const void *lambda, int t, int d)
{
    float *partial = (float *)cuda_scratch();
    int blocks = 0;
    with_row_shape(d, [&](auto shape) {
        blocks = sum_blocks(shape, t);
        mix_norm_backward_kernel<decltype(shape)><<<blocks, kRowThreads, 0, cuda_stream()>>>(
            (bf16 *)dx, (bf16 *)dskip, (bf16 *)dx0, partial, (const bf16 *)dy, (const bf16 *)y,
            (const float *)r, (const bf16 *)x_in, (const bf16 *)skip, (const float *)skip_gate,
            (const bf16 *)x0, (const float *)lambda, t, d);
    });
    CHECK_LAUNCH();
    mix_norm_scalars_kernel<<<1, kRowThreads, 0, cuda_stream()>>>(
        (float *)dlambda, (float *)dskip_gate, partial, blocks,
        skip ? (const float *)skip_gate : nullptr, (const float *)lambda);
    CHECK_LAUNCH();
}

void cuda_norm_forward(void *y, void *r, const void *x, int t, int d, double eps)
{
    with_row_shape(d, [&](auto shape) {
        norm_forward_kernel<decltype(shape)>
            <<<row_blocks(shape, t), kRowThreads, 0, cuda_stream()>>>(
                (bf16 *)y, (float *)r, (const bf16 *)x, t, d, (float)eps);
    });
    CHECK_LAUNCH();
}

void cuda_norm_backward(void *dx, const void *dy, const void *y, const void *r, int t, int d)
{
    with_row_shape(d, [&](auto shape) {
        norm_backward_kernel<decltype(shape)>
            <<<row_blocks(shape, t), kRowThreads, 0, cuda_stream()>>>(
                (bf16 *)dx, (const bf16 *)dy, (const bf16 *)y, (const float *)r, t, d);
    });
    CHECK_LAUNCH();
}

void cuda_backout_norm_forward(void *y, void *r, const void *x, const void *x_back,
                               const void *beta, int t, int d, double eps)
{
    with_row_shape(d, [&](auto shape) {
        backout_norm_forward_kernel<decltype(shape)>
            <<<row_blocks(shape, t), kRowThreads, 0, cuda_stream()>>>(
                (bf16 *)y, (float *)r, (const bf16 *)x, (const bf16 *)x_back, (const float *)beta,
                t, d, (float)eps);
    });
    CHECK_LAUNCH();
}

void cuda_backout_norm_backward(void *dx, void *dx_back, void *dbeta, const void *dy, const void *y,
                                const void *r, const void *x_back, const void *beta, int t, int d)
{
    float *partial = (float *)cuda_scratch();
    int blocks = 0;
    with_row_shape(d, [&](auto shape) {
        blocks = sum_blocks(shape, t);
        backout_norm_backward_kernel<decltype(shape)><<<blocks, kRowThreads, 0, cuda_stream()>>>(
            (bf16 *)dx, (bf16 *)dx_back, partial, (const bf16 *)dy, (const bf16 *)y,
            (const float *)r, (const bf16 *)x_back, (const float *)beta, t, d);
    });
    CHECK_LAUNCH();
    backout_scalar_kernel<<<1, kRowThreads, 0, cuda_stream()>>>((float *)dbeta, partial, blocks);
    CHECK_LAUNCH();
}
