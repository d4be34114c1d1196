// Generation with kept keys and values: its logits are those of the ordinary forward pass over the
// whole sequence, and that pass is the one that validation scores.
#include "../test.h"
#include "../../gpt/internal.h"
#include "model.h"

enum { LONGEST = 100 };

// Random tokens, every tenth or so of which begins a document.
static void random_text(int32_t *ids, int n, int vocab)
{
    for (int p = 0; p < n; p++)
        ids[p] =
            model_random() < -0.8 ? vocab - 1 : (int32_t)((model_random() + 1) / 2 * (vocab - 1));
}

static GptDecode *create(Gpt *gpt, int tokens)
{
    Error err;
    GptDecode *decode = gpt_decode_create(gpt, tokens, &err);
    if (!decode) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return decode;
}

static void append(GptDecode *decode, const int32_t *ids, int n, float *logits)
{
    Error err = {""};
    CHECK(gpt_decode_append(decode, ids, n, logits, &err), "%s", err.text);
}

// The largest difference between two raw logits, in units of the largest logit.
static double difference(const GptDecode *a, const GptDecode *b)
{
    const DType type = a->gpt->ops->real_type;
    double worst = 0, size = 0;
    for (int j = 0; j < a->gpt->recipe.vocab_padded; j++) {
        const double x = dtype_get(a->u, type, (size_t)j), y = dtype_get(b->u, type, (size_t)j);
        size = fmax(size, fabs(y));
        worst = fmax(worst, x == x ? fabs(x - y) : INFINITY);
    }
    return worst / size;
}

// Prompts of several lengths, each continued token by token, against whole passes.
static void check_model(Gpt *gpt, double tolerance)
{
    const int vocab = gpt->recipe.vocab_size, prompts[] = {1, 2, 17, 64, LONGEST - 1};
    static int32_t ids[LONGEST];
    float *logits = malloc((size_t)vocab * sizeof *logits);
    GptDecode *cached = create(gpt, LONGEST), *whole = create(gpt, LONGEST);
    for (int k = 0; k < 5; k++) {
        random_text(ids, LONGEST, vocab);
        gpt_decode_truncate(cached, 0);
        append(cached, ids, prompts[k], logits);
        double worst = 0;
        for (int n = prompts[k]; n < LONGEST; n++) {
            append(cached, ids + n, 1, logits);
            if (n % 11 && n < LONGEST - 1) continue;
            gpt_decode_truncate(whole, 0);
            append(whole, ids, n + 1, logits);
            worst = fmax(worst, difference(cached, whole));
        }
        CHECK(worst <= tolerance, "prompt of %d: logits differ by %.3g, allowed %.3g", prompts[k],
              worst, tolerance);
    }
    gpt_decode_free(cached);
    gpt_decode_free(whole);
    free(logits);
}

// Windows of 8 and 24 to 160 tokens: the short ones shut out most of a document.
static const char *const small[] = {"vocab_size", "200", "micro_batch",  "16", "val_chunk", "160",
                                    "val_tokens", "160", "window_block", "8",  "head",      "full",
                                    NULL};

