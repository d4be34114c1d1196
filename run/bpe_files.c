#include "bpe.h"

#include "json.h"

#include <errno.h>  // errno
#include <stdlib.h> // malloc, free
#include <string.h> // memcmp, memchr, strerror

enum { kMaxVocab = 65535, kMaxFile = 1 << 28 };
static const char kEndOfText[] = "<|endoftext|>";

// What both files are read into; `slots` finds a token by its bytes.
typedef struct {
    Bpe *bpe;
    int32_t *slots; // (1 << bits) ids, -1: empty
    int bits;
    const char *name;
    Error *err;
} Reader;

// ---- bytes as the files write them
//
// A byte that is visible in Latin-1 is written as itself, the others as U+0100, U+0101 and so on.

static bool visible(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
}

// Turns text[0..size] into the bytes that it stands for, in place; the new size, or -1.
static int from_visible(char *text, size_t size)
{
    char *to = text;
    for (size_t i = 0; i < size; i++) {
        int code = (unsigned char)text[i];
        if (code >= 0x80) {
            if (i + 1 == size || code < 0xc2 || code > 0xdf || (text[i + 1] & 0xc0) != 0x80)
                return -1;
            code = (code & 0x1f) << 6 | (text[++i] & 0x3f);
        }
        int byte = code;
        if (code >= 256) {
            int hidden = code - 256;
            for (byte = 0; byte < 256; byte++)
                if (!visible(byte) && hidden-- == 0) break;
        } else if (!visible(code)) {
            return -1;
        }
        if (byte == 256) return -1;
        *to++ = (char)byte;
    }
    return (int)(to - text);
}

// ---- the tokens by their bytes

static uint32_t hash(const char *bytes, size_t size)
{
    uint32_t h = 2166136261u; // FNV-1a
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)bytes[i]) * 16777619u;
    return h;
}

// Where the id of these bytes is, or would go.
static int32_t *slot_find(const Reader *reader, const char *bytes, size_t size)
{
    const Bpe *bpe = reader->bpe;
    const uint32_t mask = (1u << reader->bits) - 1;
    for (uint32_t i = hash(bytes, size) & mask;; i = (i + 1) & mask) {
        const int32_t id = reader->slots[i];
        if (id < 0) return &reader->slots[i];
        const uint32_t start = bpe->start[id];
        if (bpe->start[id + 1] - start == size && !memcmp(bpe->bytes + start, bytes, size))
            return &reader->slots[i];
    }
}

// ---- encoder.json: {"token": id, ...}

typedef struct {
    char *bytes;
    int size;
} Token;

// Reads the object into `token` by id, which lie in `room`; *count is the number of entries.
static bool read_tokens(Json *json, Token token[kMaxVocab], int *count)
{
    *count = 0;
    if (!json_expect(json, '{')) return false;
    do {
        const char *text;
        size_t size;
        int64_t id;
        if (!json_text(json, &text, &size) || !json_expect(json, ':') || !json_size(json, &id))
            return false;
        if (id >= kMaxVocab) return json_fail(json, "an id above 65534");
        if (token[id].bytes) return json_fail(json, "an id for the second time");
        token[id].bytes = json->room - size - 1; // `text`, which we may write to
        token[id].size = from_visible(token[id].bytes, size);
        if (token[id].size <= 0) return json_fail(json, "a token that no bytes are written as");
        ++*count;
    } while (json_accept(json, ','));
    if (!json_expect(json, '}')) return false;
    json_skip_space(json);
    return json->at == json->end || json_fail(json, "something follows its end");
}

