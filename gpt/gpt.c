// Forward and backward of the model, top to bottom, over the operations of ops.h and the recipe's
// layer table (specification 2 and 3). Backward visits the same lines in reverse.
#include "internal.h"

#include <stdlib.h>

// fp8 scales of the head's operands (specification 2.7): a normed activation reaches sqrt(D) at
// most.
static double head_x_scale(const Recipe *r) { return sqrt((double)r->width) / 448; }
static const double head_w_scale = 0x1p-9, head_g_scale = 1.0 / 448;

static void *rows(const Gpt *gpt, void *base, int row, int width)
{
    return (char *)base + (ptrdiff_t)row * width * (ptrdiff_t)gpt->ops->real_size;
}

static void before_layer(const Gpt *gpt, int slot)
{
    if (gpt->hooks.before_layer) hook(gpt, (HookCall){-1, slot});
}

static void grads_final(const Gpt *gpt, BankId id, int end)
{
    if (gpt->hooks.grads_final) hook(gpt, (HookCall){(int)id, end});
}

// Tokens of a sequence: a call of an operation that knows positions is for one.
static int sequence_of(const GptBatch *batch)
{
    return batch->sequence > 0 ? batch->sequence : batch->tokens;
}

static void *sums(const Gpt *gpt, void *base, int row) // of a (T) tensor of float_acc
{
    return (char *)base + (ptrdiff_t)row * (ptrdiff_t)gpt->ops->acc_size;
}

// ---- forward -----------------------------------------------------------------------------------

static void attention_forward(const Gpt *gpt, const Acts *acts, int slot, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const SlotActs *s = &acts->slot[slot];
    const LayerSlot *layer = &r->slot[slot];
    const int t = batch->tokens, d = r->width, h = r->heads, hd = r->head_dim;
    const int q = gpt_matrix_index(gpt, BANK_ATTN, slot);
    const void *ve =
        layer->value_embed < 0 ? NULL : weight_of(gpt, BANK_VALUE_EMBED, layer->value_embed);
    const int32_t *window =
        layer->long_window ? &gpt->device_step->window_long : &gpt->device_step->window_short;

    const size_t turn = (size_t)acts->past * (size_t)r->rotary_active * ops->acc_size;

    ops->matmul(s->qkv_lin, s->attn_in, weight_of(gpt, BANK_ATTN, q), MM_NT, t, 3 * d, d, 1, 0);
    for (int at = 0, n = sequence_of(batch); at < t; at += n)
        ops->qkv_forward(rows(gpt, s->qkv, acts->past + at, 3 * d),
                         rows(gpt, s->qkv_lin, at, 3 * d), (char *)gpt->rotary_cos + turn,
                         (char *)gpt->rotary_sin + turn, r->rotary_active,
                         scalar_weight(gpt, recipe_value_lambda(r, slot)), ve, acts->ids + at, n, h,
                         hd, r->norm_eps);
    if (acts->past)
        ops->attention_decode(s->o, s->qkv, acts->past, acts->document, window,
                              &gpt->device_step->attn_scale, h, hd);
    else
        ops->attention_forward(s->o, s->lse, s->qkv, acts->cu, acts->n_docs, window,
                               &gpt->device_step->attn_scale, t, h, hd);
    ops->gate_forward(s->y, s->o, s->attn_in, weight_of(gpt, BANK_ATTN_GATE, q / 4), t, h, hd,
                      r->gate_channels);
    ops->matmul(s->x, s->y, weight_of(gpt, BANK_ATTN, q + 3), MM_NT, t, d, d, 1, 1);
}

static void mlp_forward(const Gpt *gpt, const Acts *acts, int slot, int t)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const SlotActs *s = &acts->slot[slot];
    const int fc = gpt_matrix_index(gpt, BANK_MLP, slot);

    ops->matmul(s->h, s->mlp_in, weight_of(gpt, BANK_MLP, fc), MM_NN, t, r->hidden, r->width, 1, 0);
    ops->relu2_forward(s->relu2, s->h, (size_t)t * (size_t)r->hidden);
    ops->matmul(s->x, s->relu2, weight_of(gpt, BANK_MLP, fc + 1), MM_NT, t, r->width, r->hidden, 1,
                1);
}

// The stream that enters a slot: the output of the slot executed before it, or x0.
static void *slot_input(const Gpt *gpt, const Acts *acts, int slot)
{
    for (int i = slot - 1; i >= 0; i--)
        if (gpt->recipe.slot[i].executed) return acts->slot[i].x;
    return acts->x0;
}

