// NorMuon on the GPU against the CPU device over three steps: momentum bit for bit, parameters
// within twice the distance of the CPU's own low precision from the formula in exact arithmetic.
#include "ns_data.h"

#include "../../muon.h"
#include "../test.h"

void cpu_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                 void *workspace);
size_t cpu_normuon_workspace(const MuonBank *bank, const NsMethod *method);
void cpu_normuon_f64(const MuonBank *bank, const NsMethod *method, const StepState *step,
                     void *workspace);
size_t cpu_normuon_workspace_f64(const MuonBank *bank, const NsMethod *method);
void cuda_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                  void *workspace);
size_t cuda_normuon_workspace(const MuonBank *bank, const NsMethod *method);

static const StepState peak = {.muon_lr = 0.03, .muon_momentum = 0.95, .muon_wd = 1.2};

// |x - y| / |y - start|: the error of an update relative to it; y is exact.
static double update_error(const void *x, const double *y, const void *start, DType t, size_t n)
{
    double off = 0, moved = 0;
    for (size_t i = 0; i < n; i++) {
        off += pow(dtype_get(x, t, i) - y[i], 2);
        moved += pow(y[i] - dtype_get(start, t, i), 2);
    }
    return sqrt(off / (moved > 0 ? moved : 1));
}

static void three_steps(const char *name, const char *storage, DType dtype, int count, int rows,
                        int cols)
{
    const size_t n = (size_t)count * rows * cols, columns = (size_t)count * cols,
                 e = dtype_size(dtype);
    NsMethod method;
    Error err;
    CHECK(ns_method_find(&method, name, &err), "%s", err.text);
    if (storage) CHECK(ns_method_set_storage(&method, storage, &err), "%s", err.text);
    float *start = gaussians(1, n);
    double *lr_mul = malloc(sizeof(double) * (size_t)count);
    for (int i = 0; i < count; i++) lr_mul[i] = 1 + i % 2;
    void *p0 = stored(dtype, start, n), *p = stored(dtype, start, n), *m = calloc(n, e),
         *s = calloc(columns, e), *back = malloc(n * e);
    MuonBank cpu = {count, rows, cols, dtype, p, NULL, m, s, lr_mul, 0.95};
    MuonBank gpu = cpu;
    gpu.param = device_copy(p, n * e);
    gpu.momentum = device_copy(m, n * e);
    gpu.second_moment = device_copy(s, columns * e);
    NsMethod exactly = method;
    exactly.storage = DT_F64;
    MuonBank exact = {count,        rows, cols,         DT_F64,
                      calloc(n, 8), NULL, calloc(n, 8), calloc(columns, 8),
                      lr_mul,       0.95};
    for (size_t i = 0; i < n; i++) dtype_set(exact.param, DT_F64, i, dtype_get(p, dtype, i));
    double *g64 = malloc(n * sizeof(double));
    exact.grad = g64;
    void *work = malloc(cpu_normuon_workspace(&cpu, &method)),
         *exact_work = malloc(cpu_normuon_workspace_f64(&exact, &exactly)),
         *gpu_work = device_room(cuda_normuon_workspace(&gpu, &method));
    StepState *step = device_room(sizeof *step);
    double ours = 0, theirs = 0;
    for (int k = 0; k < 3; k++) {
        StepState now = peak;
        now.muon_momentum = k ? 0.95 : 0.3; // both ends of lerp
        float *g = gaussians(10 + (uint64_t)k, n);
        void *grad = stored(dtype, g, n);
        cpu.grad = grad;
        gpu.grad = device_copy(grad, n * e);
        MUST(cudaMemcpy(step, &now, sizeof now, cudaMemcpyHostToDevice));
        for (size_t i = 0; i < n; i++) g64[i] = dtype_get(grad, dtype, i);
        cpu_normuon_f64(&exact, &exactly, &now, exact_work);
        cpu_normuon(&cpu, &method, &now, work);
        cuda_normuon(&gpu, &method, step, gpu_work);
        MUST(cudaDeviceSynchronize());
        MUST(cudaMemcpy(back, gpu.momentum, n * e, cudaMemcpyDeviceToHost));
        CHECK(!memcmp(back, m, n * e), "momentum of %s, %dx%dx%d", name, count, rows, cols);
        MUST(cudaMemcpy(back, gpu.param, n * e, cudaMemcpyDeviceToHost));
        ours = update_error(back, exact.param, p0, dtype, n);
        theirs = update_error(p, exact.param, p0, dtype, n);
        CHECK(ours <= 2 * theirs, "%s %s %dx%dx%d step %d: %g against %g", name,
              storage ? storage : "", count, rows, cols, k, ours, theirs);
        MUST(cudaFree((void *)gpu.grad));
        free(grad), free(g);
    }
    printf("     %-11s %-4s %-4s %2d x %3d x %4d: update off by %.2g of its size, CPU %.2g\n", name,
           storage ? storage : "", dtype_name(dtype), count, rows, cols, ours, theirs);
    MUST(cudaFree(gpu.param));
    MUST(cudaFree(gpu.momentum));
    MUST(cudaFree(gpu.second_moment));
    MUST(cudaFree(gpu_work));
    MUST(cudaFree(step));
    free(exact.param), free(exact.momentum), free(exact.second_moment), free(g64), free(exact_work);
    free(start), free(lr_mul), free(p0), free(p), free(m), free(s), free(back), free(work);
}

