#include "start_table.h"

#include <math.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

// Everything that the run takes of the device, by purpose.
static void print_memory(Run *run)
{
    enum { ROWS = GPT_MEMORY_ROWS + 4 };
    static const char row[] = "  %-48s %10.1f MB";
    const size_t work = run->comm ? run->sharded.work_bytes : run->optimizer.work_bytes;
    const size_t rows = run->comm ? run->sharded.rows.bytes : 0;
    const size_t state = (run->comm ? run->sharded.bytes : run->optimizer.bytes) - work - rows;
    GptMemory memory[ROWS] = {{NULL, 0}};
    size_t own = 0, available = 0, all = 0;
    double total = 0;
    if (run->ops->mem_info) run->ops->mem_info(&own, &available, &all);
    memcpy(memory, gpt_memory(run->gpt), GPT_MEMORY_ROWS * sizeof *memory);
    memory[GPT_MEMORY_ROWS] = (GptMemory){"optimizer state", state};
    memory[GPT_MEMORY_ROWS + 1] = (GptMemory){"orthogonalisation", work};
    memory[GPT_MEMORY_ROWS + 2] = (GptMemory){"embedding gradients by rows", rows};
    memory[GPT_MEMORY_ROWS + 3] = (GptMemory){"the device's workspaces", own};
    for (int i = 0; i < ROWS; i++) {
        total += (double)memory[i].bytes;
        if (memory[i].bytes)
            log_line(run->log, row, memory[i].purpose, (double)memory[i].bytes / 1e6);
    }
    log_line(run->log, row, "memory in all", total / 1e6);
    if (all)
        log_line(run->log, "  %.1f of the device's %.1f GB are free", (double)available / 1e9,
                 (double)all / 1e9);
}

// Dense TFLOP/s of the device.
static void print_peak(Run *run)
{
    char name[64] = "n/a for this GPU";
    if (isfinite(run->peak.bf16))
        snprintf(name, sizeof name, "%.0f TFLOP/s in bf16, %.0f in fp8", run->peak.bf16 / 1e12,
                 run->peak.fp8 / 1e12);
    log_line(run->log, "peak         %s; measured in bf16 %.0f", name, run->measured.bf16 / 1e12);
}

// A micro-batch that holds no whole number of sequences has changed what is trained.
static void say_other_sequence(Log *log, const Recipe *r)
{
    Recipe built_in;
    Error unknown;
    if (recipe_find(&built_in, r->name, &unknown) && built_in.sequence != r->sequence)
        log_line(
            log,
            "             sequences of %d tokens, not %d: this is another recipe than %s, with "
            "other losses",
            r->sequence, built_in.sequence, r->name);
}

void start_table(Run *run, const char *version)
{
    const Recipe *r = &run->recipe;
    Log *log = run->log;
    char method[160];
    int threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    ns_method_describe(&r->method, method, sizeof method);
    log_line(log, "%s", version);
    log_line(log, "recipe       %s: %s", r->name, r->layers);
    if (run->ops != &ops_cpu)
        log_line(log, "device       %s: %s", run->ops->name, run->device);
    else
        log_line(log, "device       %s, %d thread%s%s%s", run->ops->name, threads,
                 threads == 1 ? "" : "s", run->device[0] ? "; " : "", run->device);
    if (run->ops != &ops_cpu) print_peak(run);
    if (run->comm)
        log_line(log, "ranks        %d, through %s; memory is that of one", run->env.world,
                 run->comm->description);
    log_line(log, "orthogonal.  %s", method);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(run->gpt, (BankId)id);
        log_line(log, "  %-12s %3d x %5d x %-5d %-4s %s %13.0f", b->name, b->count, b->rows,
                 b->cols, dtype_name(b->dtype), b->muon ? "NorMuon" : "Adam   ",
                 (double)b->count * b->rows * b->cols);
    }
    log_line(log, "  %-48s %13zu", "parameters", gpt_parameter_count(run->gpt));
    print_memory(run);
    log_line(log, "data         %s (validation: %lld tokens of %s)", run->train_files,
             (long long)run->val.tokens, run->val_files);
    log_line(log, "steps        %d of %d tokens (%d micro-batches of %d)", run->end,
             r->micro_batch * r->micro_batches, r->micro_batches, r->micro_batch);
    if (r->sequence < r->micro_batch)
        log_line(log, "             %d sequences of %d tokens side by side in each",
                 r->micro_batch / r->sequence, r->sequence);
    say_other_sequence(log, r);
    log_line(log, "results      %s", run->folder);
}
