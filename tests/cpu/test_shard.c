// run/shard: what a shard yields, and how each malformed one is refused.
#include "../../run/shard.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "../shards.h"
#include "../test.h"

// ---- good shards -------------------------------------------------------------------------------

TEST(reads_tokens_bos_and_floor)
{
    uint16_t tokens[] = {7, 256, 1, 2, 256, 256, 255};
    const char *path = shards_write("good.bin", tokens, 7, 7, kByteVocab, 1234567);
    Shard shard;
    Error err = {""};
    CHECK(shard_open(&shard, path, kByteVocab, &err), "%s", err.text);
    CHECK(shard.n_tokens == 7 && memcmp(shard.tokens, tokens, sizeof tokens) == 0);
    CHECK(shard.n_bos == 3 && shard.bos[0] == 1 && shard.bos[1] == 4 && shard.bos[2] == 5);
    CHECK_NEAR(shard.floor, 1.234567, 1e-15);
    shard_close(&shard);
    CHECK(!shard.tokens && !shard.bos && !shard.map);
    shard_close(&shard);
    int64_t n = 0;
    CHECK(shard_probe(path, kByteVocab, &n, &err) && n == 7, "%s", err.text);
}

TEST(vocabulary_zero_is_gpt2)
{
    uint16_t tokens[] = {50256, 1, 50255};
    const char *path = shards_write("gpt2.bin", tokens, 3, 3, 0, 0);
    Shard shard;
    Error err = {""};
    CHECK(shard_open(&shard, path, 50257, &err), "%s", err.text);
    CHECK(shard.n_bos == 1 && shard.floor == 0);
    shard_close(&shard);
}

// The index is found block by block; here with a BOS at every distance from the blocks' borders.
TEST(index_of_many_documents)
{
    enum { kTokens = 40000 };
    uint16_t *tokens = calloc(kTokens, sizeof *tokens);
    int64_t n = 0;
    for (int64_t at = 3, step = 1; at < kTokens; at += step++ % 259 + 1, n++) tokens[at] = kByteBos;
    const char *path = shards_write("many.bin", tokens, kTokens, kTokens, kByteVocab, 0);
    Shard shard;
    Error err = {""};
    CHECK(shard_open(&shard, path, kByteVocab, &err), "%s", err.text);
    CHECK(shard.n_bos == n, "%lld of %lld", (long long)shard.n_bos, (long long)n);
    for (int64_t i = 0, d = 0; i < kTokens; i++)
        if (tokens[i] == kByteBos) CHECK(d < shard.n_bos && shard.bos[d++] == i);
    shard_close(&shard);
    free(tokens);
}

// ---- malformed ones ----------------------------------------------------------------------------

// Both ways of opening refuse, in one line with this text and the path.
static void refused(const char *path, int vocab_size, bool by_header, const char *text)
{
    Shard shard;
    Error err = {""};
    int64_t n;
    CHECK(!shard_open(&shard, path, vocab_size, &err), "%s", path);
    CHECK(strstr(err.text, text) && strstr(err.text, path) && !strchr(err.text, '\n'), "'%s'",
          err.text);
    CHECK(!shard.tokens && !shard.bos && !shard.map);
    err.text[0] = '\0';
    CHECK(shard_probe(path, vocab_size, &n, &err) == !by_header, "%s", path);
    CHECK(!by_header || strstr(err.text, text), "'%s'", err.text);
}

static const uint16_t kDoc[] = {256, 1, 2, 3};

// The good shard {256, 1, 2, 3} with one field of its header changed.
static const char *with_field(int field, int32_t value)
{
    const char *path = shards_write("field.bin", kDoc, 4, 4, kByteVocab, 0);
    FILE *file = fopen(path, "r+b");
    fseek(file, 4L * field, SEEK_SET);
    fwrite(&value, sizeof value, 1, file);
    fclose(file);
    return path;
}

TEST(refuses_wrong_headers)
{
    refused(with_field(0, 0x587a37fd), kByteVocab, true, "is not a token shard");
    refused(with_field(1, 2), kByteVocab, true, "version 2");
    refused(with_field(2, 0), kByteVocab, true, "claims 0 tokens");
    refused(with_field(2, -4), kByteVocab, true, "claims -4 tokens");
    refused(with_field(2, 5), kByteVocab, true, "truncated: it holds 4 of 5 tokens");
    refused(with_field(2, INT32_MAX), kByteVocab, true, "truncated: it holds 4 of 2147483647");
    refused(with_field(2, 3), kByteVocab, true, "too long: 1032 bytes, where 3 tokens take 1030");
    refused(with_field(3, 0), kByteVocab, true, "vocabulary of 50257 tokens, the recipe's");
    refused(with_field(3, kByteVocab), 50257, true, "vocabulary of 257 tokens, the recipe's");
    refused(with_field(3, -1), kByteVocab, true, "vocabulary of -1 tokens");
    refused(with_field(4, -1), kByteVocab, true, "floor of -1");
}

