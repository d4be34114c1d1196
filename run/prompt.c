#include "prompt.h"

#include <stdlib.h>

int32_t *prompt_tokens(const Tokenizer *tokenizer, const char *text, size_t size, int *count,
                       Error *err)
{
    Tokens tokens = {0};
    Encoder *encoder = encoder_open(tokenizer, err);
    int32_t *ids = NULL;
    if (encoder && encoder_encode(encoder, text, size, &tokens, err)) {
        if (tokens.count > INT32_MAX / 8)
            fail(err, "a prompt of %zu tokens", tokens.count);
        else if (!(ids = malloc((tokens.count + 1) * sizeof *ids)))
            fail(err, "out of memory for a prompt of %zu tokens", tokens.count);
    }
    if (ids) {
        ids[0] = tokenizer_end_of_text(tokenizer);
        for (size_t i = 0; i < tokens.count; i++) ids[i + 1] = tokens.ids[i];
        *count = (int)tokens.count + 1;
    }
    free(tokens.ids);
    encoder_close(encoder);
    return ids;
}

size_t prompt_whole_characters(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        const unsigned char c = (unsigned char)text[size - back];
        if (c >> 6 == 2) continue; // the inside of a character: its first byte is before
        const size_t length = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
        return c < 0xf5 && length > back ? size - back : size;
    }
    return size;
}
