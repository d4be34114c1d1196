#include "sample.h"

#include <math.h>
#include <stdlib.h>

#include "../ops/exp.h"
#include "../ops/random.h"

typedef struct {
    float weight;
    int token;
} Candidate;

// The likelier first; of equals the smaller token.
static int likelier_first(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return (x->token > y->token) - (x->token < y->token);
}

// Moves the k likeliest of n candidates to the front, in any order (Hoare's selection).
static void select_likeliest(Candidate *c, int n, int k)
{
    int low = 0, high = n - 1;
    while (low < high) {
        const Candidate pivot = c[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (likelier_first(&c[i], &pivot) < 0) i++;
            while (likelier_first(&pivot, &c[j]) < 0) j--;
            if (i > j) break;
            const Candidate swap = c[i];
            c[i++] = c[j];
            c[j--] = swap;
        }
        if (k <= j)
            high = j;
        else if (k > i)
            low = i;
        else
            return;
    }
}

static double total(const Candidate *c, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)c[i].weight;
    return sum;
}

// Draws among the candidates that top_k and top_p leave; `sum` is that of all n weights.
static int draw_restricted(const Sampler *s, const float *weight, int n, double sum, double u)
{
    Candidate *c = malloc((size_t)n * sizeof *c);
    if (!c) return -1;
    // A nucleus has no token whose probability is below (1 - top_p) / n: all such together have
    // less than what it leaves out. So few need sorting. Under top_k its share is of the k alone.
    const double least = s->top_k > 0 ? 0 : (1 - s->top_p) * sum / n;
    int count = 0;
    for (int i = 0; i < n; i++)
        if ((double)weight[i] >= least) c[count++] = (Candidate){weight[i], i};
    if (s->top_k > 0 && s->top_k < count) {
        select_likeliest(c, count, s->top_k);
        count = s->top_k;
    }
    qsort(c, (size_t)count, sizeof *c, likelier_first);
    const double enough = s->top_p * (s->top_k > 0 ? total(c, count) : sum);
    double kept = 0;
    int used = 0;
    while (used < count && (used == 0 || kept < enough)) kept += (double)c[used++].weight;
    double rest = u * kept;
    int drawn = 0;
    while (drawn + 1 < used && (rest -= (double)c[drawn].weight) >= 0) drawn++;
    const int token = c[drawn].token;
    free(c);
    return token;
}

int sample_token(Sampler *sampler, float *logits, int n)
{
    int best = 0;
    bool valid = true;
    for (int i = 0; i < n; i++) {
        valid = valid && isfinite(logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    if (!valid) return -1;
    if (sampler->temperature <= 0) return best;
    const float max = logits[best], inverse = (float)fmin(1 / sampler->temperature, 1e30);
    const double u = random_uniform(&sampler->seed);
    double sum = 0;
    for (int i = 0; i < n; i++) logits[i] = exp_f32((logits[i] - max) * inverse);
    for (int i = 0; i < n; i++) sum += (double)logits[i];
    if (sampler->top_p < 1 || (sampler->top_k > 0 && sampler->top_k < n))
        return draw_restricted(sampler, logits, n, sum, u);
    double rest = u * sum;
    for (int i = 0; i < n; i++)
        if ((rest -= (double)logits[i]) < 0) return i;
    return best;
}

bool sample_continue(GptDecode *decode, float *logits, Sampler *sampler, int max_tokens,
                     SampleEmit *emit, void *context, int *count, Error *err)
{
    const int vocab = gpt_decode_vocabulary(decode), end_of_text = vocab - 1;
    *count = 0;
    while (*count < max_tokens) {
        const int32_t token = sample_token(sampler, logits, vocab);
        if (token < 0) return fail(err, "the model's logits are not numbers, or memory is short");
        if (token == end_of_text || !emit(context, token)) break;
        if (++*count == max_tokens || gpt_decode_room(decode) == 0) break;
        if (!gpt_decode_append(decode, &token, 1, logits, err)) return false;
    }
    return true;
}
