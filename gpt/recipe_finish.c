// What follows from a recipe's fields: the layer table, the windows and the method parsed, sizes
// computed, and everything checked to fit together.
#include <stdlib.h>
#include <string.h>

#include "recipe.h"

enum { kMaxWindow = 65536, kVocabMultiple = 128 };

static const long long kMaxTokens = 1 << 30; // in a step, and in a window: either fits an int

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits at *text as a number, a million or more as some such; *text moves past them. -1 when there
// are none.
static int read_number(const char **text)
{
    if (!is_digit(**text)) return -1;
    int value = 0;
    for (; is_digit(**text); ++*text)
        if (value < 1000000) value = 10 * value + (**text - '0');
    return value;
}

static bool bad_slot(Error *err, int i, const char *word, int length, const char *what)
{
    return fail(err, "--layers: slot %d, \"%.*s\": %s", i, length < 40 ? length : 40, word, what);
}

// The letters of one word.
static bool parse_slot(LayerSlot *slot, int i, const char *word, int length, Error *err)
{
    *slot = (LayerSlot){.executed = true, .value_embed = -1, .skip_from = -1, .skip_gate = -1};
    if (length == 1 && word[0] == '-') {
        slot->executed = false;
        return true;
    }
    for (const char *c = word; c < word + length;) {
        bool again = false;
        switch (*c++) {
        case 's':
        case 'l':
            again = slot->attention;
            slot->attention = true;
            slot->long_window = c[-1] == 'l';
            break;
        case 'm':
            again = slot->mlp;
            slot->mlp = true;
            break;
        case 'b':
            again = slot->backout;
            slot->backout = true;
            break;
        case 'v':
            again = slot->value_embed >= 0;
            slot->value_embed = read_number(&c);
            if (slot->value_embed < 0 || slot->value_embed >= RECIPE_MAX_VALUE_EMBEDS)
                return bad_slot(err, i, word, length, "v takes a number, 0 to 7");
            break;
        case '<':
            again = slot->skip_from >= 0;
            slot->skip_from = read_number(&c);
            if (slot->skip_from < 0)
                return bad_slot(err, i, word, length, "< takes the number of a slot");
            break;
        default:
            return bad_slot(err, i, word, length, "the letters are - alone, or s l m v0..v7 <k b");
        }
        if (again) return bad_slot(err, i, word, length, "at most one each of s or l, m, v, <, b");
    }
    if (!slot->attention && !slot->mlp)
        return bad_slot(err, i, word, length,
                        "needs attention (s or l), an MLP (m), or to be - alone");
    if (slot->value_embed >= 0 && !slot->attention)
        return bad_slot(err, i, word, length, "a value embedding needs attention (s or l)");
    return true;
}

// What a slot means among those before it.
static bool place_slot(Recipe *recipe, const char *word, int length, Error *err)
{
    int i = recipe->n_slots;
    LayerSlot *slot = &recipe->slot[i];
    if (slot->skip_from >= i)
        return bad_slot(err, i, word, length, "a skip comes from an earlier slot");
    if (slot->skip_from >= 0 && !recipe->slot[slot->skip_from].executed)
        return bad_slot(err, i, word, length, "the skip comes from a slot that is not executed");
    for (int k = 0; slot->skip_from >= 0 && k < i; k++)
        if (recipe->slot[k].skip_from == slot->skip_from)
            return bad_slot(err, i, word, length, "another slot takes that skip already");
    if (slot->backout && recipe->backout_slot >= 0)
        return bad_slot(err, i, word, length, "only one slot can be the backout (b)");
    if (slot->skip_from >= 0) slot->skip_gate = recipe->n_skips++;
    if (slot->backout) recipe->backout_slot = i;
    if (slot->executed) recipe->last_slot = i;
    if (slot->value_embed >= recipe->n_value_embeds) recipe->n_value_embeds = slot->value_embed + 1;
    recipe->n_attention += slot->attention;
    recipe->n_mlp += slot->mlp;
    recipe->n_slots++;
    return true;
}

static bool parse_layers(Recipe *recipe, Error *err)
{
    recipe->n_slots = recipe->n_value_embeds = recipe->n_skips = 0;
    recipe->n_attention = recipe->n_mlp = 0;
    recipe->backout_slot = recipe->last_slot = -1;
    memset(recipe->slot, 0, sizeof recipe->slot);
    for (const char *word = recipe->layers; *(word += strspn(word, " "));) {
        int length = (int)strcspn(word, " ");
        if (recipe->n_slots == RECIPE_MAX_SLOTS)
            return fail(err, "--layers: more than %d slots", RECIPE_MAX_SLOTS);
        if (!parse_slot(&recipe->slot[recipe->n_slots], recipe->n_slots, word, length, err) ||
            !place_slot(recipe, word, length, err))
            return false;
        word += length;
    }
    if (!recipe->n_attention || !recipe->n_mlp)
        return fail(err, "--layers: no slot has %s",
                    recipe->n_attention ? "an MLP (m)" : "attention (s or l)");
    if (recipe->backout_slot < 0) return fail(err, "--layers: one slot must be the backout (b)");
    bool used[RECIPE_MAX_VALUE_EMBEDS] = {false};
    for (int i = 0; i < recipe->n_slots; i++)
        if (recipe->slot[i].value_embed >= 0) used[recipe->slot[i].value_embed] = true;
    for (int v = 0; v < recipe->n_value_embeds; v++)
        if (!used[v])
            return fail(err, "--layers: v%d is used but v%d is not", recipe->n_value_embeds - 1, v);
    return true;
}

