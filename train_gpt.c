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
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "run/choose.h"       // recipe, data and folder of a run
#include "run/clock.h"        // how long things take
#include "run/memory.h"       // whether it fits
#include "run/plan_file.h"    // algorithms kept from run to run
#include "run/plot.h"         // loss.svg
#include "run/ranks.h"        // several processes
#include "run/run.h"          // everything that a run has open
#include "run/hellaswag.h"    // its score
#include "run/samples.h"      // text from the model
#include "run/threads.h"      // how they wait
#include "run/timeline_run.h" // what ran when
#include "run/weights.h"      // those that a run starts from
#include "run/start_table.h"  // what is about to be trained
#include "run/warm_up.h"      // before the clock runs
#ifdef USE_CUDA
#include "ops/cuda/device.h" // the GPU
#endif

static const char version[] = "turbomuon.c 0.1";

static volatile sig_atomic_t interrupted;
static void on_signal(int signal) { interrupted = signal; }

// ---- choosing the device (the rest is in run/choose.c) -----------------------------------------

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
    ops_cuda_configure(&(CudaConfig){.portable = !strcmp(run->options.kernels, "portable"),
                                     .deterministic = run->options.deterministic,
                                     .no_graphs = !strcmp(run->options.graphs, "no")});
    if (ranks_select_gpu(run, &reason) &&
        ops_cuda_find(&run->ops, run->device, sizeof run->device, &reason))
        return true;
#else
    fail(&reason, "this program was built without CUDA");
#endif
#ifdef USE_CUDA
    // On a CPU it would be no match for the other ranks.
    if (run->env.world > 1 && (run->options.gpus > 0 || ops_cuda_count() > 0))
        return fail(err, "%.400s", reason.text);
#endif
    if (!strcmp(run->options.device, "cuda"))
        return fail(err, "--device cuda: %.400s; use --device cpu", reason.text);
    snprintf(run->device, sizeof run->device, "no GPU: %s", reason.text);
    return true;
}

// ---- opening -----------------------------------------------------------------------------------

// Kernels loaded and the algorithms of products chosen, before the clock runs and before parameters
// are set. A resumed run has those of its checkpoint, where GPU and library are the same.
static bool prepare_device(Run *run, Error *err)
{
    const Ops *ops = run->ops;
    const char *plans = run->resuming ? state_plans(&run->resume) : NULL;
    const bool choose = ops->plans_text && !run->options.deterministic;
    Error why;
    run->peak = run->measured = (Flops){NAN, NAN};
    if (ops == &ops_cpu) return true;
    if (choose) plan_file_load(ops);
    if (choose && plans && !ops->plans_restore(plans, &why))
        fprintf(stderr,
                "warning: matrix products are chosen anew, so the run may differ in roundings: as "
                "to the checkpoint's, %.300s\n",
                why.text);
    if (!warm_up(run->gpt, run->comm ? NULL : &run->optimizer, run->comm ? &run->sharded : NULL,
                 err))
        return false;
    const double rate = warm_up_gemm(ops);
    run->measured = (Flops){rate, 2 * rate};
    run->peak = mfu_peak(run->device);
    if (choose) plan_file_save(ops);
    return true;
}

static bool open_model(Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    if (!memory_check(r, run->ops, run->comm, run->real_storage, err)) return false;
    run->gpt = gpt_create(r, run->ops, run->real_storage, r->micro_batches / run->env.world, err);
    if (!run->gpt ||
        !(run->comm ? sharded_create(&run->sharded, run->gpt, run->comm, err)
                    : optimizer_create(&run->optimizer, run->gpt, err)) ||
        !unigram_open(&run->unigram, r->vocab_size, err) || !prepare_device(run, err))
        return false;
    run->state = (TrainState){.gpt = run->gpt,
                              .optimizer = run->comm ? NULL : &run->optimizer,
                              .sharded = run->comm ? &run->sharded : NULL,
                              .unigram = &run->unigram,
                              .seed = run->options.seed};
    if (run->resuming) {
        snprintf(run->saved, sizeof run->saved, "%s", run->resume.path);
        if (!state_load(&run->state, &run->resume, err)) return false;
        run->saved_step = run->state.step;
    } else {
        gpt_init(run->gpt, (uint64_t)run->options.seed);
    }
    if (!run->resuming && run->options.init_from[0] &&
        !weights_init(run->gpt, run->options.init_from, err))
        return false;
    if (run->comm) sharded_adopt(&run->sharded);
    return true;
}