// Skip of a slot: the stream it adds and its gate among the scalars; NULLs when it has none.
static const void *slot_skip(const Gpt *gpt, const Acts *acts, int slot, const void **gate)
{
    const LayerSlot *layer = &gpt->recipe.slot[slot];
    *gate = layer->skip_from < 0 ? NULL : scalar_weight(gpt, recipe_skip_gate(&gpt->recipe, slot));
    return layer->skip_from < 0 ? NULL : acts->slot[layer->skip_from].x;
}

// Fills acts->final.
void trunk_forward(const Gpt *gpt, const Acts *acts, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const int t = batch->tokens, d = r->width;
    const int before = acts->past ? 1 : 0; // the token before, for the smear

    before_layer(gpt, -1);
    for (int at = 0, n = sequence_of(batch); at < t; at += n)
        ops->embed_forward(rows(gpt, acts->x0, at - before, d), sums(gpt, acts->r0, at - before),
                           acts->ids + at - before, weight_of(gpt, BANK_EMBED, 0),
                           weight_of(gpt, BANK_SMEAR_GATE, 0), scalar_weight(gpt, recipe_smear(r)),
                           n + before, d, r->gate_channels, r->norm_eps);
    for (int i = 0; i < r->n_slots; i++) {
        const LayerSlot *layer = &r->slot[i];
        const SlotActs *s = &acts->slot[i];
        const void *gate, *skip = slot_skip(gpt, acts, i, &gate);
        if (!layer->executed) continue;
        before_layer(gpt, i);
        ops->mix_norm_forward(s->x, layer->attention ? s->attn_in : s->mlp_in,
                              layer->attention ? s->attn_r : s->mlp_r, slot_input(gpt, acts, i),
                              skip, gate, acts->x0, scalar_weight(gpt, recipe_lambda(r, i)), t, d,
                              r->norm_eps);
        if (layer->attention) attention_forward(gpt, acts, i, batch);
        if (layer->attention && layer->mlp)
            ops->norm_forward(s->mlp_in, s->mlp_r, s->x, t, d, r->norm_eps);
        if (layer->mlp) mlp_forward(gpt, acts, i, t);
    }
    ops->backout_norm_forward(acts->final, acts->final_r, acts->slot[r->last_slot].x,
                              acts->slot[r->backout_slot].x, scalar_weight(gpt, recipe_backout(r)),
                              t, d, r->norm_eps);
    before_layer(gpt, r->n_slots);
}

// ---- head and loss -----------------------------------------------------------------------------

// Training's head on rows [first, first + n) of `final`: logits, loss and its gradient, and the two
// products of backward, which fill those rows of acts->dnorm and add to the head's gradient.
static void head_slice(const Gpt *gpt, const Acts *acts, int first, int n)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const GptBank *head = &gpt->bank[BANK_LM_HEAD];
    const int d = r->width, v = r->vocab_padded;
    const void *x = rows(gpt, acts->final, first, d);
    void *u = acts->logits, *dx = rows(gpt, acts->dnorm, first, d);

    ops->matmul(u, x, head->weight, MM_NT, n, v, d, 1, 0);
    ops->softcap_loss((char *)acts->losses + (size_t)first * ops->acc_size, u,
                      acts->targets + first, 1.0 / gpt->sequences, n, v, r->softcap,
                      r->softcap_div);
    ops->matmul(dx, u, head->weight, MM_NN, n, d, v, 1, 0);
    ops->matmul_grad(head->delta, u, x, MM_TN, v, d, n, 1, first > 0);
}

// The same with fp8 operands: fp8 products read both along the summed dimension, so that backward's
// take transposes.
static void head_slice_fp8(const Gpt *gpt, const Acts *acts, int first, int n)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const GptBank *head = &gpt->bank[BANK_LM_HEAD];
    const int d = r->width, v = r->vocab_padded;
    const double xs = head_x_scale(r), ws = head_w_scale, gs = head_g_scale;
    void *u = acts->logits, *dx = rows(gpt, acts->dnorm, first, d);

    ops->quantize(acts->x8, acts->x8t, rows(gpt, acts->final, first, d), FP8_E4M3, xs, n, d);
    ops->matmul_fp8(u, false, acts->x8, FP8_E4M3, gpt->head_w8, FP8_E4M3, n, v, d, xs * ws, 0);
    ops->softcap_loss_fp8((char *)acts->losses + (size_t)first * ops->acc_size, acts->g8, acts->g8t,
                          u, acts->targets + first, 1.0 / gpt->sequences, gs, n, v, r->softcap,
                          r->softcap_div);
    ops->matmul_fp8(dx, false, acts->g8, FP8_E5M2, gpt->head_w8t, FP8_E4M3, n, d, v, gs * ws, 0);
    ops->matmul_fp8(head->delta, true, acts->g8t, FP8_E5M2, acts->x8t, FP8_E4M3, v, d, n, xs * gs,
                    first > 0);
}

