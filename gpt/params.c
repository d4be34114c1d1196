// The model's parameters: their banks, memory, initial values and working copies.
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#include "../ops/random.h"

static void *item(void *base, const GptBank *bank, int i, size_t element)
{
    return (char *)base + (size_t)i * (size_t)bank->rows * (size_t)bank->cols * element;
}

void *weight_of(const Gpt *gpt, BankId id, int i)
{
    return item(gpt->bank[id].weight, &gpt->bank[id], i, gpt->ops->real_size);
}

void *grad_of(const Gpt *gpt, BankId id, int i)
{
    return item(gpt->bank[id].grad, &gpt->bank[id], i, gpt->ops->acc_size);
}

void *delta_of(const Gpt *gpt, BankId id, int i)
{
    return item(gpt->bank[id].delta, &gpt->bank[id], i, gpt->ops->acc_size);
}

void *scalar_weight(const Gpt *gpt, int index)
{
    return (char *)gpt->bank[BANK_SCALARS].weight + (size_t)index * gpt->ops->acc_size;
}

void *scalar_delta(const Gpt *gpt, int index)
{
    return (char *)gpt->bank[BANK_SCALARS].delta + (size_t)index * gpt->ops->acc_size;
}

void gpt_set_hooks(Gpt *gpt, const GptHooks *hooks)
{
    recordings_forget(gpt); // which have the places of the hooks that there were
    gpt->hooks = *hooks;
}

GptBank *gpt_bank(Gpt *gpt, BankId id) { return &gpt->bank[id]; }
const Recipe *gpt_recipe(const Gpt *gpt) { return &gpt->recipe; }
const Ops *gpt_ops(const Gpt *gpt) { return gpt->ops; }
const GptMemory *gpt_memory(const Gpt *gpt) { return gpt->memory; }

size_t gpt_bank_size(const GptBank *b)
{
    return (size_t)b->count * (size_t)b->rows * (size_t)b->cols;
}

size_t gpt_parameter_count(const Gpt *gpt)
{
    size_t n = 0;
    for (int id = 0; id < GPT_BANKS; id++) n += gpt_bank_size(&gpt->bank[id]);
    return n;
}

// Banks are in backward order: a slot comes after all the later slots of its kind.
int gpt_matrix_index(const Gpt *gpt, BankId id, int slot)
{
    const Recipe *r = &gpt->recipe;
    const bool mlp = id == BANK_MLP;
    if (mlp ? !r->slot[slot].mlp : !r->slot[slot].attention) return -1;
    int later = 0;
    for (int i = slot + 1; i < r->n_slots; i++)
        later += mlp ? r->slot[i].mlp : r->slot[i].attention;
    return id == BANK_ATTN ? 4 * later : mlp ? 2 * later : later;
}

int gpt_max_tokens(const Gpt *gpt)
{
    const Recipe *r = &gpt->recipe;
    return r->val_chunk > r->micro_batch ? r->val_chunk : r->micro_batch;
}

static bool describe_banks(Gpt *gpt)
{
    const Recipe *r = &gpt->recipe;
    const int d = r->width, f = r->hidden, v = r->vocab_padded, c = r->gate_channels;
    const GptBank banks[GPT_BANKS] = {
        [BANK_ATTN] = {"attn", 4 * r->n_attention, d, d, .muon = true, .dtype = DT_F32},
        [BANK_MLP] = {"mlp", 2 * r->n_mlp, d, f, .muon = true, .dtype = DT_F32},
        [BANK_ATTN_GATE] = {"attn_gate", r->n_attention, r->heads, c, .muon = true,
                            .dtype = DT_BF16},
        [BANK_SMEAR_GATE] = {"smear_gate", 1, 1, c, .muon = true, .dtype = DT_BF16},
        [BANK_SCALARS] = {"scalars", 1, 1, r->n_scalars, .dtype = DT_F32},
        [BANK_LM_HEAD] = {"lm_head", 1, v, d, .dtype = DT_BF16},
        [BANK_EMBED] = {"embed", 1, v, d, .dtype = DT_BF16},
        [BANK_VALUE_EMBED] = {"value_embed", r->n_value_embeds, v, d, .dtype = DT_BF16},
    };
    const double lr_mul[GPT_BANKS] = {
        [BANK_ATTN] = 1,
        [BANK_MLP] = 1, // c_fc's own factor follows
        [BANK_ATTN_GATE] = 1,
        [BANK_SMEAR_GATE] = 1,
        [BANK_SCALARS] = r->scalar_lr_mul,
        [BANK_LM_HEAD] = r->head_lr_mul,
        [BANK_EMBED] = r->embed_lr_mul,
        [BANK_VALUE_EMBED] = r->embed_lr_mul,
    };
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *b = &gpt->bank[id];
        *b = banks[id];
        if (gpt->real_storage) b->dtype = gpt->ops->acc_type;
        b->lr_mul = malloc(sizeof(double) * (size_t)(b->count + 1));
        if (!b->lr_mul) return false;
        for (int i = 0; i < b->count; i++)
            b->lr_mul[i] = id == BANK_MLP && i % 2 == 0 ? r->fc_lr_mul : lr_mul[id];
    }
    return true;
}

