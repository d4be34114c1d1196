// libFuzzer target: a shard's bytes. Whatever they are, the parser refuses them in one line or
// yields an index that agrees with the tokens.
//   clang -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_shard.c
//   run/shard.c
#include "../../run/shard.h"

#include <stdlib.h>
#include <string.h>

static void require(bool condition)
{
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // Exactly sized and aligned memory, so that the sanitizer sees a read past the end. The
    // vocabulary is the one that the header asks for, where it is a possible one.
    uint16_t *copy = malloc(size ? size : 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    int32_t wanted = 0;
    if (size >= 16) memcpy(&wanted, data + 12, sizeof wanted);
    int vocab_size = wanted ? wanted : 50257;

    Shard shard;
    Error err = {""};
    if (shard_parse(&shard, copy, size, "fuzz", vocab_size, &err)) {
        require(shard.n_bos > 0 && shard.n_bos <= shard.n_tokens && shard.floor >= 0);
        int64_t found = 0;
        for (int64_t i = 0; i < shard.n_tokens; i++) {
            require(shard.tokens[i] < vocab_size);
            if (shard.tokens[i] != vocab_size - 1) continue;
            require(found < shard.n_bos && shard.bos[found] == i);
            found++;
        }
        require(found == shard.n_bos);
    } else {
        require(err.text[0] != '\0' && !strchr(err.text, '\n') && !shard.bos && !shard.tokens);
    }
    shard_close(&shard);
    free(copy);
    return 0;
}
