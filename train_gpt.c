// train_gpt: trains a GPT-2-class model with Turbo-Muon. `make train && ./train_gpt` does it all.
//
// The program from top to bottom: options; the device and the recipe; memory; data; the start-up
// table; the one training loop; samples, curve and report. Everything the loop calls has a header
// with its name in run/ (files, logs, data), gpt/ (the model) or ops/ (the arithmetic).
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "run/loader.h"    // training batches
#include "run/log.h"       // what a run says and keeps
#include "run/optimizer.h" // Turbo-Muon and Adam
#include "run/options.h"   // the command line
#include "run/plot.h"      // loss.svg
#include "run/sample.h"    // text from the model
#include "run/state.h"     // checkpoints of a run
#include "run/unigram.h"   // the loss to beat
#include "run/val.h"       // validation batches
#ifdef USE_CUDA
#include "ops/cuda/device.h" // the GPU
#endif

static const char version[] = "turbomuon.c 0.1";

typedef struct {
    Options options;
    Recipe recipe;
    bool real_storage, usage; // usage: what was refused is the command line
    const Ops *ops;
    char device[640];    // the GPU, or why there is none
    const char *program; // as it was called
    char folder[512], checkpoints[576];
    char saved[FILE_PATH_MAX]; // the last checkpoint, "" before there is one
    int saved_step;
    char train_files[1024], val_files[1024];
    Safetensors resume; // open while a run resumes
    bool resuming;
    Gpt *gpt;
    Optimizer optimizer;
    Unigram unigram;
    Loader *loader;
    Batch *batches; // of one step (micro_batches)
    Val val;
    Log *log;
    TrainState state;
    int end; // training steps in all
} Run;

static volatile sig_atomic_t interrupted;
static void on_signal(int signal) { interrupted = signal; }

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// ---- choosing: device, recipe, data ------------------------------------------------------------

// The GPU unless --device says otherwise or there is none; run->device then says why.
static bool choose_device(Run *run, Error *err)
{
    Error reason;
    run->ops = &ops_cpu;
#ifdef _OPENMP
    if (run->options.threads > 0) omp_set_num_threads(run->options.threads);
#endif
    if (!strcmp(run->options.device, "cpu")) return true;
#ifdef USE_CUDA
    if (ops_cuda_find(&run->ops, run->device, sizeof run->device, &reason)) return true;
#else
    fail(&reason, "this program was built without CUDA");
#endif
    if (!strcmp(run->options.device, "cuda"))
        return fail(err, "--device cuda: %.400s; use --device cpu", reason.text);
    snprintf(run->device, sizeof run->device, "no GPU: %s", reason.text);
    return true;
}

// The recipe of a program without options: the speedrun where a GPU and its data are, else `tiny`.
static const char *default_recipe(const Run *run)
{
    const bool data = access("data/fineweb10B/fineweb_train_000001.bin", R_OK) == 0 &&
                      access("data/fineweb10B/fineweb_val_000000.bin", R_OK) == 0;
    return run->ops != &ops_cpu && data ? "speedrun" : "tiny";
}

