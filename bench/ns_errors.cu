// Errors of orthogonalisation on the GPU against a reference in fp64 that is made there too.
#include "../ops/cuda/cuda.cuh"
extern "C" {
#include "polar_cuda.h"
}
#include "ns_bench.h"

namespace
{

constexpr int kThreads = 256;

double *room(size_t numbers)
{
    double *p;
    CUDA_CHECK(cudaMalloc(&p, sizeof(double) * numbers));
    return p;
}

// What the methods get, and the same as the reference sees it: factor x, rounded to fp32.
__global__ void round_kernel(float *rounded, double *x, size_t size, double factor)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads)
        x[i] = rounded[i] = (float)(factor * x[i]);
}

template <typename T> __global__ void widen_kernel(double *out, const T *in, size_t size)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads)
        out[i] = load_stored(in, i);
}

__global__ void over_kernel(float *out, const float *in, size_t size, double divisor)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads)
        out[i] = (float)(in[i] / divisor);
}

void widen(double *out, const void *in, DType type, size_t size)
{
    if (type == DT_BF16)
        widen_kernel<<<kSumBlocks, kThreads>>>(out, static_cast<const bf16 *>(in), size);
    else if (type == DT_F16)
        widen_kernel<<<kSumBlocks, kThreads>>>(out, static_cast<const __half *>(in), size);
    else
        widen_kernel<<<kSumBlocks, kThreads>>>(out, static_cast<const float *>(in), size);
    CHECK_LAUNCH();
}

struct Matrices {
    double *exact, *e, *y, *a, *p; // the polar factor (m,n), its projection (m,m), and work
    float *input, *output, *unit;  // (m,n); the output of whatever dtype; the input over |.|_2
    int rank;
};

NsErrors measure(const Matrices &w, const NsMethod &method, int m, int n)
{
    const PolarDevice &d = polar_cuda;
    const size_t size = (size_t)m * n;
    const DType out = method.storage == DT_F64 ? DT_F32 : method.storage;
    void *work;
    CUDA_CHECK(cudaMalloc(&work, ns_workspace_size_cuda(&method, 1, m, n)));
    const float *input = method.norm == NS_NORM_NONE ? w.unit : w.input;
    if (ns_orthogonalize_to_cuda(&method, w.output, out, input, DT_F32, false, 1, m, n, work,
                                 nullptr))
        cuda_fail("it refused the shape", "report it", "ns_orthogonalize_to_cuda", __FILE__,
                  __LINE__);
    CUDA_CHECK(cudaStreamSynchronize(nullptr));
    CUDA_CHECK(cudaFree(work));
    double *const y = w.y;
    widen(y, w.output, out, size);
    if (w.rank < m) { // y <- E y, by way of room that is free from here on
        double *restricted = room(size);
        d.multiply(restricted, w.e, y, false, m, n, m, 1, 0, nullptr);
        CUDA_CHECK(cudaMemcpy(y, restricted, sizeof(double) * size, cudaMemcpyDeviceToDevice));
        CUDA_CHECK(cudaFree(restricted));
    }
    d.multiply(w.a, y, y, true, m, m, n, 1, 0, nullptr);
    return {d.distance(y, w.exact, size) / sqrt(w.rank),
            d.distance(w.a, w.e, (size_t)m * m) / sqrt(w.rank)};
}

} // namespace

extern "C" bool ns_bench_errors(NsErrors *errors, NsReference *reference, const NsMethod *methods,
                                int n_methods, int m, int n, const char *input, uint64_t seed,
                                const double *host, Error *err)
{
    const PolarDevice &d = polar_cuda;
    const size_t size = (size_t)m * n, square = (size_t)m * m;
    Matrices w = {room(size), room(square), room(size), room(square), room(square), nullptr,
                  nullptr,    nullptr,      0};
    CUDA_CHECK(cudaMalloc(&w.input, sizeof(float) * size));
    bool unit = false;
    for (int i = 0; i < n_methods; i++) unit = unit || methods[i].norm == NS_NORM_NONE;
    if (unit) CUDA_CHECK(cudaMalloc(&w.unit, sizeof(float) * size));
    CUDA_CHECK(cudaMalloc(&w.output, sizeof(float) * size));
    bool ok = true;
    if (host)
        CUDA_CHECK(cudaMemcpy(w.exact, host, sizeof(double) * size, cudaMemcpyHostToDevice));
    else if (!inputs_fill_cuda(w.exact, m, n, input, seed))
        ok = fail(err, "no distribution '%.40s'", input);
    const double norm = ok ? d.distance(w.exact, nullptr, size) : 1;
    if (ok && !(norm > 0 && norm < INFINITY))
        ok = fail(err, "a matrix of '%.40s' is zero or not finite", input);
    if (ok) {
        round_kernel<<<kSumBlocks, kThreads>>>(w.input, w.exact, size, 8 / norm);
        CHECK_LAUNCH();
        if (unit) {
            const double largest = polar_largest(&d, w.exact, w.a, w.p, m, n);
            over_kernel<<<kSumBlocks, kThreads>>>(w.unit, w.input, size, largest);
            CHECK_LAUNCH();
        }
        const PolarReport report = polar_factor(&d, w.exact, w.e, w.y, w.a, w.p, m, n);
        w.rank = report.rank;
        *reference = {report.rank, report.iterations, report.residual};
        for (int i = 0; i < n_methods; i++) errors[i] = measure(w, methods[i], m, n);
    }
    for (double *p : {w.exact, w.e, w.y, w.a, w.p}) CUDA_CHECK(cudaFree(p));
    CUDA_CHECK(cudaFree(w.input));
    CUDA_CHECK(cudaFree(w.output));
    CUDA_CHECK(cudaFree(w.unit));
    return ok;
}