// The head and the loss, forward and backward; adds up the losses.
static void head_forward_backward(Gpt *gpt, const Acts *acts, int t)
{
    const Ops *ops = gpt->ops;
    const GptBank *head = &gpt->bank[BANK_LM_HEAD];
    const int d = gpt->recipe.width, v = gpt->recipe.vocab_padded;

    if (gpt->head_w8)
        ops->quantize(gpt->head_w8, gpt->head_w8t, head->weight, FP8_E4M3, head_w_scale, v, d);
    for (int first = 0; first < t; first += acts->head_rows) {
        const int n = t - first < acts->head_rows ? t - first : acts->head_rows;
        (gpt->head_w8 ? head_slice_fp8 : head_slice)(gpt, acts, first, n);
    }
    ops->accumulate(head->grad, head->dtype, head->delta, (size_t)v * (size_t)d);
    ops->sum(gpt->device_loss, acts->losses, (size_t)t);
}

// ---- backward ----------------------------------------------------------------------------------

// From acts->dx, the gradient of the slot's output, adds the MLP's to its matrices and leaves the
// gradient of the normed input in acts->dnorm.
static void mlp_backward(const Gpt *gpt, const Acts *acts, int slot, int t)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const SlotActs *s = &acts->slot[slot];
    const int d = r->width, f = r->hidden, fc = gpt_matrix_index(gpt, BANK_MLP, slot);

    ops->matmul(acts->dh, acts->dx, weight_of(gpt, BANK_MLP, fc + 1), MM_NN, t, f, d, 1, 0);
    ops->matmul_grad(grad_of(gpt, BANK_MLP, fc + 1), acts->dx, s->relu2, MM_TN, d, f, t, 1, 1);
    ops->relu2_backward(acts->dh, acts->dh, s->h, (size_t)t * (size_t)f);
    ops->matmul_grad(grad_of(gpt, BANK_MLP, fc), s->mlp_in, acts->dh, MM_TN, d, f, t, 1, 1);
    grads_final(gpt, BANK_MLP, fc + 2);
    ops->matmul(acts->dnorm, acts->dh, weight_of(gpt, BANK_MLP, fc), MM_NT, t, d, f, 1, 0);
}

// The same for the attention.
static void attention_backward(const Gpt *gpt, const Acts *acts, int slot, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const SlotActs *s = &acts->slot[slot];
    const LayerSlot *layer = &r->slot[slot];
    const int t = batch->tokens, d = r->width, h = r->heads, hd = r->head_dim;
    const int q = gpt_matrix_index(gpt, BANK_ATTN, slot), k = layer->value_embed;
    const int lambda = recipe_value_lambda(r, slot);
    const int32_t *window =
        layer->long_window ? &gpt->device_step->window_long : &gpt->device_step->window_short;

    ops->matmul(acts->dy, acts->dx, weight_of(gpt, BANK_ATTN, q + 3), MM_NN, t, d, d, 1, 0);
    ops->matmul_grad(grad_of(gpt, BANK_ATTN, q + 3), acts->dx, s->y, MM_TN, d, d, t, 1, 1);
    ops->mem_zero(acts->dnorm, (size_t)t * (size_t)d * ops->real_size);
    ops->gate_backward(acts->dy, acts->dnorm, delta_of(gpt, BANK_ATTN_GATE, q / 4), acts->dy, s->o,
                       s->attn_in, weight_of(gpt, BANK_ATTN_GATE, q / 4), t, h, hd,
                       r->gate_channels);
    ops->attention_backward(acts->dqkv, acts->delta, acts->dy, s->o, s->lse, s->qkv, acts->cu,
                            acts->n_docs, window, &gpt->device_step->attn_scale, t, h, hd);
    for (int at = 0, n = sequence_of(batch); at < t; at += n)
        ops->qkv_backward(
            rows(gpt, acts->dqkv_lin, at, 3 * d), scalar_delta(gpt, lambda),
            k < 0 ? NULL : rows(gpt, acts->dve[k], at, d), rows(gpt, acts->dqkv, at, 3 * d),
            rows(gpt, s->qkv_lin, at, 3 * d), gpt->rotary_cos, gpt->rotary_sin, r->rotary_active,
            scalar_weight(gpt, lambda), k < 0 ? NULL : weight_of(gpt, BANK_VALUE_EMBED, k),
            acts->ids + at, n, h, hd, r->norm_eps);
    ops->matmul_grad(grad_of(gpt, BANK_ATTN, q), acts->dqkv_lin, s->attn_in, MM_TN, 3 * d, d, t, 1,
                     1);
    grads_final(gpt, BANK_ATTN, q + 4);
    ops->matmul(acts->dnorm, acts->dqkv_lin, weight_of(gpt, BANK_ATTN, q), MM_NN, t, d, 3 * d, 1,
                1);
}

