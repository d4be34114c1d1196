#include "weights.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "atomic_file.h"
#include "checkpoint.h"
#include "state.h"

static const char format_name[] = "turbomuon.c weights 1";

enum { MAX_NAMED = 8 + RECIPE_MAX_VALUE_EMBEDS + RECIPE_MAX_SLOTS * 12, NAME_SIZE = 48 };

// A part of a bank under its own name.
typedef struct {
    char name[NAME_SIZE];
    BankId bank;
    size_t first; // its first number in the bank
    int ndim;
    int64_t shape[2];
} Named;

typedef struct {
    const Gpt *gpt;
    Named list[MAX_NAMED];
    int count;
} NamedList;

__attribute__((format(printf, 6, 7))) static void
add(NamedList *l, BankId bank, size_t first, int64_t rows, int64_t cols, const char *format, ...)
{
    Named *n = &l->list[l->count++];
    va_list args;
    *n = (Named){.bank = bank, .first = first, .ndim = rows ? 2 : 1};
    n->shape[0] = rows ? rows : cols;
    n->shape[1] = cols;
    va_start(args, format);
    vsnprintf(n->name, sizeof n->name, format, args);
    va_end(args);
}

static void add_slot(NamedList *l, const Recipe *r, int i)
{
    static const char letter[] = "qkvo";
    const LayerSlot *slot = &r->slot[i];
    const size_t dd = (size_t)r->width * (size_t)r->width, hc = (size_t)r->heads * r->gate_channels;
    const size_t df = (size_t)r->width * (size_t)r->hidden;
    const int64_t d = r->width, f = r->hidden;
    if (!slot->executed) return;
    add(l, BANK_SCALARS, (size_t)recipe_lambda(r, i), 0, 2, "blocks.%d.lambdas", i);
    if (slot->skip_from >= 0)
        add(l, BANK_SCALARS, (size_t)recipe_skip_gate(r, i), 0, 1, "blocks.%d.skip_gate", i);
    if (slot->attention) {
        const size_t at = (size_t)gpt_matrix_index(l->gpt, BANK_ATTN, i);
        for (size_t k = 0; k < 4; k++)
            add(l, BANK_ATTN, (at + k) * dd, d, d, "blocks.%d.attn.%c", i, letter[k]);
        add(l, BANK_ATTN_GATE, at / 4 * hc, r->heads, r->gate_channels, "blocks.%d.attn.gate", i);
        add(l, BANK_SCALARS, (size_t)recipe_value_lambda(r, i), 0, 2, "blocks.%d.attn.v_lambdas",
            i);
    }
    if (slot->mlp) {
        const size_t at = (size_t)gpt_matrix_index(l->gpt, BANK_MLP, i);
        add(l, BANK_MLP, at * df, d, f, "blocks.%d.mlp.c_fc", i);
        add(l, BANK_MLP, (at + 1) * df, d, f, "blocks.%d.mlp.c_proj", i);
    }
}

static void list_named(NamedList *l, const Gpt *gpt)
{
    const Recipe *r = gpt_recipe(gpt);
    const int64_t v = r->vocab_padded, d = r->width;
    *l = (NamedList){.gpt = gpt};
    add(l, BANK_EMBED, 0, v, d, "embed");
    for (int k = 0; k < r->n_value_embeds; k++)
        add(l, BANK_VALUE_EMBED, (size_t)(k * v * d), v, d, "value_embeds.%d", k);
    add(l, BANK_SMEAR_GATE, 0, 0, r->gate_channels, "smear.gate");
    add(l, BANK_SCALARS, (size_t)recipe_smear(r), 0, 1, "smear.lambda");
    for (int i = 0; i < r->n_slots; i++) add_slot(l, r, i);
    add(l, BANK_SCALARS, (size_t)recipe_backout(r), 0, 1, "backout.lambda");
    add(l, BANK_LM_HEAD, 0, v, d, "lm_head");
}

static SafetensorsTensor tensor_of(NamedList *l, int i)
{
    const Named *n = &l->list[i];
    const GptBank *b = gpt_bank((Gpt *)l->gpt, n->bank);
    SafetensorsTensor t = {.name = n->name, .dtype = (SafetensorsDType)b->dtype, .ndim = n->ndim};
    for (int k = 0; k < n->ndim; k++) t.shape[k] = n->shape[k];
    return t;
}

// ---- finding and loading -----------------------------------------------------------------------

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool is_there(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

// runs/NAME/checkpoints that was written to last.
static bool latest_run(char path[FILE_PATH_MAX], Error *err)
{
    struct timespec newest = {0};
    char folder[FILE_PATH_MAX];
    struct stat info;
    path[0] = '\0';
    DIR *dir = opendir("runs");
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(folder, sizeof folder, "runs/%s/checkpoints", entry->d_name);
        if (stat(folder, &info)) continue;
        const struct timespec t = info.st_mtim;
        if (path[0] && (t.tv_sec < newest.tv_sec ||
                        (t.tv_sec == newest.tv_sec && t.tv_nsec <= newest.tv_nsec)))
            continue;
        newest = t;
        memcpy(path, folder, sizeof folder);
    }
    if (dir) closedir(dir);
    return path[0] || fail(err, "there is no run with a checkpoint in runs/: train one, or name a "
                                "checkpoint with --checkpoint");
}

