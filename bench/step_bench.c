// Where the time of a training step goes: every operation of one micro-batch, forward and backward,
// and of the optimizer, timed in place with events while the model runs (timed_ops.h).
//
//   make build/bench/step_bench && build/bench/step_bench [SHARDS, such as 'data/*train*.bin']
//
// The floor of a call is the larger of its bytes at 4.25 TB/s and its FLOPs at the rate of an 8192
// cubed bf16 product, measured in the same run; rows come in the order of time above the floor.
// Tokens are those of the shards, or Zipf-like in documents of 762 tokens on average, the shards'
// mean. Figures are means over REPEATS micro-batches after WARM_STEPS steps of training.
//
// The micro-batch, and at the end whole steps, are measured twice: queued operation by operation
// (train_gpt --graphs no) and from their recordings, the GPU's time and how long the host works.
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../ops/cuda/device.h"
#include "../run/clock.h"
#include "../run/loader.h"
#include "../run/optimizer.h"
#include "timed_ops.h"

enum { WARM_STEPS = 3, REPEATS = 8, BATCHES = 8 };

static const double bandwidth = 4.25e12;
static double gemm_rate; // FLOP/s

static double now_us(void) { return now_ms() * 1e3; }

static void must(bool ok, const Error *err)
{
    if (ok) return;
    fprintf(stderr, "error: %s\n", err->text);
    exit(1);
}

// ---- the batches -------------------------------------------------------------------------------

static double random_uniform(void) // in (0, 1)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(state >> 11) + 0.5) * 0x1p-53;
}

static void random_batch(Batch *b, const Recipe *r)
{
    int at = 0;
    for (int p = 0; p <= b->n_tokens; p++) // id ~ 1/u
        b->ids[p] = (int)exp(random_uniform() * log(r->vocab_size - 1)) - 1;
    for (b->n_docs = 0; at < b->n_tokens; b->cu[++b->n_docs] = at) {
        const int left = b->n_tokens - at;
        int length = (int)ceil(-900 * log(random_uniform())); // the cut leaves a mean of some 760
        if (length > r->max_doc) length = r->max_doc;
        b->ids[at] = r->vocab_size - 1;
        at += length < left ? length : left;
    }
    memcpy(b->targets, b->ids + 1, (size_t)b->n_tokens * sizeof *b->ids);
}

static void read_batches(Batch *batches, const Recipe *r, const char *shards)
{
    Error err = {""};
    Loader *loader = NULL;
    const StreamConfig config = {.files = shards,
                                 .vocab_size = r->vocab_size,
                                 .micro_batch = r->sequence,
                                 .sequences = r->micro_batch / r->sequence,
                                 .max_doc = r->max_doc,
                                 .world = 1};
    if (shards) must(loader_open(&loader, &config, NULL, &err), &err);
    for (int i = 0; i < BATCHES; i++) {
        const Batch *drawn;
        must(batch_alloc(&batches[i], r->micro_batch, r->micro_batch / r->sequence) ||
                 fail(&err, "out of memory"),
             &err);
        if (!shards) {
            random_batch(&batches[i], r);
            continue;
        }
        must(loader_next(loader, &drawn, &err), &err);
        batch_copy(&batches[i], drawn);
    }
    loader_close(loader);
}

// Pairs of a query and a key that it sees, of one head.
static double visible_pairs(const Batch *b, int window)
{
    double sum = 0;
    for (int i = 0; i < b->n_docs; i++)
        for (int p = b->cu[i]; p < b->cu[i + 1]; p++) sum += fmin(p - b->cu[i], window) + 1;
    return sum;
}

static int distinct_ids(const Batch *b, int vocab)
{
    int n = 0;
    char *seen = calloc((size_t)vocab, 1);
    for (int p = 0; seen && p < b->n_tokens; p++) n += !seen[b->ids[p]], seen[b->ids[p]] = 1;
    free(seen);
    return n;
}

// ---- the tables --------------------------------------------------------------------------------

static double floor_us(const TimedOp *op)
{
    return 1e6 * fmax(op->bytes / bandwidth, op->flops / gemm_rate);
}

