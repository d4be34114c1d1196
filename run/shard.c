#include "shard.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are read as they lie in memory");

enum { kVersion = 1, kGpt2Vocab = 50257, kHeaderFields = 5, kBlock = 128 };

// Checks a header against the size of its file.
static bool header_check(const void *data, size_t size, const char *name, int vocab_size,
                         int32_t field[kHeaderFields], Error *err)
{
    if (size == 0) return fail(err, "%s is empty: fetch or build the shard again", name);
    if (size < SHARD_HEADER_BYTES)
        return fail(err, "%s has %zu bytes, less than a shard's header of %d: fetch it again", name,
                    size, SHARD_HEADER_BYTES);
    memcpy(field, data, kHeaderFields * sizeof field[0]);
    if (field[0] != SHARD_MAGIC)
        return fail(err,
                    "%s is not a token shard: it starts with %d, not %d (a packed file must "
                    "be unpacked first)",
                    name, field[0], SHARD_MAGIC);
    if (field[1] != kVersion)
        return fail(err, "%s is a shard of version %d, only version %d (uint16 tokens) is read",
                    name, field[1], kVersion);
    int64_t held = ((int64_t)size - SHARD_HEADER_BYTES) / 2;
    if (field[2] <= 0)
        return fail(err, "%s claims %d tokens: the header is damaged, fetch it again", name,
                    field[2]);
    if (held < field[2])
        return fail(err, "%s is truncated: it holds %lld of %d tokens, fetch it again", name,
                    (long long)held, field[2]);
    if (size != SHARD_HEADER_BYTES + 2 * (size_t)field[2])
        return fail(err, "%s is too long: %zu bytes, where %d tokens take %zu; fetch it again",
                    name, size, field[2], SHARD_HEADER_BYTES + 2 * (size_t)field[2]);
    int vocab = field[3] == 0 ? kGpt2Vocab : field[3];
    if (vocab != vocab_size)
        return fail(err,
                    "%s has a vocabulary of %d tokens, the recipe's vocab_size is %d: choose "
                    "the recipe for this data, or other shards",
                    name, vocab, vocab_size);
    if (field[4] < 0)
        return fail(err, "%s claims a floor of %d: the header is damaged, fetch it again", name,
                    field[4]);
    return true;
}

static bool bos_append(Shard *shard, int64_t *capacity, int64_t position)
{
    if (shard->n_bos == *capacity) {
        int64_t larger = *capacity ? 2 * *capacity : 1024;
        int32_t *grown = realloc(shard->bos, (size_t)larger * sizeof *grown);
        if (!grown) return false;
        shard->bos = grown;
        *capacity = larger;
    }
    shard->bos[shard->n_bos++] = (int32_t)position;
    return true;
}

// One pass finds the BOS and proves every token in range. BOS is the highest valid token, so the
// maximum of a block tells both, and most blocks of ~700-token documents need no second look.
static bool tokens_check(Shard *shard, const char *name, int vocab_size, Error *err)
{
    const uint16_t *token = shard->tokens;
    int64_t n = shard->n_tokens, capacity = 0;
    unsigned bos = (unsigned)vocab_size - 1;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        int64_t end = n - begin < kBlock ? n : begin + kBlock;
        uint16_t highest = 0;
        for (int64_t i = begin; i < end; i++) highest = token[i] > highest ? token[i] : highest;
        if (highest < bos) continue;
        for (int64_t i = begin; i < end; i++) {
            if (token[i] > bos)
                return fail(err,
                            "%s: token %d at position %lld is outside the vocabulary of %d: "
                            "damaged, or made for another tokenizer",
                            name, token[i], (long long)i, vocab_size);
            if (token[i] == bos && !bos_append(shard, &capacity, i))
                return fail(err, "%s: no memory for the index of documents", name);
        }
    }
    if (shard->n_bos == 0)
        return fail(err,
                    "%s has no BOS (token %u): every document must start with one, build the "
                    "shard again",
                    name, bos);
    return true;
}

