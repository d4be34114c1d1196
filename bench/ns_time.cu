// Times of orthogonalisation on the GPU: whole methods, and single products.
#include "../ops/cuda/ns_products.h"

#include "ns_bench.h"

#include <algorithm>
#include <vector>

namespace
{

constexpr double kPeak = 790e12;
constexpr int kReplays = 24;

// 2 m^2 n for an apply, 2 `area` n for X X^T and 2 `area` m for other symmetric products, of which
// area numbers count.
double flops_of(const NsMethod &method, double m, double n, double area)
{
    const NsMethod w = ns_method_for(&method, (int)m, (int)n);
    double flops = 0;
    bool fresh = true;
    for (int k = 0; k < w.iterations; k++) {
        if (!w.gram) {
            flops += 2 * m * m * n + 2 * area * (n + (w.coeff[k].c != 0) * m);
            continue;
        }
        const bool restart = w.restarts >> k & 1, ends = k + 1 == w.iterations;
        if (k == 0 || restart) flops += 2 * m * m * n + 2 * area * n, fresh = true;
        flops += 2 * area * m * ((w.coeff[k].c != 0) + !fresh);
        if (!ends && !(w.restarts >> (k + 1) & 1)) flops += 4 * area * m;
        fresh = false;
    }
    return flops;
}

// Gaussian enough: sums of two uniforms.
__global__ void fill_kernel(bf16 *x, size_t n, uint64_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (seed << 40) + i * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        x[i] = __float2bfloat16_rn(((float)(z & 0xffffff) + (float)(z >> 40)) * 0x1p-24f - 1);
    }
}

cudaStream_t bench_stream() // of all timing
{
    static cudaStream_t made;
    if (!made) CUDA_CHECK(cudaStreamCreate(&made));
    return made;
}

void *room(size_t bytes)
{
    void *p;
    CUDA_CHECK(cudaMalloc(&p, bytes));
    return p;
}

// Median microseconds of a graph of `call(i)`, i rotating over `inputs`.
template <typename F> double time_call(cudaStream_t stream, int inputs, F call)
{
    std::vector<cudaGraphExec_t> graphs(inputs);
    call(0); // plans and attributes
    for (int i = 0; i < inputs; i++) {
        cudaGraph_t graph;
        CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        call(i);
        CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
        CUDA_CHECK(cudaGraphInstantiate(&graphs[i], graph, 0));
        CUDA_CHECK(cudaGraphDestroy(graph));
    }
    cudaEvent_t marks[kReplays + 1];
    for (auto &mark : marks) CUDA_CHECK(cudaEventCreate(&mark));
    for (int i = 0; i < 4; i++) CUDA_CHECK(cudaGraphLaunch(graphs[i % inputs], stream));
    CUDA_CHECK(cudaEventRecord(marks[0], stream));
    for (int i = 0; i < kReplays; i++) {
        CUDA_CHECK(cudaGraphLaunch(graphs[i % inputs], stream));
        CUDA_CHECK(cudaEventRecord(marks[i + 1], stream));
    }
    CUDA_CHECK(cudaStreamSynchronize(stream));
    std::vector<float> times(kReplays);
    for (int i = 0; i < kReplays; i++)
        CUDA_CHECK(cudaEventElapsedTime(&times[i], marks[i], marks[i + 1]));
    for (auto &mark : marks) CUDA_CHECK(cudaEventDestroy(mark));
    for (auto graph : graphs) CUDA_CHECK(cudaGraphExecDestroy(graph));
    std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
    return 1e3 * times[kReplays / 2];
}

} // namespace

extern "C" void ns_bench_device(char *name, size_t size)
{
    cudaDeviceProp properties;
    int device = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    snprintf(name, size, "%s", properties.name);
}