static bool open_data(Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    const StreamConfig train = {.files = run->train_files,
                                .vocab_size = r->vocab_size,
                                .micro_batch = r->sequence,
                                .sequences = r->micro_batch / r->sequence,
                                .max_doc = r->max_doc,
                                .rank = run->env.rank,
                                .world = run->env.world,
                                .epochs = run->options.epochs,
                                .total = run->state.cursor.micro_batches +
                                         (int64_t)(run->end - run->state.step) * r->micro_batches *
                                             (r->micro_batch / r->sequence)};
    const ValConfig val = {.files = run->val_files,
                           .vocab_size = r->vocab_size,
                           .tokens = r->val_tokens,
                           .chunk = r->val_chunk,
                           .rank = run->env.rank,
                           .world = run->env.world};
    const int own = r->micro_batches / run->env.world;
    run->batches = calloc((size_t)own, sizeof *run->batches);
    for (int i = 0; i < own; i++)
        if (!run->batches ||
            !batch_alloc(&run->batches[i], r->micro_batch, r->micro_batch / r->sequence))
            return fail(err, "out of memory for the batches of a step");
    return loader_open(&run->loader, &train, run->resuming ? &run->state.cursor : NULL, err) &&
           val_open(&run->val, &val, err);
}

// ---- the loop ----------------------------------------------------------------------------------

