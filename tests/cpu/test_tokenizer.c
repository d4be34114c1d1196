// The tokenizer against tiktoken's gpt2 (tests/golden/tokenizer.txt), a plain implementation of BPE
// on a vocabulary made here, and itself: every byte sequence comes back.
#include "../../run/bpe.h"
#include "../../run/pretokenize.h"
#include "../../run/tokenizer.h"
#include "../shards.h"
#include "../test.h"

static const char *gpt2_folder(void)
{
    static const char *const folders[] = {TOKENIZER_GPT2_FOLDER, "../shared/data/gpt2_bpe"};
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/vocab.bpe", folders[i]);
        if (access(path, R_OK) == 0) return folders[i];
    }
    return NULL;
}

// ---- a small vocabulary: bytes b at ids b, the results of the merges below, and the end of text

static const char *const merges[][2] = {{"a", "a"},  {"b", "c"},   {"Ġ", "a"},    {"aa", "aa"},
                                        {"aa", "b"}, {"Ġa", "bc"}, {"c", "c"},    {"aab", "bc"},
                                        {"Ċ", "Ċ"},  {"bc", "bc"}, {"aaaa", "b"}, {"Ã", "©"}};
enum { kMerges = sizeof merges / sizeof merges[0], kSmallVocab = 257 + kMerges };

// The letter that stands for a byte in the files.
static int put_byte(char *to, int byte)
{
    const int hidden = byte <= ' '   ? byte
                       : byte < 0x7f ? -1
                       : byte < 0xa1 ? byte - 0x7f + 33
                       : byte > 0xad ? -1
                       : byte < 0xad ? -1
                                     : 67;
    const int code = hidden < 0 ? byte : 256 + hidden;
    if (code < 0x80) return (void)(*to = (char)code), 1;
    to[0] = (char)(0xc0 | code >> 6);
    to[1] = (char)(0x80 | (code & 63));
    return 2;
}

static void small_files(char json[16384], char lines[1024])
{
    char *to = json;
    for (int byte = 0; byte < 256; byte++) {
        to += sprintf(to, "%s\"%s", byte ? ", " : "{", byte == '"' || byte == '\\' ? "\\" : "");
        to += put_byte(to, byte);
        to += sprintf(to, "\": %d", byte);
    }
    lines += sprintf(lines, "#version: 0.2\n");
    for (int i = 0; i < kMerges; i++) {
        to += sprintf(to, ", \"%s%s\": %d", merges[i][0], merges[i][1], 256 + i);
        lines += sprintf(lines, "%s %s\n", merges[i][0], merges[i][1]);
    }
    sprintf(to, ", \"<|endoftext|>\": %d}", 256 + kMerges);
}

static bool small_bpe(Bpe *bpe, Error *err)
{
    char json[16384], lines[1024];
    small_files(json, lines);
    return bpe_parse(bpe, json, strlen(json), "json", lines, strlen(lines), "lines", err);
}

// Byte-pair encoding as its definition reads: the first pair of the lowest rank, again and again.
static size_t naive_merge(const Bpe *bpe, const uint8_t *word, size_t n, uint16_t *ids)
{
    for (size_t i = 0; i < n; i++) ids[i] = bpe->byte[word[i]];
    for (;;) {
        uint32_t best = BPE_NONE;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const uint32_t found = bpe_find(bpe, ids[i], ids[i + 1]);
            if (found < best) best = found, at = i;
        }
        if (best == BPE_NONE) return n;
        ids[at] = (uint16_t)best;
        n--;
        for (size_t i = at + 1; i < n; i++) ids[i] = ids[i + 1];
    }
}

