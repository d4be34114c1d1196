// The distributions of ablate/inputs.c on the GPU: a counter takes the place of the sequence of
// random numbers, so the i-th number is the same one.
#include "../ops/cuda/cuda.cuh"
#include "../ops/random.h"
extern "C" {
#include "polar_cuda.h"
}

namespace
{

constexpr int kThreads = 256;

// The i-th number of the sequence that begins with `seed`'s state.
__device__ double uniform_at(uint64_t state, uint64_t i)
{
    state += i * RANDOM_STEP;
    return random_uniform(&state);
}

// The normal number made of the sequence's numbers i and i + 1.
__device__ double normal_at(uint64_t state, uint64_t i)
{
    return sqrt(-2 * log1p(-uniform_at(state, i))) * cos(2 * M_PI * uniform_at(state, i + 1));
}

enum Kind { kUniform, kNormal, kStable };

// x[i] = factor times a number of the kind; numbers of two uniform ones begin at `first`.
__global__ void fill_kernel(double *x, size_t size, Kind kind, double alpha, double factor,
                            uint64_t state, uint64_t first)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < size;
         i += (size_t)gridDim.x * kThreads) {
        const uint64_t at = first + 2 * i;
        double value;
        if (kind == kUniform) {
            value = 2 * uniform_at(state, i) - 1;
        } else if (kind == kNormal) {
            value = normal_at(state, at);
        } else { // Chambers, Mallows and Stuck 1976
            const double v = M_PI * (uniform_at(state, at) - 0.5),
                         w = -log1p(-uniform_at(state, at + 1));
            value = sin(alpha * v) / pow(cos(v), 1 / alpha) *
                    pow(cos((1 - alpha) * v) / w, (1 - alpha) / alpha);
        }
        x[i] = factor * value;
    }
}

// Row or column k times e^N(0,1).
__global__ void factors_kernel(double *x, int m, int n, bool rows, uint64_t state, uint64_t first)
{
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i < (size_t)m * n;
         i += (size_t)gridDim.x * kThreads)
        x[i] *= exp(normal_at(state, first + 2 * (rows ? i / n : i % n)));
}

void fill(double *x, size_t size, Kind kind, double alpha, double factor, uint64_t state,
          uint64_t first)
{
    fill_kernel<<<kSumBlocks, kThreads>>>(x, size, kind, alpha, factor, state, first);
    CHECK_LAUNCH();
}

// 0.03 of the noise that is there, plus L R / sqrt(rank).
void low_rank(double *g, int m, int n, uint64_t state)
{
    const int rank = m < 32 ? 1 : m / 16;
    const size_t size = (size_t)m * n, right_size = (size_t)rank * n, left_size = (size_t)m * rank;
    double *right, *left, *sum;
    CUDA_CHECK(cudaMalloc(&right, sizeof(double) * right_size));
    CUDA_CHECK(cudaMalloc(&left, sizeof(double) * left_size));
    CUDA_CHECK(cudaMalloc(&sum, sizeof(double) * size));
    fill(right, right_size, kNormal, 0, 1, state, 2 * size);
    fill(left, left_size, kNormal, 0, 1 / sqrt(rank), state, 2 * (size + right_size));
    polar_cuda.multiply(sum, left, right, false, m, n, rank, 1, 0.03, g);
    CUDA_CHECK(cudaMemcpy(g, sum, sizeof(double) * size, cudaMemcpyDeviceToDevice));
    for (double *p : {right, left, sum}) CUDA_CHECK(cudaFree(p));
}

} // namespace

extern "C" bool inputs_fill_cuda(double *g, int m, int n, const char *name, uint64_t seed)
{
    const uint64_t state = random_mix(seed);
    const size_t size = (size_t)m * n;
    const bool rows = !strcmp(name, "rows"), columns = !strcmp(name, "columns");
    if (!strncmp(name, "levy", 4))
        fill(g, size, kStable, atof(name + 4), 1, state, 0);
    else if (!strcmp(name, "uniform"))
        fill(g, size, kUniform, 0, 1, state, 0);
    else if (!strcmp(name, "gaussian") || rows || columns || !strcmp(name, "low-rank"))
        fill(g, size, kNormal, 0, 1, state, 0);
    else
        return false;
    if (rows || columns) {
        factors_kernel<<<kSumBlocks, kThreads>>>(g, m, n, rows, state, 2 * size);
        CHECK_LAUNCH();
    }
    if (!strcmp(name, "low-rank")) low_rank(g, m, n, state);
    return true;
}
