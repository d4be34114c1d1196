// The NorMuon update of a bank on the GPU, in four steps over the whole bank: momentum and the mix
// that is orthogonalised, with its sums of squares (one pass); the orthogonalisation; second
// moments and both norms (one pass over O by strips of columns); the parameters (one pass).
// Roundings are ops/cpu/normuon.c's; products and sums that the specification rounds one by one are
// kept apart from fused multiply-adds. Every sum has a fixed order.
#include "ops/cuda/ns_passes.h"

namespace
{

constexpr int kBlock = 256, kStrip = 64; // columns of one block of the column pass
constexpr int kMostMatrices = 128;       // whose lr_mul fit into one launch's arguments
constexpr size_t kAlign = 1024;

struct LrMul {
    double of[kMostMatrices];
};

// What a bank's update keeps in its workspace. O takes the place of the mix where both have one
// type.
struct Work {
    char *mix, *o, *ns;
    float *factor;          // (count, cols)
    double *before, *after; // (count, strips): sums of squares
    size_t bytes;
};

bool rounds(const NsMethod *method)
{
    return method->storage == DT_BF16 || method->storage == DT_F16;
}

// The mix is cast as the orthogonalisation stores it; fp16 needs its range found first.
DType mix_type(const NsMethod *method) { return method->storage == DT_BF16 ? DT_BF16 : DT_F32; }
DType o_type(const NsMethod *method) { return rounds(method) ? method->storage : DT_F32; }

int strips(const MuonBank *bank) { return ceil_div((size_t)bank->cols, kStrip); }

Work lay_out(const MuonBank *bank, const NsMethod *method, char *base)
{
    Work w = {};
    const auto take = [&](size_t bytes) {
        char *at = base ? base + w.bytes : nullptr;
        w.bytes += (bytes + kAlign - 1) / kAlign * kAlign;
        return at;
    };
    const size_t count = (size_t)bank->count, sums = count * strips(bank) * sizeof(double);
    const size_t numbers = count * bank->rows * bank->cols;
    w.mix = take(numbers * dtype_size(mix_type(method)));
    w.o = mix_type(method) == o_type(method) ? w.mix : take(numbers * dtype_size(o_type(method)));
    w.factor = reinterpret_cast<float *>(take(count * bank->cols * sizeof(float)));
    w.before = reinterpret_cast<double *>(take(sums));
    w.after = reinterpret_cast<double *>(take(sums));
    w.ns = take(ns_workspace_size_cuda(method, bank->count, bank->rows, bank->cols));
    return w;
}

// ---- device
// --------------------------------------------------------------------------------------

// kCount consecutive numbers, in as few accesses as their type allows.
template <typename T, int kCount> struct alignas(kCount == 1 ? sizeof(T) : 16) Numbers {
    T v[kCount];
};
template <int kCount, typename T> __device__ __forceinline__ Numbers<T, kCount> read(const T *p)
{
    return *reinterpret_cast<const Numbers<T, kCount> *>(p);
}
template <int kCount, typename T>
__device__ __forceinline__ void write(T *p, const Numbers<T, kCount> &x)
{
    *reinterpret_cast<Numbers<T, kCount> *>(p) = x;
}

template <typename T> __device__ __forceinline__ float rounded(float x)
{
    T stored;
    store_rounded(&stored, 0, x);
    return load_stored(&stored, 0);
}

// As torch's lerp, from the nearer end, every operation rounding.
__device__ __forceinline__ float lerp_rounding(float start, float end, float weight)
{
    const float difference = __fsub_rn(end, start);
    return weight < 0.5f ? __fadd_rn(start, __fmul_rn(weight, difference))
                         : __fsub_rn(end, __fmul_rn(difference, __fsub_rn(1, weight)));
}

// P stores momentum and gradient; R is what P rounds to (P, or float); U is the mix's type. Grid
// (parts, count).
template <typename P, typename R, typename U, int kCount>
__global__ void momentum_kernel(U *mix, P *momentum, const P *grad, double *partial, size_t size,
                                const StepState *step)
{
    __shared__ double room[kBlock / kWarp];
    const float weight = (float)step->muon_momentum, rest = (float)(1 - step->muon_momentum);
    const size_t base = blockIdx.y * size, stride = (size_t)gridDim.x * kBlock * kCount;
    double sum = 0;
    for (size_t i = (blockIdx.x * kBlock + threadIdx.x) * (size_t)kCount; i < size; i += stride) {
        Numbers<P, kCount> g = read<kCount>(grad + base + i), m = read<kCount>(momentum + base + i);
        Numbers<U, kCount> u;
#pragma unroll
        for (int e = 0; e < kCount; e++) {
            const float ge = load_stored(g.v, e);
            const float me = rounded<R>(lerp_rounding(load_stored(m.v, e), ge, rest));
            const float mixed = rounded<R>(lerp_rounding(ge, me, weight));
            store_rounded(m.v, e, me);
            store_rounded(u.v, e, mixed);
            sum += (double)mixed * mixed;
        }
        write<kCount>(momentum + base + i, m);
        write<kCount>(mix + base + i, u);
    }
    sum = block_sum<kBlock>(sum, room);
    if (partial && threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// One block to a strip of columns, rows divided among `lanes` of threads: steps 6 to 9. T is O's
// type; Q what O rounds to (bf16, or float). Grid (strips, count).
template <typename P, typename R, typename T, typename Q, int kCount>
__global__ void column_kernel(float *factor, double *before, double *after, P *second_moment,
                              const T *o, int rows, int cols, double beta2)
{
    constexpr int kAcross = kStrip / kCount, kLanes = kBlock / kAcross;
    __shared__ float sums[kLanes][kStrip];
    __shared__ float factors[kStrip];
    __shared__ double room[kBlock / kWarp];
    const int lane = threadIdx.x / kAcross, across = threadIdx.x % kAcross * kCount;
    const int col = blockIdx.x * kStrip + across;
    const bool inside = col < cols;
    const T *from = o + (size_t)blockIdx.y * rows * cols + col;

    float column[kCount] = {}, total = 0;
    if (inside)
        for (int i = lane; i < rows; i += kLanes) {
            const Numbers<T, kCount> v = read<kCount>(from + (size_t)i * cols);
#pragma unroll
            for (int e = 0; e < kCount; e++) {
                const float x = rounded<Q>(load_stored(v.v, e)), square = __fmul_rn(x, x);
                column[e] += rounded<Q>(square);
                total += square;
            }
        }
#pragma unroll
    for (int e = 0; e < kCount; e++) sums[lane][across + e] = column[e];
    const double all = block_sum<kBlock>((double)total, room);
    if (threadIdx.x == 0) before[blockIdx.y * gridDim.x + blockIdx.x] = all;

    const int j = blockIdx.x * kStrip + threadIdx.x;
    if (threadIdx.x < kStrip && j < cols) {
        float sum = 0;
        for (int l = 0; l < kLanes; l++) sum += sums[l][threadIdx.x];
        const size_t at = (size_t)blockIdx.y * cols + j;
        const float mean = rounded<R>(rounded<Q>(sum / (float)rows)), least = rounded<R>(1e-10f);
        const float s =
            rounded<R>(lerp_rounding(load_stored(second_moment, at), mean, (float)(1 - beta2)));
        store_rounded(second_moment, at, s);
        const float f = rounded<R>((float)(1 / sqrt((double)(s < least ? least : s))));
        factor[at] = factors[threadIdx.x] = f;
    }
    __syncthreads();

    total = 0;
    if (inside)
        for (int i = lane; i < rows; i += kLanes) {
            const Numbers<T, kCount> v = read<kCount>(from + (size_t)i * cols);
#pragma unroll
            for (int e = 0; e < kCount; e++) {
                const float x = rounded<Q>(load_stored(v.v, e));
                const float y = rounded<Q>(__fmul_rn(x, factors[across + e]));
                total += __fmul_rn(y, y);
            }
        }
    const double left = block_sum<kBlock>((double)total, room);
    if (threadIdx.x == 0) after[blockIdx.y * gridDim.x + blockIdx.x] = left;
}

// |.|_F from the partial sums of squares of one matrix.
template <typename Q>
__device__ __forceinline__ float norm_of(const double *sums, int n, double *room)
{
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += kBlock) sum += sums[i];
    return rounded<Q>((float)sqrt(block_sum<kBlock>(sum, room)));
}

// Steps 9, 10 and 12 to 14. Grid (parts, count).
template <typename P, typename R, typename T, typename Q, int kCount>
__global__ void param_kernel(P *param, const T *o, const float *factor, const double *before,
                             const double *after, int strips, int rows, int cols, double shape,
                             const LrMul lr_mul, const StepState *step)
{
    __shared__ double room[kBlock / kWarp];
    const size_t size = (size_t)rows * cols, base = blockIdx.y * size;
    const float norm = norm_of<Q>(before + (size_t)blockIdx.y * strips, strips, room);
    const float scaled = norm_of<Q>(after + (size_t)blockIdx.y * strips, strips, room);
    const float least = rounded<Q>(1e-10f);
    const float ratio = rounded<Q>(norm / (scaled < least ? least : scaled));
    const float lr = rounded<R>((float)(step->muon_lr * shape * lr_mul.of[blockIdx.y]));
    const float wd = rounded<R>((float)(step->muon_lr * step->muon_wd));
    const float *factors = factor + (size_t)blockIdx.y * cols;
    const size_t stride = (size_t)gridDim.x * kBlock * kCount;
    for (size_t i = (blockIdx.x * kBlock + threadIdx.x) * (size_t)kCount; i < size; i += stride) {
        Numbers<P, kCount> p = read<kCount>(param + base + i);
        const Numbers<T, kCount> v = read<kCount>(o + base + i);
        const Numbers<float, kCount> f = read<kCount>(factors + i % cols);
#pragma unroll
        for (int e = 0; e < kCount; e++) {
            const float pe = load_stored(p.v, e);
            float x = rounded<Q>(__fmul_rn(rounded<Q>(load_stored(v.v, e)), f.v[e]));
            x = rounded<Q>(__fmul_rn(x, ratio));
            const float decay = rounded<R>(__fmul_rn(x, pe)) >= 0 ? wd : 0;
            x = rounded<Q>(__fadd_rn(x, __fmul_rn(pe, decay)));
            store_rounded(p.v, e, __fsub_rn(pe, __fmul_rn(lr, x)));
        }
        write<kCount>(param + base + i, p);
    }
}

// ---- host
// ----------------------------------------------------------------------------------------

template <typename P, typename R, typename U, typename T, typename Q, int kCount>
void update(const MuonBank *bank, const NsMethod *method, const StepState *step, char *workspace)
{
    const Work w = lay_out(bank, method, workspace);
    const int rows = bank->rows, cols = bank->cols, count = bank->count;
    const size_t size = (size_t)rows * cols;
    const cudaStream_t stream = cuda_stream();
    U *mix = reinterpret_cast<U *>(w.mix);
    T *o = reinterpret_cast<T *>(w.o);
    int parts;
    double *partial = ns_square_sums_cuda(method, count, rows, cols, w.ns, &parts);

    momentum_kernel<P, R, U, kCount><<<dim3(parts, count), kBlock, 0, stream>>>(
        mix, static_cast<P *>(bank->momentum), static_cast<const P *>(bank->grad), partial, size,
        step);
    CHECK_LAUNCH();
    ns_orthogonalize_to_cuda(method, o, o_type(method), mix, mix_type(method), true, count, rows,
                             cols, w.ns, stream);
    column_kernel<P, R, T, Q, kCount><<<dim3(strips(bank), count), kBlock, 0, stream>>>(
        w.factor, w.before, w.after, static_cast<P *>(bank->second_moment), o, rows, cols,
        bank->beta2);
    CHECK_LAUNCH();
    const double shape = rows > cols ? sqrt((double)rows / cols) : 1;
    for (int first = 0; first < count; first += kMostMatrices) {
        const int some = count - first < kMostMatrices ? count - first : kMostMatrices;
        const size_t sums = (size_t)first * strips(bank);
        LrMul lr_mul = {};
        for (int i = 0; i < some; i++) lr_mul.of[i] = bank->lr_mul[first + i];
        param_kernel<P, R, T, Q, kCount><<<dim3(parts, some), kBlock, 0, stream>>>(
            static_cast<P *>(bank->param) + first * size, o + first * size,
            w.factor + (size_t)first * cols, w.before + sums, w.after + sums, strips(bank), rows,
            cols, shape, lr_mul, step);
        CHECK_LAUNCH();
    }
}

// Eight numbers at a time where rows allow it.
template <typename P, typename R, typename U, typename T, typename Q>
void update_as(const MuonBank *bank, const NsMethod *method, const StepState *step, char *workspace)
{
    if (bank->cols % 8 == 0)
        update<P, R, U, T, Q, 8>(bank, method, step, workspace);
    else
        update<P, R, U, T, Q, 1>(bank, method, step, workspace);
}

template <typename P>
void update_stored(const MuonBank *bank, const NsMethod *method, const StepState *step,
                   char *workspace)
{
    if (method->storage == DT_BF16)
        update_as<P, P, bf16, bf16, bf16>(bank, method, step, workspace);
    else if (method->storage == DT_F16)
        update_as<P, P, float, __half, bf16>(bank, method, step, workspace);
    else
        update_as<P, float, float, float, float>(bank, method, step, workspace);
}

} // namespace

extern "C" void cuda_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                             void *workspace)
{
    const NsMethod chosen = ns_method_for(method, bank->rows, bank->cols);
    char *const work = static_cast<char *>(workspace);
    if (bank->dtype == DT_F32)
        update_stored<float>(bank, &chosen, step, work);
    else if (bank->dtype == DT_BF16)
        update_stored<bf16>(bank, &chosen, step, work);
    else
        cuda_fail("parameters of this type", "banks on a GPU are fp32 or bf16", "normuon", __FILE__,
                  __LINE__);
}

extern "C" size_t cuda_normuon_workspace(const MuonBank *bank, const NsMethod *method)
{
    const NsMethod chosen = ns_method_for(method, bank->rows, bank->cols);
    return lay_out(bank, &chosen, nullptr).bytes;
}