static void compare_merges(const Bpe *bpe, const char *letters, int rounds)
{
    enum { kMost = 2 * BPE_SHORT };
    uint64_t random = 7;
    BpeRoom room = {0};
    Error err;
    for (int round = 0; round < rounds; round++) {
        uint8_t word[kMost];
        uint16_t want[kMost], got[kMost];
        const size_t n = 1 + shards_random(&random) % (round % 2 ? BPE_SHORT : kMost);
        for (size_t i = 0; i < n; i++)
            word[i] = (uint8_t)letters[shards_random(&random) % strlen(letters)];
        const size_t count = naive_merge(bpe, word, n, want);
        size_t found = 0;
        CHECK(bpe_merge_long(bpe, &room, word, n, got, &found, &err), "%s", err.text);
        CHECK(found == count && !memcmp(got, want, 2 * count), "long, %.*s", (int)n, word);
        if (n > BPE_SHORT) continue;
        found = bpe_merge(bpe, word, n, got);
        CHECK(found == count && !memcmp(got, want, 2 * count), "short, %.*s", (int)n, word);
    }
    bpe_room_free(&room);
}

TEST(merges_equal_the_definition_of_bpe)
{
    Bpe bpe;
    Error err;
    CHECK(small_bpe(&bpe, &err), "%s", err.text);
    CHECK(bpe.vocab_size == kSmallVocab);
    compare_merges(&bpe, "aabbc \n\xc3\xa9", 4000);
    compare_merges(&bpe, "a", 300);
    bpe_free(&bpe);
    const char *folder = gpt2_folder();
    if (!folder) return;
    CHECK(bpe_read(&bpe, folder, &err), "%s", err.text);
    compare_merges(&bpe, "aaetoinsh", 1000);
    compare_merges(&bpe, "-=", 300);
    bpe_free(&bpe);
}

static void refuses(const char *what, const char *json, const char *lines)
{
    Bpe bpe;
    Error err = {""};
    const bool ok =
        bpe_parse(&bpe, json, strlen(json), "json", lines, strlen(lines), "lines", &err);
    CHECK(!ok && err.text[0] && !strchr(err.text, '\n'), "%s: %s", what, err.text);
    bpe_free(&bpe);
}

TEST(files_that_contradict_themselves_are_refused)
{
    char json[16384], lines[1024], changed[20000];
    small_files(json, lines);
    refuses("empty", "", "");
    refuses("no tokens", "{}", lines);
    refuses("not JSON", "[1]", lines);
    refuses("a merge is missing", json, "#version: 0.2\na a\n");
    snprintf(changed, sizeof changed, "%sa b\n", lines);
    refuses("a merge too many", json, changed);
    snprintf(changed, sizeof changed, "aa aa\n%s", strchr(lines, '\n') + 1);
    refuses("a token is used before it is made", json, changed);
    memcpy(changed, lines, strlen(lines) + 1);
    *strchr(changed + 14, ' ') = '_';
    refuses("a line of one word", json, changed);
    memcpy(changed, json, strlen(json) + 1);
    strcpy(strstr(changed, "<|endo"), "<|endoftexx|>\": 268}");
    refuses("no end of text", changed, lines);
    memcpy(changed, json, strlen(json) + 1);
    memcpy(strstr(changed, "\"a\": 97"), "\"a\": 98", 7);
    refuses("an id twice", changed, lines);
    snprintf(changed, sizeof changed, "%s x", json);
    refuses("something behind the object", changed, lines);
}

// ---- GPT-2's

static Encoder *encoder_of(Tokenizer **tokenizer, const char *vocab)
{
    Error err;
    *tokenizer = tokenizer_open(vocab, &err);
    CHECK(*tokenizer != NULL, "%s", err.text);
    Encoder *encoder = *tokenizer ? encoder_open(*tokenizer, &err) : NULL;
    CHECK(encoder != NULL);
    return encoder;
}

static size_t from_hex(const char *hex, char *bytes)
{
    size_t n = 0;
    unsigned byte;
    if (!strcmp(hex, "-")) return 0;
    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) bytes[n] = (char)byte;
    return n;
}