bool weights_find(const char *name, char path[FILE_PATH_MAX], Error *err)
{
    char folder[FILE_PATH_MAX];
    Error warning = {""};
    if (!strcmp(name, "latest") && !is_there(name)) {
        if (!latest_run(folder, err)) return false;
    } else if (!is_folder(name)) {
        snprintf(path, FILE_PATH_MAX, "%.4000s", name);
        return true;
    } else {
        snprintf(path, FILE_PATH_MAX, "%.4000s/model.safetensors", name);
        if (is_there(path)) return true;
        snprintf(folder, sizeof folder, "%.4000s/checkpoints", name);
        if (!is_folder(folder)) snprintf(folder, sizeof folder, "%.4000s", name);
    }
    if (!checkpoint_latest(folder, path, &warning, err)) return false;
    if (warning.text[0]) fprintf(stderr, "warning: %s\n", warning.text);
    return true;
}

bool weights_open(Weights *w, const char *name, Error *err)
{
    char path[FILE_PATH_MAX];
    int64_t step;
    *w = (Weights){0};
    if (!weights_find(name, path, err) || !safetensors_open(&w->file, path, err)) return false;
    w->open = true;
    if (!state_recipe(&w->file, &w->recipe, &w->real_storage, err) ||
        !metadata_get_int64(&w->file.header.metadata, "step", &step, err))
        return false;
    w->recipe.ns_coeffs[0] = '\0';
    w->recipe.ns_iters = 0;
    if (!recipe_finish(&w->recipe, err)) return false;
    if (step < 0 || step > 200000000)
        return fail(err, "%.200s is not a checkpoint of a run: step %lld", path, (long long)step);
    w->step = step > w->recipe.total_steps ? w->recipe.total_steps : (int)step;
    return true;
}

int weights_positions(const Weights *w)
{
    const Recipe *r = &w->recipe;
    return r->val_chunk > r->micro_batch ? r->val_chunk : r->micro_batch;
}

void weights_close(Weights *w)
{
    gpt_free(w->gpt);
    if (w->open) safetensors_close(&w->file);
    *w = (Weights){0};
}

static bool read_tensor(Gpt *gpt, const Safetensors *file, const SafetensorsTensor *t, void *to,
                        Error *err)
{
    uint64_t bytes;
    if (!safetensors_tensor_bytes(t, &bytes, err)) return false;
    void *staged = malloc(bytes + 1);
    const bool ok = (staged || fail(err, "out of memory while loading %.200s", file->path)) &&
                    safetensors_read(file, t->name, t->dtype, t->ndim, t->shape, staged, err);
    if (ok) gpt_ops(gpt)->mem_put(to, staged, bytes);
    free(staged);
    return ok;
}

bool weights_load(Gpt *gpt, const Safetensors *file, Error *err)
{
    const char *format = metadata_find(&file->header.metadata, "format");
    const bool exported = format && !strcmp(format, format_name);
    static NamedList l;
    list_named(&l, gpt);
    for (int i = 0; exported && i < l.count; i++) {
        const GptBank *b = gpt_bank(gpt, l.list[i].bank);
        const SafetensorsTensor t = tensor_of(&l, i);
        char *to = (char *)b->param + l.list[i].first * dtype_size(b->dtype);
        if (!read_tensor(gpt, file, &t, to, err)) return false;
    }
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const SafetensorsTensor t = {.name = b->name,
                                     .dtype = (SafetensorsDType)b->dtype,
                                     .ndim = 3,
                                     .shape = {b->count, b->rows, b->cols}};
        if (!exported && !read_tensor(gpt, file, &t, b->param, err)) return false;
        gpt_load_weights(gpt, (BankId)id);
    }
    return true;
}

bool weights_model(Weights *w, const Ops *ops, int tokens, Error *err)
{
    Recipe recipe = w->recipe;
    recipe.val_chunk = recipe.val_tokens = tokens;
    recipe.micro_batch = recipe.sequence =
        16; // the least that a recipe may have: none is trained on
    recipe.micro_batches = 1;
    w->gpt = gpt_create(&recipe, ops, w->real_storage, 0, err);
    if (!w->gpt) return false;
    if (!weights_load(w->gpt, &w->file, err)) return false;
    gpt_set_step(w->gpt, w->step);
    return true;
}

bool weights_init(Gpt *gpt, const char *name, Error *err)
{
    char path[FILE_PATH_MAX];
    Safetensors file;
    if (!weights_find(name, path, err) || !safetensors_open(&file, path, err)) return false;
    const bool ok = weights_load(gpt, &file, err);
    safetensors_close(&file);
    return ok;
}

