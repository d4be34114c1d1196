#include "choose.h"

#include <string.h>
#include <unistd.h>

#include "shard.h"

const char *choose_default_recipe(const Run *run)
{
    const bool data = access("data/fineweb10B/fineweb_train_000001.bin", R_OK) == 0 &&
                      access("data/fineweb10B/fineweb_val_000000.bin", R_OK) == 0;
    return run->ops != &ops_cpu && data ? "speedrun" : "tiny";
}

bool choose_recipe(Run *run, Error *err)
{
    const Options *o = &run->options;
    if (!o->resume[0]) {
        run->real_storage = !strcmp(o->storage, "real");
        run->usage = !options_recipe(o, choose_default_recipe(run), &run->recipe, err);
        return !run->usage;
    }
    char path[FILE_PATH_MAX];
    Error warning = {""};
    snprintf(path, sizeof path, "%s", o->resume);
    if (!strcmp(o->resume, "latest")) {
        if (!recipe_find(&run->recipe, o->recipe[0] ? o->recipe : choose_default_recipe(run),
                         err) ||
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
        if (warning.text[0] && run->env.rank == 0) fprintf(stderr, "warning: %s\n", warning.text);
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

bool choose_patiently(const Run *run, Error *err)
{
    const Recipe *r = &run->recipe;
    const double flops =
        (double)r->micro_batch * r->micro_batches * r->total_steps * r->width * r->width;
    if (run->ops != &ops_cpu || run->options.steps > 0 || run->chose_device || flops < 1e14)
        return true;
    return fail(
        err,
        "recipe %s is made for a GPU, and there is none: train a smaller one (--recipe mini or "
        "tiny), or insist with --device cpu",
        r->name);
}

bool choose_data(Run *run, Error *err)
{
    ShardList train = {0}, val = {0};
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
    const bool found =
        shard_list(&train, run->train_files, err) && shard_list(&val, run->val_files, err);
    shard_list_free(&train), shard_list_free(&val);
    return found;
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

bool choose_folder(Run *run, Error *err)
{
    if (!run->folder[0] && !(run->resuming && continues_a_run(run)) &&
        !log_folder("runs", run->options.run, run->recipe.name, false, run->folder,
                    sizeof run->folder, err))
        return false;
    snprintf(run->checkpoints, sizeof run->checkpoints, "%s/checkpoints", run->folder);
    return true;
}
