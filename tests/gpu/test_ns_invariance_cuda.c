// What must not change the result of an orthogonalisation on the GPU: a second run, the batch
// around a matrix, the input's dtype, scale and place, and a CUDA graph. Bit for bit, or up to the
// storage's roundings.
#include "ns_data.h"

void ns_use_hopper(bool yes);

// Bit for bit: again, in another place of another batch (of so many that the same tiles are chosen:
// on 132 multiprocessors up to 6 matrices of 768 take small ones), and for wide matrices by every
// dtype that holds the input.
TEST(same_bits)
{
    static const int shapes[][3] = {{14, 768, 3072}, {15, 768, 768}, {4, 768, 768},
                                    {3, 127, 1000},  {3, 6, 12},     {14, 3072, 768},
                                    {3, 1000, 127},  {5, 640, 64}};
    static const DType dtypes[] = {DT_F32, DT_BF16, DT_F16};
    const char *const names[] = {"turbo4", "s4-gram5"};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int k = 0; k < 2; k++) {
            NsMethod m = method_with(names[k], NULL);
            int batch = shapes[s][0], rows = shapes[s][1], cols = shapes[s][2];
            int part = batch / 2, before = batch - part;
            size_t size = (size_t)rows * cols, n = batch * size;
            float *x = gaussians(7, n), *y = malloc(n * sizeof(float)),
                  *z = malloc(n * sizeof(float)), *first = malloc(n * sizeof(float));
            for (size_t i = 0; i < n; i++) x[i] = round_bf16(x[i]);
            for (int t = 0; t < 3; t++) {
                CHECK(run_gpu(y, &m, x, dtypes[t], batch, rows, cols) == 0);
                CHECK(run_gpu(z, &m, x, dtypes[t], batch, rows, cols) == 0);
                CHECK(!count_differing(y, z, n), "%s: not deterministic", names[k]);
                CHECK(run_gpu(z, &m, x + before * size, dtypes[t], part, rows, cols) == 0);
                size_t differing = count_differing(y + before * size, z, part * size);
                CHECK(!differing, "%s %dx%d %s: the batch matters, %zu numbers", names[k], rows,
                      cols, dtype_name(dtypes[t]), differing);
                if (t == 0) memcpy(first, y, n * sizeof(float));
                if (dtypes[t] == DT_BF16 && m.storage == DT_BF16 && rows <= cols)
                    CHECK(!count_differing(y, first, n), "%s: the input's dtype matters", names[k]);
            }
            free(x), free(y), free(z), free(first);
        }
}

// With a relative eps powers of two change no bit, and no scale matters.
TEST(scales)
{
    enum { M = 130, N = 200, SIZE = M * N };
    float *g = gaussians(41, SIZE), *x = malloc(sizeof(float) * SIZE),
          *y = malloc(sizeof(float) * SIZE), *z = malloc(sizeof(float) * SIZE);
    const double factors[] = {1e-12, 1e-6, 1, 1e6, 1e12};
    for (int i = 0; ns_method_name(i); i++) {
        NsMethod m = method_with(ns_method_name(i), NULL);
        Error err;
        CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
        CHECK(run_gpu(y, &m, g, DT_F32, 1, M, N) == 0);
        for (int e = -90; e <= 120; e += 30) { // no subnormals
            for (int k = 0; k < SIZE; k++) x[k] = ldexpf(g[k], e);
            CHECK(run_gpu(z, &m, x, DT_F32, 1, M, N) == 0);
            size_t differing = count_differing(y, z, SIZE);
            // Frobenius divides by a norm that is no power of two.
            CHECK(!differing, "%s: 2^%d changes %zu", m.name, e, differing);
        }
        for (int f = 0; f < 5; f++) {
            for (int k = 0; k < SIZE; k++) x[k] = (float)(g[k] * factors[f]);
            CHECK(run_gpu(z, &m, x, DT_F32, 1, M, N) == 0);
            double off = 0, size = 0;
            for (int k = 0; k < SIZE; k++)
                off += pow((double)z[k] - y[k], 2), size += pow((double)y[k], 2);
            // cans5 in bf16 amplifies roundings of the input more than any other.
            CHECK(sqrt(off / size) < (strcmp(m.name, "cans5") ? 0.05 : 0.1), "%s at %g: %g", m.name,
                  factors[f], sqrt(off / size));
        }
    }
    free(g), free(x), free(y), free(z);
}

