// The built-in corpus: its grammar is unambiguous, and the parser finds from a text alone the
// probability with which the generator drew it.
#include "../../data/grammar.h"
#include "../../data/ngram.h"
#include "../../data/village.h"
#include "../test.h"

#include <stdlib.h> // free, malloc
#include <string.h> // memcmp, strlen, strstr

static struct grammar *compile(const struct grammar_line *lines, int count, char *error)
{
    error[0] = '\0';
    return grammar_compile(lines, count, error, 200);
}

static struct grammar *compile_village(void)
{
    char error[200];
    struct grammar *grammar = compile(village_lines, village_line_count, error);
    CHECK(grammar != NULL, "%s", error);
    return grammar;
}

// A text's probability, or -1 if it does not parse.
static double probability(const struct grammar *grammar, const char *text)
{
    double log_probability;
    if (!grammar_parse(grammar, text, strlen(text), &log_probability)) return -1;
    return exp(log_probability);
}

TEST(village_is_unambiguous)
{
    char witness[200] = "";
    struct grammar *grammar = compile_village();
    CHECK(grammar_prefix_free(grammar, witness, sizeof witness), "%s", witness);
    grammar_free(grammar);
}

// The proof must refuse what is ambiguous, or needs to look behind the end of a rule.
TEST(ambiguous_grammars_are_refused)
{
    static const struct grammar_line same[] = {
        {"document", 1, "<a>b"}, {"document", 1, "a<b>"}, {"a", 1, "a"}, {"b", 1, "b"}};
    static const struct grammar_line beginning[] = {
        {"document", 1, "<a><a>."}, {"a", 1, "x"}, {"a", 1, "xx"}};
    static const struct grammar_line words[] = {{"document", 1, "<a>."}, {"a", -3, "hat, ha"}};
    static const struct grammar_line forms[] = {
        {"document", 1, "<A:name>, <B:name>: <who>"},
        {"who", 1, "$A.1."},
        {"who", 1, "$B.1."},
        {"name", -3, "Ada|she, Tom|he, Ned|he"},
    };
    static const struct grammar_line by_form[] = {{"document", 1, "<A.1:name>."},
                                                  {"name", -3, "Tom|he, Ned|he"}};
    static const struct grammar_line rebound[] = {
        {"document", 1, "<A:name><B:name> <who>."},
        {"who", 1, "<A:name>$A!"},
        {"who", 1, "$B$B!"},
        {"name", -3, "p, q, r"},
    };
    static const struct {
        const struct grammar_line *lines;
        int count;
    } bad[] = {{same, 4}, {beginning, 3}, {words, 2}, {forms, 4}, {by_form, 2}, {rebound, 4}};
    for (int i = 0; i < 6; i++) {
        char error[200];
        struct grammar *grammar = compile(bad[i].lines, bad[i].count, error);
        CHECK(grammar != NULL, "%d: %s", i, error);
        if (!grammar) continue;
        CHECK(!grammar_prefix_free(grammar, error, sizeof error), "%d", i);
        grammar_free(grammar);
    }
    char error[200];
    struct grammar *grammar = compile(same, 4, error);
    CHECK(probability(grammar, "ab") == -1);
    grammar_free(grammar);
}

TEST(tables_with_mistakes_do_not_compile)
{
    static const struct grammar_line unknown[] = {{"document", 1, "<nobody>"}};
    static const struct grammar_line no_form[] = {{"document", 1, "<A:name>$A.1"},
                                                  {"name", -3, "Ada, Tom"}};
    static const struct grammar_line apart[] = {
        {"document", 1, "<a>"}, {"a", 1, "x"}, {"document", 1, "y"}};
    static const struct grammar_line unbound[] = {{"document", 1, "$A"}};
    static const struct grammar_line not_words[] = {{"document", 1, "<A:a>"}, {"a", 1, "x"}};
    static const struct grammar_line no_weight[] = {{"document", 0, "x"}};
    static const struct {
        const struct grammar_line *lines;
        int count;
    } bad[] = {{unknown, 1}, {no_form, 2},   {apart, 3},
               {unbound, 1}, {not_words, 2}, {no_weight, 1}};
    for (int i = 0; i < 6; i++) {
        char error[200];
        struct grammar *grammar = compile(bad[i].lines, bad[i].count, error);
        CHECK(grammar == NULL && error[0] != '\0', "%d", i);
        grammar_free(grammar);
    }
}

