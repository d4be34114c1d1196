#include "documents.h"

#include "../run/json.h"
#include "../run/pretokenize.h"

#include <errno.h>  // errno
#include <fcntl.h>  // open
#include <stdlib.h> // realloc, free
#include <string.h> // memmem, memchr, memcpy, strlen
#include <unistd.h> // read, close

// Of text that cannot be cut: an endless line would take all of the memory.
enum { kMostBlock = 1 << 28 };

void documents_open(Documents *documents, const DocumentsConfig *config)
{
    *documents = (Documents){.config = *config, .fd = -1};
}

void documents_close(Documents *documents)
{
    if (documents->fd > STDIN_FILENO) close(documents->fd);
    free(documents->carry);
    *documents = (Documents){.fd = -1};
}

// ---- blocks of text

static bool grow(char **memory, size_t *capacity, size_t size, Error *err)
{
    if (size <= *capacity) return true;
    char *larger = realloc(*memory, size);
    if (!larger) return fail(err, "no memory for %zu bytes of text", size);
    *memory = larger;
    *capacity = size;
    return true;
}

static bool open_next(Documents *documents, Error *err)
{
    const char *path = documents->config.paths[documents->next++];
    const bool standard = !strcmp(path, "-");
    documents->name = standard ? "standard input" : path;
    documents->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    documents->fresh = true;
    documents->line = 1;
    return documents->fd >= 0 || fail(err, "cannot open %.300s: %s", path, strerror(errno));
}

// Reads on until the block has `size` bytes or the file ends, which closes it.
static bool fill(Documents *documents, DocumentsBlock *block, size_t size, Error *err)
{
    if (!grow(&block->text, &block->capacity, size, err)) return false;
    while (block->size < size) {
        const ssize_t got = read(documents->fd, block->text + block->size, size - block->size);
        const bool stop = documents->config.stop && *documents->config.stop;
        if (got < 0 && errno == EINTR && !stop) continue;
        if (got < 0) return fail(err, "cannot read %.300s: %s", documents->name, strerror(errno));
        if (got == 0) {
            if (documents->fd > STDIN_FILENO) close(documents->fd);
            documents->fd = -1;
            return true;
        }
        block->size += (size_t)got;
    }
    return true;
}

static const char *last_of(const char *text, size_t from, size_t size, const char *what, size_t n)
{
    for (size_t i = size >= n ? size - n + 1 : 0; i > from; i--)
        if (text[i - 1] == what[0] && !memcmp(text + i - 1, what, n)) return text + i - 1;
    return NULL;
}

// Where the block may end: behind a line of JSON, behind a separator, or else between two words
// that no separator covers. 0 when there is no such place past `from`. *fresh: a document ended
// there.
static size_t find_cut(const DocumentsConfig *config, const DocumentsBlock *block, size_t from,
                       bool *fresh)
{
    const char *separator = config->field[0] ? "\n" : config->separator;
    const size_t n = strlen(separator);
    const size_t first = from > n ? from - n : 0; // a separator may begin before `from`
    const char *last = n ? last_of(block->text, first, block->size, separator, n) : NULL;
    *fresh = last != NULL;
    if (last) return (size_t)(last - block->text) + n;
    if (config->field[0] || block->size < n) return 0;
    const size_t end = n ? block->size - n + 1 : block->size;
    return end > first ? pretokenize_cut((const uint8_t *)block->text, first, end) : 0;
}

// What was carried over and more, up to a good cut or the end of the file that is open.
static bool read_block(Documents *documents, DocumentsBlock *block, Error *err)
{
    block->name = documents->name;
    block->fresh = documents->fresh;
    block->line = documents->line;
    block->size = documents->carry_size;
    if (!grow(&block->text, &block->capacity, block->size, err)) return false;
    if (block->size > 0) memcpy(block->text, documents->carry, block->size);
    documents->carry_size = 0;
    size_t cut = 0, from = 0, target = documents->config.block_bytes;
    while (cut == 0) {
        while (target <= block->size) target *= 2;
        if (target > kMostBlock)
            return fail(err, "%.300s has %d MB without %s: split it", documents->name,
                        kMostBlock >> 20,
                        documents->config.field[0] ? "the end of a line" : "a space after a word");
        if (!fill(documents, block, target, err)) return false;
        if (documents->fd < 0) return true;
        cut = find_cut(&documents->config, block, from, &documents->fresh);
        from = block->size;
    }
    const size_t rest = block->size - cut;
    if (!grow(&documents->carry, &documents->carry_capacity, rest, err)) return false;
    if (rest > 0) memcpy(documents->carry, block->text + cut, rest);
    documents->carry_size = rest;
    block->size = cut;
    return true;
}

