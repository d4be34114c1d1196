// run/val and run/unigram: validation chunks, and the loss of token frequencies.
#include "../../run/unigram.h"
#include "../../run/val.h"

#include <string.h>

#include "../shards.h"
#include "../test.h"

static Val open_val(const ValConfig *config)
{
    Val val;
    Error err = {""};
    CHECK(val_open(&val, config, &err), "%s", err.text);
    return val;
}

static void refused(ValConfig config, const char *text)
{
    Val val;
    Error err = {""};
    CHECK(!val_open(&val, &config, &err) && strstr(err.text, text) && !strchr(err.text, '\n'),
          "'%s'", err.text);
    val_close(&val);
}

// Documents at 3, 8, 16, 17, 40; 60 tokens.
static ValConfig hand_made(uint16_t **tokens)
{
    shards_docs("val_0.bin", 3, (int[]){5, 8, 1, 23, 20}, 5, 7, tokens);
    return (ValConfig){
        .files = shards_path("val_*.bin"), .vocab_size = kByteVocab, .chunk = 8, .world = 1};
}

TEST(chunks_in_plain_order)
{
    uint16_t *tokens;
    ValConfig config = hand_made(&tokens);
    Val val = open_val(&config);
    CHECK(val.tokens == 56 && val.calls == 7); // one token more than 56 is there, not than 64
    const int32_t cu[7][5] = {{2, 0, 3, 8}, {1, 0, 8}, {2, 0, 1, 8}, {1, 0, 8},
                              {1, 0, 8},    {1, 0, 8}, {1, 0, 8}};
    for (int j = 0; j < val.calls; j++) {
        const Batch *batch = val_batch(&val, j);
        for (int i = 0; i < 8; i++)
            CHECK(batch->ids[i] == tokens[8 * j + i] && batch->targets[i] == tokens[8 * j + i + 1]);
        CHECK(batch->n_tokens == 8 && batch->n_docs == cu[j][0], "chunk %d", j);
        CHECK(memcmp(batch->cu, cu[j] + 1, ((size_t)cu[j][0] + 1) * sizeof(int32_t)) == 0,
              "chunk %d", j);
    }
    CHECK(!val_batch(&val, 7));
    CHECK(memcmp(val_targets(&val), tokens + 1, 56 * sizeof *tokens) == 0);
    val_close(&val);
    free(tokens);
}

TEST(chunk_of_bos_only_has_no_empty_sequence)
{
    uint16_t tokens[9] = {256, 256, 256, 256, 256, 256, 256, 256, 256};
    ValConfig config = {.files = shards_write("bos.bin", tokens, 9, 9, kByteVocab, 0),
                        .vocab_size = kByteVocab,
                        .chunk = 8,
                        .world = 1};
    Val val = open_val(&config);
    const Batch *batch = val_batch(&val, 0);
    CHECK(batch->n_docs == 8);
    for (int i = 0; i <= 8; i++) CHECK(batch->cu[i] == i);
    val_close(&val);
}

TEST(same_chunks_for_every_world)
{
    uint16_t *tokens;
    ValConfig config = hand_made(&tokens);
    for (config.world = 1; config.world <= 8; config.world++) {
        int seen[7] = {0};
        for (config.rank = 0; config.rank < config.world; config.rank++) {
            Val val = open_val(&config);
            CHECK(val.calls == (7 + config.world - 1) / config.world && val.tokens == 56);
            for (int call = 0; call < val.calls; call++) {
                int j = call * config.world + config.rank;
                const Batch *batch = val_batch(&val, call);
                CHECK((batch != NULL) == (j < 7));
                if (!batch) continue;
                seen[j]++;
                for (int i = 0; i < 8; i++) CHECK(batch->ids[i] == tokens[8 * j + i]);
            }
            val_close(&val);
        }
        for (int j = 0; j < 7; j++) CHECK(seen[j] == 1, "W %d, chunk %d", config.world, j);
    }
    free(tokens);
}

TEST(refuses_what_does_not_fit)
{
    ValConfig config = hand_made(NULL);
    config.tokens = 56;
    Val val = open_val(&config);
    CHECK(val.tokens == 56);
    val_close(&val);
    config.tokens = 64;
    refused(config, "holds 60 tokens, and validating on 64 needs one more than that: give a larger "
                    "file, or --val-tokens 56 at most");
    config.tokens = 20;
    refused(config, "--val-tokens 20 is not a multiple of --val-chunk 8: use 24");
    config.tokens = 0;
    config.chunk = 60;
    refused(config, "smaller --val-chunk");
    config.chunk = 59;
    val = open_val(&config);
    CHECK(val.tokens == 59 && val.calls == 1);
    val_close(&val);
    config.chunk = 0;
    refused(config, "chunk 0");
    config = hand_made(NULL);
    config.vocab_size = 50257;
    refused(config, "vocabulary of 257");
    config.files = shards_path("no_val_*.bin");
    refused(config, "no file matches");
}

TEST(only_the_first_file_is_used)
{
    uint16_t tokens[9] = {256}, damaged[9] = {300};
    shards_write("first_0.bin", tokens, 9, 9, kByteVocab, 0);
    shards_write("first_1.bin", damaged, 9, 9, kByteVocab, 0);
    ValConfig config = {
        .files = shards_path("first_*.bin"), .vocab_size = kByteVocab, .chunk = 4, .world = 1};
    Val val = open_val(&config);
    CHECK(val.tokens == 8);
    val_close(&val);
}

TEST(unigram_loss_in_closed_form)
{
    Unigram u;
    Error err;
    CHECK(unigram_open(&u, 4, &err));
    const uint16_t targets[] = {0, 1, 3};
    CHECK_NEAR(unigram_loss(&u, targets, 3), log(4), 1e-15);
    unigram_add(&u, (int32_t[]){0, 0, 1}, 3);
    unigram_add(&u, (int32_t[]){0, 1, 0, 2}, 4);
    CHECK(u.total == 7 && u.count[0] == 4 && u.count[1] == 2 && u.count[2] == 1 && !u.count[3]);
    CHECK_NEAR(unigram_loss(&u, targets, 3), -(log(4.5 / 9) + log(2.5 / 9) + log(0.5 / 9)) / 3,
               1e-14);
    unigram_close(&u);
}

int main(void)
{
    shards_dir_make();
    RUN(chunks_in_plain_order);
    RUN(chunk_of_bos_only_has_no_empty_sequence);
    RUN(same_chunks_for_every_world);
    RUN(refuses_what_does_not_fit);
    RUN(only_the_first_file_is_used);
    RUN(unigram_loss_in_closed_form);
    return TEST_SUMMARY();
}
