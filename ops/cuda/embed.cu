// Token embedding with smear and norm, and the gradient of embedding tables (specification 2.2,
// 3.3). Bound by memory; one group of threads to a row (rows.cuh).
#include "rows.cuh"

namespace
{

constexpr int kMaxGateChannels = 64; // the recipe's bound

// sigmoid(gate . e[0..c)), known to the whole group.
template <typename Shape>
__device__ __forceinline__ float smear_gate(const bf16 *gate, const bf16 *e, int c)
{
    float z = 0;
    for (int j = row_lane<Shape>(); j < c; j += Shape::kGroup)
        z += __bfloat162float(gate[j]) * __bfloat162float(e[j]);
    return sigmoidf(group_sum<Shape>(z));
}

template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    embed_forward_kernel(bf16 *x0, float *r, const int32_t *ids, const bf16 *embed,
                         const bf16 *gate, const float *mu, int t, int d, int c, float eps)
{
    const int p = first_row<Shape>();
    if (p >= t) return;
    const bf16 *e = embed + (size_t)ids[p] * d;
    const Row<Shape> here = load_row<Shape>(e, d);
    Row<Shape> before = {};
    float weight = 0;
    if (p > 0) {
        before = load_row<Shape>(embed + (size_t)ids[p - 1] * d, d);
        weight = *mu * smear_gate<Shape>(gate, e, c);
    }
    float x[Shape::kVecs][8], sum = 0;
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float b[8];
        unpack8(x[i], here.v[i]);
        unpack8(b, before.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            x[i][j] += weight * b[j];
            sum += x[i][j] * x[i][j];
        }
    }
    const float scale = 1.0f / sqrtf(group_sum<Shape>(sum) / (float)d + eps);
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) x[i][j] *= scale;
        const int at = row_column<Shape>(i);
        if (at < d) store8(x0 + (size_t)p * d + at, pack8(x[i]));
    }
    if (row_lane<Shape>() == 0) r[p] = scale;
}

// dx = r (dy - y mean(dy y)) of row p: the gradient before the norm.
template <typename Shape>
__device__ __forceinline__ void input_gradient(float (&dx)[Shape::kVecs][8], const bf16 *dy,
                                               const bf16 *y, const float *r, int p, int d)
{
    const Row<Shape> grad = load_row<Shape>(dy + (size_t)p * d, d);
    const Row<Shape> out = load_row<Shape>(y + (size_t)p * d, d);
    const float mean = row_dot(grad, out) / (float)d, scale = r[p];
#pragma unroll
    for (int i = 0; i < Shape::kVecs; i++) {
        float g[8], o[8];
        unpack8(g, grad.v[i]);
        unpack8(o, out.v[i]);
#pragma unroll
        for (int j = 0; j < 8; j++) dx[i][j] = scale * (g[j] - o[j] * mean);
    }
}

