// Token embedding with smear and norm, and the gradient of embedding tables (specification 2.2,
// 3.3). Bound by memory; one group of threads to a row (rows.cuh).
#include "pointwise.cuh"
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

// Eight columns of a gradient, as they lie in memory.
template <typename T> struct alignas(16) Columns {
    T x[8];
};

// grad = R(grad + R(sum)); `old` is what grad holds.
template <typename T>
__device__ __forceinline__ void add_to_gradient(T *grad, Columns<T> old, const float (&sum)[8])
{
#pragma unroll
    for (int c = 0; c < 8; c++) {
        T rounded;
        store_rounded(&rounded, 0, sum[c]);
        store_rounded(old.x, c, load_stored(old.x, c) + load_stored(&rounded, 0));
    }
    *reinterpret_cast<Columns<T> *>(grad) = old;
}

// embed_scatter cuts the sorted positions into chunks of equal length, a warp to each and to 256
// columns, so that a frequent id is shared out. Runs of an id that lie in one chunk are added to
// the gradient at once. Of a run that crosses chunks each leaves a partial sum: in its `head` row
// where the run has begun before the chunk, in its `tail` row where it begins there. A second
// kernel adds them in order. Bound by memory: de is read once, a touched row of the gradient read
// and written.
constexpr int kScatterWarps = 4;

struct Sorted {
    const int32_t *ids, *order;
    int t;
    __device__ __forceinline__ int operator()(int i) const // id of the i-th; -1 outside
    {
        return i >= 0 && i < t ? ids[order[i]] : -1;
    }
};

__device__ __forceinline__ void store_partial(float *p, const float (&sum)[8])
{
    reinterpret_cast<float4 *>(p)[0] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(sum[4], sum[5], sum[6], sum[7]);
}

template <typename T>
__global__ void __launch_bounds__(kScatterWarps *kWarp)
    scatter_chunks_kernel(T *grad, float *head, float *tail, const bf16 *de, Sorted sorted,
                          int length, int d)
{
    constexpr int kAhead = sizeof(T) == 4 ? 2 : 4; // rows loaded before the first is added
    const int lane = (int)threadIdx.x % kWarp, at = ((int)blockIdx.y * kWarp + lane) * 8;
    const int chunk = (int)blockIdx.x * kScatterWarps + (int)threadIdx.x / kWarp;
    const int first = chunk * length, end = min(first + length, sorted.t);
    const bool mine = at < d;
    const size_t partial = (size_t)chunk * d + at;
    if (first >= end) return;
    bool before = sorted(first - 1) == sorted(first); // the run that is summed has begun before
    bool ends = false;
    float sum[8] = {};
    for (int start = first; start < end; start += kWarp) {
        const int i = start + lane, position = i < end ? sorted.order[i] : 0;
        const int id = i < end ? sorted.ids[position] : -1;
        const unsigned last = __ballot_sync(0xffffffffu, i < end && sorted(i + 1) != id);
        for (int k = 0; k < kWarp && start + k < end; k += kAhead) {
            Vec8 rows[kAhead];
            Columns<T> old[kAhead];
            T *to[kAhead];
#pragma unroll
            for (int j = 0; j < kAhead; j++) {
                const int p = __shfl_sync(0xffffffffu, position, k + j);
                to[j] = grad + (size_t)__shfl_sync(0xffffffffu, id, k + j) * d + at;
                rows[j] = start + k + j < end && mine ? load8(de + (size_t)p * d + at)
                                                      : Vec8{make_uint4(0, 0, 0, 0)};
                if (mine && (last >> (k + j) & 1))
                    old[j] = *reinterpret_cast<const Columns<T> *>(to[j]);
            }
#pragma unroll
            for (int j = 0; j < kAhead; j++) {
                if (start + k + j >= end) break;
                float x[8];
                unpack8(x, rows[j]);
#pragma unroll
                for (int c = 0; c < 8; c++) sum[c] += x[c];
                ends = last >> (k + j) & 1;
                if (!ends) continue;
                if (mine && before) store_partial(head + partial, sum);
                if (mine && !before) add_to_gradient(to[j], old[j], sum);
                before = false;
#pragma unroll
                for (int c = 0; c < 8; c++) sum[c] = 0;
            }
        }
    }
    if (mine && !ends) store_partial((before ? head : tail) + partial, sum);
}

