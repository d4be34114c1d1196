// Small models for tests: every tensor random, since at the recipe's init most gradients vanish and
// prove nothing, and batches with documents of all kinds.
#ifndef TESTS_CPU_MODEL_H
#define TESTS_CPU_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "../../gpt/gpt.h"

static uint64_t model_random_state = 1;
static double model_random(void) // in [-1, 1)
{
    uint64_t z = model_random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1;
}

// A recipe from pairs of field and value, NULL at the end; the program stops when it is refused.
static Recipe model_recipe(const char *base, const char *const *pairs)
{
    Recipe recipe;
    Error err;
    bool ok = recipe_find(&recipe, base, &err);
    for (; ok && *pairs; pairs += 2) ok = recipe_set(&recipe, pairs[0], pairs[1], &err);
    if (!ok || !recipe_finish(&recipe, &err)) {
        fprintf(stderr, "model_recipe: %s\n", err.text);
        exit(1);
    }
    return recipe;
}

// Created and initialised at step 0; the program stops when memory is short.
static inline Gpt *model_create(const Recipe *recipe, const Ops *ops, bool real_storage,
                                int batches)
{
    Error err;
    Gpt *gpt = gpt_create(recipe, ops, real_storage, batches, &err);
    if (!gpt) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    gpt_init(gpt, 3);
    gpt_set_step(gpt, 0);
    return gpt;
}

// speedrun in all but the width, 64, and the batch.
static inline Recipe model_narrow_speedrun(const char *head)
{
    const char *fields[] = {"heads",      "1",       "head_dim", "64",        "micro_batch",
                            "128",        "max_doc", "128",      "val_chunk", "128",
                            "val_tokens", "128",     "head",     head,        NULL};
    return model_recipe("speedrun", fields);
}

static size_t model_bank_size(const GptBank *b)
{
    return (size_t)b->count * (size_t)b->rows * (size_t)b->cols;
}

// Adds +-scale noise to every parameter, so that nothing is zero or symmetric.
static inline void model_randomize(Gpt *gpt, double scale)
{
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *b = gpt_bank(gpt, (BankId)id);
        for (size_t i = 0; i < model_bank_size(b); i++)
            dtype_set(b->param, b->dtype, i,
                      dtype_get(b->param, b->dtype, i) + scale * model_random());
        gpt_load_weights(gpt, (BankId)id);
    }
}

// The mean token loss of a batch whose gradient is added.
static inline double model_loss(Gpt *gpt, const GptBatch *batch)
{
    gpt_forward_backward(gpt, batch);
    return gpt_loss(gpt);
}

typedef struct {
    int32_t ids[4096], targets[4096], cu[64];
    GptBatch batch;
} ModelBatch;

// Random tokens below `vocab` in the documents whose lengths are given, -1 at the end.
static inline void model_batch(ModelBatch *m, int vocab, const int *lengths)
{
    int t = 0, docs = 0;
    m->cu[0] = 0;
    for (; *lengths >= 0; lengths++) {
        t += *lengths;
        m->cu[++docs] = t;
    }
    for (int p = 0; p < t; p++) {
        m->ids[p] = (int32_t)((model_random() + 1) / 2 * vocab);
        m->targets[p] = (int32_t)((model_random() + 1) / 2 * vocab);
    }
    m->batch =
        (GptBatch){.ids = m->ids, .targets = m->targets, .cu = m->cu, .n_docs = docs, .tokens = t};
}

#endif