// A line of tests/golden/tokenizer.txt; whether it was one of strings.
static bool check_golden(Encoder *encoder, char *line)
{
    char *kind = strtok(line, " \n"), *hex = strtok(NULL, " \n"), bytes[256];
    if (!kind || kind[0] == '#') return false;
    const size_t unit = from_hex(hex, bytes);
    Tokens tokens = {0};
    Error err;
    if (!strcmp(kind, "string")) {
        CHECK(encoder_encode(encoder, bytes, unit, &tokens, &err), "%s", err.text);
        size_t n = 0;
        for (char *id; (id = strtok(NULL, " \n")); n++)
            CHECK(n < tokens.count && atoi(id) == tokens.ids[n], "%s", hex);
        CHECK(n == tokens.count, "%s", hex);
    } else {
        const size_t times = (size_t)atol(strtok(NULL, " ")),
                     count = (size_t)atol(strtok(NULL, " "));
        char *text = malloc(unit * times);
        for (size_t i = 0; i < times; i++) memcpy(text + i * unit, bytes, unit);
        CHECK(encoder_encode(encoder, text, unit * times, &tokens, &err), "%s", err.text);
        uint64_t hash = 0xcbf29ce484222325u;
        for (size_t i = 0; i < tokens.count; i++) hash = (hash ^ tokens.ids[i]) * 0x100000001b3u;
        CHECK(tokens.count == count, "%s x %zu: %zu tokens", hex, times, tokens.count);
        CHECK(hash == strtoull(strtok(NULL, " \n"), NULL, 16), "%s x %zu", hex, times);
        free(text);
    }
    free(tokens.ids);
    return true;
}

TEST(gpt2_equals_tiktoken)
{
    const char *folder = gpt2_folder();
    FILE *file = fopen("tests/golden/tokenizer.txt", "r");
    CHECK(file != NULL, "tests run in the root of the repository");
    if (!folder) printf("skip gpt2_equals_tiktoken: data/fetch_gpt2_bpe.sh fetches the files\n");
    if (!folder || !file) return;
    Tokenizer *tokenizer;
    Encoder *encoder = encoder_of(&tokenizer, folder);
    char line[4096];
    int lines = 0;
    while (encoder && fgets(line, sizeof line, file)) lines += check_golden(encoder, line);
    CHECK(lines > 700, "%d lines", lines);
    CHECK(tokenizer_vocab_size(tokenizer) == 50257 && tokenizer_end_of_text(tokenizer) == 50256);
    encoder_close(encoder);
    tokenizer_close(tokenizer);
    fclose(file);
}

// ---- any bytes

static void check_round_trip(const Tokenizer *tokenizer, const Tokens *tokens, const uint8_t *text,
                             size_t size)
{
    size_t at = 0, n;
    for (size_t i = 0; i < tokens->count; i++, at += n) {
        const char *bytes = tokenizer_decode(tokenizer, tokens->ids[i], &n);
        CHECK(n > 0 && at + n <= size && !memcmp(bytes, text + at, n));
    }
    CHECK(at == size);
}

// Bytes that are likely to be near some border of UTF-8 and of the classes.
static size_t nasty(uint64_t *random, uint8_t *text, size_t most)
{
    static const uint8_t bytes[] = {' ',  '\r', '\n', '\'', 's',  'l',  'a',  '1',
                                    '!',  0xc2, 0xa0, 0xe2, 0x80, 0x83, 0xed, 0xbf,
                                    0xf0, 0x9f, 0x98, 0xff, 0xc0, 0xf4};
    const size_t n = shards_random(random) % most;
    for (size_t i = 0; i < n; i++)
        text[i] = shards_random(random) % 4 ? bytes[shards_random(random) % sizeof bytes]
                                            : (uint8_t)shards_random(random);
    return n;
}

static void round_trips(const char *vocab, int rounds)
{
    Tokenizer *tokenizer;
    Encoder *encoder = encoder_of(&tokenizer, vocab);
    uint64_t random = 11;
    Error err;
    for (int round = 0; encoder && round < rounds; round++) {
        uint8_t text[400];
        const size_t size = nasty(&random, text, sizeof text);
        Tokens whole = {0}, pieces = {0};
        CHECK(encoder_encode(encoder, text, size, &whole, &err), "%s", err.text);
        check_round_trip(tokenizer, &whole, text, size);
        const size_t cut = pretokenize_cut(text, 0, size);
        CHECK(encoder_encode(encoder, text, cut, &pieces, &err), "%s", err.text);
        CHECK(encoder_encode(encoder, text + cut, size - cut, &pieces, &err), "%s", err.text);
        CHECK(pieces.count == whole.count && !memcmp(pieces.ids, whole.ids, 2 * whole.count),
              "cut at %zu of %zu", cut, size);
        free(whole.ids);
        free(pieces.ids);
    }
    encoder_close(encoder);
    tokenizer_close(tokenizer);
}

