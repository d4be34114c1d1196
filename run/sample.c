#include "sample.h"

#include <math.h>
#include <stdlib.h>

// splitmix64; a uniform number in [0, 1).
static double random_uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// A token with probability softmax(logits / temperature); u in [0, 1) decides.
static int draw(float *logits, int n, double temperature, double u)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    if (temperature <= 0) return best;
    const double max = logits[best];
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((logits[i] - max) / temperature);
    double rest = u * sum;
    for (int i = 0; i < n; i++) {
        rest -= exp((logits[i] - max) / temperature);
        if (rest < 0) return i;
    }
    return best;
}

int sample_document(Gpt *gpt, uint64_t seed, double temperature, int max_tokens, char *text)
{
    const int vocab = gpt_recipe(gpt)->vocab_size, bos = vocab - 1;
    if (max_tokens >= gpt_max_tokens(gpt)) max_tokens = gpt_max_tokens(gpt) - 1;
    int32_t *ids = malloc(sizeof *ids * ((size_t)max_tokens + 1));
    float *logits = malloc(sizeof *logits * (size_t)vocab);
    int n = 0;
    bool ok = ids && logits;
    if (ok) ids[0] = bos;
    while (ok && n < max_tokens) {
        ok = gpt_next_logits(gpt, ids, n + 1, logits);
        if (!ok) break;
        const int token = draw(logits, vocab, temperature, random_uniform(&seed));
        if (token == bos) break;
        text[n++] = (char)token;
        ids[n] = token;
    }
    free(ids);
    free(logits);
    return ok ? n : -1;
}
