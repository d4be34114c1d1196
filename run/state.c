#include "state.h"

#include <stdlib.h>
#include <string.h>

static const char format_name[] = "turbomuon.c training state 1", plans_key[] = "gemm_plans";

enum { MAX_TENSORS = GPT_BANKS * 4 + 1, NAME_SIZE = 48 };

typedef struct {
    SafetensorsTensor tensor;
    char name[NAME_SIZE];
    BankId bank; // GPT_BANKS for the unigram's counts
    StatePart part;
    size_t bytes;
} StateTensor;

static void add(StateTensor *list, int *n, const char *name, const char *suffix,
                SafetensorsDType type, int ndim, const int64_t *shape, BankId bank, StatePart part)
{
    StateTensor *t = &list[(*n)++];
    *t = (StateTensor){.bank = bank, .part = part, .bytes = safetensors_dtype_size(type)};
    snprintf(t->name, sizeof t->name, "%s%s", name, suffix);
    t->tensor = (SafetensorsTensor){.name = t->name, .dtype = type, .ndim = ndim};
    for (int i = 0; i < ndim; i++) {
        t->tensor.shape[i] = shape[i];
        t->bytes *= (size_t)shape[i];
    }
}

// Every tensor of the state, described; returns how many.
static int list_tensors(const TrainState *state, StateTensor *list)
{
    int n = 0;
    for (int i = 0; i < GPT_BANKS; i++) {
        const GptBank *b = gpt_bank(state->gpt, (BankId)i);
        const SafetensorsDType type = (SafetensorsDType)b->dtype;
        const int64_t shape[3] = {b->count, b->rows, b->cols}, columns[2] = {b->count, b->cols};
        const BankId id = (BankId)i;
        add(list, &n, b->name, "", type, 3, shape, id, STATE_PARAM);
        if (b->muon) {
            add(list, &n, b->name, ".momentum", type, 3, shape, id, STATE_FIRST);
            add(list, &n, b->name, ".second_moment", type, 2, columns, id, STATE_SECOND);
        } else {
            add(list, &n, b->name, ".adam_m", type, 3, shape, id, STATE_FIRST);
            add(list, &n, b->name, ".adam_v", type, 3, shape, id, STATE_SECOND);
            add(list, &n, b->name, ".grad", type, 3, shape, id, STATE_GRAD);
        }
    }
    add(list, &n, "unigram", "", ST_I64, 1, (int64_t[]){state->unigram->vocab_size}, GPT_BANKS,
        STATE_PARAM);
    return n;
}

static void free_staged(StateTensor *list, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i].bank != GPT_BANKS) free((void *)list[i].tensor.data);
}

// Where a tensor lies on the device of a run alone.
static void *device_tensor(const TrainState *state, const StateTensor *t)
{
    const GptBank *b = gpt_bank(state->gpt, t->bank);
    return t->part == STATE_PARAM   ? b->param
           : t->part == STATE_GRAD  ? b->grad
           : t->part == STATE_FIRST ? state->optimizer->first[t->bank]
                                    : state->optimizer->second[t->bank];
}

static bool get_tensor(const TrainState *state, const StateTensor *t, void *host, Error *err)
{
    if (state->sharded) return sharded_get(state->sharded, t->bank, t->part, host, err);
    gpt_ops(state->gpt)->mem_get(host, device_tensor(state, t), t->bytes);
    return true;
}

static void put_tensor(const TrainState *state, const StateTensor *t, const void *host)
{
    if (state->sharded)
        sharded_put(state->sharded, t->bank, t->part, host);
    else
        gpt_ops(state->gpt)->mem_put(device_tensor(state, t), host, t->bytes);
}

static bool is_first_rank(const TrainState *state)
{
    return !state->sharded || state->sharded->comm->rank == 0;
}

// Numbers that travel as metadata: name, place, and whether it is a double.
typedef struct {
    const char *key;
    int64_t *integer;
    double *real;
} StateNumber;

