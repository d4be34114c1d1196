#include "recipe.h"

#include <errno.h>
#include <float.h>
#include <stdint.h>
#include <string.h>

#define N(member, low, high, text) FIELD_N(Recipe, member, low, high, text)
#define X(member, low, high, text) FIELD_X(Recipe, member, low, high, text)
#define WORD(member, value, text)                                                                  \
    FIELD_S(Recipe, member, "abcdefghijklmnopqrstuvwxyz0123456789-_", value, text)

static const Field fields[] = {
    FIELD_S(Recipe, layers, "- smlvb<0123456789", "TABLE",
            "a word per slot: - not executed; s or l attention with the short or the long window; "
            "m MLP; v0..v7 value embedding; <k gated skip from slot k; b backout"),
    N(vocab_size, 2, 65536, "tokens in the vocabulary; padded to a multiple of 128"),
    N(heads, 1, 64, "attention heads; the width is heads * head-dim"),
    N(head_dim, 64, 128, "channels in a head: 64 or 128"),
    N(mlp_ratio, 1, 16, "hidden width of the MLP / width"),
    N(gate_channels, 1, 64, "channels that the attention and smear gates read"),
    N(rotary_active, 0, 64, "rotary frequencies that are not zero; 0 is half of them"),
    X(rotary_base, 1, 1e9, "the slowest rotary frequency is 1 / base"),
    X(attn_scale, 1e-4, 10, "softmax scale at the start"),
    X(yarn_alpha, 0, 1e6, "YaRN: frequencies with fewer turns in a window are stretched"),
    X(yarn_beta, 0, 1e6, "YaRN: frequencies with more turns in a window are kept"),
    X(softcap, 0.1, 1e4, "logits become softcap * sigmoid(logit / softcap-div)"),
    X(softcap_div, 0.01, 1e4, "divisor of the logits inside the softcap"),
    X(norm_eps, 0, 0.1, "added to the mean square in every RMS norm"),
    FIELD_C(Recipe, head, "fp8|full", "precision of the head's products in training"),
    N(sequence, 1, 1 << 20, "tokens in a sequence, where positions and documents start anew"),
    N(micro_batch, 16, 1 << 20,
      "tokens worked on at once: some sequences, or else one sequence of so many"),
    N(micro_batches, 1, 4096, "micro-batches in a step, over all ranks"),
    N(max_doc, 2, 1 << 20, "documents are cut to so many tokens"),
    N(val_tokens, 16, INT32_MAX, "tokens of the validation, a multiple of val-chunk"),
    N(val_chunk, 16, 1 << 20, "tokens that one validation pass sees at once"),
    N(val_every, 1, 1000000, "steps between validations"),
    N(scheduled_steps, 1, 100000000, "steps over which rate and windows are scheduled"),
    N(extension_steps, 0, 100000000, "steps after those, at the lowest rate"),
    X(cooldown_frac, 0, 1, "last part of the schedule, where the learning rate falls"),
    X(lr_floor, 0, 1, "learning rate at the end / at the start"),
    N(window_block, 1, 65536, "tokens in a unit of window"),
    FIELD_S(Recipe, windows, "0123456789,", "LIST",
            "long attention window of each phase, in blocks; the short one is half of it"),
    N(window_extension, 1, 65536, "long window in the extension, in blocks"),
    N(window_final, 1, 65536, "long window at the last validation, in blocks"),
    X(momentum_start, 0, 0.9999, "Muon's momentum at the start and at the end"),
    X(momentum_peak, 0, 0.9999, "Muon's momentum between"),
    N(momentum_warmup, 0, 100000000, "steps from momentum-start to momentum-peak"),
    N(momentum_cooldown, 0, 100000000, "steps back to momentum-start"),
    X(muon_lr, 0, 10, "learning rate of matrices and gates"),
    X(muon_wd, 0, 100, "cautious weight decay, times the learning rate"),
    X(muon_beta2, 0, 0.999999, "decay of NorMuon's second moment; 0 turns it into the last square"),
    X(fc_lr_mul, 0, 1000, "factor on the rate of the MLPs' first matrix"),
    X(adam_lr, 0, 10, "learning rate of embeddings, head and scalars"),
    X(adam_beta1, 0, 0.999999, "decay of Adam's first moment"),
    X(adam_beta2, 0, 0.999999, "decay of Adam's second moment"),
    X(adam_eps, 1e-30, 1, "added to the root of Adam's second moment"),
    X(embed_lr_mul, 0, 10000, "factor on the rate of embeddings"),
    X(head_lr_mul, 0, 10000, "factor on the rate of the head"),
    X(scalar_lr_mul, 0, 10000, "factor on the rate of scalars"),
    N(adam_every, 1, 1024, "steps of gradient that each Adam update sums"),
    WORD(ortho, "METHOD", "orthogonalisation, a method of ns.h: " NS_ADVICE),
    N(ns_iters, 0, NS_MAX_ITERATIONS, "iterations of the method; 0 is its own number"),
    WORD(ns_norm, "NAME", "instead of its normaliser: none, frobenius, aol, schatten4"),
    FIELD_S(
        Recipe, ns_coeffs, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./",
        "TABLE|FILE",
        "instead of its coefficients: jordan, you, polar_express, cans, ..., or a file of them"),
    FIELD_C(Recipe, ns_variant, "|standard|gram|shape",
            "instead of its variant; shape: the faster one for it"),
    FIELD_S(Recipe, ns_restarts, "0123456789,none", "LIST",
            "iterations after which the gram variant restarts, such as 2,4; none"),
    FIELD_C(Recipe, ns_eps, "|abs|rel", "units of its eps: the input's, or the input's norm"),
    WORD(ns_storage, "TYPE", "instead of its storage: bf16, f16, real"),
    {.name = NULL},
};