// From acts->dnorm, the gradient of `final`, back to the embeddings.
static void trunk_backward(Gpt *gpt, const Acts *acts, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const int t = batch->tokens, d = r->width;
    const size_t td = (size_t)t * (size_t)d, bytes = td * ops->real_size;

    ops->mem_zero(acts->dx0, bytes);
    for (int k = 0; k < r->n_value_embeds; k++) ops->mem_zero(acts->dve[k], bytes);
    ops->backout_norm_backward(
        acts->dx, acts->dx_back, scalar_delta(gpt, recipe_backout(r)), acts->dnorm, acts->final,
        acts->final_r, acts->slot[r->backout_slot].x, scalar_weight(gpt, recipe_backout(r)), t, d);
    for (int i = r->n_slots - 1; i >= 0; i--) {
        const LayerSlot *layer = &r->slot[i];
        const SlotActs *s = &acts->slot[i];
        const void *gate, *skip = slot_skip(gpt, acts, i, &gate);
        if (!layer->executed) continue;
        if (i == r->backout_slot) ops->add(acts->dx, acts->dx_back, td);
        if (s->dskip) ops->add(acts->dx, s->dskip, td);
        if (layer->mlp) mlp_backward(gpt, acts, i, t);
        if (layer->attention && layer->mlp)
            ops->norm_backward(acts->dx, acts->dnorm, s->mlp_in, s->mlp_r, t, d);
        if (layer->attention) attention_backward(gpt, acts, i, batch);
        ops->mix_norm_backward(acts->dx, skip ? acts->slot[layer->skip_from].dskip : NULL,
                               acts->dx0, scalar_delta(gpt, recipe_lambda(r, i)),
                               skip ? scalar_delta(gpt, recipe_skip_gate(r, i)) : NULL, acts->dnorm,
                               layer->attention ? s->attn_in : s->mlp_in,
                               layer->attention ? s->attn_r : s->mlp_r, slot_input(gpt, acts, i),
                               skip, gate, acts->x0, scalar_weight(gpt, recipe_lambda(r, i)), t, d);
    }
    ops->add(acts->dx0, acts->dx, td);
    for (int at = 0, n = sequence_of(batch); at < t; at += n)
        ops->embed_backward(rows(gpt, acts->dnorm, at, d), delta_of(gpt, BANK_SMEAR_GATE, 0),
                            scalar_delta(gpt, recipe_smear(r)), rows(gpt, acts->dx0, at, d),
                            rows(gpt, acts->x0, at, d), sums(gpt, acts->r0, at), acts->ids + at,
                            weight_of(gpt, BANK_EMBED, 0), weight_of(gpt, BANK_SMEAR_GATE, 0),
                            scalar_weight(gpt, recipe_smear(r)), n, d, r->gate_channels);
}

static void scatter_embeddings(Gpt *gpt, const Acts *acts, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const int t = batch->tokens, d = r->width;
    const GptBank *embed = &gpt->bank[BANK_EMBED], *ve = &gpt->bank[BANK_VALUE_EMBED];
    const size_t table = (size_t)ve->rows * (size_t)d * dtype_size(ve->dtype);

    ops->embed_scatter(embed->grad, embed->dtype, acts->dnorm, acts->ids, acts->order, t, d);
    for (int k = 0; k < r->n_value_embeds; k++)
        ops->embed_scatter((char *)ve->grad + (size_t)k * table, ve->dtype, acts->dve[k], acts->ids,
                           acts->order, t, d);
}

