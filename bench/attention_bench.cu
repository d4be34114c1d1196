// Times attention and the passes around it at the recipe's shape: T = 32768 packed tokens, 6 heads
// of 128. Medians of single launches between events; two sets of buffers in turn, each larger than
// the L2 cache. `bits` is a sum over the last tokens' outputs.
//   attention_bench [TOKENS]
#include <algorithm>
#include <vector>

#include "../ops/cuda/cuda.cuh"
#include "../ops/cuda/device.h"

namespace
{

constexpr int kHeads = 6, kDim = 128, kWidth = kHeads * kDim, kSets = 2, kRuns = 20;

struct Set {
    void *qkv, *o, *lse, *d_o, *dqkv, *delta, *a, *ve, *dve;
} sets[kSets];
const Ops *ops;
int t;

void *random_bf16(size_t n, float scale)
{
    std::vector<uint16_t> host(n);
    static uint32_t state = 1;
    for (auto &x : host) {
        state = state * 1664525u + 1013904223u;
        x = bf16_from_f32(scale * ((float)(state >> 8) * 0x1p-23f - 1));
    }
    void *p = ops->mem_alloc(n * 2);
    ops->mem_put(p, host.data(), n * 2);
    return p;
}

template <typename F> double median_ms(F run)
{
    std::vector<float> ms;
    cudaEvent_t before, after;
    CUDA_CHECK(cudaEventCreate(&before));
    CUDA_CHECK(cudaEventCreate(&after));
    for (int i = 0; i < kRuns + 3; i++) {
        CUDA_CHECK(cudaEventRecord(before, cuda_stream()));
        run(sets[i % kSets]);
        CUDA_CHECK(cudaEventRecord(after, cuda_stream()));
        CUDA_CHECK(cudaEventSynchronize(after));
        float x;
        CUDA_CHECK(cudaEventElapsedTime(&x, before, after));
        if (i >= 3) ms.push_back(x);
    }
    std::sort(ms.begin(), ms.end());
    return (double)ms[ms.size() / 2];
}

// FNV-1a over the last `rows` rows of a matrix.
uint32_t bits_of(const void *matrix, size_t row_bytes, int rows, uint32_t hash)
{
    std::vector<unsigned char> host(row_bytes * (size_t)rows);
    ops->mem_get(host.data(), (const char *)matrix + row_bytes * (size_t)(t - rows), host.size());
    for (unsigned char byte : host) hash = (hash ^ byte) * 16777619u;
    return hash;
}

uint32_t output_bits(const Set &s)
{
    const int rows = std::min(t, 4096);
    uint32_t hash = bits_of(s.o, 2 * kWidth, rows, 2166136261u);
    hash = bits_of(s.lse, 4 * kHeads, rows, hash);
    return bits_of(s.dqkv, 6 * kWidth, rows, hash);
}

} // namespace