// clang-format off
// Specification, sections 1 to 6, to the letter.
static const Recipe speedrun = {
    .name = "speedrun",
    .layers = "- smv1 smv2 sm lm sm sm<5 m<4 smb<3 smv0<2 smv1<1 lmv2",
    .vocab_size = 50257, .heads = 6, .head_dim = 128, .mlp_ratio = 4, .gate_channels = 12,
    .rotary_active = 32, .rotary_base = 1024,
    .attn_scale = 0.1, .yarn_alpha = 1, .yarn_beta = 32,
    .softcap = 30, .softcap_div = 7.5, .norm_eps = FLT_EPSILON, .head = "fp8",
    .sequence = 32768, .micro_batch = 32768, .micro_batches = 8, .max_doc = 2048,
    .val_tokens = 10485760, .val_chunk = 262144, .val_every = 250,
    .scheduled_steps = 2205, .extension_steps = 40, .cooldown_frac = 0.5, .lr_floor = 0.1,
    .window_block = 128, .windows = "3,7,11", .window_extension = 13, .window_final = 20,
    .momentum_start = 0.85, .momentum_peak = 0.95,
    .momentum_warmup = 300, .momentum_cooldown = 50,
    .muon_lr = 0.03, .muon_wd = 1.2, .muon_beta2 = 0.95, .fc_lr_mul = 2,
    .adam_lr = 0.008, .adam_beta1 = 0.65, .adam_beta2 = 0.95, .adam_eps = 1e-8,
    .embed_lr_mul = 75, .head_lr_mul = 1, .scalar_lr_mul = 5, .adam_every = 2,
    .ortho = "turbo4",
};

typedef struct {
    const char *field, *value;
} Change;

// The same architecture over GPT-2's vocabulary, small enough for a CPU.
static const Change mini[] = {
    {"layers", "- smv0 smv1 lm m<2 smb<1 lmv1"},
    {"heads", "2"}, {"head_dim", "64"}, {"rotary_active", "16"}, {"head", "full"},
    {"sequence", "1024"}, {"micro_batch", "1024"}, {"micro_batches", "2"}, {"max_doc", "512"},
    {"val_tokens", "65536"}, {"val_chunk", "8192"}, {"val_every", "50"},
    {"scheduled_steps", "135"}, {"extension_steps", "5"}, {"window_block", "32"},
    {"momentum_warmup", "30"}, {"momentum_cooldown", "5"},
    {NULL, NULL},
};

// The same architecture over bytes, for two CPU cores and the built-in corpus.
static const Change tiny[] = {
    {"layers", "- smv0 smv1 lm m<2 smb<1 lmv1"},
    {"vocab_size", "257"}, {"heads", "2"}, {"head_dim", "64"}, {"rotary_active", "16"},
    {"head", "full"},
    {"sequence", "1024"}, {"micro_batch", "1024"}, {"micro_batches", "1"}, {"max_doc", "512"},
    {"val_tokens", "65536"}, {"val_chunk", "8192"}, {"val_every", "65"},
    {"scheduled_steps", "420"}, {"extension_steps", "10"}, {"window_block", "16"},
    {"momentum_warmup", "60"}, {"momentum_cooldown", "10"},
    {NULL, NULL},
};
// clang-format on

// A built-in recipe is speedrun with changes.
static const struct {
    const char *name;
    const Change *changes;
} built_in[] = {{"speedrun", NULL}, {"mini", mini}, {"tiny", tiny}};

const char *recipe_name(int i)
{
    return i >= 0 && i < (int)(sizeof built_in / sizeof built_in[0]) ? built_in[i].name : NULL;
}

