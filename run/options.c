#include "options.h"

#include <string.h>

#define N(member, low, high, text) FIELD_N(Options, member, low, high, text)
#define S(member, value, text) FIELD_S(Options, member, NULL, value, text)

static const Field table[] = {
    S(recipe, "NAME",
      "speedrun, mini, tiny, or a file that --print-recipe wrote; without it, speedrun where there "
      "are "
      "a GPU and FineWeb shards, else tiny on the built-in corpus"),
    S(train, "GLOB", "training shards, read in the order of their names"),
    S(val, "GLOB", "validation shards"),
    FIELD_S(Options, run, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
            "NAME",
            "results go to runs/NAME; without it, the recipe's name and the next free number"),
    {.name = "resume",
     FIELD_IN(FIELD_STRING, Options, resume),
     .word = "PATH",
     .bare = "latest",
     .help = "continue from a checkpoint; without PATH, from the latest one of the run"},
    FIELD_C(Options, device, "auto|cpu|cuda", "where to compute; auto is a GPU if there is one"),
    FIELD_C(Options, storage, "recipe|real",
            "types of parameters and optimizer state: the recipe's, or the precision of the "
            "arithmetic"),
    N(gpus, 0, 1024,
      "GPUs of this node to train on, a process each; 0 is one, or what torchrun, "
      "mpirun or srun started"),
    N(ranks, 0, 64, "the same on CPUs: processes that share the work"),
    N(nodes, 1, 1024, "machines that do so; MASTER_ADDR and MASTER_PORT tell where the first is"),
    N(node, 0, 1023, "which of them this is, from 0"),
    N(steps, 0, 100000000, "stop after so many steps of an unchanged schedule; 0 is all of it"),
    N(seed, 0, 9007199254740992.0, "of the initial weights and the samples"),
    N(epochs, 0, 1000000,
      "passes over the training shards at most; 0 is as many as the steps take"),
    N(checkpoint_every, 0, 100000000, "steps between checkpoints; 0 is at the end only"),
    N(keep, 1, 1000, "checkpoints to keep, the newest"),
    FIELD_S(Options, dump_momentum, "0123456789,", "STEPS",
            "after these steps, with commas between, write the matrices' momentum to the run's "
            "folder"),
    N(samples, 0, 64, "texts to write at the end"),
    N(sample_tokens, 1, 65536, "tokens in each"),
    S(init_from, "PATH", "start a new run from the weights of a checkpoint, a run or an export"),
    S(hellaswag, "FILE", "score these items, JSON lines, at every validation"),
    N(hellaswag_items, 0, 100000000, "items to score, from the file's beginning; 0 is all"),
    N(sample_every, 0, 100000000, "steps between samples; 0 is at the end only"),
    S(sample_prompt, "TEXT", "what the samples continue; without it, they begin documents"),
    FIELD_X(Options, temperature, 0, 10, "of the samples; 0 takes the likeliest token"),
    N(threads, 0, 1024, "CPU threads; 0 is one per core"),
    FIELD_C(Options, kernels, "auto|portable",
            "on a GPU: auto takes those made for it; portable those that any since sm_80 runs"),
    FIELD_B(Options, deterministic,
            "on a GPU: choose the algorithms of products by the library's order, not by timing, so "
            "that two runs agree to the last bit"),
    FIELD_C(Options, graphs, "yes|no",
            "on a GPU: queue a micro-batch as CUDA graphs, recorded when it comes for the second "
            "time; no queues every kernel by itself, with the same results"),
    N(timeline, 0, 100000000,
      "of several ranks: write when this training step computed and communicated, as a picture and "
      "as numbers; 0 is never"),
    FIELD_B(Options, print_recipe, "print the recipe with its changes, and stop"),
    FIELD_B(Options, help, "print this, and stop"),
    FIELD_B(Options, version, "print the version, and stop"),
    {.name = NULL},
};

static const Options defaults = {
    .device = "auto",
    .storage = "recipe",
    .kernels = "auto",
    .graphs = "yes",
    .nodes = 1,
    .seed = 1,
    .epochs = 1,
    .checkpoint_every = 250,
    .keep = 2,
    .samples = 3,
    .sample_tokens = 320,
    .temperature = 0.8,
};

static bool unknown(const char *name, Error *err)
{
    char option[64];
    int distance = field_typo(name);
    const char *nearest = field_nearest(table, name, &distance);
    const char *nearer = field_nearest(recipe_fields(), name, &distance);
    if (nearer) nearest = nearer;
    if (!nearest) return fail(err, "unknown option --%.64s: --help lists them", name);
    const Field *field = field_find(nearer ? recipe_fields() : table, nearest);
    return fail(err, "unknown option --%.64s: is it %s? (--help lists them)", name,
                field_option(field, option, sizeof option));
}

// Keeps a value for the recipe, judged now so that the refusal names the option.
static bool change_recipe(Options *options, const Field *field, const char *value, Error *err)
{
    Recipe scratch;
    options->change[field - recipe_fields()] = value;
    return field_set(field, &scratch, value, err);
}

