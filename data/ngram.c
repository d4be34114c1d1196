#include "ngram.h"

#include <math.h>   // log
#include <stdlib.h> // calloc, malloc, free

// An open-addressing table from up to seven tokens, packed nine bits each (token + 1, so that no
// key is 0), to two counts.
struct slot {
    uint64_t key;
    uint32_t count;
    uint32_t followers; // of a context: how many different tokens were seen after it
};

struct table {
    struct slot *slots;
    size_t capacity, used; // capacity is a power of two
};

static struct slot *table_slot(const struct table *table, uint64_t key)
{
    uint64_t hash = key * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(hash ^ (hash >> 32)) & (table->capacity - 1);
    while (table->slots[i].key != 0 && table->slots[i].key != key)
        i = (i + 1) & (table->capacity - 1);
    return &table->slots[i];
}

static bool table_open(struct table *table, size_t capacity)
{
    *table = (struct table){calloc(capacity, sizeof(struct slot)), capacity, 0};
    return table->slots != NULL;
}

// The key's slot, made if it was not there. NULL when memory runs out.
static struct slot *table_add(struct table *table, uint64_t key)
{
    if (2 * table->used >= table->capacity) {
        struct table larger;
        if (!table_open(&larger, 2 * table->capacity)) return NULL;
        for (size_t i = 0; i < table->capacity; i++)
            if (table->slots[i].key != 0)
                *table_slot(&larger, table->slots[i].key) = table->slots[i];
        larger.used = table->used;
        free(table->slots);
        *table = larger;
    }
    struct slot *slot = table_slot(table, key);
    if (slot->key == 0) {
        slot->key = key;
        table->used++;
    }
    return slot;
}

static uint64_t pack(const uint16_t *tokens, int count)
{
    uint64_t key = 0;
    for (int i = 0; i < count; i++) key = key << 9 | (tokens[i] + 1u);
    return key;
}

static bool count_text(struct table *grams, struct table *contexts, struct ngram_text text, int n)
{
    for (size_t i = (size_t)n - 1; i < text.count; i++) {
        const uint16_t *first = text.tokens + i - (n - 1);
        struct slot *gram = table_add(grams, pack(first, n));
        // The context of a unigram is empty; key 1 stands for it, which no packed token has.
        struct slot *context = table_add(contexts, n == 1 ? 1 : pack(first, n - 1));
        if (!gram || !context) return false;
        context->followers += gram->count == 0;
        context->count++;
        gram->count++;
    }
    return true;
}

// Witten and Bell (1991), interpolated: p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h)), with
// T(h) the number of different tokens seen after h, and h' the context h without its oldest token.
static void refine(double *probability, const struct table *grams, const struct table *contexts,
                   struct ngram_text val, int n)
{
    for (size_t i = n > 2 ? (size_t)n - 1 : 1; i < val.count; i++) {
        const uint16_t *first = val.tokens + i - (n - 1);
        const struct slot *context = table_slot(contexts, n == 1 ? 1 : pack(first, n - 1));
        if (context->count == 0) continue;
        double shorter = context->followers * probability[i];
        probability[i] = (table_slot(grams, pack(first, n))->count + shorter) /
                         ((double)context->count + context->followers);
    }
}

bool ngram_losses(const struct ngram_text *train, int train_count, struct ngram_text val,
                  int vocabulary, int order, double *losses)
{
    double *probability = malloc(val.count * sizeof *probability);
    bool good = probability != NULL;
    for (size_t i = 0; good && i < val.count; i++) probability[i] = 1.0 / vocabulary;
    for (int n = 1; good && n <= order; n++) {
        struct table grams = {0}, contexts = {0};
        good = table_open(&grams, 1 << 12) && table_open(&contexts, 1 << 12);
        for (int t = 0; good && t < train_count; t++)
            good = count_text(&grams, &contexts, train[t], n);
        if (good) {
            refine(probability, &grams, &contexts, val, n);
            double sum = 0;
            for (size_t i = 1; i < val.count; i++) sum -= log(probability[i]);
            losses[n - 1] = sum / (double)(val.count - 1);
        }
        free(grams.slots);
        free(contexts.slots);
    }
    free(probability);
    return good;
}