// A resumed run has its checkpoint's recipe; a new one that of the options, or the default. Either
// with the command line's changes.
static bool choose_recipe(Run *run, Error *err)
{
    const Options *o = &run->options;
    if (!o->resume[0]) {
        run->real_storage = !strcmp(o->storage, "real");
        run->usage = !options_recipe(o, default_recipe(run), &run->recipe, err);
        return !run->usage;
    }
    char path[FILE_PATH_MAX];
    Error warning = {""};
    snprintf(path, sizeof path, "%s", o->resume);
    if (!strcmp(o->resume, "latest")) {
        if (!recipe_find(&run->recipe, o->recipe[0] ? o->recipe : default_recipe(run), err) ||
            !log_folder("runs", o->run, run->recipe.name, true, run->folder, sizeof run->folder,
                        err))
            return false;
        snprintf(run->checkpoints, sizeof run->checkpoints, "%s/checkpoints", run->folder);
        if (access(run->checkpoints, F_OK))
            return fail(
                err,
                "%.256s has no checkpoint to continue from: start again with another --run, "
                "or none",
                run->folder);
        if (!checkpoint_latest(run->checkpoints, path, &warning, err)) return false;
        if (warning.text[0]) fprintf(stderr, "warning: %s\n", warning.text);
    }
    run->resuming = checkpoint_open(&run->resume, path, err);
    if (!run->resuming || !state_recipe(&run->resume, &run->recipe, &run->real_storage, err))
        return false;
    Recipe named = run->recipe;
    if (o->recipe[0] && !recipe_find(&named, o->recipe, err)) return false;
    if (strcmp(named.name, run->recipe.name))
        return fail(err, "--recipe %.64s: %.256s was trained with %s", o->recipe, path,
                    run->recipe.name);
    if (!run->real_storage && !strcmp(o->storage, "real"))
        return fail(err, "--storage real: %.256s has the storage of its recipe, and keeps it",
                    path);
    return options_apply(o, &run->recipe, err);
}

// The speedrun recipe on a CPU takes weeks: only for who asks for it.
static bool check_patience(const Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    const double flops =
        (double)r->micro_batch * r->micro_batches * r->total_steps * r->width * r->width;
    if (run->ops != &ops_cpu || run->options.steps > 0 || strcmp(run->options.device, "auto") ||
        flops < 1e14)
        return true;
    return fail(
        err,
        "recipe %s is made for a GPU, and there is none: train a smaller one (--recipe mini or "
        "tiny), or insist with --device cpu",
        r->name);
}

// Shards by the vocabulary when the options name none: GPT-2's are FineWeb's, 257 is the corpus's.
static void choose_data(Run *run)
{
    const bool bytes = run->recipe.vocab_size == 257;
    const Options *o = &run->options;
    snprintf(run->train_files, sizeof run->train_files, "%s",
             o->train[0] ? o->train
             : bytes     ? "data/corpus/corpus_train_*.bin"
                         : "data/fineweb10B/fineweb_train_*.bin");
    snprintf(run->val_files, sizeof run->val_files, "%s",
             o->val[0] ? o->val
             : bytes   ? "data/corpus/corpus_val_*.bin"
                       : "data/fineweb10B/fineweb_val_*.bin");
}

// Whether the checkpoint given is the newest of a run, FOLDER/checkpoints/step_N.safetensors: then
// FOLDER is continued. An older one begins a run of its own, as what came after it is kept.
static bool continues_a_run(Run *run)
{
    const Options *o = &run->options;
    char folder[FILE_PATH_MAX], newest[FILE_PATH_MAX], log[FILE_PATH_MAX + 16];
    Error unused;
    snprintf(folder, sizeof folder, "%s", o->resume);
    char *slash = strrchr(folder, '/');
    if (!slash) return false;
    *slash = '\0';
    if (!checkpoint_latest(folder, newest, &unused, &unused) || strcmp(newest, o->resume))
        return false;
    slash = strrchr(folder, '/');
    if (!slash || strcmp(slash, "/checkpoints")) return false;
    *slash = '\0';
    slash = strrchr(folder, '/');
    if (o->run[0] && strcmp(o->run, slash ? slash + 1 : folder)) return false;
    snprintf(log, sizeof log, "%s/log.jsonl", folder);
    if (access(log, F_OK) || strlen(folder) >= sizeof run->folder) return false;
    memcpy(run->folder, folder, strlen(folder) + 1);
    return true;
}

static bool choose_folder(Run *run, Error *err)
{
    if (!run->folder[0] && !(run->resuming && continues_a_run(run)) &&
        !log_folder("runs", run->options.run, run->recipe.name, false, run->folder,
                    sizeof run->folder, err))
        return false;
    snprintf(run->checkpoints, sizeof run->checkpoints, "%s/checkpoints", run->folder);
    return true;
}

