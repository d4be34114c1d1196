// The whole model's gradient against finite differences, in double, for each tensor of each bank.
#include "../test.h"
#include "model.h"

// Central differences of the summed loss in single entries. With step e the truncation error is
// O(e^2 f''') and the rounding error 1e-16 f / e: e = 1e-5 leaves about 1e-9 of a loss of 1e3.
static void check_entries(Gpt *gpt, ModelBatch *m, BankId id, int samples)
{
    GptBank *b = gpt_bank(gpt, id);
    const size_t n = model_bank_size(b);
    const double e = 1e-5;
    double *w = b->param, *g = b->grad, error = 0, norm = 0;
    for (int s = 0; s < samples; s++) {
        // Rows that occur in the batch, for the tables; anything elsewhere.
        size_t i = (size_t)((model_random() + 1) / 2 * (double)n);
        if (id == BANK_EMBED || id == BANK_VALUE_EMBED) {
            size_t table = i / ((size_t)b->rows * (size_t)b->cols);
            size_t row = table * (size_t)b->rows + (size_t)m->ids[s % m->batch.tokens];
            i = row * (size_t)b->cols + i % (size_t)b->cols;
        }
        const double saved = w[i];
        double side[2];
        for (int k = 0; k < 2; k++) {
            w[i] = saved + (k ? e : -e);
            side[k] = gpt_evaluate(gpt, &m->batch) * m->batch.tokens;
        }
        w[i] = saved;
        const double difference = (side[1] - side[0]) / (2 * e);
        error += (g[i] - difference) * (g[i] - difference);
        norm += difference * difference;
    }
    CHECK(norm > 0, "bank %s has no gradient at all", b->name);
    CHECK(sqrt(error) <= 1e-5 * sqrt(norm), "bank %s: relative error %.3g", b->name,
          sqrt(error / norm));
}

static void check_model(const char *const *fields, const int *lengths)
{
    Error err;
    Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpt = gpt_create(&recipe, &ops_cpu_f64, true, 1, &err);
    if (!gpt) {
        CHECK(false, "%s", err.text);
        return;
    }
    static ModelBatch m;
    model_batch(&m, recipe.vocab_size, lengths);
    gpt_init(gpt, 1);
    model_randomize(gpt, 0.1);
    gpt_set_step(gpt, 0);
    double loss = model_loss(gpt, &m.batch);
    CHECK_NEAR(loss, gpt_evaluate(gpt, &m.batch), 1e-12);
    for (int id = 0; id < GPT_BANKS; id++) check_entries(gpt, &m, (BankId)id, 24);
    gpt_free(gpt);
}

TEST(narrow_heads_all_features)
{
    const char *fields[] = {"layers",
                            "- smv1 lmv0 m<1 smb lmv1<2",
                            "heads",
                            "2",
                            "head_dim",
                            "64",
                            "vocab_size",
                            "60",
                            "micro_batch",
                            "64",
                            "val_chunk",
                            "64",
                            "val_tokens",
                            "64",
                            "window_block",
                            "4",
                            "head",
                            "full",
                            NULL};
    check_model(fields, (int[]){1, 30, 0, 3, 29, 1, 0, -1});
}

TEST(wide_head_one_document)
{
    const char *fields[] = {"layers",     "sm m lmv0<0b", "heads",        "1",  "head_dim",  "128",
                            "vocab_size", "60",           "micro_batch",  "40", "val_chunk", "40",
                            "val_tokens", "40",           "window_block", "8",  "head",      "full",
                            NULL};
    check_model(fields, (int[]){40, -1});
}

// A batch of two sequences has the gradient of the two in turn; only the order of sums differs.
TEST(sequences_side_by_side)
{
    enum { N = 48 };
    const char *fields[] = {"layers",      "- smv1 lmv0 m<1 smb lmv1<2",
                            "vocab_size",  "60",
                            "sequence",    "48",
                            "val_chunk",   "48",
                            "val_tokens",  "48",
                            "head",        "full",
                            "micro_batch", "48",
                            NULL};
    Recipe recipe = model_recipe("tiny", fields);
    Gpt *gpt[2] = {model_create(&recipe, &ops_cpu_f64, true, 2), NULL};
    recipe.micro_batch = 2 * N;
    gpt[1] = model_create(&recipe, &ops_cpu_f64, true, 1);
    static ModelBatch m;
    model_batch(&m, recipe.vocab_size, (int[]){20, 0, 28, 0, 7, 41, -1});
    for (int k = 0; k < 2; k++) {
        model_random_state = 5;
        model_randomize(gpt[k], 0.1);
    }
    const int32_t halves[2][4] = {{0, 20, 20, 48}, {0, 0, 7, 48}};
    for (int half = 0; half < 2; half++) {
        const GptBatch batch = {.ids = m.ids + half * N,
                                .targets = m.targets + half * N,
                                .cu = halves[half],
                                .n_docs = 3,
                                .tokens = N};
        gpt_forward_backward(gpt[0], &batch);
    }
    m.batch.sequence = N;
    gpt_forward_backward(gpt[1], &m.batch);
    CHECK_NEAR(gpt_loss(gpt[0]), gpt_loss(gpt[1]), 1e-13);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *a = gpt_bank(gpt[0], (BankId)id), *b = gpt_bank(gpt[1], (BankId)id);
        double error = 0, norm = 0;
        for (size_t i = 0; i < model_bank_size(a); i++) {
            const double x = ((const double *)a->grad)[i], y = ((const double *)b->grad)[i];
            error += (x - y) * (x - y), norm += x * x;
        }
        CHECK(norm > 0 && error <= 1e-26 * norm, "bank %s: relative error %.3g", a->name,
              sqrt(error / norm));
    }
    const double apart = gpt_evaluate(gpt[1], &m.batch);
    m.batch.sequence = 0;
    CHECK(fabs(gpt_evaluate(gpt[1], &m.batch) - apart) > 1e-9, "one sequence of all is the same");
    gpt_free(gpt[0]);
    gpt_free(gpt[1]);
}

int main(void)
{
    RUN(narrow_heads_all_features);
    RUN(wide_head_one_document);
    RUN(sequences_side_by_side);
    return TEST_SUMMARY();
}