static Gpt *random_model(const char *layers, int heads, int head_dim, const Ops *ops, bool real,
                         int step)
{
    Recipe recipe = model_recipe("speedrun", small);
    Error err;
    snprintf(recipe.layers, sizeof recipe.layers, "%s", layers);
    recipe.heads = heads, recipe.head_dim = head_dim;
    recipe.rotary_active = 0;
    if (!recipe_finish(&recipe, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    Gpt *gpt = model_create(&recipe, ops, real, 0);
    model_randomize(gpt, 0.2);
    gpt_set_step(gpt, step < 0 ? recipe.total_steps : step);
    return gpt;
}

static const char speedrun_layers[] = "- smv1 smv2 sm lm sm sm<5 m<4 smb<3 smv0<2 smv1<1 lmv2";

TEST(cache_in_double)
{
    const struct {
        const char *layers;
        int heads, head_dim, step;
    } cases[] = {{speedrun_layers, 1, 64, 0},
                 {speedrun_layers, 2, 64, 1470},
                 {speedrun_layers, 1, 128, -1},
                 {"smv0 - l m<2 lmbv1 sv0<0 lm", 1, 64, 800},
                 {"sm lmb sm lm", 3, 64, 2230}};
    for (int i = 0; i < 5; i++) {
        Gpt *gpt = random_model(cases[i].layers, cases[i].heads, cases[i].head_dim, &ops_cpu_f64,
                                true, cases[i].step);
        check_model(gpt, 1e-10);
        gpt_free(gpt);
    }
}

// Both passes round to floats some 40 times a slot along a path, in different orders of summing:
// independent errors of 2^-24 each, and sums over up to 512 numbers, whose roots add up.
TEST(cache_in_float)
{
    const double tolerance = 2 * 0x1p-24 * sqrt(40.0 * 12 * 512);
    Gpt *gpt = random_model(speedrun_layers, 2, 64, &ops_cpu, false, -1);
    check_model(gpt, tolerance);
    gpt_free(gpt);
}

// The sum over positions of -log softmax(logits)[target] is what validation reports. 128 tokens
// need no padding, whose logits the decoder leaves out.
TEST(logits_give_the_evaluated_loss)
{
    enum { T = 96, V = 128 };
    Recipe recipe = model_recipe("speedrun", small);
    Error err;
    recipe.vocab_size = V, recipe.heads = 1, recipe.head_dim = 64, recipe.rotary_active = 0;
    CHECK(recipe_finish(&recipe, &err));
    Gpt *gpt = model_create(&recipe, &ops_cpu_f64, true, 0);
    model_randomize(gpt, 0.2);
    int32_t ids[T + 1], cu[T + 2];
    float logits[V];
    double sum = 0;
    int docs = 0;
    random_text(ids, T + 1, V);
    GptDecode *decode = create(gpt, T);
    for (int p = 0; p < T; p++) {
        if (p == 0 || ids[p] == V - 1) cu[docs++] = p;
        append(decode, ids + p, 1, logits);
        double total = 0;
        for (int j = 0; j < V; j++) total += exp((double)logits[j]);
        sum += log(total) - (double)logits[ids[p + 1]];
    }
    cu[docs] = T;
    const GptBatch batch = {.ids = ids, .targets = ids + 1, .cu = cu, .n_docs = docs, .tokens = T};
    CHECK(docs > 3);
    CHECK_NEAR(sum / T, gpt_evaluate(gpt, &batch), 1e-5); // logits are floats of size 30
    gpt_decode_free(decode);
    gpt_free(gpt);
}

// Forgetting the end leaves the beginning as it was: same bits again.
TEST(truncated_and_continued)
{
    Gpt *gpt = random_model(speedrun_layers, 1, 64, &ops_cpu, false, 0);
    GptDecode *decode = create(gpt, 40);
    int32_t ids[40];
    float first[200], other[200], again[200];
    random_text(ids, 40, 200);
    append(decode, ids, 20, first);
    append(decode, ids + 20, 5, first);
    gpt_decode_truncate(decode, 20);
    append(decode, ids + 30, 10, other);
    gpt_decode_truncate(decode, 20);
    append(decode, ids + 20, 5, again);
    CHECK(!memcmp(first, again, sizeof first) && memcmp(first, other, sizeof first));
    CHECK(gpt_decode_length(decode) == 25 && gpt_decode_room(decode) == 15);
    gpt_decode_free(decode);
    gpt_free(gpt);
}

TEST(refusals)
{
    Gpt *gpt = random_model("sm lmb", 1, 64, &ops_cpu, false, 0);
    Error err;
    float logits[200];
    int32_t ids[20] = {0};
    CHECK(!gpt_decode_create(gpt, 161, &err) && strstr(err.text, "1 to 160"), "%s", err.text);
    CHECK(!gpt_decode_create(gpt, 0, &err));
    GptDecode *decode = create(gpt, 16);
    CHECK(!gpt_decode_append(decode, ids, 17, logits, &err) && strstr(err.text, "room for 16"));
    CHECK(!gpt_decode_append(decode, ids, 0, logits, &err));
    append(decode, ids, 16, logits);
    CHECK(!gpt_decode_append(decode, ids, 1, logits, &err) && strstr(err.text, "room for 0"));
    CHECK(gpt_decode_length(decode) == 16);
    gpt_decode_free(decode);
    gpt_free(gpt);
}

// One query of the cached attention is that row of the whole attention, in any window and document.
TEST(attention_of_one_row)
{
    enum { T = 150, H = 3, D = 64 };
    static double qkv[T * 3 * H * D], o[T * H * D], lse[T * H], row[H * D];
    const int32_t cu[] = {0, 0, 1, 70, T}, windows[] = {0, 1, 20, 63, 64, 149, 1000};
    const double scale = 0.11;
    for (int i = 0; i < T * 3 * H * D; i++) qkv[i] = 1.5 * model_random();
    for (int w = 0; w < 7; w++) {
        double worst = 0;
        ops_cpu_f64.attention_forward(o, lse, qkv, cu, 4, &windows[w], &scale, T, H, D);
        for (int p = 0; p < T; p++) {
            const int first = p < 1 ? 0 : p < 70 ? 1 : 70;
            ops_cpu_f64.attention_decode(row, qkv, p, first, &windows[w], &scale, H, D);
            for (int j = 0; j < H * D; j++) worst = fmax(worst, fabs(row[j] - o[p * H * D + j]));
        }
        CHECK_NEAR(worst, 0, 1e-14);
    }
}

int main(void)
{
    RUN(attention_of_one_row);
    RUN(cache_in_double);
    RUN(cache_in_float);
    RUN(logits_give_the_evaluated_loss);
    RUN(truncated_and_continued);
    RUN(refusals);
    return TEST_SUMMARY();
}