// ---- opening -----------------------------------------------------------------------------------

static bool open_model(Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    run->gpt = gpt_create(r, run->ops, run->real_storage, r->micro_batches, err);
    if (!run->gpt || !optimizer_create(&run->optimizer, run->gpt, err) ||
        !unigram_open(&run->unigram, r->vocab_size, err))
        return false;
    run->state = (TrainState){.gpt = run->gpt,
                              .optimizer = &run->optimizer,
                              .unigram = &run->unigram,
                              .seed = run->options.seed};
    if (run->resuming) {
        snprintf(run->saved, sizeof run->saved, "%s", run->resume.path);
        if (!state_load(&run->state, &run->resume, err)) return false;
        run->saved_step = run->state.step;
        return true;
    }
    gpt_init(run->gpt, (uint64_t)run->options.seed);
    return true;
}

static bool open_data(Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    const StreamConfig train = {.files = run->train_files,
                                .vocab_size = r->vocab_size,
                                .micro_batch = r->micro_batch,
                                .max_doc = r->max_doc,
                                .world = 1,
                                .epochs = run->options.epochs,
                                .total = run->state.cursor.micro_batches +
                                         (int64_t)(run->end - run->state.step) * r->micro_batches};
    const ValConfig val = {.files = run->val_files,
                           .vocab_size = r->vocab_size,
                           .tokens = r->val_tokens,
                           .chunk = r->val_chunk,
                           .world = 1};
    run->batches = calloc((size_t)r->micro_batches, sizeof *run->batches);
    for (int i = 0; i < r->micro_batches; i++)
        if (!run->batches || !batch_alloc(&run->batches[i], r->micro_batch))
            return fail(err, "out of memory for the batches of a step");
    return loader_open(&run->loader, &train, run->resuming ? &run->state.cursor : NULL, err) &&
           val_open(&run->val, &val, err);
}

static void print_table(Run *run)
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
    log_line(log, "orthogonal.  %s", method);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(run->gpt, (BankId)id);
        log_line(log, "  %-12s %3d x %5d x %-5d %-4s %s %13.0f", b->name, b->count, b->rows,
                 b->cols, dtype_name(b->dtype), b->muon ? "NorMuon" : "Adam   ",
                 (double)b->count * b->rows * b->cols);
    }
    log_line(log, "  %-48s %13zu", "parameters", gpt_parameter_count(run->gpt));
    const GptMemory *memory = gpt_memory(run->gpt);
    double total = (double)run->optimizer.bytes;
    for (int i = 0; i < GPT_MEMORY_ROWS; i++) {
        log_line(log, "  %-48s %10.1f MB", memory[i].purpose, (double)memory[i].bytes / 1e6);
        total += (double)memory[i].bytes;
    }
    log_line(log, "  %-48s %10.1f MB", "optimizer state", (double)run->optimizer.bytes / 1e6);
    log_line(log, "  %-48s %10.1f MB", "memory in all", total / 1e6);
    log_line(log, "data         %s (validation: %lld tokens of %s)", run->train_files,
             (long long)run->val.tokens, run->val_files);
    log_line(log, "steps        %d of %d tokens (%d micro-batches of %d)", run->end,
             r->micro_batch * r->micro_batches, r->micro_batches, r->micro_batch);
    log_line(log, "results      %s", run->folder);
}

// ---- the loop ----------------------------------------------------------------------------------

static GptBatch gpt_batch(const Batch *b)
{
    return (GptBatch){.ids = b->ids,
                      .targets = b->targets,
                      .cu = b->cu,
                      .n_docs = b->n_docs,
                      .tokens = b->n_tokens};
}

// Mean loss of the validation tokens.
static double validate(Run *run)
{
    double sum = 0;
    for (int call = 0; call < run->val.calls; call++) {
        const GptBatch batch = gpt_batch(val_batch(&run->val, call));
        sum += gpt_evaluate(run->gpt, &batch);
    }
    return sum / run->val.calls;
}