extern "C" void ns_bench_time(NsTime *times, const NsMethod *methods, int n_methods,
                              const BankShape *shape)
{
    const BankShape s = *shape;
    const size_t numbers = (size_t)s.batch * s.m * s.n, bytes = 2 * numbers;
    const int inputs = bytes > (100u << 20) ? 1 : std::min<size_t>(16, (100u << 20) / bytes + 1);
    bf16 *x = static_cast<bf16 *>(room(inputs * bytes));
    void *out = room(inputs * bytes);
    fill_kernel<<<1024, 256, 0, bench_stream()>>>(x, inputs * numbers, 1);
    for (int k = 0; k < n_methods; k++) {
        const NsMethod &method = methods[k];
        void *work = room(ns_workspace_size_cuda(&method, s.batch, s.m, s.n));
        const double us = time_call(bench_stream(), inputs, [&](int i) {
            ns_orthogonalize_to_cuda(&method, static_cast<char *>(out) + i * bytes, method.storage,
                                     x + i * numbers, DT_BF16, false, s.batch, s.m, s.n, work,
                                     bench_stream());
        });
        const int m = std::min(s.m, s.n), n = std::max(s.m, s.n);
        const double half = 0.5 * m * m, area = ns_symmetric_area(method.storage, s.batch, m);
        const double flops = s.batch * flops_of(method, m, n, half);
        const double executed = s.batch * flops_of(method, m, n, area);
        times[k] = {us, flops / us * 1e-6, executed / us * 1e-6, flops / kPeak / (us * 1e-6),
                    ns_failed_cuda(work, bench_stream())};
        CUDA_CHECK(cudaFree(work));
    }
    CUDA_CHECK(cudaFree(x));
    CUDA_CHECK(cudaFree(out));
}

extern "C" void ns_bench_products(const BankShape *shape)
{
    const BankShape s = *shape;
    cudaStream_t const stream = bench_stream();
    const size_t wide = (size_t)s.batch * s.m * s.n, square = (size_t)s.batch * s.m * s.m;
    bf16 *x = static_cast<bf16 *>(room(2 * wide)), *a = static_cast<bf16 *>(room(2 * square));
    void *y = room(2 * wide), *c = room(2 * square);
    int steps_run = 0; // chains of one step do not count
    const NsProduct w = {DT_BF16, s.batch, room(kNsLtBytes), nullptr, &steps_run,
                         stream,  false,   nullptr};
    const NsChain polynomial = {{a, c}, nullptr, 1, {{0, 0, 1, kNsNone, 0, 0.5f, -2, 0, false}}};
    NsChain squares = {{a, c}, nullptr, 1, {{kNsX, kNsX, 1, kNsNone, 0, 1, 0, 0, false}}};
    squares.matrix[kNsX] = x;
    NsGram gram = {NS_NORM_AOL, static_cast<float *>(room(4 * square)), nullptr, nullptr, nullptr};
    gram.trace = static_cast<float *>(room(sizeof(float) * s.batch * ns_trace_parts(w, s.m) + 1));
    gram.row_sums =
        static_cast<float *>(room(sizeof(float) * s.batch * s.m * ns_sum_parts(w, gram.norm, s.m)));
    int *flags = static_cast<int *>(room(sizeof(int) * s.batch));
    fill_kernel<<<1024, 256, 0, stream>>>(x, wide, 1);
    fill_kernel<<<1024, 256, 0, stream>>>(a, square, 2);
    const double m = s.m, n = s.n;
    const struct {
        const char *name;
        double flops, us;
    } rows[] = {
        {"first X X^T", m * m * n,
         time_call(stream, 1, [&](int) { ns_gram(w, gram, x, DT_BF16, s.m, s.m, s.n); })},
        {"X X^T", m * m * n, time_call(stream, 1, [&](int) { ns_chain(w, squares, s.m, s.n); })},
        {"A^2 + b A", m * m * m,
         time_call(stream, 1, [&](int) { ns_chain(w, polynomial, s.m, s.m); })},
        {"B X + a X", 2 * m * m * n,
         time_call(stream, 1,
                   [&](int) { ns_apply(w, y, a, x, s.m, s.m, s.n, 4, nullptr, flags); })},
    };
    for (const auto &row : rows)
        printf("%2d x %4d x %4d  %-12s %9.1f %8.0f %7.0f%%\n", s.batch, s.m, s.n, row.name, row.us,
               s.batch * row.flops / row.us * 1e-6,
               100 * s.batch * row.flops / kPeak / (row.us * 1e-6));
    for (void *p : {(void *)x, (void *)a, y, c, w.scratch, (void *)flags, (void *)gram.a,
                    (void *)gram.row_sums, (void *)gram.trace})
        CUDA_CHECK(cudaFree(p));
}