const Field *recipe_fields(void) { return fields; }

bool recipe_has_field(const char *field) { return field_find(fields, field) != NULL; }

bool recipe_set(Recipe *recipe, const char *name, const char *value, Error *err)
{
    const Field *field = field_find(fields, name);
    if (field) return field_set(field, recipe, value, err);
    int distance = field_typo(name);
    const char *nearest = field_nearest(fields, name, &distance);
    if (!nearest) return fail(err, "a recipe has no field %.64s", name);
    return fail(err, "a recipe has no field %.64s: is it %s?", name, nearest);
}

const char *recipe_field(const Recipe *recipe, int i, char *value, size_t size)
{
    int n = (int)(sizeof fields / sizeof fields[0]) - 1;
    if (i < 0 || i >= n) return NULL;
    field_get(&fields[i], recipe, value, size);
    return fields[i].name;
}

void recipe_print(const Recipe *recipe, FILE *out)
{
    char line[600], value[512];
    fprintf(out, "# recipe %s\n", recipe->name);
    for (const Field *field = fields; field->name; field++) {
        snprintf(line, sizeof line, "%s = %s", field->name,
                 field_get(field, recipe, value, sizeof value));
        fprintf(out, "%-31s # %s\n", line, field->help);
    }
}

void recipe_help(const Recipe *recipe, FILE *out)
{
    for (const Field *field = fields; field->name; field++) field_help(field, recipe, out);
}

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t') text++;
    size_t n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1])) text[--n] = '\0';
    return text;
}

// One line of a recipe file: blank, or field = value, with a comment after '#'.
static bool read_line(Recipe *recipe, char *line, bool *given, Error *err)
{
    line[strcspn(line, "#")] = '\0';
    char *name = trim(line), *equals = strchr(name, '=');
    if (!*name) return true;
    if (!equals) { // shown up to the first byte that a terminal should not get
        int shown = 0;
        while (shown < 80 && name[shown] >= ' ' && name[shown] <= '~') shown++;
        return fail(err, "not \"field = value\": %.*s", shown, name);
    }
    *equals = '\0';
    if (!recipe_set(recipe, name = trim(name), trim(equals + 1), err)) return false;
    bool *mark = &given[field_find(fields, name) - fields];
    if (*mark) return fail(err, "field %s is given twice", name);
    return *mark = true;
}

static bool read_file(Recipe *recipe, const char *path, Error *err)
{
    bool given[sizeof fields / sizeof fields[0]] = {false};
    char line[1024];
    FILE *file = fopen(path, "r");
    if (!file) return fail(err, "cannot read recipe %.256s: %s", path, strerror(errno));
    bool ok = true;
    for (int number = 1; ok && fgets(line, sizeof line, file); number++) {
        Error why;
        if (strlen(line) + 1 == sizeof line)
            ok = fail(err, "%.256s:%d: the line is longer than %zu bytes", path, number,
                      sizeof line - 2);
        else if (!read_line(recipe, line, given, &why))
            ok = fail(err, "%.256s:%d: %.200s", path, number, why.text);
    }
    if (ok && ferror(file)) ok = fail(err, "cannot read recipe %.256s: %s", path, strerror(errno));
    fclose(file);
    for (int i = 0; ok && fields[i].name; i++)
        if (!given[i])
            ok = fail(err, "%.256s sets no %s: a recipe file sets every field", path,
                      fields[i].name);
    return ok;
}

bool recipe_find(Recipe *recipe, const char *name, Error *err)
{
    *recipe = speedrun;
    for (int i = 0; recipe_name(i); i++) {
        if (strcmp(recipe_name(i), name)) continue;
        snprintf(recipe->name, sizeof recipe->name, "%s", name);
        for (const Change *c = built_in[i].changes; c && c->field; c++)
            if (!recipe_set(recipe, c->field, c->value, err)) return false;
        return true;
    }
    if (strpbrk(name, "./")) { // the recipe of a file is called what the file is called
        const char *base = strrchr(name, '/');
        base = base ? base + 1 : name;
        int length = (int)strcspn(base, ".");
        snprintf(recipe->name, sizeof recipe->name, "%.*s", length ? length : 6,
                 length ? base : "recipe");
        return read_file(recipe, name, err);
    }
    size_t n = (size_t)snprintf(err->text, sizeof err->text, "no recipe %.64s: there are", name);
    for (int i = 0; recipe_name(i); i++)
        n += (size_t)snprintf(err->text + n, sizeof err->text - n, "%s %s", i ? "," : "",
                              recipe_name(i));
    snprintf(err->text + n, sizeof err->text - n, ", or a file such as ./my.recipe");
    return false;
}