static bool save_checkpoint(Run *run, Error *err)
{
    const double start = now_ms();
    if (!state_save(&run->state, run->checkpoints, run->options.keep, run->saved, err))
        return false;
    run->saved_step = run->state.step;
    log_checkpoint(run->log, run->state.step, run->saved, (now_ms() - start) / 1e3);
    return true;
}

// All batches of a step, before it touches a gradient: when the data run out, what was learnt up to
// here can still be saved.
static bool draw_batches(Run *run, Error *err)
{
    for (int i = 0; i < run->recipe.micro_batches; i++) {
        const Batch *drawn;
        Batch *own = &run->batches[i];
        if (loader_next(run->loader, &drawn, err)) {
            memcpy(own->ids, drawn->ids, ((size_t)drawn->n_tokens + 1) * sizeof *own->ids);
            memcpy(own->cu, drawn->cu, ((size_t)drawn->n_docs + 1) * sizeof *own->cu);
            own->n_docs = drawn->n_docs;
            continue;
        }
        Error failure;
        if (run->state.step > run->saved_step && !save_checkpoint(run, &failure))
            fprintf(stderr, "warning: %s\n", failure.text);
        return false;
    }
    return true;
}

// One training step: A micro-batches, then the optimizers. Leaves the mean loss in *loss.
static bool train_step(Run *run, int step, double *loss, Error *err)
{
    const Recipe *r = &run->recipe;
    *loss = 0;
    if (!draw_batches(run, err)) return false;
    for (int i = 0; i < r->micro_batches; i++) {
        const GptBatch batch = gpt_batch(&run->batches[i]);
        *loss += gpt_forward_backward(run->gpt, &batch) / r->micro_batches;
        unigram_add(&run->unigram, batch.targets, batch.tokens);
    }
    optimizer_step(&run->optimizer, step);
    run->ops->sync(); // the clock is about to be read
    run->state.cursor = loader_cursor(run->loader);
    run->state.tokens += (int64_t)r->micro_batch * r->micro_batches;
    return true;
}

static bool not_a_number(const Run *run, const char *what, int step, Error *err)
{
    char advice[512];
    if (!run->saved[0])
        snprintf(advice, sizeof advice, "start again");
    else if (run->saved_step == step)
        snprintf(advice, sizeof advice,
                 "these are the weights of %.256s: resume from an earlier one", run->saved);
    else
        snprintf(advice, sizeof advice, "resume from %.256s", run->saved);
    return fail(err,
                "the %s is not a number at step %d; %s with a lower learning rate (--muon-lr, "
                "--adam-lr)",
                what, step, advice);
}

static bool train(Run *run, double *final_loss, Error *err)
{
    const Recipe *r = &run->recipe;
    for (int step = run->state.step;; step++) {
        const bool last = step == run->end;
        gpt_set_step(run->gpt, step);
        if (last || step % r->val_every == 0) {
            *final_loss = validate(run);
            log_val(run->log, step, run->end, *final_loss, run->state.train_ms);
            if (!isfinite(*final_loss)) return not_a_number(run, "validation loss", step, err);
        }
        if (last || interrupted) return save_checkpoint(run, err);

        const double start = now_ms();
        double loss;
        if (!train_step(run, step, &loss, err)) return false;
        const double ms = now_ms() - start;
        run->state.step = step + 1;
        run->state.train_ms += ms;
        if (!isfinite(loss)) return not_a_number(run, "training loss", step, err);
        const LogStep entry = {
            .step = step + 1,
            .total = run->end,
            .train_ms = run->state.train_ms,
            .loss = loss,
            .lr_factor = recipe_lr_factor(r, step),
            .momentum = recipe_momentum(r, step),
            .window_long = recipe_long_window(r, step) * r->window_block,
            .tokens = run->state.tokens,
            .tokens_per_second = (double)r->micro_batch * r->micro_batches / ms * 1e3,
            .mfu = NAN, // no peak is known for a CPU
        };
        log_step(run->log, &entry);
        const int every = run->options.checkpoint_every;
        if (every > 0 && (step + 1) % every == 0 && step + 1 < run->end &&
            !save_checkpoint(run, err))
            return false;
    }
}