// Rows of the memory table.
enum { PARAMETERS, GRADIENTS, WEIGHTS, ACTIVATIONS = GPT_MEMORY_ACTIVATIONS, LOGITS };

// Takes zeroed device memory, counting it under a row of the memory table; the first failure is
// kept in *short_of.
static void *take(Gpt *gpt, int row, size_t bytes, size_t *short_of)
{
    void *p = *short_of ? NULL : gpt->ops->mem_alloc(bytes);
    gpt->memory[row].bytes += bytes;
    if (!p && !*short_of) *short_of = bytes;
    return p;
}

Gpt *gpt_create(const Recipe *recipe, const Ops *ops, bool real_storage, int grad_scale_batches,
                Error *err)
{
    const bool training = grad_scale_batches > 0;
    if (!real_storage && ops->acc_type != DT_F32) {
        fail(err, "device %s keeps sums in %s: give it --storage real", ops->name,
             dtype_name(ops->acc_type));
        return NULL;
    }
    Gpt *gpt = calloc(1, sizeof *gpt);
    size_t short_of = 0;
    if (!gpt || (gpt->recipe = *recipe, gpt->ops = ops, gpt->real_storage = real_storage,
                 gpt->sequences = grad_scale_batches * (recipe->micro_batch / recipe->sequence),
                 !describe_banks(gpt))) {
        fail(err, "out of memory for the model's tables");
        gpt_free(gpt);
        return NULL;
    }
    static const char *const purposes[GPT_MEMORY_ROWS] = {[PARAMETERS] = "parameters",
                                                          [GRADIENTS] = "gradients",
                                                          [WEIGHTS] = "working copies",
                                                          [ACTIVATIONS] = "activations",
                                                          [LOGITS] = "logits of a slice"};
    for (int i = 0; i < GPT_MEMORY_ROWS; i++) gpt->memory[i].purpose = purposes[i];

    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *b = &gpt->bank[id];
        const size_t n = gpt_bank_size(b);
        const DType weight_type = id == BANK_SCALARS ? ops->acc_type : ops->real_type;
        b->param = take(gpt, PARAMETERS, n * dtype_size(b->dtype), &short_of);
        if (training) b->grad = take(gpt, GRADIENTS, n * dtype_size(b->dtype), &short_of);
        b->weight = b->dtype == weight_type
                        ? b->param
                        : take(gpt, WEIGHTS, n * dtype_size(weight_type), &short_of);
        if (training && id != BANK_ATTN && id != BANK_MLP && id != BANK_EMBED &&
            id != BANK_VALUE_EMBED)
            b->delta = take(gpt, GRADIENTS, n * ops->acc_size, &short_of);
    }
    const GptBank *head = &gpt->bank[BANK_LM_HEAD];
    if (training && !strcmp(recipe->head, "fp8")) {
        gpt->head_w8 = take(gpt, WEIGHTS, gpt_bank_size(head) * ops->fp8_size, &short_of);
        gpt->head_w8t = take(gpt, WEIGHTS, gpt_bank_size(head) * ops->fp8_size, &short_of);
    }
    const size_t tokens = (size_t)gpt_max_tokens(gpt);
    const size_t rotary = tokens * (size_t)recipe->rotary_active * ops->acc_size;
    gpt->rotary_cos = take(gpt, WEIGHTS, rotary, &short_of);
    gpt->rotary_sin = take(gpt, WEIGHTS, rotary, &short_of);
    gpt->device_step = take(gpt, WEIGHTS, sizeof(StepState), &short_of);
    gpt->device_loss = take(gpt, WEIGHTS, 2 * sizeof(double), &short_of);

    Acts acts;
    const size_t train = acts_layout(&acts, gpt, recipe->micro_batch, training, NULL);
    const size_t eval = acts_layout(&acts, gpt, recipe->val_chunk, false, NULL);
    gpt->arena = take(gpt, ACTIVATIONS, train > eval ? train : eval, &short_of);
    const size_t logits =
        (size_t)acts.head_rows * (size_t)recipe->vocab_padded * ops->real_size; // a part of those
    gpt->memory[LOGITS].bytes = logits;
    gpt->memory[ACTIVATIONS].bytes -= logits;
    gpt->host_cu = malloc(sizeof(int32_t) * (size_t)acts_cu_room(gpt, gpt_max_tokens(gpt)));
    gpt->host_order = malloc(sizeof(int32_t) * (size_t)recipe->micro_batch);
    gpt->host_start = malloc(sizeof(int32_t) * ((size_t)recipe->vocab_padded + 1));
    if (short_of || !gpt->host_cu || !gpt->host_order || !gpt->host_start) {
        size_t total = 0;
        for (int i = 0; i < GPT_MEMORY_ROWS; i++) total += gpt->memory[i].bytes;
        fail(err,
             "out of memory: recipe %s needs %.2f GB on %s (activations %.2f GB) and a request of "
             "%.2f GB failed; try a smaller --micro-batch or --val-chunk",
             recipe->name, (double)total / 1e9, ops->name,
             (double)gpt->memory[ACTIVATIONS].bytes / 1e9, (double)short_of / 1e9);
        gpt_free(gpt);
        return NULL;
    }
    return gpt;
}