// Lays the tokens out by id and makes them known by their bytes.
static bool keep_tokens(Reader *reader, const Token *token, int count)
{
    Bpe *bpe = reader->bpe;
    if (count < 257)
        return fail(reader->err, "%.200s has %d tokens, fewer than there are bytes: fetch it again",
                    reader->name, count);
    bpe->vocab_size = count;
    bpe->n_merges = count - 257;
    uint32_t at = 0;
    for (int id = 0; id < count; id++) {
        if (!token[id].bytes)
            return fail(reader->err,
                        "%.200s has %d tokens, and none with the id %d: fetch it again",
                        reader->name, count, id);
        bpe->start[id] = at;
        memcpy(bpe->bytes + at, token[id].bytes, (size_t)token[id].size);
        at += (uint32_t)token[id].size;
        bpe->start[id + 1] = at;
        int32_t *slot = slot_find(reader, bpe->bytes + bpe->start[id], (size_t)token[id].size);
        if (*slot >= 0)
            return fail(reader->err, "%.200s has ids %d and %d for one token: fetch it again",
                        reader->name, *slot, id);
        *slot = id;
    }
    for (int byte = 0; byte < 256; byte++) {
        const char c = (char)byte;
        const int32_t id = *slot_find(reader, &c, 1);
        if (id < 0)
            return fail(reader->err, "%.200s has no token for the byte %d: fetch it again",
                        reader->name, byte);
        bpe->byte[byte] = (uint16_t)id;
    }
    const size_t last = bpe->start[count - 1], size = at - last;
    if (size != sizeof kEndOfText - 1 || memcmp(bpe->bytes + last, kEndOfText, size))
        return fail(reader->err, "the last id of %.200s is not that of %s: fetch it again",
                    reader->name, kEndOfText);
    return true;
}

static bool parse_tokens(Reader *reader, const char *text, size_t size)
{
    Token *token = calloc(kMaxVocab, sizeof *token);
    char *room = malloc(size + 1);
    reader->bpe->bytes = malloc(size + 1); // a token's bytes are not more than its letters
    reader->bpe->start = malloc((kMaxVocab + 1) * sizeof *reader->bpe->start);
    Json json = {.text = text, .at = text, .end = text + size, .room = room, .err = reader->err};
    json.name = reader->name;
    int count;
    bool ok = token && room && reader->bpe->bytes && reader->bpe->start;
    if (!ok) fail(reader->err, "no memory for the tokens of %.200s", reader->name);
    ok = ok && read_tokens(&json, token, &count) && keep_tokens(reader, token, count);
    free(token);
    free(room);
    return ok;
}

// ---- vocab.bpe: lines of two tokens

static void merges_put(Bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    const uint32_t key = left << 16 | right, mask = UINT32_MAX >> bpe->merges_shift;
    uint32_t i = key * 0x9e3779b1u >> bpe->merges_shift;
    while (bpe->merges[i] != UINT64_MAX) i = (i + 1) & mask;
    bpe->merges[i] = (uint64_t)key << 32 | rank << 16 | id;
}

// One line, in memory that may be written to. made[id]: a byte, or the result of an earlier line.
static bool parse_merge(Reader *reader, char *line, size_t size, int rank, bool *made)
{
    Bpe *bpe = reader->bpe;
    char *space = memchr(line, ' ', size);
    const char *wrong = "two tokens with one space between them are needed";
    if (space && rank < bpe->n_merges) {
        const int left_size = from_visible(line, (size_t)(space - line));
        const int right_size = from_visible(space + 1, size - (size_t)(space + 1 - line));
        if (left_size > 0 && right_size > 0) {
            const int32_t left = *slot_find(reader, line, (size_t)left_size);
            const int32_t right = *slot_find(reader, space + 1, (size_t)right_size);
            memmove(line + left_size, space + 1, (size_t)right_size);
            const int32_t id = *slot_find(reader, line, (size_t)(left_size + right_size));
            if (left >= 0 && right >= 0 && made[left] && made[right] && id >= 0 && !made[id]) {
                made[id] = true;
                merges_put(bpe, (uint32_t)left, (uint32_t)right, (uint32_t)rank, (uint32_t)id);
                return true;
            }
            wrong = "it must make a new token of the vocabulary from bytes or earlier lines'";
        }
    } else if (space) {
        wrong = "more lines than the vocabulary has tokens to be made";
    }
    return fail(reader->err, "%.200s, merge %d: %s; fetch it again", reader->name, rank + 1, wrong);
}