// A warp whose chunk holds the beginning of a run that crosses chunks adds up its partial sums.
template <typename T>
__global__ void __launch_bounds__(kScatterWarps *kWarp)
    scatter_runs_kernel(T *grad, const float *head, const float *tail, Sorted sorted, int length,
                        int d)
{
    constexpr int kAhead = 8;
    const int lane = (int)threadIdx.x % kWarp, at = ((int)blockIdx.y * kWarp + lane) * 8;
    const int chunk = (int)blockIdx.x * kScatterWarps + (int)threadIdx.x / kWarp;
    const int first = chunk * length, end = first + length;
    if (end >= sorted.t) return;
    const int id = sorted(end);
    if (sorted(end - 1) != id || sorted(first - 1) == id) return;
    const bool mine = at < d;
    float sum[8] = {};
    if (mine)
#pragma unroll
        for (int c = 0; c < 8; c++) sum[c] = tail[(size_t)chunk * d + at + c];
    for (int next = chunk + 1, count = kWarp; count == kWarp; next += kWarp) {
        const bool in_run = sorted((next + lane) * length) == id; // the run reaches that chunk
        const unsigned out = ~__ballot_sync(0xffffffffu, in_run);
        count = out ? __ffs((int)out) - 1 : kWarp;
        for (int k = 0; k < count && mine; k += kAhead) {
            float x[kAhead][8];
#pragma unroll
            for (int j = 0; j < kAhead; j++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    x[j][c] = k + j < count ? head[(size_t)(next + k + j) * d + at + c] : 0.0f;
#pragma unroll
            for (int j = 0; j < kAhead; j++)
#pragma unroll
                for (int c = 0; c < 8; c++) sum[c] += x[j][c];
        }
    }
    T *to = grad + (size_t)id * d + at;
    if (mine) add_to_gradient(to, *reinterpret_cast<const Columns<T> *>(to), sum);
}

template <typename T>
void scatter(void *grad, const void *de, const int32_t *ids, const int32_t *order, int t, int d)
{
    int length = kWarp; // as short as the room for partial sums allows
    while ((size_t)ceil_div((size_t)t, length) * (size_t)d * 2 * sizeof(float) > kScratchBytes)
        length *= 2;
    const int chunks = ceil_div((size_t)t, length);
    const dim3 grid((unsigned)ceil_div((size_t)chunks, kScatterWarps),
                    (unsigned)ceil_div((size_t)d, kWarp * 8));
    float *head = (float *)cuda_scratch(), *tail = head + (size_t)chunks * d;
    const Sorted sorted = {ids, order, t};
    if (t == 0) return;
    scatter_chunks_kernel<<<grid, kScatterWarps * kWarp, 0, cuda_stream()>>>(
        (T *)grad, head, tail, (const bf16 *)de, sorted, length, d);
    CHECK_LAUNCH();
    scatter_runs_kernel<<<grid, kScatterWarps * kWarp, 0, cuda_stream()>>>((T *)grad, head, tail,
                                                                           sorted, length, d);
}

// A warp to each row, a number to each lane: bound by memory, reading and writing n rows.
constexpr int kGatherWarps = 8;

template <typename T>
__global__ void __launch_bounds__(kGatherWarps *kWarp)
    gather_rows_kernel(T *out, const T *table, const int32_t *rows, float scale, int n, int d)
{
    const int i = (int)blockIdx.x * kGatherWarps + (int)threadIdx.x / kWarp;
    if (i >= n) return;
    const T *from = table + (size_t)rows[i] * d;
    T *to = out + (size_t)i * d;
#pragma unroll 8
    for (int j = (int)threadIdx.x % kWarp; j < d; j += kWarp)
        store_rounded(to, (size_t)j, scale * load_stored(from, (size_t)j));
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

void cuda_gather_rows(void *out, const void *table, DType dtype, const int32_t *rows, double scale,
                      int n, int d)
{
    if (n == 0) return;
    with_dtype(dtype, [&](auto *tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        gather_rows_kernel<T><<<ceil_div((size_t)n, kGatherWarps), kGatherWarps * kWarp, 0,
                                cuda_stream()>>>((T *)out, (const T *)table, rows, (float)scale, n,
                                                 d);
    });
    CHECK_LAUNCH();
}
