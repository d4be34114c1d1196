// Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019) from the files that
// OpenAI published for GPT-2: encoder.json gives every token its id, each line of vocab.bpe merges
// two tokens into one, the first line first.
//
// Of a file it is asked, besides being well-formed, that every merge joins bytes or results of
// earlier lines, and that no two make the same token; bpe.c says what that is good for.
#ifndef RUN_BPE_H
#define RUN_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

typedef struct {
    int vocab_size;     // 257 to 65535; ids are 0 to vocab_size - 1, the last one <|endoftext|>
    int n_merges;       // vocab_size - 257
    char *bytes;        // of all tokens, one after another
    uint32_t *start;    // (vocab_size + 1) where in `bytes` each begins
    uint16_t byte[256]; // the token of each byte
    uint64_t *merges;   // hash table: left id, right id, rank, resulting id, 16 bits each
    int merges_shift;   // 2^(32 - shift) entries
} Bpe;

// From the text of both files; the names are for messages.
bool bpe_parse(Bpe *bpe, const char *json, size_t json_size, const char *json_name,
               const char *lines, size_t lines_size, const char *lines_name, Error *err);
// The same from folder/encoder.json and folder/vocab.bpe.
bool bpe_read(Bpe *bpe, const char *folder, Error *err);
void bpe_free(Bpe *bpe); // also right on zeros, and twice

// Memory for words of more than BPE_SHORT bytes, zero at first; grows.
typedef struct {
    struct BpeNode *nodes;
    size_t capacity;
    struct BpeBucket *buckets; // (n_merges), all empty between words
} BpeRoom;

// Where both ways take about as long: the other one passes over every rank, however short the word.
enum { BPE_SHORT = 384 };

// The tokens of one word of `size` bytes to ids, which has room for as many; returns their number.
// For size <= BPE_SHORT. About size^2 steps at worst.
size_t bpe_merge(const Bpe *bpe, const uint8_t *word, size_t size, uint16_t *ids);
// The same for any size below 2^30, in time proportional to it. False without memory.
bool bpe_merge_long(const Bpe *bpe, BpeRoom *room, const uint8_t *word, size_t size, uint16_t *ids,
                    size_t *count, Error *err);
void bpe_room_free(BpeRoom *room);

// Rank << 16 | resulting id of a merge of two tokens, BPE_NONE when there is no such line.
#define BPE_NONE UINT32_MAX
static inline uint32_t bpe_find(const Bpe *bpe, uint32_t left, uint32_t right)
{
    const uint32_t key = left << 16 | right, mask = UINT32_MAX >> bpe->merges_shift;
    for (uint32_t i = key * 0x9e3779b1u >> bpe->merges_shift;; i = (i + 1) & mask) {
        const uint64_t entry = bpe->merges[i];
        if (entry >> 32 == key) return (uint32_t)entry; // BPE_NONE in an empty one too
        if (entry == UINT64_MAX) return BPE_NONE;
    }
}

#endif
