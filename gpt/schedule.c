// Schedules (specification, section 5) and the layout of the scalars (section 1.2).
#include <math.h>

#include "recipe.h"

double recipe_lr_factor(const Recipe *recipe, int step)
{
    double x = fmin(0.9999, (double)step / recipe->scheduled_steps);
    if (x < 1 - recipe->cooldown_frac) return 1;
    double w = (1 - x) / recipe->cooldown_frac;
    return w + recipe->lr_floor * (1 - w);
}

double recipe_momentum(const Recipe *recipe, int step)
{
    int cooldown_start = recipe->total_steps - recipe->momentum_cooldown;
    double rise = recipe->momentum_peak - recipe->momentum_start;
    if (step < recipe->momentum_warmup)
        return recipe->momentum_start + rise * step / recipe->momentum_warmup;
    if (step > cooldown_start)
        return recipe->momentum_peak - rise * (step - cooldown_start) / recipe->momentum_cooldown;
    return recipe->momentum_peak;
}

int recipe_long_window(const Recipe *recipe, int step)
{
    if (step >= recipe->total_steps) return recipe->window_final;
    if (step >= recipe->scheduled_steps) return recipe->window_extension;
    return recipe->window[(long long)recipe->n_phases * step / recipe->scheduled_steps];
}

// The final validation enlarges the long window alone: its short one stays that of the last step.
int recipe_short_window(const Recipe *recipe, int step)
{
    const int last = recipe->total_steps - 1;
    return recipe_long_window(recipe, step < last ? step : last) / 2;
}

bool recipe_adam_updates(const Recipe *recipe, int step)
{
    return step % recipe->adam_every == recipe->adam_every - 1;
}

int recipe_adam_count(const Recipe *recipe, int step) { return (step + 1) / recipe->adam_every; }

// scalars: n_slots skip gates, of which the first n_skips are used; two lambdas a slot; two value
// lambdas a slot; smear; backout.
int recipe_skip_gate(const Recipe *recipe, int slot) { return recipe->slot[slot].skip_gate; }

int recipe_lambda(const Recipe *recipe, int slot) { return recipe->n_slots + 2 * slot; }

int recipe_value_lambda(const Recipe *recipe, int slot) { return 3 * recipe->n_slots + 2 * slot; }

int recipe_smear(const Recipe *recipe) { return 5 * recipe->n_slots; }

int recipe_backout(const Recipe *recipe) { return 5 * recipe->n_slots + 1; }
