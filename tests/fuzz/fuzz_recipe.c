// libFuzzer target: the recipe's parsers. The first byte picks a field, the rest is its value; the
// layer table is tried more often than the others. Whatever it is, it is refused in one line, or
// the recipe that follows is consistent and survives text and back.
//   clang -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_recipe.c
//   gpt/recipe.c gpt/recipe_finish.c gpt/schedule.c ops/field.c ns.c -lm
#include "../../gpt/recipe.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void require(bool condition)
{
    if (!condition) abort();
}

static void check_slots(const Recipe *r)
{
    int attention = 0, mlp = 0, skips = 0, backouts = 0;
    for (int i = 0; i < r->n_slots; i++) {
        const LayerSlot *s = &r->slot[i];
        require(s->executed || (!s->attention && !s->mlp && !s->backout));
        require(s->skip_from < i && (s->skip_from < 0 || r->slot[s->skip_from].executed));
        require(s->value_embed < r->n_value_embeds && (s->value_embed < 0 || s->attention));
        require(s->skip_gate == (s->skip_from >= 0 ? skips : -1));
        skips += s->skip_from >= 0;
        attention += s->attention, mlp += s->mlp, backouts += s->backout;
    }
    require(r->n_slots >= 1 && r->n_slots <= RECIPE_MAX_SLOTS && r->slot[r->last_slot].executed);
    require(attention == r->n_attention && mlp == r->n_mlp && skips == r->n_skips && backouts == 1);
    require(r->slot[r->backout_slot].backout);
}

static void check_schedules(const Recipe *r)
{
    int steps[] = {
        0, 1, r->scheduled_steps / 2, r->scheduled_steps - 1, r->total_steps - 1, r->total_steps};
    for (int i = 0; i < 6; i++) {
        require(recipe_lr_factor(r, steps[i]) >= 0 && recipe_lr_factor(r, steps[i]) <= 1 + 1e-12);
        require(recipe_long_window(r, steps[i]) >= 1);
        require(recipe_momentum(r, steps[i]) == recipe_momentum(r, steps[i])); // no NaN
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Recipe recipe;
    char value[600], again[600], old[600];
    Error err = {""};
    if (size < 1 || size > 512) return 0;
    require(recipe_find(&recipe, "tiny", &err));
    memcpy(value, data + 1, size - 1);
    value[size - 1] = '\0';
    int n = 0;
    while (recipe_field(&recipe, n, old, sizeof old)) n++;
    int pick = data[0] % (2 * n);
    const char *name = recipe_field(&recipe, pick < n ? pick : 0, old, sizeof old);

    if (!recipe_set(&recipe, name, value, &err)) {
        require(err.text[0] && !strchr(err.text, '\n'));
        recipe_field(&recipe, pick < n ? pick : 0, again, sizeof again);
        require(!strcmp(old, again)); // a refusal changes nothing
        return 0;
    }
    recipe_field(&recipe, pick < n ? pick : 0, value, sizeof value);
    require(recipe_set(&recipe, name, value, &err));
    recipe_field(&recipe, pick < n ? pick : 0, again, sizeof again);
    require(!strcmp(value, again)); // text is stable
    if (!recipe_finish(&recipe, &err)) {
        require(err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    check_slots(&recipe);
    check_schedules(&recipe);
    require(recipe_finish(&recipe, &err)); // again is harmless
    return 0;
}