// ---- the end -----------------------------------------------------------------------------------

static bool write_samples(Run *run, Error *err)
{
    const Options *o = &run->options;
    if (run->recipe.vocab_size != 257) return true; // other vocabularies need a tokenizer
    char *text = malloc((size_t)o->sample_tokens + 1);
    if (!text) return fail(err, "out of memory for samples");
    for (int i = 0; i < o->samples && !interrupted; i++) {
        int n = sample_document(run->gpt, (uint64_t)run->state.seed * 1000 + (uint64_t)i,
                                o->temperature, o->sample_tokens, text);
        if (n >= 0) log_sample(run->log, run->state.step, text, (size_t)n);
    }
    free(text);
    return true;
}

static void report(Run *run, double loss)
{
    const double floor = run->val.shard.floor;
    const bool whole = run->val.tokens == run->val.shard.n_tokens - 1;
    const double unigram = unigram_loss(&run->unigram, val_targets(&run->val), run->val.tokens);
    if (floor > 0)
        log_line(run->log, "val_loss %.4f (the corpus's floor%s %.4f, unigram %.4f)", loss,
                 whole ? "" : " on the whole shard", floor, unigram);
    else
        log_line(run->log, "val_loss %.4f (smoothed unigram of the tokens seen: %.4f)", loss,
                 unigram);
}

static bool draw_curve(Run *run, Error *err)
{
    const Series *val = log_val_curve(run->log);
    char title[128], subtitle[160], path[600];
    const PlotLine lines[] = {
        {unigram_loss(&run->unigram, val_targets(&run->val), run->val.tokens), "unigram"},
        {run->val.shard.floor, "floor of the corpus"},
    };
    snprintf(title, sizeof title, "%s, %s", run->recipe.name, run->recipe.method.name);
    snprintf(subtitle, sizeof subtitle, "validation loss %.4f after %d steps, %.1f s",
             val->n > 0 ? val->y[val->n - 1] : NAN, run->state.step, run->state.train_ms / 1e3);
    snprintf(path, sizeof path, "%s/loss.svg", run->folder);
    const Plot plot = {.title = title,
                       .subtitle = subtitle,
                       .train = log_train_curve(run->log),
                       .val = val,
                       .lines = lines,
                       .n_lines = run->val.shard.floor > 0 ? 2 : 1};
    if (!plot_write(&plot, path, err)) return false;
    log_line(run->log, "loss curve   %s", path);
    return true;
}

// The command line that continues a stopped run: what was given, but for the recipe, which the
// checkpoint has.
static void say_how_to_continue(Run *run)
{
    Options o = run->options;
    char command[4096];
    const char *name = strncmp(run->folder, "runs/", 5) ? NULL : run->folder + 5;
    o.recipe[0] = '\0';
    memset(o.change, 0, sizeof o.change);
    snprintf(o.run, sizeof o.run, "%s", name ? name : "");
    snprintf(o.resume, sizeof o.resume, "latest");
    if (!name) snprintf(o.resume, sizeof o.resume, "%.1000s", run->saved);
    log_line(run->log, "stopped after step %d; continue with: %s %s", run->state.step, run->program,
             options_describe(&o, command, sizeof command));
}

