// Generation: a sequence of tokens that grows, over the model's ordinary forward pass. The first
// tokens go through it together; attention leaves their queries, keys and values in a buffer per
// slot, which is the cache. A later token goes through it alone, at its own position, and attends
// to that buffer.
#include "internal.h"

#include "../ops/exp.h"

#include <stdlib.h>
#include <string.h>

GptDecode *gpt_decode_create(Gpt *gpt, int max_tokens, Error *err)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    if (max_tokens < 1 || max_tokens > gpt_max_tokens(gpt)) {
        fail(err, "a sequence of %d tokens: the model's positions are 1 to %d", max_tokens,
             gpt_max_tokens(gpt));
        return NULL;
    }
    const size_t bytes = (size_t)max_tokens * 3 * (size_t)r->width * ops->real_size;
    GptDecode *decode = calloc(1, sizeof *decode);
    bool ok = decode != NULL;
    if (ok) {
        decode->gpt = gpt, decode->max_tokens = max_tokens;
        decode->ids = malloc((size_t)max_tokens * sizeof *decode->ids);
        decode->u = malloc((size_t)r->vocab_padded * ops->real_size);
        ok = decode->ids && decode->u;
    }
    for (int i = 0; ok && i < r->n_slots; i++)
        if (r->slot[i].attention) ok = (decode->qkv[i] = ops->mem_alloc(bytes)) != NULL;
    if (ok) return decode;
    fail(err, "out of memory: %d tokens need a cache of %.2f GB; ask for fewer", max_tokens,
         (double)bytes * r->n_attention / 1e9);
    gpt_decode_free(decode);
    return NULL;
}

void gpt_decode_free(GptDecode *decode)
{
    if (!decode) return;
    for (int i = 0; i < RECIPE_MAX_SLOTS; i++)
        if (decode->qkv[i]) decode->gpt->ops->mem_free(decode->qkv[i]);
    free(decode->ids);
    free(decode->u);
    free(decode);
}

int gpt_decode_length(const GptDecode *decode) { return decode->n; }
int gpt_decode_room(const GptDecode *decode) { return decode->max_tokens - decode->n; }
int gpt_decode_vocabulary(const GptDecode *decode) { return decode->gpt->recipe.vocab_size; }

void gpt_decode_truncate(GptDecode *decode, int n) { decode->n = n; }

// Where the document of position p begins.
static int document_start(const GptDecode *decode, int p)
{
    while (p > 0 && decode->ids[p] != decode->gpt->recipe.vocab_size - 1) p--;
    return p;
}

// The raw logits after row `row` of acts->final, to the host.
static void head_row(const GptDecode *decode, const Acts *acts, int row)
{
    const Gpt *gpt = decode->gpt;
    const Ops *ops = gpt->ops;
    const int d = gpt->recipe.width, v = gpt->recipe.vocab_padded;
    const char *x = (const char *)acts->final + (size_t)row * (size_t)d * ops->real_size;
    ops->matmul(acts->logits, x, weight_of(gpt, BANK_LM_HEAD, 0), MM_NT, 1, v, d, 1, 0);
    ops->mem_get(decode->u, acts->logits, (size_t)v * ops->real_size);
}

// The first n tokens at once.
static bool prefill(GptDecode *decode, int n, Error *err)
{
    Gpt *gpt = decode->gpt;
    Acts acts;
    int32_t *cu = malloc(((size_t)n + 1) * sizeof *cu);
    if (!cu) return fail(err, "out of memory for a prompt of %d tokens", n);
    int docs = 0;
    for (int p = 0; p < n; p++)
        if (document_start(decode, p) == p) cu[docs++] = p;
    cu[docs] = n;
    const GptBatch batch = {.ids = decode->ids, .cu = cu, .n_docs = docs, .tokens = n};
    acts_layout(&acts, gpt, n, false, gpt->arena);
    for (int i = 0; i < gpt->recipe.n_slots; i++)
        if (decode->qkv[i]) acts.slot[i].qkv = decode->qkv[i];
    put_inputs(gpt, &acts, &batch);
    trunk_forward(gpt, &acts, &batch);
    head_row(decode, &acts, n - 1);
    free(cu);
    return true;
}

// The token at position p, after those before it.
static void step(GptDecode *decode, int p)
{
    Gpt *gpt = decode->gpt;
    const Ops *ops = gpt->ops;
    Acts acts;
    const GptBatch batch = {.ids = decode->ids + p, .tokens = 1};
    acts_layout(&acts, gpt, 2, false, gpt->arena); // a row before the token's own, for the smear
    acts.past = p, acts.document = document_start(decode, p);
    acts.ids++;
    acts.x0 = (char *)acts.x0 + (size_t)gpt->recipe.width * ops->real_size;
    acts.r0 = (char *)acts.r0 + ops->acc_size;
    for (int i = 0; i < gpt->recipe.n_slots; i++)
        if (decode->qkv[i]) acts.slot[i].qkv = decode->qkv[i];
    put_inputs(gpt, &acts, &batch);
    trunk_forward(gpt, &acts, &batch);
    head_row(decode, &acts, 0);
}

static void softcap(const GptDecode *decode, float *logits)
{
    const Recipe *r = &decode->gpt->recipe;
    const DType type = decode->gpt->ops->real_type;
    const float cap = (float)r->softcap, scale = (float)(-1 / r->softcap_div);
    if (type == DT_BF16)
        for (int j = 0; j < r->vocab_size; j++)
            logits[j] = f32_from_bits((uint32_t)((const uint16_t *)decode->u)[j] << 16);
    else if (type == DT_F32)
        memcpy(logits, decode->u, (size_t)r->vocab_size * sizeof *logits);
    else
        for (int j = 0; j < r->vocab_size; j++)
            logits[j] = (float)dtype_get(decode->u, type, (size_t)j);
    for (int j = 0; j < r->vocab_size; j++) logits[j] = cap / (1 + exp_f32(scale * logits[j]));
}

bool gpt_decode_append(GptDecode *decode, const int32_t *ids, int n, float *logits, Error *err)
{
    if (n < 1 || n > decode->max_tokens - decode->n)
        return fail(err, "%d more tokens: the sequence has room for %d after its %d", n,
                    decode->max_tokens - decode->n, decode->n);
    memcpy(decode->ids + decode->n, ids, (size_t)n * sizeof *ids);
    if (decode->n == 0) {
        if (!prefill(decode, n, err)) return false;
    } else {
        for (int i = 0; i < n; i++) step(decode, decode->n + i);
    }
    decode->n += n;
    softcap(decode, logits);
    return true;
}
