// From files to tokens, a block of text at a time: blocks are read in order and may be encoded in
// any.
#ifndef DATA_DOCUMENTS_H
#define DATA_DOCUMENTS_H

#include <signal.h> // sig_atomic_t

#include "../ops/error.h"
#include "../run/tokenizer.h"

typedef struct {
    char *const *paths; // (n_paths); "-" is standard input
    int n_paths;
    const char *separator; // ends a document, as the end of a file does; "": only that does
    const char *field;  // of the object on each line that is a document; "": files are plain text
    size_t block_bytes; // of a block, about: it ends where documents or words do
    // Set by a signal, upon which a read that waits is given up; may be NULL.
    const volatile sig_atomic_t *stop;
} DocumentsConfig;

typedef struct {
    DocumentsConfig config;
    int next; // path to open
    const char *name;
    int fd;       // -1: none is open
    bool fresh;   // a document begins at the next byte
    int64_t line; // of the next byte, from 1 on; counted in JSON lines alone
    char *carry;  // (carry_size) was read behind the end of the last block
    size_t carry_size, carry_capacity;
} Documents;

typedef struct {
    char *text; // (size)
    size_t size, capacity;
    const char *name; // of the file, for messages
    bool fresh;
    int64_t line;
} DocumentsBlock; // zeros at first; free(block.text) releases it

void documents_open(Documents *documents, const DocumentsConfig *config);
// Reads the next block, which is empty at the end of everything. False when a file cannot be read
// or has 256 MB in which no block may end.
bool documents_read(Documents *documents, DocumentsBlock *block, Error *err);
void documents_close(Documents *documents);

// Memory of one thread for encoding; {0} at first; free(scratch.room) releases it.
typedef struct {
    char *room;
    size_t capacity;
} DocumentsScratch;

// Appends the block's tokens, each document behind an end of text; a document without any text is
// left out. False for a line that is not JSON or has no such field, and without memory.
bool documents_encode(const DocumentsConfig *config, const DocumentsBlock *block, Encoder *encoder,
                      int end_of_text, DocumentsScratch *scratch, Tokens *tokens, Error *err);

#endif