static int by_lost_time(const void *a, const void *b)
{
    const TimedOp *x = a, *y = b;
    const double lost_x = x->us - floor_us(x), lost_y = y->us - floor_us(y);
    return lost_x < lost_y ? 1 : lost_x > lost_y ? -1 : 0;
}

// The rows of `repeats` runs as one; returns the sum of times.
static double print_table(const char *title, TimedOp *rows, int n, int repeats)
{
    double sum = 0, least = 0;
    qsort(rows, (size_t)n, sizeof *rows, by_lost_time);
    printf("\n%-42s %5s %9s %9s %14s %9s %6s %9s\n", title, "calls", "us", "us each", "rate",
           "floor us", "ratio", "lost us");
    for (int i = 0; i < n; i++) {
        const TimedOp *op = &rows[i];
        const double us = op->us / repeats, low = floor_us(op) / repeats;
        const bool product = op->flops / gemm_rate > op->bytes / bandwidth;
        printf("%-42s %5d %9.1f %9.1f %7.0f %-6s %9.1f %6.2f %9.1f\n", op->name,
               op->calls / repeats, us, op->us / op->calls,
               op->us > 0 ? (product ? op->flops * 1e-6 : op->bytes * 1e-3) / op->us : 0,
               product ? "TFLOP/s" : "GB/s", low, low > 0 ? us / low : 0, us - low);
        sum += us;
        least += low;
    }
    printf("%-42s %5s %9.1f %9s %14s %9.1f %6.2f %9.1f\n", "sum", "", sum, "", "", least,
           sum / least, sum - least);
    return sum;
}

// ---- measuring ---------------------------------------------------------------------------------

static const Ops *ops;
static Gpt *gpt;
static Optimizer optimizer;
static Batch batches[BATCHES];

static void micro_batch(int i)
{
    const GptBatch b = batch_view(&batches[i % BATCHES]);
    gpt_forward_backward(gpt, &b);
}

static void training_step(int step)
{
    gpt_set_step(gpt, step);
    for (int i = 0; i < BATCHES; i++) micro_batch(i);
    optimizer_step(&optimizer, step);
}

static void measure_gemm(void)
{
    enum { N = 8192, TIMES = 20 };
    const size_t n = (size_t)N * N;
    uint16_t *host = malloc(n * sizeof *host);
    void *m[3];
    Error err = {""};
    for (size_t i = 0; host && i < n; i++)
        host[i] = bf16_from_f32((float)(2 * random_uniform() - 1));
    for (int i = 0; i < 3; i++) {
        m[i] = ops->mem_alloc(n * sizeof *host);
        must((host && m[i]) || fail(&err, "out of memory for a product of %d", N), &err);
        ops->mem_put(m[i], host, n * sizeof *host);
    }
    double start = 0;
    for (int i = -3; i < TIMES; i++) {
        if (i == 0) ops->sync(), start = now_us();
        ops->matmul(m[0], m[1], m[2], MM_NT, N, N, N, 1, 0);
    }
    ops->sync();
    gemm_rate = 2.0 * N * N * N * TIMES / (now_us() - start) * 1e6;
    for (int i = 0; i < 3; i++) ops->mem_free(m[i]);
    free(host);
}

// Device time of `run(argument)`, which the host has had a head start for, in us.
static double device_us(void (*run)(int), int argument)
{
    cudaEvent_t begin, end;
    float ms = NAN;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    timed_head_start();
    cudaEventRecord(begin, cuda_stream());
    run(argument);
    cudaEventRecord(end, cuda_stream());
    ops->sync();
    cudaEventElapsedTime(&ms, begin, end);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return (double)ms * 1e3;
}

static void update(int step) { optimizer_step(&optimizer, step); }

// Time until `run(argument)` returns, which finds the device idle, in us.
static double host_us(void (*run)(int), int argument)
{
    ops->sync();
    const double start = now_us();
    run(argument);
    const double us = now_us() - start;
    ops->sync();
    return us;
}

static void print_whole(const char *title, double device, double host)
{
    printf("%-42s %11.1f us on the device, %8.1f us until the call returns: %.2f %%\n", title,
           device, host, 100 * host / device);
}

