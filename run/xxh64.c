#include "xxh64.h"

#include <assert.h>
#include <string.h> // memcpy

#define PRIME1 0x9E3779B185EBCA87u
#define PRIME2 0xC2B2AE3D27D4EB4Fu
#define PRIME3 0x165667B19E3779F9u
#define PRIME4 0x85EBCA77C2B2AE63u
#define PRIME5 0x27D4EB2F165667C5u

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static uint64_t lane_round(uint64_t lane, uint64_t word)
{
    return rotate(lane + word * PRIME2, 31) * PRIME1;
}

static uint64_t read64(const unsigned char *p)
{
    uint64_t word; // little-endian, as every machine that this program runs on
    memcpy(&word, p, 8);
    return word;
}

Xxh64 xxh64_start(void) { return (Xxh64){{PRIME1 + PRIME2, PRIME2, 0, 0 - PRIME1}, 0}; }

void xxh64_add(Xxh64 *hash, const void *data, size_t bytes)
{
    assert(bytes % 32 == 0);
    const unsigned char *p = data;
    uint64_t a = hash->lane[0], b = hash->lane[1], c = hash->lane[2], d = hash->lane[3];
    for (size_t i = 0; i < bytes; i += 32) {
        a = lane_round(a, read64(p + i));
        b = lane_round(b, read64(p + i + 8));
        c = lane_round(c, read64(p + i + 16));
        d = lane_round(d, read64(p + i + 24));
    }
    *hash = (Xxh64){{a, b, c, d}, hash->total + bytes};
}

uint64_t xxh64_finish(Xxh64 *hash, const void *data, size_t bytes)
{
    size_t blocks = bytes / 32 * 32, left = bytes - blocks;
    xxh64_add(hash, data, blocks);
    uint64_t h = PRIME5;
    if (hash->total) {
        const uint64_t *v = hash->lane;
        h = rotate(v[0], 1) + rotate(v[1], 7) + rotate(v[2], 12) + rotate(v[3], 18);
        for (int i = 0; i < 4; i++) h = (h ^ lane_round(0, v[i])) * PRIME1 + PRIME4;
    }
    h += hash->total + left;

    const unsigned char *p = left ? (const unsigned char *)data + blocks : NULL;
    for (; left >= 8; p += 8, left -= 8)
        h = rotate(h ^ lane_round(0, read64(p)), 27) * PRIME1 + PRIME4;
    if (left >= 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        h = rotate(h ^ word * PRIME1, 23) * PRIME2 + PRIME3;
        p += 4, left -= 4;
    }
    for (; left; p++, left--) h = rotate(h ^ *p * PRIME5, 11) * PRIME1;

    h = (h ^ h >> 33) * PRIME2;
    h = (h ^ h >> 29) * PRIME3;
    return h ^ h >> 32;
}

uint64_t xxh64(const void *data, size_t bytes)
{
    Xxh64 hash = xxh64_start();
    return xxh64_finish(&hash, data, bytes);
}