// Mean loss of the validation tokens.
static double validate(Run *run)
{
    double sum[2] = {0}; // of the chunks' losses; chunks
    for (int call = 0; call < run->val.calls; call++) {
        const Batch *chunk = val_batch(&run->val, call);
        if (!chunk) continue; // the last ones may be fewer than the ranks
        const GptBatch batch = batch_view(chunk);
        sum[0] += gpt_evaluate(run->gpt, &batch);
        sum[1]++;
    }
    if (run->comm) comm_sum(run->comm, sum, 2);
    return sum[0] / sum[1];
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

// A file that cannot be written is not worth the run.
static bool dump_momentum(Run *run, Error *err)
{
    char path[FILE_PATH_MAX];
    Error why;
    if (!options_dumps(&run->options, run->state.step)) return true;
    if (!state_dump_momentum(&run->state, run->folder, path, &why, err)) return false;
    if (run->env.rank > 0) return true;
    if (why.text[0])
        log_line(run->log, "warning: no momentum of step %d: %s", run->state.step, why.text);
    else
        log_line(run->log, "momentum     %s", path);
    return true;
}

// All batches of a step, on every rank, before it touches a gradient: when the data run out or
// cannot be read, if only on one rank, what was learnt up to here can still be saved.
static bool draw_batches(Run *run, Error *err)
{
    bool ok = true;
    for (int i = 0; ok && i < run->recipe.micro_batches / run->env.world; i++) {
        const Batch *drawn;
        ok = loader_next(run->loader, &drawn, err);
        if (ok) batch_copy(&run->batches[i], drawn);
    }
    if (ok) err->text[0] = '\0';
    if (run->peers) ok = peers_share_failure(run->peers, err);
    if (ok) return true;
    Error failure;
    if (run->state.step > run->saved_step && !save_checkpoint(run, &failure) && run->env.rank == 0)
        fprintf(stderr, "warning: %s\n", failure.text);
    double all = 1;
    if (run->comm) comm_sum(run->comm, &all, 1); // rank 0 has written the file
    run->shared_failure = run->peers != NULL;
    return false;
}

// The update by all ranks. Meanwhile their losses are averaged where gpt_loss will find them, and
// if one rank was interrupted all are: by the first of these signals that one got.
static void update_over_ranks(Run *run, int step)
{
    static const int known[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    enum { KNOWN = sizeof known / sizeof *known };
    double signals[KNOWN];
    for (int i = 0; i < KNOWN; i++) signals[i] = interrupted == known[i];
    comm_label(run->comm, "signals", -1);
    comm_sum_start(run->comm, signals, KNOWN);
    comm_label(run->comm, "loss", -1);
    const CommTicket loss = comm_all_reduce(run->comm, gpt_loss_sum(run->gpt), 1, DT_F64);
    sharded_step(&run->sharded, step);
    comm_wait(run->comm, loss);
    comm_sum_finish(run->comm, signals, KNOWN);
    timeline_step_ends(run->timeline);
    comm_finish(run->comm);
    for (int i = 0; i < KNOWN && !run->stop; i++)
        if (signals[i] > 0) run->stop = known[i];
    run->exposed_ms += run->comm->waited_ms;
    peers_step(run->peers, step + 1);
}

// One training step: this rank's micro-batches, then the optimizers. Leaves the mean loss in *loss.
static bool train_step(Run *run, int step, double *loss, Error *err)
{
    const Recipe *r = &run->recipe;
    const int own = r->micro_batches / run->env.world;
    if (!draw_batches(run, err)) return false;
    if (run->comm) run->comm->waited_ms = 0;
    timeline_step_begins(run->timeline, step + 1);
    for (int i = 0; run->comm && i < own; i++)
        sharded_touch(&run->sharded, run->batches[i].ids, run->batches[i].n_tokens);
    if (run->comm) sharded_begin(&run->sharded, step);
    for (int i = 0; i < own; i++) {
        const GptBatch batch = batch_view(&run->batches[i]);
        if (run->comm && i == own - 1) sharded_send(&run->sharded, step);
        gpt_forward_backward(run->gpt, &batch);
        unigram_add(&run->unigram, batch.targets, batch.tokens);
    }
    if (run->comm)
        update_over_ranks(run, step);
    else
        optimizer_step(&run->optimizer, step);
    *loss = gpt_loss(run->gpt); // waits for the device: the clock is about to be read
    run->state.cursor = loader_cursor(run->loader);
    run->state.tokens += (int64_t)r->micro_batch * r->micro_batches;
    return true;
}

// The arithmetic of this rank in the step whose batches are drawn.
static Flops step_work(const Run *run, int step)
{
    Flops work = {0, 0};
    for (int i = 0; i < run->recipe.micro_batches / run->env.world; i++) {
        const GptBatch batch = batch_view(&run->batches[i]);
        mfu_add(&work, &run->recipe, &batch, step);
    }
    return work;
}

// Whether to save and end before a step. Ranks go on until no gradient of Adam's waits for its
// turn, since each has its own part of it and a checkpoint holds but the mean.
static bool stops(Run *run, int step)
{
    if (!run->comm) run->stop = (int)interrupted;
    const bool waits = run->comm && step > 0 && !recipe_adam_updates(&run->recipe, step - 1);
    return run->stop && !waits;
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

static bool score_hellaswag(Run *run, int step, Error *err)
{
    HellaSwagScore score;
    if (!hellaswag_score(run->hellaswag, run->gpt, &score, NULL, err)) return false;
    log_line(run->log, "step:%d/%d hellaswag acc_norm:%.4f acc:%.4f items:%d", step, run->end,
             score.accuracy_norm, score.accuracy, score.items);
    log_begin(run->log, "hellaswag", step);
    log_number(run->log, "acc_norm", score.accuracy_norm);
    log_number(run->log, "acc", score.accuracy);
    log_number(run->log, "items", score.items);
    log_end(run->log);
    return true;
}

static bool open_hellaswag(Run *run, Error *err)
{
    if (!run->options.hellaswag[0] || run->env.rank > 0) return true;
    Tokenizer *tokenizer = tokenizer_for(run->recipe.vocab_size, err);
    if (!tokenizer) return false;
    run->hellaswag =
        hellaswag_open(run->options.hellaswag, tokenizer, run->options.hellaswag_items, err);
    tokenizer_close(tokenizer);
    return run->hellaswag != NULL;
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
            if (run->hellaswag && !score_hellaswag(run, step, err)) return false;
        }
        if (last || stops(run, step)) return save_checkpoint(run, err);
        const int sample_every = run->options.sample_every;
        if (sample_every > 0 && step > 0 && step % sample_every == 0 && run->env.rank == 0 &&
            !samples_write(run, &interrupted, err))
            return false;

        const double start = now_ms();
        double loss;
        if (!train_step(run, step, &loss, err)) return false;
        const double ms = now_ms() - start;
        run->state.step = step + 1;
        run->state.train_ms += ms;
        if (!isfinite(loss)) return not_a_number(run, "training loss", step, err);
        const Flops work = step_work(run, step);
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
            .mfu = mfu_ideal_seconds(work, run->peak) / ms * 1e3,
            .mfu_measured = mfu_ideal_seconds(work, run->measured) / ms * 1e3,
        };
        log_step(run->log, &entry);
        if (!dump_momentum(run, err)) return false;
        Error why; // a picture is not worth the run
        if (!timeline_run_draw(run, false, &why)) log_line(run->log, "warning: %s", why.text);
        const int every = run->options.checkpoint_every;
        if (every > 0 && (step + 1) % every == 0 && step + 1 < run->end &&
            !save_checkpoint(run, err))
            return false;
    }
}