int main(int argc, char **argv)
{
    char description[256];
    Error err;
    if (!ops_cuda_find(&ops, description, sizeof description, &err)) return 1;
    t = argc > 1 ? atoi(argv[1]) : 32768;
    const size_t n = (size_t)t * kWidth;
    for (auto &s : sets) {
        s = {random_bf16(3 * n, 1.7f),
             random_bf16(n, 1),
             ops->mem_alloc((size_t)t * kHeads * 4),
             random_bf16(n, 1),
             random_bf16(3 * n, 1),
             ops->mem_alloc((size_t)t * kHeads * 4),
             random_bf16(n, 1),
             random_bf16((size_t)50304 * kWidth, 1),
             random_bf16(n, 1)};
    }
    auto *window = (int32_t *)ops->mem_alloc(4), *ids = (int32_t *)ops->mem_alloc((size_t)t * 4);
    auto *scale = (double *)ops->mem_alloc(8);
    const double scale_value = 0.1;
    ops->mem_put(scale, &scale_value, 8);
    std::vector<int32_t> documents[2] = {{0}, {0, t}}, id_values((size_t)t);
    for (uint32_t seed = 7; documents[0].back() < t;) { // mean 700, at most 2048
        seed = seed * 1664525u + 1013904223u;
        const double u = (double)(seed >> 8) * 0x1p-24;
        const int length = std::min(2048, 64 + (int)(-720 * log(1 - u)));
        documents[0].push_back(std::min(t, documents[0].back() + length));
    }
    for (int p = 0; p < t; p++)
        id_values[(size_t)p] = (int32_t)((uint32_t)p * 2654435761u % 50257u);
    ops->mem_put(ids, id_values.data(), (size_t)t * 4);

    printf("T %d H %d d %d; visible-pair FLOPs: 4 d forward, 10 d backward\n", t, kHeads, kDim);
    printf("path  documents window  pairs/row | forward ms TFLOP/s  GB/s | backward ms TFLOP/s  "
           "GB/s | bits\n");
    for (int portable = 0; portable < 2; portable++)
        for (auto &cu_values : documents)
            for (int w : {128, 384, 896, 1408, 1664}) {
                CudaConfig config = {};
                config.portable = portable != 0;
                ops_cuda_configure(&config);
                const int docs = (int)cu_values.size() - 1;
                auto *cu = (int32_t *)ops->mem_alloc(cu_values.size() * 4);
                ops->mem_put(cu, cu_values.data(), cu_values.size() * 4);
                ops->mem_put(window, &w, 4);
                double pairs = 0;
                for (int i = 0; i < docs; i++)
                    for (int p = cu_values[i]; p < cu_values[i + 1]; p++)
                        pairs += std::min(w, p - cu_values[i]) + 1;
                const double forward = median_ms([&](Set &s) {
                    ops->attention_forward(s.o, s.lse, s.qkv, cu, docs, window, scale, t, kHeads,
                                           kDim);
                });
                const double backward = median_ms([&](Set &s) {
                    ops->attention_backward(s.dqkv, s.delta, s.d_o, s.o, s.lse, s.qkv, cu, docs,
                                            window, scale, t, kHeads, kDim);
                });
                const double work = pairs * kHeads * kDim, bytes = 2.0 * (double)n;
                printf("%-5s %9d %6d %10.1f | %10.3f %7.1f %5.0f | %11.3f %7.1f %5.0f | %08x\n",
                       portable ? "mma" : "wgmma", docs, w, pairs / t, forward,
                       4 * work / forward / 1e9, 4 * bytes / forward / 1e6, backward,
                       10 * work / backward / 1e9, 8 * bytes / backward / 1e6,
                       output_bits(sets[0]));
                ops->mem_free(cu);
            }
    const size_t table = (size_t)t * 32 * 4;
    void *cosine = ops->mem_alloc(table), *sine = ops->mem_alloc(table), *s = ops->mem_alloc(8);
    void *gate = random_bf16(72, 1), *sums = ops->mem_alloc(72 * 4);
    const double mb = 2e-6 * (double)n;
    const auto line = [&](const char *name, double passes, double ms) {
        printf("%-26s %7.3f ms %6.0f GB/s\n", name, ms, passes * mb / ms);
    };
    for (int with = 0; with < 2; with++) {
        line(with ? "qkv_forward with ve" : "qkv_forward", 6 + with, median_ms([&](Set &x) {
                 ops->qkv_forward(x.dqkv, x.qkv, cosine, sine, 32, s, with ? x.ve : nullptr, ids, t,
                                  kHeads, kDim, 1e-6);
             }));
        line(with ? "qkv_backward with ve" : "qkv_backward", 9 + 3 * with, median_ms([&](Set &x) {
                 ops->qkv_backward(x.dqkv, s, with ? x.dve : nullptr, x.dqkv, x.qkv, cosine, sine,
                                   32, s, with ? x.ve : nullptr, ids, t, kHeads, kDim, 1e-6);
             }));
    }
    line("gate_forward", 2,
         median_ms([&](Set &x) { ops->gate_forward(x.dve, x.o, x.a, gate, t, kHeads, kDim, 12); }));
    line("gate_backward", 3, median_ms([&](Set &x) {
             ops->gate_backward(x.d_o, x.dve, sums, x.d_o, x.o, x.a, gate, t, kHeads, kDim, 12);
         }));
    return 0;
}
