// Text to tokens and back. Two vocabularies:
//
//     GPT-2's   byte-level BPE; 50257 ids, the last one, 50256, is <|endoftext|>
//     bytes     byte b is token b; 257 ids, the last one, 256, is the end of text (BOS)
//
// Any bytes can be encoded, UTF-8 or not, and decoding the tokens gives the same bytes. Text that
// reads "<|endoftext|>" is encoded as those letters, never as the token: only the caller puts that
// one, at a document's start. A Tokenizer may be used by any number of threads, each with an
// Encoder of its own.
#ifndef RUN_TOKENIZER_H
#define RUN_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

#define TOKENIZER_GPT2_FOLDER "data/gpt2_bpe" // where data/fetch_gpt2_bpe.sh puts the files

typedef struct Tokenizer Tokenizer;

// `vocab` is "bytes", or a folder with encoder.json and vocab.bpe. NULL when the files cannot be
// read or are not a vocabulary.
Tokenizer *tokenizer_open(const char *vocab, Error *err);
// The tokenizer of a model: bytes for a vocabulary of 257, else that of TOKENIZER_GPT2_FOLDER; NULL
// too when its size is not vocab_size.
Tokenizer *tokenizer_for(int vocab_size, Error *err);
void tokenizer_close(Tokenizer *tokenizer); // also right on NULL
int tokenizer_vocab_size(const Tokenizer *tokenizer);
int tokenizer_end_of_text(const Tokenizer *tokenizer); // vocab_size - 1
// The bytes of a token, 0 <= id < vocab_size, and their number, which is at least 1 except for the
// end of text, which is none. A token may be a part of a UTF-8 character. Not ended by a zero.
const char *tokenizer_decode(const Tokenizer *tokenizer, int id, size_t *size);

// Tokens that grow: free(tokens.ids) releases them, {0} are none.
typedef struct {
    uint16_t *ids; // (count)
    size_t count, capacity;
} Tokens;
bool tokens_append(Tokens *tokens, const uint16_t *ids, size_t count, Error *err);

typedef struct Encoder Encoder; // the working memory of a thread, 4 MB of which are known words

Encoder *encoder_open(const Tokenizer *tokenizer, Error *err); // NULL without memory
void encoder_close(Encoder *encoder);                          // also right on NULL
// Appends the tokens of text[0..size]. False, with some of them appended, without memory and for a
// word of 2^30 bytes.
bool encoder_encode(Encoder *encoder, const void *text, size_t size, Tokens *tokens, Error *err);

#endif