// ---- export ------------------------------------------------------------------------------------

// The recipe and its storage as the file has them.
static bool put_metadata(Metadata *m, const Weights *w, Error *err)
{
    const Metadata *from = &w->file.header.metadata;
    bool ok = metadata_put_string(m, "format", format_name, err) &&
              metadata_put_int64(m, "step", w->step, err);
    for (int i = 0; ok && i < from->count; i++) {
        const char *key = from->pairs[i].key;
        if (!strncmp(key, "recipe", 6) || !strcmp(key, "storage"))
            ok = metadata_put_string(m, key, from->pairs[i].value, err);
    }
    return ok;
}

static void write_slot(FILE *out, const Recipe *r, int i)
{
    const LayerSlot *s = &r->slot[i];
    fprintf(out, "    {\"executed\": %s, \"attention\": %s, \"mlp\": %s, \"value_embed\": %d, ",
            s->executed ? "true" : "false",
            !s->attention    ? "null"
            : s->long_window ? "\"long\""
                             : "\"short\"",
            s->mlp ? "true" : "false", s->value_embed);
    fprintf(out, "\"skip_from\": %d, \"backout\": %s}%s\n", s->skip_from,
            s->backout ? "true" : "false", i + 1 < r->n_slots ? "," : "");
}

static bool write_config(const Gpt *gpt, int step, bool real, FILE *out)
{
    const Recipe *r = gpt_recipe(gpt);
    StepState state;
    double omega[64], scale;
    gpt_ops(gpt)->mem_get(&state, gpt_step_state(gpt), sizeof state);
    gpt_yarn(r, step, !real, omega, &scale);
    fprintf(out,
            "{\n  \"format\": \"%s\", \"recipe\": \"%s\", \"step\": %d,\n"
            "  \"vocab_size\": %d, \"vocab_padded\": %d, \"width\": %d, \"heads\": %d,\n"
            "  \"head_dim\": %d, \"hidden\": %d, \"gate_channels\": %d, \"norm_eps\": %.17g,\n"
            "  \"softcap\": %.17g, \"softcap_div\": %.17g, \"attention_scale\": %.17g,\n"
            "  \"window_short\": %d, \"window_long\": %d, \"rotary_bf16\": %s,\n"
            "  \"rotary_frequencies\": [",
            format_name, r->name, step, r->vocab_size, r->vocab_padded, r->width, r->heads,
            r->head_dim, r->hidden, r->gate_channels, r->norm_eps, r->softcap, r->softcap_div,
            state.attn_scale, state.window_short, state.window_long, real ? "false" : "true");
    for (int j = 0; j < r->rotary_active; j++) fprintf(out, "%s%.17g", j ? ", " : "", omega[j]);
    fprintf(out, "],\n  \"slots\": [\n");
    for (int i = 0; i < r->n_slots; i++) write_slot(out, r, i);
    fprintf(out, "  ]\n}\n");
    return !ferror(out);
}

static bool save_config(const Gpt *gpt, int step, bool real, const char *path, Error *err)
{
    AtomicFile file;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    const bool made = out && write_config(gpt, step, real, out);
    bool ok = (out && fclose(out) == 0 && made) || fail(err, "out of memory for %.300s", path);
    ok = ok && atomic_file_open(&file, path, size, err) &&
         atomic_file_write(&file, text, size, err) && atomic_file_commit(&file, err);
    free(text);
    return ok;
}

bool weights_export(Weights *w, const char *folder, Error *err)
{
    static NamedList l;
    static SafetensorsTensor tensors[MAX_NAMED];
    char path[FILE_PATH_MAX];
    void *host[GPT_BANKS] = {NULL};
    Metadata metadata = {0};
    Gpt *gpt = w->gpt;
    list_named(&l, gpt);
    bool ok = folder_make(folder, err) && put_metadata(&metadata, w, err);
    for (int id = 0; ok && id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        const size_t bytes = gpt_bank_size(b) * dtype_size(b->dtype);
        host[id] = malloc(bytes + 1);
        if (!host[id]) ok = fail(err, "out of memory while exporting %s", b->name);
        if (ok) gpt_ops(gpt)->mem_get(host[id], b->param, bytes);
    }
    for (int i = 0; ok && i < l.count; i++) {
        const GptBank *b = gpt_bank(gpt, l.list[i].bank);
        tensors[i] = tensor_of(&l, i);
        tensors[i].data = (char *)host[l.list[i].bank] + l.list[i].first * dtype_size(b->dtype);
    }
    snprintf(path, sizeof path, "%.4000s/model.safetensors", folder);
    ok = ok && safetensors_save(path, tensors, l.count, &metadata, err);
    snprintf(path, sizeof path, "%.4000s/config.json", folder);
    ok = ok && save_config(gpt, w->step, w->real_storage, path, err);
    for (int id = 0; id < GPT_BANKS; id++) free(host[id]);
    metadata_free(&metadata);
    return ok;
}
