// Sampling: the logits of the next token are those that validation scores, and the draws follow
// them.
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

TEST(next_logits_give_the_evaluated_loss)
{
    Gpt *gpt = small_model();
    static ModelBatch m;
    float logits[128];
    double sum = 0;
    model_batch(&m, 128, (int[]){32, -1});
    for (int n = 1; n <= 32; n++) {
        CHECK(gpt_next_logits(gpt, m.ids, n, logits));
        double total = 0;
        for (int j = 0; j < 128; j++) total += exp((double)logits[j]);
        sum += log(total) - (double)logits[m.targets[n - 1]];
    }
    CHECK_NEAR(sum / 32, gpt_evaluate(gpt, &m.batch), 1e-5); // logits are floats
    gpt_free(gpt);
}

TEST(temperature_zero_takes_the_likeliest)
{
    Gpt *gpt = small_model();
    char text[24];
    float logits[128];
    int32_t ids[25] = {127};
    const int n = sample_document(gpt, 1, 0, 24, text);
    CHECK(n > 0 && n <= 24);
    for (int i = 0; i < n; i++) {
        CHECK(gpt_next_logits(gpt, ids, i + 1, logits));
        int best = 0;
        for (int j = 1; j < 128; j++)
            if (logits[j] > logits[best]) best = j;
        CHECK(best == text[i] && best != 127, "byte %d: %d, not %d", i, text[i], best);
        ids[i + 1] = text[i];
    }
    gpt_free(gpt);
}

TEST(draws_depend_on_the_seed_alone)
{
    Gpt *gpt = small_model();
    char a[31], b[31], c[31];
    const int na = sample_document(gpt, 7, 1, 31, a), nb = sample_document(gpt, 7, 1, 31, b);
    const int nc = sample_document(gpt, 8, 1, 31, c);
    CHECK(na == nb && !memcmp(a, b, (size_t)na));
    CHECK(na != nc || memcmp(a, c, (size_t)na));
    // No more than the model's longest sequence, whatever is asked for.
    char longer[1000];
    CHECK(sample_document(gpt, 7, 1, 1000, longer) <= 31);
    gpt_free(gpt);
}

// The first token's frequencies over many seeds against its probabilities.
TEST(draws_follow_the_probabilities)
{
    enum { DRAWS = 4000 };
    Gpt *gpt = small_model();
    float logits[128];
    const int32_t bos = 127;
    int count[128] = {0};
    CHECK(gpt_next_logits(gpt, &bos, 1, logits));
    for (int i = 0; i < DRAWS; i++) {
        char c;
        const int n = sample_document(gpt, (uint64_t)i * 2654435761u, 2, 1, &c);
        count[n ? c : 127]++;
    }
    double total = 0, chi2 = 0;
    for (int j = 0; j < 128; j++) total += exp((double)logits[j] / 2);
    for (int j = 0; j < 128; j++) {
        double expected = DRAWS * exp((double)logits[j] / 2) / total;
        chi2 += (count[j] - expected) * (count[j] - expected) / expected;
    }
    CHECK(chi2 < 127 + 5 * sqrt(2 * 127.0), "chi-square %.1f on 127 degrees of freedom", chi2);
    gpt_free(gpt);
}

int main(void)
{
    RUN(next_logits_give_the_evaluated_loss);
    RUN(temperature_zero_takes_the_likeliest);
    RUN(draws_depend_on_the_seed_alone);
    RUN(draws_follow_the_probabilities);
    return TEST_SUMMARY();
}