static bool parse_merges(Reader *reader, const char *text, size_t size)
{
    Bpe *bpe = reader->bpe;
    bpe->merges_shift = 32 - 9;
    while ((UINT32_MAX >> bpe->merges_shift) < 2 * (uint32_t)bpe->n_merges) bpe->merges_shift--;
    const size_t slots = (size_t)(UINT32_MAX >> bpe->merges_shift) + 1;
    bpe->merges = malloc(slots * sizeof *bpe->merges);
    bool *made = calloc((size_t)bpe->vocab_size, sizeof *made);
    char *copy = malloc(size + 1);
    bool ok = bpe->merges && made && copy;
    if (!ok) fail(reader->err, "no memory for the merges of %.200s", reader->name);
    if (ok) memset(bpe->merges, 0xff, slots * sizeof *bpe->merges);
    if (ok) memcpy(copy, text, size);
    for (int byte = 0; ok && byte < 256; byte++) made[bpe->byte[byte]] = true;
    int rank = 0;
    for (size_t at = 0, line = 0; ok && at < size; line++) {
        const char *end = memchr(copy + at, '\n', size - at);
        const size_t length = (end ? (size_t)(end - copy) : size) - at;
        const bool version = line == 0 && length >= 8 && !memcmp(copy, "#version", 8);
        if (!version) ok = parse_merge(reader, copy + at, length, rank++, made);
        at += length + 1;
    }
    free(made);
    free(copy);
    return ok && (rank == bpe->n_merges ||
                  fail(reader->err, "%.200s has %d merges, its vocabulary takes %d: fetch it again",
                       reader->name, rank, bpe->n_merges));
}

// ---- both

bool bpe_parse(Bpe *bpe, const char *json, size_t json_size, const char *json_name,
               const char *lines, size_t lines_size, const char *lines_name, Error *err)
{
    *bpe = (Bpe){0};
    Reader reader = {.bpe = bpe, .bits = 17, .name = json_name, .err = err};
    reader.slots = malloc(sizeof *reader.slots << reader.bits);
    bool ok = reader.slots || fail(err, "no memory for the tokens of %.200s", json_name);
    if (ok) memset(reader.slots, 0xff, sizeof *reader.slots << reader.bits);
    ok = ok && parse_tokens(&reader, json, json_size);
    reader.name = lines_name;
    ok = ok && parse_merges(&reader, lines, lines_size);
    free(reader.slots);
    if (!ok) bpe_free(bpe);
    return ok;
}

void bpe_free(Bpe *bpe)
{
    free(bpe->bytes);
    free(bpe->start);
    free(bpe->merges);
    *bpe = (Bpe){0};
}

// The whole file, for the caller to free; NULL on failure.
static char *read_file(const char *path, size_t *size, Error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fail(err, "cannot open %.250s: %s (data/fetch_gpt2_bpe.sh fetches GPT-2's tokenizer)", path,
             strerror(errno));
        return NULL;
    }
    size_t capacity = 1 << 20;
    char *text = malloc(capacity);
    *size = 0;
    while (text && *size < kMaxFile) {
        *size += fread(text + *size, 1, capacity - *size, file);
        if (*size < capacity) break;
        char *larger = realloc(text, capacity *= 2);
        if (!larger) free(text);
        text = larger;
    }
    const bool ok = text && !ferror(file) && *size < kMaxFile;
    if (!ok) {
        fail(err, "cannot read %.250s: %s", path,
             text && *size >= kMaxFile ? "too large" : strerror(errno));
        free(text);
    }
    fclose(file);
    return ok ? text : NULL;
}

bool bpe_read(Bpe *bpe, const char *folder, Error *err)
{
    *bpe = (Bpe){0};
    char json_path[4096], lines_path[4096];
    snprintf(json_path, sizeof json_path, "%s/encoder.json", folder);
    snprintf(lines_path, sizeof lines_path, "%s/vocab.bpe", folder);
    size_t json_size, lines_size;
    char *json = read_file(json_path, &json_size, err);
    char *lines = json ? read_file(lines_path, &lines_size, err) : NULL;
    const bool ok =
        lines && bpe_parse(bpe, json, json_size, json_path, lines, lines_size, lines_path, err);
    free(json);
    free(lines);
    return ok;
}