// Row p of the gathered rows' gradient takes from two rows of dx: its own, and the next one through
// the smear; both are recomputed, so that rows are independent. Partial sum 0 is mu's, 1 + j that
// of the gate's channel j.
template <typename Shape>
__global__ void __launch_bounds__(kRowThreads)
    embed_backward_kernel(bf16 *de, float *partial, const bf16 *dx0, const bf16 *x0, const float *r,
                          const int32_t *ids, const bf16 *embed, const bf16 *gate, const float *mu,
                          int t, int d, int c)
{
    __shared__ float gate_sum[Shape::kRows][kMaxGateChannels];
    const int group = (int)threadIdx.x / Shape::kGroup, lane = row_lane<Shape>();
    const float m = *mu;
    float mu_sum = 0;
    for (int j = lane; j < c; j += Shape::kGroup) gate_sum[group][j] = 0; // read by its writer
    for (int p = first_row<Shape>(); p < t; p += (int)gridDim.x * Shape::kRows) {
        const bf16 *e = embed + (size_t)ids[p] * d;
        float sum[Shape::kVecs][8];
        input_gradient<Shape>(sum, dx0, x0, r, p, d);
        if (p > 0) {
            const Row<Shape> before = load_row<Shape>(embed + (size_t)ids[p - 1] * d, d);
            float gamma = 0; // dx . e_{p-1}
#pragma unroll
            for (int i = 0; i < Shape::kVecs; i++) {
                float b[8];
                unpack8(b, before.v[i]);
#pragma unroll
                for (int j = 0; j < 8; j++) gamma += sum[i][j] * b[j];
            }
            gamma = group_sum<Shape>(gamma);
            const float s = smear_gate<Shape>(gate, e, c), dz = m * s * (1 - s) * gamma;
            if (lane == 0) mu_sum += s * gamma;
            for (int j = lane; j < c; j += Shape::kGroup)
                gate_sum[group][j] += dz * __bfloat162float(e[j]);
#pragma unroll
            for (int i = 0; i < Shape::kVecs; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const int at = row_column<Shape>(i) + j;
                    if (at < c) sum[i][j] += dz * __bfloat162float(gate[at]);
                }
        }
        if (p + 1 < t) {
            float next[Shape::kVecs][8];
            input_gradient<Shape>(next, dx0, x0, r, p + 1, d);
            const float weight = m * smear_gate<Shape>(gate, embed + (size_t)ids[p + 1] * d, c);
#pragma unroll
            for (int i = 0; i < Shape::kVecs; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[i][j] += weight * next[i][j];
        }
#pragma unroll
        for (int i = 0; i < Shape::kVecs; i++) {
            const int at = row_column<Shape>(i);
            if (at < d) store8(de + (size_t)p * d + at, pack8(sum[i]));
        }
    }
    leave_partial(partial, 0, mu_sum);
    __syncthreads();
    for (int j = (int)threadIdx.x; j < c; j += kRowThreads) {
        float total = 0;
        for (int i = 0; i < Shape::kRows; i++) total += gate_sum[i][j];
        partial[(1 + j) * kSumBlocks + (int)blockIdx.x] = total;
    }
}

__global__ void __launch_bounds__(kRowThreads)
    embed_scalars_kernel(float *dmu, float *dgate, const float *partial, int blocks)
{
    const int i = (int)blockIdx.x;
    const double sum = total_of(partial, i, blocks);
    if (threadIdx.x == 0) *(i == 0 ? dmu : dgate + i - 1) += (float)sum;
}

// Adds the rows de_p of one id to `sum`, eight columns from `at` on: groups of 32 positions from
// `start` on, `stride` positions apart, until the id changes. Eight rows are loaded before the
// first is added.
__device__ __forceinline__ void add_rows(float (&sum)[8], const bf16 *de, const int32_t *ids,
                                         const int32_t *order, int id, int start, int stride, int t,
                                         int d, int at)
{
    constexpr int kAhead = 8;
    const int lane = (int)threadIdx.x % kWarp;
    for (int count = kWarp; count == kWarp; start += stride) {
        const int i = start + lane, position = i < t ? order[i] : 0;
        const unsigned same = __ballot_sync(0xffffffffu, i < t && ids[position] == id);
        count = ~same ? __ffs((int)~same) - 1 : kWarp; // those before the run's end
        for (int k = 0; k < count; k += kAhead) {
            Vec8 rows[kAhead];
#pragma unroll
            for (int j = 0; j < kAhead; j++) {
                const int p = __shfl_sync(0xffffffffu, position, (k + j) % kWarp);
                rows[j] = k + j < count && at < d ? load8(de + (size_t)p * d + at)
                                                  : Vec8{make_uint4(0, 0, 0, 0)};
            }
#pragma unroll
            for (int j = 0; j < kAhead; j++) {
                float x[8];
                unpack8(x, rows[j]);
#pragma unroll
                for (int c = 0; c < 8; c++) sum[c] += x[c];
            }
        }
    }
}

// grad = R(grad + R(sum)), eight columns.
template <typename T>
__device__ __forceinline__ void add_to_gradient(T *grad, const float (&sum)[8])
{
#pragma unroll
    for (int c = 0; c < 8; c++) {
        T rounded;
        store_rounded(&rounded, 0, sum[c]);
        store_rounded(grad, c, load_stored(grad, c) + load_stored(&rounded, 0));
    }
}

// A block looks at as many positions as it has warps, over 256 columns. A warp whose position
// begins the run of its id sums that run; a long run, of a frequent id, is summed by all the warps,
// 32 positions each in turn, and their sums are added in order.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    embed_scatter_kernel(T *grad, const bf16 *de, const int32_t *ids, const int32_t *order, int t,
                         int d)
{
    constexpr int kWarps = kRowThreads / kWarp, kLong = 128;
    __shared__ int long_run[kWarps]; // where it starts, or -1
    __shared__ float part[kWarps][kWarp * 8];
    const int warp = (int)threadIdx.x / kWarp, lane = (int)threadIdx.x % kWarp;
    const int at = ((int)blockIdx.y * kWarp + lane) * 8;
    const int first = (int)blockIdx.x * kWarps + warp;
    const int id = first < t ? ids[order[first]] : -1;
    const bool begins = first < t && (first == 0 || ids[order[first - 1]] != id);
    const bool is_long = begins && first + kLong < t && ids[order[first + kLong]] == id;
    if (lane == 0) long_run[warp] = is_long ? first : -1;
    if (begins && !is_long) {
        float sum[8] = {};
        add_rows(sum, de, ids, order, id, first, kWarp, t, d, at);
        if (at < d) add_to_gradient(grad + (size_t)id * d + at, sum);
    }
    __syncthreads();
    for (int i = 0; i < kWarps; i++) {
        const int start = long_run[i];
        if (start < 0) continue;
        const int long_id = ids[order[start]];
        float sum[8] = {};
        add_rows(sum, de, ids, order, long_id, start + warp * kWarp, kRowThreads, t, d, at);
#pragma unroll
        for (int c = 0; c < 8; c++) part[warp][c * kWarp + lane] = sum[c];
        __syncthreads();
        if (warp == 0) {
            for (int w = 1; w < kWarps; w++)
#pragma unroll
                for (int c = 0; c < 8; c++) sum[c] += part[w][c * kWarp + lane];
            if (at < d) add_to_gradient(grad + (size_t)long_id * d + at, sum);
        }
        __syncthreads();
    }
}