// Every operation of a micro-batch.
static void measure_micro_batch(const Recipe *r)
{
    const int window = recipe_long_window(r, 0);
    TimedBatch of = {.step = gpt_step_state(gpt)};
    TimedOp rows[TIMED_MAX_ROWS], all[TIMED_MAX_ROWS];
    int n_all = 0;
    double wall[2] = {0}, host[2] = {0}; // operation by operation; from the recording
    for (int i = 0; i < REPEATS; i++) {
        const Batch *b = &batches[i % BATCHES];
        of.short_pairs = visible_pairs(b, window / 2 * r->window_block);
        of.long_pairs = visible_pairs(b, window * r->window_block);
        of.distinct_ids = distinct_ids(b, r->vocab_size);
        timed_start(&of);
        micro_batch(i);
        const int n = timed_stop(rows);
        for (int j = 0; j < n; j++) {
            int k = 0;
            while (k < n_all && strcmp(all[k].name, rows[j].name)) k++;
            if (k == n_all) all[n_all++] = (TimedOp){.calls = 0};
            memcpy(all[k].name, rows[j].name, sizeof all[k].name);
            all[k].calls += rows[j].calls, all[k].us += rows[j].us;
            all[k].bytes += rows[j].bytes, all[k].flops += rows[j].flops;
        }
        for (int recorded = 0; recorded < 2; recorded++) {
            timed_record(recorded);
            wall[recorded] += device_us(micro_batch, i) / REPEATS;
            host[recorded] += host_us(micro_batch, i) / REPEATS;
        }
    }
    print_table("one micro-batch", all, n_all, REPEATS);
    print_whole("the whole, operation by operation", wall[0], host[0]);
    print_whole("the whole, from its recording", wall[1], host[1]);
}

static void measure_optimizer(int step, const char *title)
{
    const TimedBatch of = {.step = gpt_step_state(gpt)};
    TimedOp rows[TIMED_MAX_ROWS];
    gpt_set_step(gpt, step);
    micro_batch(0);
    const double wall = device_us(update, step);
    micro_batch(0);
    const double host = host_us(update, step);
    micro_batch(0);
    timed_start(&of);
    update(step);
    const int n = timed_stop(rows);
    print_table(title, rows, n, 1);
    print_whole("the whole", wall, host);
}

static void measure_steps(int first, bool recorded)
{
    enum { STEPS = 6 };
    timed_record(recorded);
    ops->sync();
    const double start = now_us();
    for (int i = 0; i < STEPS; i++) training_step(first + i);
    ops->sync();
    const double us = (now_us() - start) / STEPS;
    printf("%d steps of %d micro-batches%s: %.1f us a step, %.1f us a micro-batch, all in\n", STEPS,
           BATCHES, recorded ? ", recorded" : "", us, us / BATCHES);
}

int main(int argc, char **argv)
{
    Error err = {""};
    Recipe r;
    const Ops *device;
    char description[256];
    must(ops_cuda_find(&device, description, sizeof description, &err) &&
             recipe_find(&r, "speedrun", &err) && recipe_finish(&r, &err),
         &err);
    ops = timed_ops(device);
    read_batches(batches, &r, argc > 1 ? argv[1] : NULL);
    gpt = gpt_create(&r, ops, false, BATCHES, &err);
    must(gpt && optimizer_create(&optimizer, gpt, &err), &err);
    gpt_init(gpt, 1);
    timed_record(true);
    ops->tune(true); // as a run does
    for (int i = 0; i < WARM_STEPS; i++) training_step(i);
    ops->tune(false);
    measure_gemm();
    printf("%s; recipe %s, %d tokens, %d documents in the first batch; 8192 cubed: %.0f TFLOP/s\n",
           description, r.name, r.micro_batch, batches[0].n_docs, gemm_rate * 1e-12);
    measure_micro_batch(&r);
    measure_optimizer(WARM_STEPS + 1, "optimizer, even step");
    measure_optimizer(WARM_STEPS + 2, "optimizer, odd step");

    printf("\n");
    for (int i = 0; i < 4; i++) measure_steps(WARM_STEPS + 3, i % 2 == 1);
    optimizer_free(&optimizer);
    gpt_free(gpt);
    for (int i = 0; i < BATCHES; i++) batch_free(&batches[i]);
    return 0;
}