TEST(matrices)
{
    three_steps("turbo4", NULL, DT_F32, 3, 256, 384);
    three_steps("turbo4", NULL, DT_F32, 2, 96, 100);
    three_steps("s4-gram5", NULL, DT_F32, 3, 256, 384);
    three_steps("turbo4", "real", DT_F32, 3, 136, 200);
    three_steps("turbo4", NULL, DT_F32, 2, 768, 768);
    three_steps("polar5", NULL, DT_F32, 130, 40, 72); // more than one launch's lr_mul
}

TEST(gates)
{
    three_steps("turbo4", NULL, DT_BF16, 10, 6, 12);
    three_steps("turbo4", NULL, DT_BF16, 1, 1, 12);
    three_steps("s4-gram5", NULL, DT_BF16, 10, 6, 12);
    three_steps("turbo4", NULL, DT_F32, 10, 6, 12);
}

// Zeros stay, poison does not spread, and the bits repeat.
TEST(zeros_poison_and_bits)
{
    enum { COUNT = 3, ROWS = 128, COLS = 256, SIZE = ROWS * COLS, ALL = COUNT * SIZE };
    const char *const names[] = {"turbo4", "s4-gram5"};
    for (int k = 0; k < 2; k++) {
        NsMethod method;
        Error err;
        CHECK(ns_method_find(&method, names[k], &err), "%s", err.text);
        float *p = gaussians(3, ALL), *g = gaussians(4, ALL);
        float *out[2] = {malloc(ALL * sizeof(float)), malloc(ALL * sizeof(float))};
        const double lr_mul[COUNT] = {1, 1, 1};
        for (int i = 0; i < SIZE; i++) p[i] = g[i] = 0;
        g[SIZE + 77] = k ? INFINITY : NAN;
        StepState *step = device_copy(&peak, sizeof peak);
        for (int again = 0; again < 2; again++) {
            MuonBank bank = {COUNT,
                             ROWS,
                             COLS,
                             DT_F32,
                             device_copy(p, ALL * sizeof(float)),
                             device_copy(g, ALL * sizeof(float)),
                             device_room(ALL * sizeof(float)),
                             device_room(COUNT * COLS * sizeof(float)),
                             lr_mul,
                             0.95};
            MUST(cudaMemset(bank.momentum, 0, ALL * sizeof(float)));
            MUST(cudaMemset(bank.second_moment, 0, COUNT * COLS * sizeof(float)));
            void *work = device_room(cuda_normuon_workspace(&bank, &method));
            for (int t = 0; t < 2; t++) cuda_normuon(&bank, &method, step, work);
            MUST(cudaDeviceSynchronize());
            MUST(cudaMemcpy(out[again], bank.param, ALL * sizeof(float), cudaMemcpyDeviceToHost));
            MUST(cudaFree(bank.param));
            MUST(cudaFree((void *)bank.grad));
            MUST(cudaFree(bank.momentum));
            MUST(cudaFree(bank.second_moment));
            MUST(cudaFree(work));
        }
        size_t wrong = 0;
        for (int i = 0; i < SIZE; i++)
            wrong += out[0][i] != 0 || !isnan(out[0][SIZE + i]) ||
                     !isfinite(out[0][2 * SIZE + i]) ||
                     out[0][2 * SIZE + i] != out[1][2 * SIZE + i];
        CHECK(!wrong, "%s: %zu numbers", names[k], wrong);
        MUST(cudaFree(step));
        free(p), free(g), free(out[0]), free(out[1]);
    }
}

int main(void)
{
    find_gpu();
    RUN(matrices);
    RUN(gates);
    RUN(zeros_poison_and_bits);
    return TEST_SUMMARY();
}