// 16-bit inputs are multiplied where they lie: the same result as from a copy in fp32, up to the
// storage's roundings, at every scale, and bit for bit where squares fit into fp32.
TEST(inputs_where_they_lie)
{
    static const int shapes[][3] = {{8, 768, 768}, {2, 200, 328}, {3, 127, 1000}};
    static const char *const names[] = {"turbo4",      "polar5",   "s4-polar4", "turbo-gram4",
                                        "turbo-gram5", "s4-gram4", "s4-gram5"};
    for (int s = 0; s < 3; s++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            NsMethod m = method_with(names[k], NULL);
            Error err;
            CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
            const int batch = shapes[s][0], rows = shapes[s][1], cols = shapes[s][2];
            const size_t n = (size_t)batch * rows * cols;
            float *x = gaussians(19, n), *y = malloc(n * sizeof(float)),
                  *z = malloc(n * sizeof(float)), *first = malloc(n * sizeof(float));
            for (size_t i = 0; i < n; i++) x[i] = round_bf16(x[i]);
            CHECK(run_gpu(y, &m, x, DT_F32, batch, rows, cols) == 0);
            CHECK(run_gpu(first, &m, x, DT_BF16, batch, rows, cols) == 0);
            for (int e = -80; e <= 80; e += 16) {
                for (size_t i = 0; i < n; i++) x[i] = ldexpf(x[i], e);
                CHECK(run_gpu(z, &m, x, DT_BF16, batch, rows, cols) == 0);
                for (size_t i = 0; i < n; i++) x[i] = ldexpf(x[i], -e);
                // A second round of gram iterations amplifies the first one's roundings.
                CHECK(distance(z, y, n) < (m.restarts ? 0.05 : 0.01), "%s at 2^%d: %g", names[k], e,
                      distance(z, y, n));
                size_t differing = count_differing(first, z, n);
                CHECK(!differing || abs(e) > 16 || m.norm == NS_NORM_FROBENIUS,
                      "%s at 2^%d: %zu numbers", names[k], e, differing);
            }
            free(x), free(y), free(z), free(first);
        }
}

// Squares far outside fp32's range, in more blocks than the GPU has at once: A is computed again,
// all of it at one scale, and the same each time.
TEST(far_from_one)
{
    enum { BATCH = 64, ROWS = 832, COLS = 840 };
    static const char *const names[] = {"turbo4", "s4-polar4"};
    const size_t n = (size_t)BATCH * ROWS * COLS;
    float *g = malloc(n * sizeof(float)), *x = malloc(n * sizeof(float)),
          *y = malloc(n * sizeof(float)), *z = malloc(n * sizeof(float));
    uint64_t state = 23;
    for (size_t i = 0; i < n; i++)
        g[i] = round_bf16((float)(random_bits(&state) >> 40) * 0x1p-23f - 1);
    for (int k = 0; k < 2; k++) {
        NsMethod m = method_with(names[k], NULL);
        Error err;
        CHECK(ns_method_set_eps(&m, "rel", &err), "%s", err.text);
        CHECK(run_gpu(y, &m, g, DT_BF16, BATCH, ROWS, COLS) == 0);
        for (int e = -80; e <= 70; e += 150) {
            for (size_t i = 0; i < n; i++) x[i] = ldexpf(g[i], e);
            CHECK(run_gpu(z, &m, x, DT_BF16, BATCH, ROWS, COLS) == 0);
            for (int b = 0; b < BATCH; b++) {
                const size_t at = (size_t)b * ROWS * COLS;
                const double apart = distance(z + at, y + at, (size_t)ROWS * COLS);
                CHECK(apart < 0.01, "%s at 2^%d, matrix %d: %g", names[k], e, b, apart);
            }
            float *again = malloc(n * sizeof(float));
            CHECK(run_gpu(again, &m, x, DT_BF16, BATCH, ROWS, COLS) == 0);
            CHECK(!count_differing(z, again, n), "%s at 2^%d: not deterministic", names[k], e);
            free(again);
        }
    }
    free(g), free(x), free(y), free(z);
}

// A method and its matrices on the GPU, for a call that may be captured.
typedef struct {
    const char *name;
    DType in, out;
    bool in_place;
    int batch, rows, cols;
} Call;

typedef struct {
    Call call;
    NsMethod method;
    size_t n, work_bytes;
    void *x, *y; // device
} Placed;

static Placed place(Call call)
{
    Placed p = {.call = call, .method = method_with(call.name, NULL)};
    p.n = (size_t)call.batch * call.rows * call.cols;
    p.work_bytes = ns_workspace_size_cuda(&p.method, call.batch, call.rows, call.cols);
    p.x = device_room(p.n * dtype_size(call.in));
    p.y = call.in_place ? p.x : device_room(p.n * dtype_size(call.out));
    return p;
}

static void enqueue(const Placed *p, void *work, cudaStream_t stream)
{
    CHECK(ns_orthogonalize_to_cuda(&p->method, p->y, p->call.out, p->x, p->call.in, false,
                                   p->call.batch, p->call.rows, p->call.cols, work, stream) == 0);
}