TEST(any_bytes_come_back_and_cuts_change_nothing)
{
    round_trips("bytes", 200);
    if (gpt2_folder())
        round_trips(gpt2_folder(), 5000);
    else
        printf("skip round trips of GPT-2's vocabulary: data/fetch_gpt2_bpe.sh fetches it\n");
}

TEST(cuts_come_before_a_space_that_none_precedes)
{
    static const struct {
        const char *text;
        size_t cut;
    } cases[] = {{"\xe6\x97\xa5\xe3\x80\x82\nb", 6}, // an ideographic full stop
                 {"\xe6\x97\xa5\xe3\x80\x80\nb", 0}, // an ideographic space
                 {"a\xc2\xa0 b", 0},
                 {"a\xe2\x80\x83\nb", 0},
                 {"ab\r\nc", 2},
                 {"\x80\x80\x80\x80\x80 a", 5},
                 {"\xc2 a", 1},
                 {"\xe2\x80 a", 2},
                 {"a  b", 1},
                 {"a\t b", 0},
                 {" a", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint8_t *text = (const uint8_t *)cases[i].text;
        const size_t cut = pretokenize_cut(text, 0, strlen(cases[i].text));
        CHECK(cut == cases[i].cut, "case %zu: %zu", i, cut);
    }
}

TEST(words_end_where_the_pattern_says)
{
    static const struct {
        const char *text;
        size_t ends[6];
    } cases[] = {{"we've  a", {2, 5, 6, 8}}, {"a \n", {1, 3}},         {"x\xc2\xa0y", {1, 3, 4}},
                 {" 12a!", {3, 4, 5}},       {"\xff\xff a", {2, 4}},   {"''s", {2, 3}},
                 {"\xe6\x97\xa5 1", {3, 5}}, {"\xed\xa0\x80z", {3, 4}}};
    uint8_t *kinds = pretokenize_kinds();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint8_t *text = (const uint8_t *)cases[i].text, *end = text + strlen(cases[i].text);
        const uint8_t *at = text;
        for (int k = 0; at < end; k++) {
            at = pretokenize(kinds, at, end);
            CHECK((size_t)(at - text) == cases[i].ends[k], "case %zu, word %d", i, k);
        }
    }
    free(kinds);
}

TEST(a_tokenizer_goes_with_a_vocabulary)
{
    Error err = {""};
    Tokenizer *tokenizer = tokenizer_for(257, &err);
    CHECK(tokenizer != NULL, "%s", err.text);
    if (!tokenizer) return;
    CHECK(tokenizer_vocab_size(tokenizer) == 257);
    CHECK(tokenizer_end_of_text(tokenizer) == 256);
    size_t n = 7;
    tokenizer_decode(tokenizer, 256, &n);
    CHECK(n == 0);
    CHECK(*tokenizer_decode(tokenizer, 'x', &n) == 'x' && n == 1);
    tokenizer_close(tokenizer);
    tokenizer_close(NULL);
    CHECK(!tokenizer_for(1000, &err) && err.text[0]);
    CHECK(!tokenizer_open("/nowhere", &err) && strstr(err.text, "/nowhere"));
}

int main(void)
{
    RUN(merges_equal_the_definition_of_bpe);
    RUN(files_that_contradict_themselves_are_refused);
    RUN(gpt2_equals_tiktoken);
    RUN(any_bytes_come_back_and_cuts_change_nothing);
    RUN(cuts_come_before_a_space_that_none_precedes);
    RUN(words_end_where_the_pattern_says);
    RUN(a_tokenizer_goes_with_a_vocabulary);
    return TEST_SUMMARY();
}