enum { N_NUMBERS = 10 };
static void list_numbers(TrainState *s, int64_t *step, int64_t *hash, StateNumber list[N_NUMBERS])
{
    const StateNumber numbers[N_NUMBERS] = {
        {"step", step, NULL},
        {"seed", &s->seed, NULL},
        {"tokens", &s->tokens, NULL},
        {"train_ms", NULL, &s->train_ms},
        {"cursor.epoch", &s->cursor.epoch, NULL},
        {"cursor.shard", &s->cursor.shard, NULL},
        {"cursor.bos", &s->cursor.bos, NULL},
        {"cursor.micro_batches", &s->cursor.micro_batches, NULL},
        {"cursor.n_shards", &s->cursor.n_shards, NULL},
        {"cursor.data_hash", hash, NULL},
    };
    memcpy(list, numbers, sizeof numbers);
}

// The method's coefficients as numbers: a table may come from a file, which can change.
enum { COEFFS_SIZE = NS_MAX_ITERATIONS * 3 * 26 + 1 };
static void print_coeffs(const NsMethod *m, char text[COEFFS_SIZE])
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < m->iterations; i++)
        used += (size_t)snprintf(text + used, COEFFS_SIZE - used, "%.17g %.17g %.17g;",
                                 m->coeff[i].a, m->coeff[i].b, m->coeff[i].c);
}

static bool put_plans(const Ops *ops, Metadata *metadata, Error *err)
{
    if (!ops->plans_text) return true;
    char *text = ops->plans_text();
    const bool ok = text ? metadata_put_string(metadata, plans_key, text, err)
                         : fail(err, "out of memory for the metadata of a checkpoint");
    free(text);
    return ok;
}

static bool put_metadata(const TrainState *state, Metadata *metadata, Error *err)
{
    const Recipe *r = gpt_recipe(state->gpt);
    char value[512], key[96];
    const char *field;
    TrainState copy = *state;
    int64_t step = state->step, hash = (int64_t)state->cursor.data_hash;
    StateNumber numbers[N_NUMBERS];
    const bool real = gpt_bank(state->gpt, BANK_EMBED)->dtype != DT_BF16;

    char coeffs[COEFFS_SIZE];
    print_coeffs(&r->method, coeffs);
    bool ok = put_plans(gpt_ops(state->gpt), metadata, err) &&
              metadata_put_string(metadata, "format", format_name, err) &&
              metadata_put_string(metadata, "ns_coeffs", coeffs, err) &&
              metadata_put_string(metadata, "storage", real ? "real" : "recipe", err) &&
              metadata_put_string(metadata, "recipe", r->name, err);
    for (int i = 0; ok && (field = recipe_field(r, i, value, sizeof value)); i++) {
        snprintf(key, sizeof key, "recipe.%s", field);
        ok = metadata_put_string(metadata, key, value, err);
    }
    list_numbers(&copy, &step, &hash, numbers);
    for (int i = 0; ok && i < N_NUMBERS; i++)
        ok = numbers[i].integer
                 ? metadata_put_int64(metadata, numbers[i].key, *numbers[i].integer, err)
                 : metadata_put_double(metadata, numbers[i].key, *numbers[i].real, err);
    return ok;
}

// Whether no number is infinite or not-a-number: then its exponent is all ones.
static bool all_finite(const void *data, SafetensorsDType type, size_t bytes)
{
    const uint64_t *f64 = data;
    const uint32_t *f32 = data;
    const uint16_t *bf16 = data;
    const size_t n = bytes / safetensors_dtype_size(type);
    bool finite = true;
    for (size_t i = 0; finite && i < n; i++)
        finite = type == ST_F64   ? (f64[i] >> 52 & 0x7ff) != 0x7ff
                 : type == ST_F32 ? (f32[i] >> 23 & 0xff) != 0xff
                                  : (bf16[i] >> 7 & 0xff) != 0xff;
    return finite;
}

// Room on rank 0 for a tensor of the device.
static bool take_room(const TrainState *state, StateTensor *t, Error *err)
{
    if (!is_first_rank(state)) return true;
    t->tensor.data = malloc(t->bytes);
    return t->tensor.data || fail(err, "out of memory while saving step %d", state->step);
}