// Gaussians of the seed, the last matrix with a NaN for seed 0; the result is overwritten.
static void give(const Placed *p, uint64_t seed)
{
    float *g = gaussians(seed, p->n);
    if (!seed) g[p->n - 1] = NAN;
    void *host = stored(p->call.in, g, p->n);
    if (!p->call.in_place) MUST(cudaMemset(p->y, 0xa5, p->n * dtype_size(p->call.out)));
    MUST(cudaMemcpy(p->x, host, p->n * dtype_size(p->call.in), cudaMemcpyHostToDevice));
    free(g), free(host);
}

static void *take(const Placed *p)
{
    const size_t bytes = p->n * dtype_size(p->call.out);
    void *host = malloc(bytes);
    MUST(cudaMemcpy(host, p->y, bytes, cudaMemcpyDeviceToHost));
    return host;
}

// Two calls one after the other on one workspace, in one graph that is replayed on one input with a
// NaN and on one without: what either leaves there must not reach the other or the next replay.
static void check_in_graph(const Call calls[2], cudaStream_t stream)
{
    Placed placed[2];
    void *eager[2][2]; // for an input, of a call
    size_t work_bytes = 0;
    for (int k = 0; k < 2; k++) {
        placed[k] = place(calls[k]);
        void *own = device_room(placed[k].work_bytes);
        for (int input = 0; input < 2; input++) {
            give(&placed[k], input);
            enqueue(&placed[k], own, stream);
            CHECK(ns_failed_cuda(own, stream) == !input, "%s", calls[k].name);
            eager[input][k] = take(&placed[k]);
        }
        MUST(cudaFree(own));
        if (placed[k].work_bytes > work_bytes) work_bytes = placed[k].work_bytes;
    }
    void *work = device_room(work_bytes);
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int k = 0; k < 2; k++) enqueue(&placed[k], work, stream);
    MUST(cudaStreamEndCapture(stream, &graph));
    MUST(cudaGraphInstantiate(&replay, graph, 0));
    for (int input = 0; input < 2; input++) {
        for (int k = 0; k < 2; k++) give(&placed[k], input);
        MUST(cudaGraphLaunch(replay, stream));
        CHECK(ns_failed_cuda(work, stream) == !input, "%s", calls[1].name);
        for (int k = 0; k < 2; k++) {
            void *y = take(&placed[k]);
            CHECK(!memcmp(y, eager[input][k], placed[k].n * dtype_size(calls[k].out)),
                  "%s of %s and %s, input %d", calls[k].name, calls[0].name, calls[1].name, input);
            free(y), free(eager[input][k]);
        }
    }
    MUST(cudaGraphExecDestroy(replay));
    MUST(cudaGraphDestroy(graph));
    MUST(cudaFree(work));
    for (int k = 0; k < 2; k++) {
        if (!calls[k].in_place) MUST(cudaFree(placed[k].y));
        MUST(cudaFree(placed[k].x));
    }
}

TEST(two_methods_in_a_graph)
{
    static const Call pairs[][2] = {{{"turbo4", DT_BF16, DT_BF16, false, 8, 256, 768},
                                     {"s4-gram5", DT_BF16, DT_F16, false, 8, 256, 768}},
                                    {{"s4-gram5", DT_F16, DT_F16, true, 3, 1000, 127},
                                     {"turbo4", DT_BF16, DT_BF16, true, 22, 384, 96}},
                                    {{"turbo-gram4", DT_F32, DT_BF16, false, 4, 768, 768},
                                     {"turbo-gram5", DT_BF16, DT_F32, false, 40, 768, 256}},
                                    {{"muon5", DT_F16, DT_BF16, false, 300, 72, 200},
                                     {"s4-gram4", DT_F16, DT_F16, true, 2, 640, 64}},
                                    {{"polar5", DT_BF16, DT_BF16, true, 65, 6, 12},
                                     {"turbo-gram4", DT_BF16, DT_BF16, true, 1, 3072, 768}}};
    cudaStream_t stream; // ordered with the copies, which are on the default one
    MUST(cudaStreamCreate(&stream));
    for (int hopper = 0; hopper < 2; hopper++) {
        ns_use_hopper(hopper);
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) check_in_graph(pairs[i], stream);
    }
    MUST(cudaStreamDestroy(stream));
}

int main(void)
{
    find_gpu();
    RUN(same_bits);
    RUN(scales);
    RUN(inputs_where_they_lie);
    RUN(far_from_one);
    RUN(two_methods_in_a_graph);
    return TEST_SUMMARY();
}