template <typename T>
void scatter(void *grad, const void *de, const int32_t *ids, const int32_t *order, int t, int d)
{
    const dim3 grid((unsigned)ceil_div((size_t)t, kRowThreads / kWarp),
                    (unsigned)ceil_div((size_t)d, kWarp * 8));
    embed_scatter_kernel<<<grid, kRowThreads, 0, cuda_stream()>>>((T *)grad, (const bf16 *)de, ids,
                                                                  order, t, d);
}

} // namespace

void cuda_embed_forward(void *x0, void *r, const int32_t *ids, const void *embed, const void *gate,
                        const void *mu, int t, int d, int c, double eps)
{
    with_row_shape(d, [&](auto shape) {
        embed_forward_kernel<decltype(shape)>
            <<<row_blocks(shape, t), kRowThreads, 0, cuda_stream()>>>(
                (bf16 *)x0, (float *)r, ids, (const bf16 *)embed, (const bf16 *)gate,
                (const float *)mu, t, d, c, (float)eps);
    });
    CHECK_LAUNCH();
}

void cuda_embed_backward(void *de, void *dgate, void *dmu, const void *dx0, const void *x0,
                         const void *r, const int32_t *ids, const void *embed, const void *gate,
                         const void *mu, int t, int d, int c)
{
    float *partial = (float *)cuda_scratch();
    int blocks = 0;
    if (c > kMaxGateChannels)
        cuda_fail("too many gate channels", "64 at most", "cuda_embed_backward", __FILE__,
                  __LINE__);
    with_row_shape(d, [&](auto shape) {
        blocks = sum_blocks(shape, t);
        embed_backward_kernel<decltype(shape)><<<blocks, kRowThreads, 0, cuda_stream()>>>(
            (bf16 *)de, partial, (const bf16 *)dx0, (const bf16 *)x0, (const float *)r, ids,
            (const bf16 *)embed, (const bf16 *)gate, (const float *)mu, t, d, c);
    });
    CHECK_LAUNCH();
    embed_scalars_kernel<<<1 + c, kRowThreads, 0, cuda_stream()>>>((float *)dmu, (float *)dgate,
                                                                   partial, blocks);
    CHECK_LAUNCH();
}

void cuda_embed_scatter(void *grad, DType dtype, const void *de, const int32_t *ids,
                        const int32_t *order, int t, int d)
{
    if (dtype == DT_BF16)
        scatter<bf16>(grad, de, ids, order, t, d);
    else if (dtype == DT_F32)
        scatter<float>(grad, de, ids, order, t, d);
    else
        cuda_fail("the tables' gradients are bf16 or f32", "a fault of the caller",
                  "cuda_embed_scatter", __FILE__, __LINE__);
    CHECK_LAUNCH();
}