// One argument; *used is how many words of argv it took.
static bool parse_one(Options *options, int argc, char *const argv[], int *used, Error *err)
{
    char name[64], option[64];
    const char *word = argv[0];
    *used = 1;
    if (!strcmp(word, "-h")) word = "--help";
    if (strncmp(word, "--", 2) || !word[2])
        return fail(err, "unexpected argument %.64s: options are --name value",
                    word[0] ? word : "\"\"");
    const char *equals = strchr(word, '=');
    size_t length = strcspn(word + 2, "=");
    if (length >= sizeof name) length = sizeof name - 1; // longer than any option's
    memcpy(name, word + 2, length);
    name[length] = '\0';
    const Field *field = field_find(table, name);
    bool own = field != NULL;
    if (!own && !(field = field_find(recipe_fields(), name))) return unknown(name, err);

    const char *value = equals ? equals + 1 : NULL;
    bool alone = argc < 2 || !strncmp(argv[1], "--", 2);
    if (!value && field->type == FIELD_BOOL) value = "yes";
    if (!value && alone) value = field->bare;
    if (!value && alone)
        return fail(err, "%s needs a value: %s", field_option(field, option, sizeof option),
                    field->help);
    if (!value) value = argv[1], *used = 2;
    return own ? field_set(field, options, value, err) : change_recipe(options, field, value, err);
}

bool options_parse(Options *options, int argc, char *const argv[], Error *err)
{
    *options = defaults;
    for (int i = 1, used; i < argc; i += used)
        if (!parse_one(options, argc - i, argv + i, &used, err)) return false;
    if (options->run[0] == '.') // a hidden folder, or a way out of runs/
        return fail(err, "--run %s may not begin with a dot", options->run);
    if (options->init_from[0] && options->resume[0])
        return fail(err,
                    "--init-from %.300s and --resume: a checkpoint has its own weights; give "
                    "one of them",
                    options->init_from);
    for (const char *at = options->dump_momentum; *at; at += strspn(at, "0123456789")) {
        if (at != options->dump_momentum && *at++ != ',') break; // digits end at a comma or the end
        if (*at < '1' || *at > '9')
            return fail(err, "--dump-momentum %.60s: steps from 1 with commas between, as 20,60",
                        options->dump_momentum);
    }
    return true;
}

static bool changes(const Options *options, const char *field)
{
    return options->change[field_find(recipe_fields(), field) - recipe_fields()] != NULL;
}

// Larger or smaller micro-batches of whole sequences make a step of as many fewer or more.
static void keep_tokens_of_step(const Options *options, long long tokens, Recipe *recipe)
{
    if (changes(options, "micro_batch") && !changes(options, "micro_batches") &&
        recipe->micro_batch % recipe->sequence == 0 && tokens % recipe->micro_batch == 0)
        recipe->micro_batches = (int)(tokens / recipe->micro_batch);
}

bool options_apply(const Options *options, Recipe *recipe, Error *err)
{
    const long long tokens = (long long)recipe->micro_batch * recipe->micro_batches;
    for (int i = 0; recipe_fields()[i].name; i++)
        if (options->change[i] && !field_set(&recipe_fields()[i], recipe, options->change[i], err))
            return false;
    keep_tokens_of_step(options, tokens, recipe);
    if (changes(options, "sequence") && recipe->micro_batch % recipe->sequence)
        return fail(err, "--sequence %d does not divide --micro-batch %d", recipe->sequence,
                    recipe->micro_batch);
    return recipe_finish(recipe, err);
}

bool options_recipe(const Options *options, const char *otherwise, Recipe *recipe, Error *err)
{
    return recipe_find(recipe, options->recipe[0] ? options->recipe : otherwise, err) &&
           options_apply(options, recipe, err);
}

bool options_dumps(const Options *options, int step)
{
    char wanted[16];
    const size_t length = (size_t)snprintf(wanted, sizeof wanted, "%d", step);
    for (const char *at = options->dump_momentum; *at; at += *at == ',') {
        const size_t digits = strspn(at, "0123456789");
        if (digits == length && !memcmp(at, wanted, length)) return true;
        at += digits;
    }
    return false;
}

void options_help(const Recipe *recipe, FILE *out)
{
    fprintf(out, "train_gpt trains a GPT-2-class model with Turbo-Muon, from token shards.\n\n"
                 "usage: train_gpt [--option value]...\n\noptions [default; range]:\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, out);
    fprintf(out, "\nfields of the recipe [in %s; range]:\n", recipe->name);
    recipe_help(recipe, out);
}

static void append(char *text, size_t size, char c)
{
    size_t n = strlen(text);
    if (n + 1 < size) text[n] = c, text[n + 1] = '\0';
}

// Adds "option value " to a string of `size` bytes, as much as fits, the value quoted for a shell
// where it needs it.
static void append_option(char *text, size_t size, const Field *field, const char *value)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_./:=,+@%";
    char option[64];
    const bool quoted = !value[0] || value[strspn(value, plain)];
    for (const char *c = field_option(field, option, sizeof option); *c; c++)
        append(text, size, *c);
    append(text, size, ' ');
    if (quoted) append(text, size, '\'');
    for (const char *c = value; *c; c++)
        if (*c != '\'')
            append(text, size, *c);
        else
            for (const char *e = "'\\''"; *e; e++) append(text, size, *e);
    if (quoted) append(text, size, '\'');
    append(text, size, ' ');
}

char *options_describe(const Options *options, char *text, size_t size)
{
    char value[1024], usual[1024];
    text[0] = '\0';
    for (const Field *field = table; field->name; field++) {
        field_get(field, options, value, sizeof value);
        if (strcmp(value, field_get(field, &defaults, usual, sizeof usual)))
            append_option(text, size, field, value);
    }
    for (int i = 0; recipe_fields()[i].name; i++)
        if (options->change[i]) append_option(text, size, &recipe_fields()[i], options->change[i]);
    size_t n = strlen(text);
    if (n) text[n - 1] = '\0';
    return text;
}