static bool parse_windows(Recipe *recipe, Error *err)
{
    const char *c = recipe->windows;
    recipe->n_phases = 0;
    do {
        int window = read_number(&c);
        if (window < 1 || window > kMaxWindow || (*c && *c != ','))
            return fail(err, "--windows %s: entry %d is not a number of blocks: 1 to %d",
                        recipe->windows, recipe->n_phases + 1, kMaxWindow);
        if (recipe->n_phases == RECIPE_MAX_PHASES)
            return fail(err, "--windows %s: more than %d phases", recipe->windows,
                        RECIPE_MAX_PHASES);
        recipe->window[recipe->n_phases++] = window;
    } while (*c++ == ',');
    for (int i = recipe->n_phases; i < RECIPE_MAX_PHASES; i++) recipe->window[i] = 0;
    int longest = recipe->window_final > recipe->window_extension ? recipe->window_final
                                                                  : recipe->window_extension;
    for (int i = 0; i < recipe->n_phases; i++)
        if (recipe->window[i] > longest) longest = recipe->window[i];
    if ((long long)longest * recipe->window_block > kMaxTokens)
        return fail(err, "--window-block %d: a window of %d blocks is more than %lld tokens",
                    recipe->window_block, longest, kMaxTokens);
    return true;
}

static bool build_method(Recipe *recipe, Error *err)
{
    NsMethod *method = &recipe->method;
    memset(method, 0, sizeof *method);
    if (!ns_method_find(method, recipe->ortho, err)) return false;
    if (recipe->ns_norm[0] && !ns_method_set_norm(method, recipe->ns_norm, err)) return false;
    if (recipe->ns_coeffs[0] || recipe->ns_iters) {
        char table[sizeof recipe->ns_coeffs]; // a copy: the method's own name is rewritten
        snprintf(table, sizeof table, "%s",
                 recipe->ns_coeffs[0] ? recipe->ns_coeffs : method->table);
        int iterations = recipe->ns_iters ? recipe->ns_iters : method->iterations;
        if (!ns_method_set_coeffs(method, table, iterations, err)) return false;
    }
    if (!strcmp(recipe->ns_variant, "shape")) {
        if (recipe->ns_restarts[0])
            return fail(err,
                        "--ns-restarts with --ns-variant shape, which has its own: leave it out");
        ns_method_set_by_shape(method);
    } else if (recipe->ns_variant[0] || recipe->ns_restarts[0]) {
        bool gram = recipe->ns_variant[0] ? !strcmp(recipe->ns_variant, "gram") : method->gram;
        bool none = !recipe->ns_restarts[0] || !strcmp(recipe->ns_restarts, "none");
        if (!gram && !none)
            return fail(err, "--ns-restarts needs the gram variant: --ns-variant gram");
        // a method that is gram already keeps its own restarts unless told otherwise
        if (!(gram && method->gram && !recipe->ns_restarts[0]) &&
            !ns_method_set_gram(method, gram, none ? "" : recipe->ns_restarts, err))
            return false;
    }
    if (recipe->ns_eps[0] && !ns_method_set_eps(method, recipe->ns_eps, err)) return false;
    return !recipe->ns_storage[0] || ns_method_set_storage(method, recipe->ns_storage, err);
}

bool recipe_finish(Recipe *recipe, Error *err)
{
    Recipe *r = recipe;
    if (!parse_layers(r, err) || !parse_windows(r, err)) return false;
    if (r->head_dim != 64 && r->head_dim != 128)
        return fail(err, "--head-dim %d: it is 64 or 128", r->head_dim);
    r->width = r->heads * r->head_dim;
    r->hidden = r->mlp_ratio * r->width;
    r->vocab_padded = (r->vocab_size + kVocabMultiple - 1) / kVocabMultiple * kVocabMultiple;
    r->n_scalars = 5 * r->n_slots + 2;
    r->total_steps = r->scheduled_steps + r->extension_steps;
    if (r->gate_channels > r->width)
        return fail(err, "--gate-channels %d is more than the width: at most %d", r->gate_channels,
                    r->width);
    if (r->rotary_active == 0) r->rotary_active = r->head_dim / 4;
    if (r->rotary_active > r->head_dim / 2)
        return fail(err, "--rotary-active %d is more than half of a head: at most %d",
                    r->rotary_active, r->head_dim / 2);
    if (r->yarn_beta <= r->yarn_alpha)
        return fail(err, "--yarn-beta %g must be more than --yarn-alpha %g", r->yarn_beta,
                    r->yarn_alpha);
    if (r->micro_batch % r->sequence) r->sequence = r->micro_batch;
    if ((long long)r->micro_batch * r->micro_batches > kMaxTokens)
        return fail(err,
                    "--micro-batch %d times --micro-batches %d is more than %lld tokens a step",
                    r->micro_batch, r->micro_batches, kMaxTokens);
    if (!strcmp(r->head, "fp8") && r->micro_batch % 16)
        return fail(err,
                    "--micro-batch %d: with --head fp8 it is a multiple of 16 (%d is), as the "
                    "products of fp8 numbers are",
                    r->micro_batch, r->micro_batch / 16 * 16);
    if (r->val_tokens % r->val_chunk)
        return fail(err, "--val-tokens %d is not a multiple of --val-chunk %d: %lld is",
                    r->val_tokens, r->val_chunk,
                    ((long long)r->val_tokens / r->val_chunk + 1) * r->val_chunk);
    return build_method(r, err);
}