// ---- the end -----------------------------------------------------------------------------------

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
    o.recipe[0] = o.init_from[0] = '\0';
    memset(o.change, 0, sizeof o.change);
    if (o.timeline <= run->state.step) o.timeline = 0; // it is drawn
    snprintf(o.run, sizeof o.run, "%s", name ? name : "");
    snprintf(o.resume, sizeof o.resume, "latest");
    if (!name) snprintf(o.resume, sizeof o.resume, "%.1000s", run->saved);
    log_line(run->log, "stopped after step %d; continue with: %s %s", run->state.step, run->program,
             options_describe(&o, command, sizeof command));
}

// The folder and the log, which begins with the table.
static bool open_log(Run *run, Error *err)
{
    char command[2048];
    if (!choose_folder(run, err)) return false;
    run->log = log_open(run->folder, run->resuming, err);
    if (!run->log) return false;
    options_describe(&run->options, command, sizeof command);
    log_start(run->log, run->state.step, &run->recipe, command, run->ops->name);
    start_table(run, version);
    return true;
}

static bool run_all(Run *run, Error *err)
{
    double loss = NAN;
    const Options *o = &run->options;
    if (!ranks_connect(run, err) || !choose_device(run, err) || !choose_recipe(run, err) ||
        !choose_patiently(run, err))
        return false;
    run->end =
        o->steps > 0 && o->steps < run->recipe.total_steps ? o->steps : run->recipe.total_steps;
    if (!ranks_agree_options(run, err) || !ranks_open(run, err)) return false;
    if (!choose_data(run, err) || !open_model(run, err)) return false;
    if (run->state.step >= run->end)
        return fail(err, "the checkpoint has all %d steps already: give more with %s", run->end,
                    run->end < run->recipe.total_steps ? "--steps" : "--extension-steps");
    if (!timeline_run_open(run, err) || !open_hellaswag(run, err) || !open_data(run, err) ||
        !ranks_agree_data(run, err))
        return false;
    if (run->env.rank == 0 && !open_log(run, err)) return false;
    const int first = run->state.step;
    if (!train(run, &loss, err)) return false;
    if (run->env.rank > 0) return true;
    if (run->exposed_ms > 0)
        log_line(run->log, "exposed      %.3f ms of a step: the GPU stood still for communication",
                 run->exposed_ms / (run->state.step - first));
    if (!timeline_run_draw(run, true, err) || !draw_curve(run, err)) return false;
    if (run->state.step < run->end) {
        say_how_to_continue(run);
        return true;
    }
    report(run, loss);
    return samples_write(run, &interrupted, err);
}

static bool close_all(Run *run, Error *err)
{
    if (run->resuming) safetensors_close(&run->resume);
    loader_close(run->loader);
    for (int i = 0; run->batches && i < run->recipe.micro_batches / run->env.world; i++)
        batch_free(&run->batches[i]);
    free(run->batches);
    val_close(&run->val);
    hellaswag_close(run->hellaswag);
    unigram_close(&run->unigram);
    optimizer_free(&run->optimizer);
    sharded_free(&run->sharded);
    gpt_free(run->gpt);
    timeline_free(run->timeline);
    ranks_close(run);
    return log_close(run->log, err);
}

// What asks for no training: 0 when nothing does, 1 when it is done, -1 on a refusal.
static int answer_question(Run *run, Error *err)
{
    const Options *options = &run->options;
    if (options->version) return puts(version), 1;
    if (!options->help && !options->print_recipe) return 0;
    if (!choose_device(run, err) ||
        !options_recipe(options, choose_default_recipe(run), &run->recipe, err))
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

int main(int argc, char **argv)
{
    static Run run;
    Error err = {""}, late = {""};
    int answered = 0;
    threads_spin_briefly(argv);
    run.version = version;
    run.program = argc > 0 ? argv[0] : "./train_gpt";
    if (!options_parse(&run.options, argc, argv, &err) ||
        (answered = answer_question(&run, &err)) < 0) {
        fprintf(stderr, "error: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (answered) return finish_answer();
    bool ok = ranks_start(&run, &err);
    if (ok) {
        catch_signals();
        ok = run_all(&run, &err);
    }
    if (!ok && run.env.world > 1) ranks_fail(&run, err.text);
    if (!ok) fprintf(stderr, "error: %s\n", err.text);
    if (!close_all(&run, &late)) {
        fprintf(stderr, "error: %s\n", late.text);
        ok = false;
    }
    return !ok ? (run.usage ? EXIT_USAGE : 1) : run.state.step < run.end ? 128 + run.stop : 0;
}
