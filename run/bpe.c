#include "bpe.h"

#include <stdlib.h> // realloc, calloc
#include <string.h> // memmove

size_t bpe_merge(const Bpe *bpe, const uint8_t *word, size_t size, uint16_t *ids)
{
    uint32_t merge[BPE_SHORT + 1]; // merge[i]: of the tokens i and i + 1
    size_t n = size;
    for (size_t i = 0; i < n; i++) ids[i] = bpe->byte[word[i]];
    for (size_t i = 0; i + 1 < n; i++) merge[i] = bpe_find(bpe, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (merge[i] < merge[best]) best = i;
        if (merge[best] == BPE_NONE) break;
        ids[best] = (uint16_t)merge[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(merge + best, merge + best + 1, (n - best - 1) * sizeof *merge);
        if (best + 1 < n) merge[best] = bpe_find(bpe, ids[best], ids[best + 1]);
        if (best > 0) merge[best - 1] = bpe_find(bpe, ids[best - 1], ids[best]);
    }
    return n;
}

// ---- long words
// ------------------------------------------------------------------------------------
//
// The tokens are a linked list, and every pair that can merge waits in the bucket of its rank. A
// merge of rank r changes only pairs with the new token, whose ranks are above r, since a line
// joins what earlier lines made. So one ascending pass over the buckets does it, without a heap.
// Within a rank, pairs merge from left to right, and a bucket is in that order by itself: all of
// its pairs appear while one and the same earlier bucket (the one that makes the younger of the two
// tokens, or the beginning) is worked off from left to right.

enum { kNone = 0x7fffffff };

struct BpeNode {
    uint32_t merge; // of this token and the next one
    uint16_t id;
    int32_t before, after; // in the word; a token lies where its first byte was
    int32_t lower, higher; // in the bucket
};

struct BpeBucket {
    int32_t first, last;
};

static void bucket_add(BpeRoom *room, int32_t at)
{
    struct BpeNode *node = &room->nodes[at];
    if (node->merge == BPE_NONE) return;
    struct BpeBucket *bucket = &room->buckets[node->merge >> 16];
    node->lower = bucket->last;
    node->higher = kNone;
    *(bucket->last == kNone ? &bucket->first : &room->nodes[bucket->last].higher) = at;
    bucket->last = at;
}

static void bucket_remove(BpeRoom *room, int32_t at)
{
    const struct BpeNode *node = &room->nodes[at];
    if (node->merge == BPE_NONE) return;
    struct BpeBucket *bucket = &room->buckets[node->merge >> 16];
    *(node->lower == kNone ? &bucket->first : &room->nodes[node->lower].higher) = node->higher;
    *(node->higher == kNone ? &bucket->last : &room->nodes[node->higher].lower) = node->lower;
}

// The pair that begins at `at` has changed.
static void pair_update(const Bpe *bpe, BpeRoom *room, int32_t at)
{
    struct BpeNode *node = &room->nodes[at];
    bucket_remove(room, at);
    node->merge =
        node->after == kNone ? BPE_NONE : bpe_find(bpe, node->id, room->nodes[node->after].id);
    bucket_add(room, at);
}

static bool room_grow(const Bpe *bpe, BpeRoom *room, size_t size, Error *err)
{
    if (size >= (size_t)1 << 30) return fail(err, "a word of %zu bytes: 2^30 is too long", size);
    if (!room->buckets) {
        room->buckets = malloc((size_t)(bpe->n_merges + 1) * sizeof *room->buckets);
        for (int i = 0; room->buckets && i < bpe->n_merges; i++)
            room->buckets[i] = (struct BpeBucket){kNone, kNone};
    }
    if (size > room->capacity) {
        free(room->nodes);
        room->nodes = malloc(size * sizeof *room->nodes);
        room->capacity = room->nodes ? size : 0;
    }
    return (room->buckets && room->nodes) ||
           fail(err, "no memory for a word of %zu bytes, which takes %zu", size,
                size * sizeof *room->nodes);
}

bool bpe_merge_long(const Bpe *bpe, BpeRoom *room, const uint8_t *word, size_t size, uint16_t *ids,
                    size_t *count, Error *err)
{
    if (!room_grow(bpe, room, size, err)) return false;
    struct BpeNode *nodes = room->nodes;
    const int32_t n = (int32_t)size;
    for (int32_t i = 0; i < n; i++) {
        nodes[i].id = bpe->byte[word[i]];
        nodes[i].merge = BPE_NONE;
        nodes[i].before = i > 0 ? i - 1 : kNone;
        nodes[i].after = i + 1 < n ? i + 1 : kNone;
    }
    for (int32_t i = 0; i < n; i++) pair_update(bpe, room, i);
    for (int rank = 0; rank < bpe->n_merges; rank++) {
        for (int32_t at; (at = room->buckets[rank].first) != kNone;) {
            struct BpeNode *node = &nodes[at], *gone = &nodes[node->after];
            bucket_remove(room, node->after);
            bucket_remove(room, at);
            node->id = (uint16_t)node->merge;
            node->merge = BPE_NONE;
            node->after = gone->after;
            if (node->after != kNone) nodes[node->after].before = at;
            if (node->before != kNone) pair_update(bpe, room, node->before);
            pair_update(bpe, room, at);
        }
    }
    *count = 0;
    for (int32_t i = 0; i != kNone; i = nodes[i].after) ids[(*count)++] = nodes[i].id;
    return true;
}

void bpe_room_free(BpeRoom *room)
{
    free(room->nodes);
    free(room->buckets);
    *room = (BpeRoom){0};
}
