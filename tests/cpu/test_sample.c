// Sampling: greedy generation, draws and the probabilities they follow.
#include "../test.h"
#include "../../run/sample.h"
#include "model.h"

// A model whose vocabulary needs no padding, so that the loss is a function of the logits alone.
static Gpt *small_model(void)
{
    const char *fields[] = {"layers",
                            "- smv0 m<1b lm",
                            "heads",
                            "1",
                            "head_dim",
                            "64",
                            "vocab_size",
                            "128",
                            "micro_batch",
                            "32",
                            "val_chunk",
                            "32",
                            "val_tokens",
                            "32",
                            "window_block",
                            "4",
                            "head",
                            "full",
                            NULL};
    Error err;
    Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpt = gpt_create(&recipe, &ops_cpu_f64, true, 1, &err);
    if (!gpt) return NULL;
    gpt_init(gpt, 3);
    model_randomize(gpt, 0.2);
    gpt_set_step(gpt, 0);
    return gpt;
}

// A whole document from its beginning.
static bool keep(void *context, int token)
{
    char **at = context;
    *(*at)++ = (char)token;
    return true;
}

static int document(Gpt *gpt, Sampler sampler, int max_tokens, char *text)
{
    Error err = {""};
    float logits[128];
    const int32_t bos = 127;
    int n = -1;
    GptDecode *decode = gpt_decode_create(gpt, 32, &err);
    CHECK(decode && gpt_decode_append(decode, &bos, 1, logits, &err) &&
              sample_continue(decode, logits, &sampler, max_tokens, keep, &text, &n, &err),
          "%s", err.text);
    gpt_decode_free(decode);
    return n;
}

// Greedy generation with the cache equals generation without it: a forward pass over everything for
// each token.
TEST(temperature_zero_takes_the_likeliest)
{
    Gpt *gpt = small_model();
    Error err;
    char text[24];
    float logits[128];
    int32_t ids[25] = {127};
    const int n = document(gpt, (Sampler){.top_p = 1}, 24, text);
    CHECK(n > 0 && n <= 24);
    GptDecode *decode = gpt_decode_create(gpt, 32, &err);
    for (int i = 0; i < n; i++) {
        gpt_decode_truncate(decode, 0);
        CHECK(gpt_decode_append(decode, ids, i + 1, logits, &err));
        int best = 0;
        for (int j = 1; j < 128; j++)
            if (logits[j] > logits[best]) best = j;
        CHECK(best == text[i] && best != 127, "byte %d: %d, not %d", i, text[i], best);
        ids[i + 1] = text[i];
    }
    gpt_decode_free(decode);
    gpt_free(gpt);
}

TEST(draws_depend_on_the_seed_alone)
{
    Gpt *gpt = small_model();
    char a[32], b[32], c[32];
    const Sampler seven = {.temperature = 1, .top_p = 1, .seed = 7}, eight = {1, 0, 1, 8};
    const int na = document(gpt, seven, 32, a), nb = document(gpt, seven, 32, b);
    const int nc = document(gpt, eight, 32, c);
    CHECK(na == nb && !memcmp(a, b, (size_t)na));
    CHECK(na != nc || memcmp(a, c, (size_t)na));
    // No more than the sequence's room: 32 positions, the first taken, and one token past the last.
    char longer[1000];
    CHECK(document(gpt, seven, 1000, longer) <= 32);
    gpt_free(gpt);
}

enum { DRAWS = 20000, N = 100 };

// Frequencies of draws against the probabilities of the tokens that may be drawn.
static void check_draws(Sampler sampler, const float *logits, const double *probability)
{
    int count[N] = {0}, possible = 0;
    double chi2 = 0;
    for (int i = 0; i < DRAWS; i++) {
        float copy[N];
        memcpy(copy, logits, sizeof copy);
        const int token = sample_token(&sampler, copy, N);
        CHECK(token >= 0 && token < N && probability[token] > 0, "token %d", token);
        if (token >= 0 && token < N) count[token]++;
    }
    for (int j = 0; j < N; j++) {
        const double expected = DRAWS * probability[j];
        if (probability[j] <= 0) continue;
        chi2 += (count[j] - expected) * (count[j] - expected) / expected;
        possible++;
    }
    CHECK(chi2 < possible - 1 + 5 * sqrt(2.0 * possible), "chi-square %.1f on %d", chi2,
          possible - 1);
}

// The probabilities by definition: sorted, the first k, of those the fewest that reach p.
static void expected_probabilities(const Sampler *s, const float *logits, double *probability)
{
    int order[N] = {0};
    double sum = 0, kept = 0, kept_all = 0;
    for (int i = 0; i < N; i++) {
        int at = i; // insertion sort, the likeliest first
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    const int k = s->top_k > 0 && s->top_k < N ? s->top_k : N;
    for (int i = 0; i < N; i++) probability[i] = 0;
    for (int i = 0; i < k; i++) sum += exp((double)logits[order[i]] / s->temperature);
    for (int i = 0; i < k && kept < s->top_p * sum; i++) {
        kept += probability[order[i]] = exp((double)logits[order[i]] / s->temperature);
        kept_all = kept;
    }
    for (int i = 0; i < N; i++) probability[i] /= kept_all;
}

TEST(draws_follow_the_probabilities)
{
    const Sampler samplers[] = {
        {1, 0, 1, 1}, {0.7, 0, 1, 2},  {2, 10, 1, 3},      {1, 0, 0.6, 4}, {1, 20, 0.5, 5},
        {1, 1, 1, 6}, {1, 0, 1e-9, 7}, {1, N + 5, 0.9, 8}, {1, 99, 1, 9},  {0.3, 3, 0.99, 1}};
    float logits[N];
    double probability[N];
    for (int j = 0; j < N; j++) logits[j] = (float)(2.5 * model_random());
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
        expected_probabilities(&samplers[i], logits, probability);
        check_draws(samplers[i], logits, probability);
    }
}

// Equal logits, one token, tiny temperatures, and numbers that are none.
TEST(edges_of_sampling)
{
    float equal[N], one = 3, bad[3] = {1, NAN, 2}, infinite[2] = {1, INFINITY};
    bool seen[N] = {false};
    Sampler s = {1, 0, 0.995, 3};
    for (int i = 0; i < DRAWS; i++) {
        for (int j = 0; j < N; j++) equal[j] = 7;
        seen[sample_token(&s, equal, N)] = true;
    }
    int n = 0;
    for (int j = 0; j < N; j++) n += seen[j];
    CHECK(n == N, "%d of %d equal tokens were drawn", n, N);
    CHECK(sample_token(&s, &one, 1) == 0);
    CHECK(sample_token(&s, bad, 3) == -1 && sample_token(&s, infinite, 2) == -1);
    Sampler cold = {1e-300, 0, 0.5, 1}, greedy = {0, 0, 1, 1};
    float x[3] = {1, 5, 4}, y[3] = {1, 5, 5};
    CHECK(sample_token(&cold, x, 3) == 1 && sample_token(&greedy, y, 3) == 1);
}

int main(void)
{
    RUN(temperature_zero_takes_the_likeliest);
    RUN(draws_depend_on_the_seed_alone);
    RUN(draws_follow_the_probabilities);
    RUN(edges_of_sampling);
    return TEST_SUMMARY();
}