TEST(refuses_every_cut)
{
    const char *cut = shards_write("cut.bin", kDoc, 4, 4, kByteVocab, 0);
    for (off_t size = SHARD_HEADER_BYTES + 7; size >= 0; size--) {
        CHECK(truncate(cut, size) == 0);
        refused(cut, kByteVocab, true,
                size == 0                   ? "is empty"
                : size < SHARD_HEADER_BYTES ? "less than a shard's header"
                                            : "truncated");
    }
    const char *path = shards_write("odd.bin", kDoc, 4, 4, kByteVocab, 0);
    CHECK(truncate(path, SHARD_HEADER_BYTES + 9) == 0);
    refused(path, kByteVocab, true, "too long");
}

TEST(refuses_wrong_tokens)
{
    uint16_t tokens[300] = {256};
    tokens[290] = 257;
    refused(shards_write("high.bin", tokens, 300, 300, kByteVocab, 0), kByteVocab, false,
            "token 257 at position 290 is outside the vocabulary of 257");
    tokens[290] = 65535;
    refused(shards_write("high.bin", tokens, 300, 300, kByteVocab, 0), kByteVocab, false,
            "token 65535 at position 290");
    tokens[290] = tokens[0] = 255;
    refused(shards_write("nobos.bin", tokens, 300, 300, kByteVocab, 0), kByteVocab, false,
            "no BOS (token 256)");
}

TEST(refuses_what_is_no_file)
{
    refused(shards_path("absent.bin"), kByteVocab, true, strerror(ENOENT));
    refused(shards_dir, kByteVocab, true, "is a directory");
    const char *loop = shards_path("loop.bin"), *pipe = shards_path("pipe.bin");
    CHECK(symlink(loop, loop) == 0 && mkfifo(pipe, 0600) == 0);
    refused(loop, kByteVocab, true, strerror(ELOOP));
    refused(pipe, kByteVocab, true, "not a regular file");
    unlink(loop);
    unlink(pipe);
}

TEST(refuses_unreadable_file)
{
    const char *path = shards_write("secret.bin", kDoc, 4, 4, kByteVocab, 0);
    CHECK(chmod(path, 0) == 0);
    refused(path, kByteVocab, true, strerror(EACCES));
}

TEST(skip_unreadable_file_because_root_reads_all) {}

TEST(refuses_vocabularies_that_16_bits_cannot_hold)
{
    const char *path = shards_write("vocab.bin", kDoc, 4, 4, kByteVocab, 0);
    Shard shard;
    Error err = {""};
    CHECK(!shard_open(&shard, path, 65537, &err) && strstr(err.text, "65537"), "%s", err.text);
    CHECK(!shard_open(&shard, path, 1, &err) && strstr(err.text, "vocab_size 1 "), "%s", err.text);
}

// ---- patterns ----------------------------------------------------------------------------------

TEST(lists_in_byte_order)
{
    const char *name[] = {"list_000010.bin", "list_B.bin", "list_000002.bin", "list_a.bin"};
    const char *sorted[] = {"list_000002.bin", "list_000010.bin", "list_B.bin", "list_a.bin"};
    for (int i = 0; i < 4; i++) shards_write(name[i], kDoc, 4, 4, kByteVocab, 0);
    ShardList list;
    Error err = {""};
    CHECK(shard_list(&list, shards_path("list_*.bin"), &err), "%s", err.text);
    CHECK(list.count == 4);
    for (int i = 0; i < list.count; i++)
        CHECK(strcmp(strrchr(list.path[i], '/') + 1, sorted[i]) == 0, "%s", list.path[i]);
    shard_list_free(&list);
    CHECK(list.count == 0 && !list.path);
    CHECK(shard_list(&list, shards_path("list_a.bin"), &err) && list.count == 1, "%s", err.text);
    shard_list_free(&list);
}

TEST(empty_pattern_says_how_to_get_data)
{
    const char *patterns[] = {shards_path("none_*.bin"), shards_path("no/such/dir/*.bin"), ""};
    for (int i = 0; i < 3; i++) {
        ShardList list;
        Error err = {""};
        CHECK(!shard_list(&list, patterns[i], &err) && !list.path && list.count == 0);
        CHECK(strstr(err.text, patterns[i]) && strstr(err.text, "make train") &&
                  strstr(err.text, "data/fetch_fineweb.sh"),
              "'%s'", err.text);
    }
}

int main(void)
{
    shards_dir_make();
    RUN(reads_tokens_bos_and_floor);
    RUN(vocabulary_zero_is_gpt2);
    RUN(index_of_many_documents);
    RUN(refuses_wrong_headers);
    RUN(refuses_every_cut);
    RUN(refuses_wrong_tokens);
    RUN(refuses_what_is_no_file);
    if (geteuid() != 0)
        RUN(refuses_unreadable_file);
    else
        RUN(skip_unreadable_file_because_root_reads_all);
    RUN(refuses_vocabularies_that_16_bits_cannot_hold);
    RUN(lists_in_byte_order);
    RUN(empty_pattern_says_how_to_get_data);
    return TEST_SUMMARY();
}