bool shard_parse(Shard *shard, const void *data, size_t size, const char *name, int vocab_size,
                 Error *err)
{
    *shard = (Shard){0};
    if (vocab_size < 2 || vocab_size > 65536)
        return fail(err, "vocab_size %d does not fit 16-bit tokens: 2 to 65536", vocab_size);
    int32_t field[kHeaderFields];
    if (!header_check(data, size, name, vocab_size, field, err)) return false;
    shard->tokens = (const uint16_t *)((const char *)data + SHARD_HEADER_BYTES);
    shard->n_tokens = field[2];
    shard->floor = field[4] * 1e-6;
    if (tokens_check(shard, name, vocab_size, err)) return true;
    shard_close(shard);
    return false;
}

// Opens a regular file for reading; -1 on failure.
static int file_open(const char *path, size_t *size, Error *err)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block us
    struct stat info;
    if (file < 0 || fstat(file, &info) != 0) {
        fail(err, "cannot open the shard %s: %s", path, strerror(errno));
    } else if (S_ISDIR(info.st_mode)) {
        fail(err, "%s is a directory: give a pattern, such as '%s/*train*.bin'", path, path);
    } else if (!S_ISREG(info.st_mode)) {
        fail(err, "%s is not a regular file, as a shard must be: copy it to one", path);
    } else {
        *size = (size_t)info.st_size;
        return file;
    }
    if (file >= 0) close(file);
    return -1;
}

bool shard_open(Shard *shard, const char *path, int vocab_size, Error *err)
{
    *shard = (Shard){0};
    size_t size;
    int file = file_open(path, &size, err);
    if (file < 0) return false;
    void *map = NULL; // of an empty file, which cannot be mapped and which the parser refuses
    if (size > 0) map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    int reason = errno;
    close(file);
    if (map == MAP_FAILED) return fail(err, "cannot map the shard %s: %s", path, strerror(reason));
    if (!shard_parse(shard, map, size, path, vocab_size, err)) {
        if (map) munmap(map, size);
        return false;
    }
    shard->map = map;
    shard->map_size = size;
    return true;
}

void shard_close(Shard *shard)
{
    free(shard->bos);
    if (shard->map) munmap(shard->map, shard->map_size);
    *shard = (Shard){0};
}

bool shard_probe(const char *path, int vocab_size, int64_t *n_tokens, Error *err)
{
    size_t size;
    int file = file_open(path, &size, err);
    if (file < 0) return false;
    char header[SHARD_HEADER_BYTES];
    size_t wanted = size < sizeof header ? size : sizeof header;
    ssize_t got = pread(file, header, wanted, 0);
    int reason = errno;
    close(file);
    if (got < 0) return fail(err, "cannot read the shard %s: %s", path, strerror(reason));
    if ((size_t)got < wanted) size = (size_t)got; // shortened since it was opened
    int32_t field[kHeaderFields];
    if (!header_check(header, size, path, vocab_size, field, err)) return false;
    *n_tokens = field[2];
    return true;
}

// ---- patterns ----------------------------------------------------------------------------------

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int stop_when_forbidden(const char *path, int reason)
{
    (void)path;
    return reason == EACCES;
}

bool shard_list(ShardList *list, const char *pattern, Error *err)
{
    *list = (ShardList){0};
    glob_t found;
    int status = glob(pattern, GLOB_NOSORT, stop_when_forbidden, &found);
    if (status != 0) globfree(&found);
    if (status == GLOB_NOMATCH)
        return fail(err,
                    "no file matches '%s': `make train` builds the corpus, "
                    "`data/fetch_fineweb.sh N` fetches N shards of FineWeb",
                    pattern);
    if (status == GLOB_ABORTED)
        return fail(err, "a directory of '%s' may not be listed: %s", pattern, strerror(EACCES));
    if (status != 0) return fail(err, "no memory for the files of '%s'", pattern);
    list->path = calloc(found.gl_pathc, sizeof *list->path);
    bool ok = list->path != NULL;
    for (size_t i = 0; ok && i < found.gl_pathc; i++) {
        list->path[i] = strdup(found.gl_pathv[i]);
        ok = list->path[i] != NULL;
        if (ok) list->count++;
    }
    globfree(&found);
    if (!ok) {
        shard_list_free(list);
        return fail(err, "no memory for the files of '%s'", pattern);
    }
    // Not glob's own order: it follows the locale, and the order of shards is part of a run.
    qsort(list->path, (size_t)list->count, sizeof *list->path, by_bytes);
    return true;
}

void shard_list_free(ShardList *list)
{
    for (int i = 0; i < list->count; i++) free(list->path[i]);
    free(list->path);
    *list = (ShardList){0};
}
