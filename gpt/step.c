// What varies from step to step: attention windows, rotary tables under YaRN, softmax scale,
// learning rates and momentum (specification 5), put into one small structure on the device.
#include "internal.h"

#include <stdlib.h>

// Frequencies and softmax scale after all window changes up to and with `step` (specification 5.3).
// The final validation enlarges the window without an update, so `step` is capped at the last
// training step. Returns the number of windows seen, which names the tables.
int gpt_yarn(const Recipe *r, int step, bool narrow, double *omega, double *scale)
{
    const int n = r->rotary_active;
    const double pi = 3.14159265358979323846;
    int window = recipe_long_window(r, 0), phases = 1;
    for (int j = 0; j < n; j++) {
        omega[j] = n > 1 ? pow(1 / r->rotary_base, (double)j / (n - 1)) : 1;
        if (narrow) omega[j] = (double)(float)omega[j];
    }
    *scale = r->attn_scale;
    for (int s = 1; s <= step && s < r->total_steps; s++) {
        const int next = recipe_long_window(r, s);
        if (next == window) continue;
        const double shrink = (double)window / next;
        for (int j = 0; j < n; j++) {
            double turns = (double)r->window_block * window * omega[j] / (2 * pi);
            double gamma = (turns - r->yarn_alpha) / (r->yarn_beta - r->yarn_alpha);
            gamma = gamma < 0 ? 0 : gamma > 1 ? 1 : gamma;
            omega[j] *= shrink + gamma * (1 - shrink);
            if (narrow) omega[j] = (double)(float)omega[j];
        }
        *scale *= 1 + 0.2 * log((double)next / window);
        window = next;
        phases++;
    }
    return phases;
}

// cos and sin of position x frequency for all positions. Narrow tables follow the specification:
// the angle is a product in fp32 and the entries are bf16.
static void build_rotary_tables(Gpt *gpt, const double *omega)
{
    enum { ROWS = 1024 };
    const Ops *ops = gpt->ops;
    const int a = gpt->recipe.rotary_active, total = gpt_max_tokens(gpt);
    const size_t row = (size_t)a * ops->acc_size;
    char *cosines = malloc(ROWS * row), *sines = malloc(ROWS * row);
    if (!cosines || !sines) abort(); // a few hundred kilobytes
    for (int first = 0; first < total; first += ROWS) {
        const int n = total - first < ROWS ? total - first : ROWS;
        for (int p = 0; p < n; p++)
            for (int j = 0; j < a; j++) {
                size_t at = (size_t)p * (size_t)a + (size_t)j;
                double angle = (first + p) * omega[j];
                if (!gpt->real_storage) angle = (double)(float)angle;
                double c = cos(angle), s = sin(angle);
                if (!gpt->real_storage)
                    c = (double)round_bf16((float)c), s = (double)round_bf16((float)s);
                dtype_set(cosines, ops->acc_type, at, c);
                dtype_set(sines, ops->acc_type, at, s);
            }
        ops->mem_put((char *)gpt->rotary_cos + (size_t)first * row, cosines, (size_t)n * row);
        ops->mem_put((char *)gpt->rotary_sin + (size_t)first * row, sines, (size_t)n * row);
    }
    free(cosines);
    free(sines);
}

void gpt_set_step(Gpt *gpt, int step)
{
    const Recipe *r = &gpt->recipe;
    double omega[64], scale;
    const int phases = gpt_yarn(r, step, !gpt->real_storage, omega, &scale);
    if (phases != gpt->rotary_phase) {
        build_rotary_tables(gpt, omega);
        gpt->rotary_phase = phases;
    }
    const double factor = recipe_lr_factor(r, step);
    const int t = recipe_adam_count(r, step);
    const StepState state = {
        .window_short = recipe_short_window(r, step) * r->window_block,
        .window_long = recipe_long_window(r, step) * r->window_block,
        .attn_scale = scale,
        .muon_lr = r->muon_lr * factor,
        .muon_momentum = recipe_momentum(r, step),
        .muon_wd = r->muon_wd,
        .adam_alpha = t == 0 ? 0
                             : r->adam_lr * factor * sqrt(1 - pow(r->adam_beta2, t)) /
                                   (1 - pow(r->adam_beta1, t)),
    };
    gpt->ops->mem_put(gpt->device_step, &state, sizeof state);
}

const StepState *gpt_step_state(const Gpt *gpt) { return gpt->device_step; }
