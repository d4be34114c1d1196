// Any bytes as encoder.json and vocab.bpe, a zero byte between them. What is accepted must encode
// any text to tokens that decode to it; the long and the short way to merge must agree.
#include "../../run/bpe.h"

#include <stdlib.h> // abort
#include <string.h> // memchr, memcmp

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t word[] = "aabcaaaabbc aaab\xc3\xa9 lower lowest";
    const char *json = (const char *)data, *end = json + size;
    const char *zero = size ? memchr(json, '\0', size) : NULL;
    if (!zero) return 0;
    Bpe bpe;
    Error err;
    if (!bpe_parse(&bpe, json, (size_t)(zero - json), "json", zero + 1, (size_t)(end - zero - 1),
                   "lines", &err))
        return 0;
    uint16_t ids[sizeof word], again[sizeof word];
    BpeRoom room = {0};
    const size_t n = bpe_merge(&bpe, word, sizeof word, ids);
    size_t m = 0, at = 0;
    if (!bpe_merge_long(&bpe, &room, word, sizeof word, again, &m, &err)) abort();
    if (m != n || memcmp(ids, again, n * sizeof *ids)) abort();
    for (size_t i = 0; i < n; i++) {
        const size_t length = bpe.start[ids[i] + 1] - bpe.start[ids[i]];
        if (at + length > sizeof word || memcmp(word + at, bpe.bytes + bpe.start[ids[i]], length))
            abort();
        at += length;
    }
    if (at != sizeof word) abort();
    bpe_room_free(&room);
    bpe_free(&bpe);
    return 0;
}
