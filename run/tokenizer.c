#include "tokenizer.h"

#include "bpe.h"
#include "pretokenize.h"

#include <stdlib.h> // calloc, realloc, free
#include <string.h> // strcmp, memcpy

enum { kBytesVocab = 257 };

struct Tokenizer {
    Bpe bpe;        // its vocab_size alone when `bytes`
    uint8_t *kinds; // classes of code points, NULL when `bytes`
    char byte[256]; // the identity
};

// ---- vocabularies

Tokenizer *tokenizer_open(const char *vocab, Error *err)
{
    Tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        fail(err, "no memory for a tokenizer");
        return NULL;
    }
    for (int i = 0; i < 256; i++) tokenizer->byte[i] = (char)i;
    tokenizer->bpe.vocab_size = kBytesVocab;
    if (!strcmp(vocab, "bytes")) return tokenizer;
    tokenizer->kinds = pretokenize_kinds();
    if (tokenizer->kinds ? bpe_read(&tokenizer->bpe, vocab, err)
                         : fail(err, "no memory for a tokenizer"))
        return tokenizer;
    tokenizer_close(tokenizer);
    return NULL;
}

Tokenizer *tokenizer_for(int vocab_size, Error *err)
{
    const char *vocab = vocab_size == kBytesVocab ? "bytes" : TOKENIZER_GPT2_FOLDER;
    Tokenizer *tokenizer = tokenizer_open(vocab, err);
    if (!tokenizer || tokenizer->bpe.vocab_size == vocab_size) return tokenizer;
    fail(err, "a model of %d tokens has no tokenizer here: %s has %d, bytes have %d", vocab_size,
         vocab, tokenizer->bpe.vocab_size, kBytesVocab);
    tokenizer_close(tokenizer);
    return NULL;
}

void tokenizer_close(Tokenizer *tokenizer)
{
    if (!tokenizer) return;
    bpe_free(&tokenizer->bpe);
    free(tokenizer->kinds);
    free(tokenizer);
}

int tokenizer_vocab_size(const Tokenizer *tokenizer) { return tokenizer->bpe.vocab_size; }

int tokenizer_end_of_text(const Tokenizer *tokenizer) { return tokenizer->bpe.vocab_size - 1; }

const char *tokenizer_decode(const Tokenizer *tokenizer, int id, size_t *size)
{
    const Bpe *bpe = &tokenizer->bpe;
    *size = 0;
    if (id == bpe->vocab_size - 1) return "";
    if (!tokenizer->kinds) {
        *size = 1;
        return &tokenizer->byte[id];
    }
    *size = bpe->start[id + 1] - bpe->start[id];
    return bpe->bytes + bpe->start[id];
}

// ---- encoding

enum { kWordMax = 15, kWordTokens = 7, kWordsBits = 17 };

// A word that was merged before. Words of more bytes or tokens are merged each time.
typedef struct {
    uint64_t key[2]; // its bytes, zeros, and their number in the last byte
    uint16_t count, ids[kWordTokens];
} Word;

struct Encoder {
    const Tokenizer *tokenizer;
    Word *words; // (2^kWordsBits), each in the place of its hash
    BpeRoom room;
};

Encoder *encoder_open(const Tokenizer *tokenizer, Error *err)
{
    Encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder) encoder->words = calloc((size_t)1 << kWordsBits, sizeof *encoder->words);
    if (encoder && encoder->words) {
        encoder->tokenizer = tokenizer;
        return encoder;
    }
    encoder_close(encoder);
    fail(err, "no memory for encoding");
    return NULL;
}

void encoder_close(Encoder *encoder)
{
    if (!encoder) return;
    bpe_room_free(&encoder->room);
    free(encoder->words);
    free(encoder);
}

static bool tokens_reserve(Tokens *tokens, size_t more, Error *err)
{
    if (tokens->capacity - tokens->count >= more) return true;
    size_t capacity = tokens->capacity + tokens->capacity / 2;
    if (capacity < tokens->count + more) capacity = tokens->count + more;
    uint16_t *larger = realloc(tokens->ids, capacity * sizeof *larger);
    if (!larger) return fail(err, "no memory for %zu tokens", capacity);
    tokens->ids = larger;
    tokens->capacity = capacity;
    return true;
}

bool tokens_append(Tokens *tokens, const uint16_t *ids, size_t count, Error *err)
{
    if (!tokens_reserve(tokens, count, err)) return false;
    memcpy(tokens->ids + tokens->count, ids, count * sizeof *ids);
    tokens->count += count;
    return true;
}

// The place of a word of at most kWordMax bytes; its key is set, and the count is 0 when it is new.
static Word *word_find(Encoder *encoder, const uint8_t *text, size_t size, const uint8_t *end)
{
    uint64_t key[2] = {0};
    if (end - text >= 16) {
        memcpy(key, text, 16);
        if (size < 8)
            key[0] &= ((uint64_t)1 << 8 * size) - 1, key[1] = 0;
        else
            key[1] &= ((uint64_t)1 << 8 * (size - 8)) - 1;
    } else {
        memcpy(key, text, size);
    }
    key[1] |= (uint64_t)size << 56;
    const uint64_t h = (key[0] ^ (key[1] << 29 | key[1] >> 35)) * 0x9e3779b97f4a7c15u;
    Word *word = &encoder->words[h >> (64 - kWordsBits)];
    if (word->key[0] != key[0] || word->key[1] != key[1]) {
        memcpy(word->key, key, sizeof key);
        word->count = 0;
    }
    return word;
}

bool encoder_encode(Encoder *encoder, const void *text, size_t size, Tokens *tokens, Error *err)
{
    const Tokenizer *tokenizer = encoder->tokenizer;
    const Bpe *bpe = &tokenizer->bpe;
    const uint8_t *at = text, *end = at + size;
    // A token is a byte at least, and a known word is copied with all of its places.
    if (!tokens_reserve(tokens, size + kWordTokens, err)) return false;
    uint16_t *to = tokens->ids + tokens->count;
    if (!tokenizer->kinds)
        while (at < end) *to++ = *at++;
    while (at < end) {
        const uint8_t *past = pretokenize(tokenizer->kinds, at, end);
        const size_t length = (size_t)(past - at);
        if (length <= kWordMax) {
            Word *word = word_find(encoder, at, length, end);
            if (word->count == 0) {
                const size_t count = bpe_merge(bpe, at, length, to);
                to += count;
                if (count <= kWordTokens) {
                    word->count = (uint16_t)count;
                    memcpy(word->ids, to - count, count * sizeof *to);
                }
            } else {
                memcpy(to, word->ids, sizeof word->ids);
                to += word->count;
            }
        } else if (length <= BPE_SHORT) {
            to += bpe_merge(bpe, at, length, to);
        } else {
            size_t count;
            if (!bpe_merge_long(bpe, &encoder->room, at, length, to, &count, err)) return false;
            to += count;
        }
        at = past;
    }
    tokens->count = (size_t)(to - tokens->ids);
    return true;
}
