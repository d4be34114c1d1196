// Where every activation lies. Training keeps what backward needs; evaluation reuses one set of
// buffers for all slots and keeps only the streams that a later skip or the backout reads.
#include "internal.h"

typedef struct {
    char *base;
    size_t used;
} Arena;

static void *take(Arena *arena, size_t bytes)
{
    void *p = arena->base ? arena->base + arena->used : NULL;
    arena->used += (bytes + 255) / 256 * 256;
    return p;
}

static bool is_skip_source(const Recipe *r, int slot)
{
    for (int i = 0; i < r->n_slots; i++)
        if (r->slot[i].executed && r->slot[i].skip_from == slot) return true;
    return false;
}

// Rows of logits in one slice.
static int head_slice_rows(const Gpt *gpt, int tokens)
{
    int rows = (int)(gpt->ops->head_slice / (size_t)gpt->recipe.vocab_padded) / 16 * 16;
    if (rows < 16) rows = 16;
    return rows < tokens ? rows : tokens;
}

int acts_cu_room(const Gpt *gpt, int tokens) { return tokens + tokens / gpt->recipe.sequence + 2; }

size_t acts_layout(Acts *acts, const Gpt *gpt, int tokens, bool training, void *base)
{
    const Recipe *r = &gpt->recipe;
    const size_t t = (size_t)tokens, real = gpt->ops->real_size, acc = gpt->ops->acc_size;
    const size_t td = t * (size_t)r->width * real, tf = t * (size_t)r->hidden * real;
    const size_t th = t * (size_t)r->heads * acc;
    Arena arena = {base, 0}, *a = &arena;
    *acts = (Acts){0};
    acts->ids = take(a, t * sizeof(int32_t));
    acts->targets = take(a, t * sizeof(int32_t));
    acts->cu = take(a, (size_t)acts_cu_room(gpt, tokens) * sizeof(int32_t));
    acts->order = take(a, t * sizeof(int32_t));
    acts->x0 = take(a, td);
    acts->r0 = take(a, t * acc);
    acts->final = take(a, td);
    acts->final_r = take(a, t * acc);
    acts->head_rows = head_slice_rows(gpt, tokens);
    const size_t logits = (size_t)acts->head_rows * (size_t)r->vocab_padded;
    const size_t head_in = (size_t)acts->head_rows * (size_t)r->width;
    acts->logits = take(a, logits * real);
    if (training && gpt->head_w8) {
        const size_t fp8 = gpt->ops->fp8_size;
        acts->x8 = take(a, head_in * fp8), acts->x8t = take(a, head_in * fp8);
        acts->g8 = take(a, logits * fp8), acts->g8t = take(a, logits * fp8);
    }
    acts->losses = take(a, t * acc);

    SlotActs shared = {0};
    bool shared_taken = false;
    for (int i = 0; i < r->n_slots; i++) {
        const LayerSlot *slot = &r->slot[i];
        SlotActs *s = &acts->slot[i];
        if (!slot->executed) continue;
        if (training) {
            s->x = take(a, td);
            if (slot->attention) {
                s->attn_in = take(a, td), s->attn_r = take(a, t * acc);
                s->qkv_lin = take(a, 3 * td), s->qkv = take(a, 3 * td);
                s->o = take(a, td), s->lse = take(a, th), s->y = take(a, td);
            }
            if (slot->mlp) {
                s->mlp_in = take(a, td), s->mlp_r = take(a, t * acc);
                s->h = take(a, tf), s->relu2 = take(a, tf);
            }
            if (is_skip_source(r, i)) s->dskip = take(a, td);
            continue;
        }
        if (!shared_taken) {
            shared_taken = true;
            shared.x = take(a, td);
            shared.attn_in = shared.mlp_in = take(a, td);
            shared.attn_r = shared.mlp_r = take(a, t * acc);
            shared.qkv_lin = shared.qkv = take(a, 3 * td);
            shared.o = shared.y = take(a, td), shared.lse = take(a, th);
            shared.h = shared.relu2 = take(a, tf);
        }
        *s = shared;
        if (is_skip_source(r, i) || i == r->backout_slot) s->x = take(a, td);
    }
    if (training) {
        acts->dx = take(a, td), acts->dx0 = take(a, td);
        acts->dx_back = take(a, td), acts->dnorm = take(a, td), acts->dy = take(a, td);
        acts->dqkv = take(a, 3 * td), acts->dqkv_lin = take(a, 3 * td);
        acts->delta = take(a, th);
        acts->dh = take(a, tf);
        for (int k = 0; k < r->n_value_embeds; k++) acts->dve[k] = take(a, td);
    }
    return arena.used;
}