void micro_batch(Gpt *gpt, const Acts *acts, const GptBatch *batch)
{
    static const BankId small[] = {BANK_ATTN_GATE, BANK_SMEAR_GATE, BANK_SCALARS};
    enum { N_SMALL = sizeof small / sizeof *small };
    const Ops *ops = gpt->ops;
    size_t n[N_SMALL];
    for (int i = 0; i < N_SMALL; i++) {
        const GptBank *b = &gpt->bank[small[i]];
        n[i] = gpt_bank_size(b);
        ops->mem_zero(b->delta, n[i] * ops->acc_size);
    }
    ops_phase(ops, "forward");
    trunk_forward(gpt, acts, batch);
    ops_phase(ops, "head");
    head_forward_backward(gpt, acts, batch->tokens);
    grads_final(gpt, BANK_LM_HEAD, 1);
    ops_phase(ops, "backward");
    trunk_backward(gpt, acts, batch);
    scatter_embeddings(gpt, acts, batch);
    grads_final(gpt, BANK_EMBED, 1);
    grads_final(gpt, BANK_VALUE_EMBED, gpt->recipe.n_value_embeds);
    for (int i = 0; i < N_SMALL; i++) {
        const GptBank *b = &gpt->bank[small[i]];
        ops->accumulate(b->grad, b->dtype, b->delta, n[i]);
        grads_final(gpt, small[i], b->count);
    }
    ops_phase(ops, NULL);
}

// ---- public ------------------------------------------------------------------------------------

void gpt_forward_backward(Gpt *gpt, const GptBatch *batch)
{
    const Ops *ops = gpt->ops;
    const int t = batch->tokens;
    const size_t bytes = (size_t)t * sizeof(int32_t);
    Acts acts;
    acts_layout(&acts, gpt, t, true, gpt->arena);
    if (!batch->order)
        gpt_sort_ids(gpt->host_order, gpt->host_start, batch->ids, t, gpt->recipe.vocab_padded);
    put_inputs(gpt, &acts, batch);
    ops->mem_put(acts.targets, batch->targets, bytes);
    ops->mem_put(acts.order, batch->order ? batch->order : gpt->host_order, bytes);
    micro_batch_queue(gpt, &acts, batch);
    gpt->loss_tokens += t;
}

double *gpt_loss_sum(Gpt *gpt) { return gpt->device_loss; }

double gpt_loss(Gpt *gpt)
{
    const Ops *ops = gpt->ops;
    double sum;
    ops->mem_get(&sum, gpt->device_loss, sizeof sum);
    ops->mem_zero(gpt->device_loss, sizeof sum);
    const double mean = sum / (double)gpt->loss_tokens;
    gpt->loss_tokens = 0;
    return mean;
}

// Leaves the losses of evaluation mode in acts->losses.
static void evaluate(Gpt *gpt, Acts *laid, const GptBatch *batch)
{
    const Recipe *r = &gpt->recipe;
    const Ops *ops = gpt->ops;
    const int t = batch->tokens;
    acts_layout(laid, gpt, t, false, gpt->arena);
    put_inputs(gpt, laid, batch);
    const Acts acts = *laid;
    ops_phase(ops, "validation");
    trunk_forward(gpt, &acts, batch);
    ops->mem_put(acts.targets, batch->targets, (size_t)t * sizeof(int32_t));
    for (int first = 0; first < t; first += acts.head_rows) {
        const int n = t - first < acts.head_rows ? t - first : acts.head_rows;
        ops->matmul(acts.logits, rows(gpt, acts.final, first, r->width),
                    weight_of(gpt, BANK_LM_HEAD, 0), MM_NT, n, r->vocab_padded, r->width, 1, 0);
        ops->softcap_loss((char *)acts.losses + (size_t)first * ops->acc_size, acts.logits,
                          acts.targets + first, 0, n, r->vocab_padded, r->softcap, r->softcap_div);
    }
}

double gpt_evaluate(Gpt *gpt, const GptBatch *batch)
{
    const Ops *ops = gpt->ops;
    const int t = batch->tokens;
    Acts acts;
    evaluate(gpt, &acts, batch);
    double sum, *device_sum = gpt->device_loss + 1;
    ops->mem_zero(device_sum, sizeof sum);
    ops->sum(device_sum, acts.losses, (size_t)t);
    ops->mem_get(&sum, device_sum, sizeof sum);
    ops_phase(ops, NULL);
    return sum / t;
}

bool gpt_token_losses(Gpt *gpt, const GptBatch *batch, double *losses)
{
    const Ops *ops = gpt->ops;
    const size_t n = (size_t)batch->tokens;
    void *host = malloc(n * ops->acc_size);
    Acts acts;
    if (!host) return false;
    evaluate(gpt, &acts, batch);
    ops->mem_get(host, acts.losses, n * ops->acc_size);
    for (size_t p = 0; p < n; p++) losses[p] = dtype_get(host, ops->acc_type, p);
    free(host);
    return true;
}
