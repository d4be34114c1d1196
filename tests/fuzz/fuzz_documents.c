// Any bytes as a block of JSON lines (the first byte is odd) or of separated text, encoded as
// bytes. Every document must begin with the end of text, and none may be without text.
#include "../../data/documents.h"

#include <stdlib.h> // abort

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Tokenizer *tokenizer;
    static Encoder *encoder;
    Error err;
    if (!tokenizer) tokenizer = tokenizer_open("bytes", &err);
    if (!encoder) encoder = encoder_open(tokenizer, &err);
    if (size == 0 || !encoder) return 0;
    const DocumentsConfig config = {.separator = data[0] & 1 ? "" : "ab",
                                    .field = data[0] & 1 ? "text" : ""};
    const DocumentsBlock block = {
        .text = (char *)data + 1, .size = size - 1, .name = "fuzz", .fresh = true, .line = 1};
    DocumentsScratch scratch = {0};
    Tokens tokens = {0};
    if (documents_encode(&config, &block, encoder, 256, &scratch, &tokens, &err)) {
        for (size_t i = 0; i < tokens.count; i++)
            if (tokens.ids[i] == 256 && (i + 1 == tokens.count || tokens.ids[i + 1] == 256))
                abort();
        if (tokens.count > 0 && tokens.ids[0] != 256) abort();
    } else if (!err.text[0]) {
        abort();
    }
    free(scratch.room);
    free(tokens.ids);
    return 0;
}
