#include "mfu.h"

#include <math.h>
#include <string.h>

Flops mfu_peak(const char *gpu)
{
    const bool sxm =
        (strstr(gpu, "H100") || strstr(gpu, "H200")) && !strstr(gpu, "PCIe") && !strstr(gpu, "NVL");
    return sxm ? (Flops){989e12, 1979e12} : (Flops){NAN, NAN};
}

double mfu_visible_pairs(const int32_t *cu, int n_docs, int window)
{
    double pairs = 0;
    for (int i = 0; i < n_docs; i++) {
        const double n = cu[i + 1] - cu[i], seen = window + 1.0; // keys of a query at most
        pairs += n <= seen ? n * (n + 1) / 2 : seen * (seen + 1) / 2 + (n - seen) * seen;
    }
    return pairs;
}

void mfu_add(Flops *work, const Recipe *r, const GptBatch *batch, int step)
{
    const double t = batch->tokens, d = r->width;
    const double pairs[2] = {
        mfu_visible_pairs(batch->cu, batch->n_docs, recipe_short_window(r, step) * r->window_block),
        mfu_visible_pairs(batch->cu, batch->n_docs, recipe_long_window(r, step) * r->window_block)};
    for (int i = 0; i < r->n_slots; i++) {
        const LayerSlot *slot = &r->slot[i];
        if (!slot->executed) continue;
        if (slot->attention) work->bf16 += 6 * 4 * d * d * t + 12 * d * pairs[slot->long_window];
        if (slot->mlp) work->bf16 += 6 * 2 * d * r->hidden * t;
    }
    *(strcmp(r->head, "fp8") ? &work->bf16 : &work->fp8) += 6 * r->vocab_padded * d * t;
}

double mfu_ideal_seconds(Flops work, Flops peak)
{
    return work.bf16 / peak.bf16 + work.fp8 / peak.fp8;
}