static bool run_all(Run *run, Error *err)
{
    double loss = NAN;
    if (!choose_device(run, err) || !choose_recipe(run, err) || !check_patience(run, err))
        return false;
    const Options *o = &run->options;
    run->end =
        o->steps > 0 && o->steps < run->recipe.total_steps ? o->steps : run->recipe.total_steps;
    choose_data(run);
    if (!open_model(run, err)) return false;
    if (run->state.step >= run->end)
        return fail(err, "the checkpoint has all %d steps already: give more with %s", run->end,
                    run->end < run->recipe.total_steps ? "--steps" : "--extension-steps");
    if (!open_data(run, err) || !choose_folder(run, err)) return false;
    run->log = log_open(run->folder, run->resuming, err);
    if (!run->log) return false;

    char command[2048];
    options_describe(o, command, sizeof command);
    log_start(run->log, run->state.step, &run->recipe, command, run->ops->name);
    print_table(run);
    if (!train(run, &loss, err) || !draw_curve(run, err)) return false;
    if (run->state.step < run->end) {
        say_how_to_continue(run);
        return true;
    }
    report(run, loss);
    return write_samples(run, err);
}

static bool close_all(Run *run, Error *err)
{
    if (run->resuming) safetensors_close(&run->resume);
    loader_close(run->loader);
    for (int i = 0; run->batches && i < run->recipe.micro_batches; i++)
        batch_free(&run->batches[i]);
    free(run->batches);
    val_close(&run->val);
    unigram_close(&run->unigram);
    optimizer_free(&run->optimizer);
    gpt_free(run->gpt);
    return log_close(run->log, err);
}

// What asks for no training: 0 when nothing does, 1 when it is done, -1 on a refusal.
static int answer_question(Run *run, Error *err)
{
    const Options *options = &run->options;
    if (options->version) return puts(version), 1;
    if (!options->help && !options->print_recipe) return 0;
    if (!choose_device(run, err) ||
        !options_recipe(options, default_recipe(run), &run->recipe, err))
        return -1;
    if (options->help)
        options_help(&run->recipe, stdout);
    else
        recipe_print(&run->recipe, stdout);
    return 1;
}

// An answer that could not be written whole, say to a full disk, is a failure.
static int finish_answer(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    fprintf(stderr, "error: cannot write to standard output: %s\n", strerror(errno));
    return 1;
}

// Signals finish the step, save and stop. A second one ends the program at once.
static void catch_signals(void)
{
    const struct sigaction once = {.sa_handler = on_signal,
                                   .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    const struct sigaction always = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction hangup;
    sigaction(SIGINT, &once, NULL);
    sigaction(SIGTERM, &once, NULL);
    if (!sigaction(SIGHUP, NULL, &hangup) && hangup.sa_handler != SIG_IGN) // nohup's
        sigaction(SIGHUP, &once, NULL);
    sigaction(SIGPIPE, &always, NULL); // whoever read the output is gone; the curve is still drawn
    signal(SIGXFSZ, SIG_IGN);          // a file size limit is an error of write, with a message
}

// Idle threads of gcc's OpenMP spin for milliseconds before they sleep, which makes a step ten
// times slower when other programs want the cores (bench/RESULTS.md). The setting is read only when
// a program starts, so this one starts once more with it; where that fails, it goes on without.
static void spin_briefly(char **argv)
{
#ifdef _OPENMP
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv);
#else
    (void)argv;
#endif
}

int main(int argc, char **argv)
{
    static Run run;
    Error err = {""}, late = {""};
    int answered = 0;
    spin_briefly(argv);
    run.program = argc > 0 ? argv[0] : "./train_gpt";
    if (!options_parse(&run.options, argc, argv, &err) ||
        (answered = answer_question(&run, &err)) < 0) {
        fprintf(stderr, "error: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (answered) return finish_answer();
    catch_signals();
    bool ok = run_all(&run, &err);
    if (!ok) fprintf(stderr, "error: %s\n", err.text);
    if (!close_all(&run, &late)) {
        fprintf(stderr, "error: %s\n", late.text);
        ok = false;
    }
    return !ok                        ? (run.usage ? EXIT_USAGE : 1)
           : run.state.step < run.end ? 128 + (int)interrupted
                                      : 0;
}