// A state that is not finite is refused, so that the checkpoints kept are ones to go back to.
static bool check_finite(const TrainState *state, const StateTensor *t, Error *err)
{
    return !is_first_rank(state) || all_finite(t->tensor.data, t->tensor.dtype, t->bytes) ||
           fail(err,
                "step %d left numbers in %s that are infinite or not numbers: it is not saved "
                "(earlier checkpoints are intact); resume from the last one with a lower "
                "learning rate",
                state->step, t->name);
}

// Copies a tensor from the device.
static bool stage(const TrainState *state, StateTensor *t, Error *err)
{
    if (t->bytes == 0) return true;
    return take_room(state, t, err) && get_tensor(state, t, (void *)t->tensor.data, err) &&
           check_finite(state, t, err);
}

// What each rank counted goes to rank 0.
static void gather_unigram(const TrainState *state)
{
    enum { PIECE = 4096 };
    Unigram *u = state->unigram;
    double sum[PIECE];
    if (!state->sharded) return;
    u->total = 0;
    for (int first = 0; first < u->vocab_size; first += PIECE) {
        const int n = u->vocab_size - first < PIECE ? u->vocab_size - first : PIECE;
        for (int i = 0; i < n; i++) sum[i] = (double)u->count[first + i];
        comm_sum(state->sharded->comm, sum, n);
        for (int i = 0; i < n; i++) {
            u->count[first + i] = is_first_rank(state) ? (int64_t)sum[i] : 0;
            u->total += u->count[first + i];
        }
    }
}

bool state_save(const TrainState *state, const char *folder, int keep, char path[FILE_PATH_MAX],
                Error *err)
{
    StateTensor list[MAX_TENSORS];
    SafetensorsTensor tensors[MAX_TENSORS];
    Metadata metadata = {0};
    const int n = list_tensors(state, list);
    gather_unigram(state);
    bool ok =
        put_metadata(state, &metadata, err) && checkpoint_path(path, folder, state->step, err);
    for (int i = 0; i < n; i++) {
        if (list[i].bank == GPT_BANKS)
            list[i].tensor.data = state->unigram->count;
        else
            ok = ok && stage(state, &list[i], err);
        tensors[i] = list[i].tensor;
    }
    if (ok && is_first_rank(state))
        ok = checkpoint_save(folder, state->step, tensors, n, &metadata, keep, err);
    free_staged(list, n);
    metadata_free(&metadata);
    return ok;
}

bool state_dump_momentum(const TrainState *state, const char *folder, char path[FILE_PATH_MAX],
                         Error *warning, Error *err)
{
    StateTensor list[MAX_TENSORS];
    SafetensorsTensor tensors[MAX_TENSORS];
    Metadata metadata = {0};
    int n = list_tensors(state, list), kept = 0;
    bool collected = true;
    warning->text[0] = '\0';
    bool ok = metadata_put_string(&metadata, "format", "turbomuon.c momentum 1", warning) &&
              metadata_put_int64(&metadata, "step", state->step, warning);
    for (int i = 0; i < n; i++) // what is left is at the list's beginning
        if (list[i].bank != GPT_BANKS && list[i].part == STATE_FIRST &&
            gpt_bank(state->gpt, list[i].bank)->muon) {
            list[kept] = list[i];
            list[kept].tensor.name = list[kept].name;
            kept++;
        }
    for (int i = 0; i < kept && collected; i++) {
        if (list[i].bytes > 0) {
            ok = ok && take_room(state, &list[i], warning);
            // The other ranks send it, whatever becomes of the file.
            if (ok || state->sharded)
                collected = get_tensor(state, &list[i], (void *)list[i].tensor.data, err);
            ok = ok && collected && check_finite(state, &list[i], warning);
        }
        tensors[i] = list[i].tensor;
    }
    snprintf(path, FILE_PATH_MAX, "%.3000s/momentum_%06d.safetensors", folder, state->step);
    if (ok && collected && is_first_rank(state))
        safetensors_save(path, tensors, kept, &metadata, warning);
    free_staged(list, kept);
    metadata_free(&metadata);
    return collected;
}

