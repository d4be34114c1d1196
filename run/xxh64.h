// XXH64 with seed 0 (Y. Collet, https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): the 64-bit
// checksum of what a checkpoint holds. It finds damage, not malice.
#ifndef RUN_XXH64_H
#define RUN_XXH64_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t lane[4], total;
} Xxh64;

uint64_t xxh64(const void *data, size_t bytes);

// The same in pieces: start, then pieces whose sizes are multiples of 32, then a last one of any
// size.
Xxh64 xxh64_start(void);
void xxh64_add(Xxh64 *hash, const void *data, size_t bytes);
uint64_t xxh64_finish(Xxh64 *hash, const void *data, size_t bytes);

#endif