// Worked by hand. Ranks with s = 1 weigh 10000, 5000, 3333; the second name is never the first.
TEST(probabilities_are_those_of_the_choices)
{
    static const struct grammar_line lines[] = {
        {"document", 3, "<A:name> and <B:name>: <who>"},
        {"document", 1, "none"},
        {"who", 2, "<S=A>$S, $S.1!"},
        {"who", 1, "<S=B>$S, $^S.1?"},
        {"name", -1, "ada|she, tom|he, ned|he"},
    };
    char error[200];
    struct grammar *grammar = compile(lines, 5, error);
    CHECK(grammar != NULL, "%s", error);
    CHECK_NEAR(probability(grammar, "none"), 0.25, 1e-15);
    CHECK_NEAR(probability(grammar, "tom and ada: tom, he!"),
               0.75 * 5000 / 18333 * 10000 / 13333 * 2 / 3, 1e-15);
    CHECK_NEAR(probability(grammar, "ada and ned: ned, He?"),
               0.75 * 10000 / 18333 * 3333 / 8333 / 3, 1e-15);
    CHECK(probability(grammar, "ada and ada: ada, she!") == -1);
    CHECK(probability(grammar, "ada and ned: tom, he!") == -1);
    CHECK(probability(grammar, "ada and ned: ned, She?") == -1);
    CHECK(probability(grammar, "none.") == -1);

    // The generator draws with these probabilities: within five standard deviations of 20000 draws.
    struct grammar_random random = grammar_random_stream(7, 0);
    struct grammar_text text = {0};
    int none = 0, tom_ada = 0, draws = 20000;
    for (int i = 0; i < draws; i++) {
        double log_probability = 0;
        text.length = 0;
        CHECK(grammar_draw(grammar, &random, &text, &log_probability));
        none += text.length == 4;
        tom_ada += text.length > 4 && memcmp(text.bytes, "tom and ada", 11) == 0;
    }
    double p = 0.75 * 5000 / 18333 * 10000 / 13333;
    CHECK_NEAR((double)none / draws, 0.25, 5 * sqrt(0.25 * 0.75 / draws));
    CHECK_NEAR((double)tom_ada / draws, p, 5 * sqrt(p * (1 - p) / draws));
    free(text.bytes);
    grammar_free(grammar);
}

TEST(texts_give_their_probability_back)
{
    struct grammar *grammar = compile_village();
    struct grammar_random random = grammar_random_stream(20240520, 3);
    struct grammar_text text = {0};
    for (int i = 0; i < 2000; i++) {
        double drawn = 0, parsed = 0;
        text.length = 0;
        CHECK(grammar_draw(grammar, &random, &text, &drawn));
        CHECK(grammar_parse(grammar, text.bytes, text.length, &parsed), "document %d", i);
        CHECK_NEAR(parsed, drawn, 1e-9);
        for (size_t j = 0; j < text.length; j++)
            CHECK(text.bytes[j] == '\n' || (text.bytes[j] >= ' ' && text.bytes[j] <= '~'));
        // No beginning of a document is a document: its end is known from its text.
        for (size_t cut = 0; i < 20 && cut < text.length; cut++)
            CHECK(!grammar_parse(grammar, text.bytes, cut, &parsed), "document %d, %zu", i, cut);
    }
    free(text.bytes);
    grammar_free(grammar);
}

// The shard that make_corpus wrote, if it did: every document is parsed from its tokens alone, and
// their probabilities make the floor of the header.
TEST(validation_shard_has_the_floor_of_its_header)
{
    FILE *file = fopen("data/corpus/corpus_val_000000.bin", "rb");
    if (!file) {
        printf("skipped: no data/corpus/corpus_val_000000.bin\n");
        return;
    }
    static unsigned char bytes[1024 + 2 * 1000000];
    static char text[1000000];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    int32_t words[5];
    for (int i = 0; i < 5; i++)
        words[i] = (int32_t)(bytes[4 * i] | bytes[4 * i + 1] << 8 | bytes[4 * i + 2] << 16 |
                             (uint32_t)bytes[4 * i + 3] << 24);
    CHECK(words[0] == 20240520 && words[1] == 1 && words[3] == 257);
    CHECK(size == 1024 + 2 * (size_t)words[2]);

    struct grammar *grammar = compile_village();
    double sum = 0, log_probability = 0;
    size_t length = 0, count = (size - 1024) / 2;
    for (size_t i = 0; i < count; i++) {
        int token = bytes[1024 + 2 * i] | bytes[1025 + 2 * i] << 8;
        CHECK(token <= 256);
        if (token < 256) {
            text[length++] = (char)token;
            continue;
        }
        if (i == 0) continue;
        CHECK(grammar_parse(grammar, text, length, &log_probability), "before token %zu", i);
        sum -= log_probability;
        length = 0;
    }
    CHECK(length == 0, "the last token is not BOS");
    // The header rounds to a millionth.
    CHECK_NEAR(sum / (double)(count - 1), words[4] * 1e-6, 0.5e-6 + 1e-12);
    grammar_free(grammar);
}

// Witten-Bell on "aab", validated on "aab", by hand: p1(a) = (2 + 2/3) / 5, p1(b) = (1 + 2/3) / 5;
// after a came a and b, once each, so p2(w | a) = (1 + 2 p1(w)) / 4.
TEST(ngram_losses_by_hand)
{
    static const uint16_t tokens[] = {0, 0, 1};
    struct ngram_text text = {tokens, 3};
    double losses[2], a = (2 + 2 / 3.0) / 5, b = (1 + 2 / 3.0) / 5;
    CHECK(ngram_losses(&text, 1, text, 3, 2, losses));
    CHECK_NEAR(losses[0], -(log(a) + log(b)) / 2, 1e-15);
    CHECK_NEAR(losses[1], -(log((1 + 2 * a) / 4) + log((1 + 2 * b) / 4)) / 2, 1e-15);
}

int main(void)
{
    RUN(village_is_unambiguous);
    RUN(ambiguous_grammars_are_refused);
    RUN(tables_with_mistakes_do_not_compile);
    RUN(probabilities_are_those_of_the_choices);
    RUN(texts_give_their_probability_back);
    RUN(validation_shard_has_the_floor_of_its_header);
    RUN(ngram_losses_by_hand);
    return TEST_SUMMARY();
}