void gpt_free(Gpt *gpt)
{
    if (!gpt) return;
    const Ops *ops = gpt->ops;
    recordings_forget(gpt);
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *b = &gpt->bank[id];
        if (b->weight != b->param) ops->mem_free(b->weight);
        ops->mem_free(b->param);
        ops->mem_free(b->grad);
        ops->mem_free(b->delta);
        free(b->lr_mul);
    }
    ops->mem_free(gpt->head_w8);
    ops->mem_free(gpt->head_w8t);
    ops->mem_free(gpt->rotary_cos);
    ops->mem_free(gpt->rotary_sin);
    ops->mem_free(gpt->device_step);
    ops->mem_free(gpt->device_loss);
    ops->mem_free(gpt->arena);
    free(gpt->host_cu);
    free(gpt->host_order);
    free(gpt->host_start);
    free(gpt);
}

void gpt_drop_param(Gpt *gpt, BankId id)
{
    GptBank *b = &gpt->bank[id];
    if (b->weight == b->param) return;
    gpt->ops->mem_free(b->param);
    b->param = NULL;
    gpt->memory[PARAMETERS].bytes -= gpt_bank_size(b) * dtype_size(b->dtype);
}

void gpt_load_weights(Gpt *gpt, BankId id)
{
    GptBank *b = &gpt->bank[id];
    const DType type = id == BANK_SCALARS ? gpt->ops->acc_type : gpt->ops->real_type;
    if (b->weight != b->param)
        gpt->ops->load_param(b->weight, type, b->param, b->dtype, gpt_bank_size(b));
}

// ---- initial values (specification 1.1 and 1.2) ------------------------------------------------

// A number of its own for each tensor and index, so that the i-th draw needs no others.
static double uniform(uint64_t seed, uint64_t stream, uint64_t i) // in (0, 1)
{
    uint64_t key = random_mix(seed * RANDOM_STEP + stream);
    return ((double)(random_mix(key + i * RANDOM_STEP) >> 12) + 0.5) * 0x1p-52;
}

static double normal(uint64_t seed, uint64_t stream, uint64_t i) // Box-Muller
{
    double radius = sqrt(-2 * log(uniform(seed, stream, 2 * i)));
    return radius * cos(6.283185307179586 * uniform(seed, stream, 2 * i + 1));
}

static double initial_scalar(const Recipe *r, int index)
{
    const int n = r->n_slots;
    if (index < n) return -1.5;                        // skip gates: sigmoid(-1.5) = 0.18
    if (index < 3 * n) return (index - n) % 2 ? 0 : 1; // lambdas of x and x0
    if (index < 5 * n) return 0.5;                     // lambdas of v and the value embedding
    if (index == recipe_smear(r)) return 0;
    if (index == recipe_backout(r)) return 0.5;
    return 1; // padding
}

static double initial_value(const Gpt *gpt, BankId id, int i, uint64_t seed, uint64_t j)
{
    const double bound = sqrt(3.0) * 0.5 / sqrt((double)gpt->recipe.width);
    const uint64_t stream = (uint64_t)id * 1024 + (uint64_t)i;
    switch (id) {
    case BANK_ATTN:
        return i % 4 == 3 ? 0 : bound * (2 * uniform(seed, stream, j) - 1); // O: 0
    case BANK_MLP:
        return i % 2 ? 0 : bound * (2 * uniform(seed, stream, j) - 1); // c_proj: 0
    case BANK_EMBED:
    case BANK_VALUE_EMBED:
        return normal(seed, stream, j);
    case BANK_SCALARS:
        return initial_scalar(&gpt->recipe, (int)j);
    default:
        return 0; // head and gates
    }
}

void gpt_init(Gpt *gpt, uint64_t seed)
{
    enum { CHUNK = 1 << 16 };
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *b = &gpt->bank[id];
        const size_t size = dtype_size(b->dtype), n = (size_t)b->rows * (size_t)b->cols;
        for (int i = 0; i < b->count; i++) {
#pragma omp parallel for
            for (size_t start = 0; start < n; start += CHUNK) {
                double buffer[CHUNK / 8]; // staged in small pieces: the device may be elsewhere
                for (size_t at = start; at < start + CHUNK && at < n; at += CHUNK / 8) {
                    size_t end = at + CHUNK / 8 < n ? at + CHUNK / 8 : n;
                    for (size_t j = at; j < end; j++)
                        dtype_set(buffer, b->dtype, j - at,
                                  initial_value(gpt, (BankId)id, i, seed, j));
                    gpt->ops->mem_put((char *)b->param + ((size_t)i * n + at) * size, buffer,
                                      (end - at) * size);
                }
            }
        }
        gpt_load_weights(gpt, (BankId)id);
    }
}