bool documents_read(Documents *documents, DocumentsBlock *block, Error *err)
{
    do {
        block->size = 0;
        if (documents->fd < 0 && documents->next == documents->config.n_paths) return true;
        if (documents->fd < 0 && !open_next(documents, err)) return false;
        if (!read_block(documents, block, err)) return false;
    } while (block->size == 0);
    if (documents->config.field[0])
        for (const char *at = block->text, *end = at + block->size;
             (at = memchr(at, '\n', (size_t)(end - at))); at++)
            documents->line++;
    return true;
}

// ---- blocks to tokens

static bool encode_document(Encoder *encoder, const char *text, size_t size, bool fresh,
                            int end_of_text, Tokens *tokens, Error *err)
{
    const uint16_t bos = (uint16_t)end_of_text;
    if (size == 0) return true;
    return (!fresh || tokens_append(tokens, &bos, 1, err)) &&
           encoder_encode(encoder, text, size, tokens, err);
}

// The text of one line's object; *text is NULL for a line of spaces.
static bool parse_line(const DocumentsConfig *config, Json *json, const char **text, size_t *size)
{
    *text = NULL;
    json_skip_space(json);
    if (json->at == json->end) return true;
    if (!json_expect(json, '{')) return false;
    if (!json_accept(json, '}')) {
        do {
            const char *name;
            if (!json_string(json, &name) || !json_expect(json, ':')) return false;
            const bool wanted = !strcmp(name, config->field);
            if (wanted ? !json_text(json, text, size) : !json_skip(json)) return false;
        } while (json_accept(json, ','));
        if (!json_expect(json, '}')) return false;
    }
    json_skip_space(json);
    if (json->at < json->end) return json_fail(json, "something follows its end");
    return *text || fail(json->err, "%.200s has no field \"%.100s\": --jsonl names the field",
                         json->name, config->field);
}

static bool encode_lines(const DocumentsConfig *config, const DocumentsBlock *block,
                         Encoder *encoder, int end_of_text, DocumentsScratch *scratch,
                         Tokens *tokens, Error *err)
{
    // A line's strings take a byte each besides what they are decoded to, which their quotes cover.
    if (!grow(&scratch->room, &scratch->capacity, block->size + 1, err)) return false;
    int64_t line = block->line;
    for (const char *at = block->text, *end = at + block->size; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        char name[256];
        snprintf(name, sizeof name, "line %lld of %.200s", (long long)line, block->name);
        Json json = {.text = at, .at = at, .end = stop, .room = scratch->room, .err = err};
        json.name = name;
        json.lenient = true;
        const char *text;
        size_t size;
        if (!parse_line(config, &json, &text, &size)) return false;
        if (text && !encode_document(encoder, text, size, true, end_of_text, tokens, err))
            return false;
        at = stop + 1;
    }
    return true;
}

bool documents_encode(const DocumentsConfig *config, const DocumentsBlock *block, Encoder *encoder,
                      int end_of_text, DocumentsScratch *scratch, Tokens *tokens, Error *err)
{
    if (config->field[0])
        return encode_lines(config, block, encoder, end_of_text, scratch, tokens, err);
    const size_t n = strlen(config->separator);
    bool fresh = block->fresh;
    for (const char *at = block->text, *end = at + block->size; at < end; fresh = true) {
        const char *stop = n ? memmem(at, (size_t)(end - at), config->separator, n) : NULL;
        const size_t size = (size_t)((stop ? stop : end) - at);
        if (!encode_document(encoder, at, size, fresh, end_of_text, tokens, err)) return false;
        if (!stop) break;
        at = stop + n;
    }
    return true;
}