bool state_recipe(const Safetensors *file, Recipe *recipe, bool *real_storage, Error *err)
{
    const Metadata *metadata = &file->header.metadata;
    const char *name, *storage, *value, *field, *format;
    char key[96], unused[512];
    Error why;
    if (!metadata_get_string(metadata, "recipe", &name, err) ||
        !metadata_get_string(metadata, "storage", &storage, err) ||
        !metadata_get_string(metadata, "format", &format, err) ||
        !recipe_find(recipe, recipe_name(0), err))
        return false;
    if ((strcmp(format, format_name) && strcmp(format, "turbomuon.c weights 1")) ||
        (strcmp(storage, "real") && strcmp(storage, "recipe")) || strchr(name, '/') ||
        name[0] == '.')
        return fail(err, "%.200s is not a checkpoint of this version", file->path);
    snprintf(recipe->name, sizeof recipe->name, "%s", name);
    *real_storage = !strcmp(storage, "real");
    for (int i = 0; (field = recipe_field(recipe, i, unused, sizeof unused)); i++) {
        snprintf(key, sizeof key, "recipe.%s", field);
        if (!metadata_get_string(metadata, key, &value, &why) ||
            !recipe_set(recipe, field, value, &why))
            return fail(err, "%.200s is not a checkpoint of this version: %.200s", file->path,
                        why.text);
    }
    return true;
}

const char *state_plans(const Safetensors *file)
{
    return metadata_find(&file->header.metadata, plans_key);
}

// Whether a method chosen by the same names as in the checkpoint has the same coefficients. Others,
// chosen on purpose, may differ.
static bool same_coeffs(const Recipe *r, const Metadata *metadata)
{
    const char *coeffs = metadata_find(metadata, "ns_coeffs");
    const char *table = metadata_find(metadata, "recipe.ns_coeffs");
    const char *ortho = metadata_find(metadata, "recipe.ortho");
    const char *iters = metadata_find(metadata, "recipe.ns_iters");
    char now[COEFFS_SIZE];
    print_coeffs(&r->method, now);
    return !coeffs || !table || !ortho || !iters || strcmp(table, r->ns_coeffs) ||
           strcmp(ortho, r->ortho) || atoi(iters) != r->ns_iters || !strcmp(coeffs, now);
}

bool state_load(TrainState *state, const Safetensors *file, Error *err)
{
    const Metadata *metadata = &file->header.metadata;
    StateTensor list[MAX_TENSORS];
    StateNumber numbers[N_NUMBERS];
    int64_t step, hash;
    list_numbers(state, &step, &hash, numbers);
    for (int i = 0; i < N_NUMBERS; i++)
        if (!(numbers[i].integer
                  ? metadata_get_int64(metadata, numbers[i].key, numbers[i].integer, err)
                  : metadata_get_double(metadata, numbers[i].key, numbers[i].real, err)))
            return false;
    if (step < 0 || step > 200000000)
        return fail(err, "%.200s is not a checkpoint of a run: step %lld", file->path,
                    (long long)step);
    if (!same_coeffs(gpt_recipe(state->gpt), metadata))
        return fail(
            err,
            "the coefficients in %.200s are not those that %.200s was trained with: put the "
            "old ones back, or choose others by another name",
            gpt_recipe(state->gpt)->ns_coeffs, file->path);
    state->step = (int)step;
    state->cursor.data_hash = (uint64_t)hash;

    const int n = list_tensors(state, list);
    for (int i = 0; i < n; i++) {
        const SafetensorsTensor *t = &list[i].tensor;
        void *staged = malloc(list[i].bytes + 1);
        bool ok = staged != NULL || fail(err, "out of memory while loading %s", file->path);
        ok = ok && safetensors_read(file, t->name, t->dtype, t->ndim, t->shape, staged, err);
        if (ok && list[i].bank != GPT_BANKS) put_tensor(state, &list[i], staged);
        if (ok && list[i].bank == GPT_BANKS && is_first_rank(state))
            memcpy(state->unigram->count, staged, list[i].bytes);
        free(staged);
        if (!ok) return false;
    }
    state->unigram->total = 0;
    for (int i = 0; i < state->unigram->vocab_size; i++)
        state->unigram->total += state->unigram->count[i];
    for (int i = 0; i < GPT_BANKS && !state->sharded; i++) gpt_load_weights(state->gpt, (BankId)i);
    return true;
}
