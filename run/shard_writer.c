#include "shard_writer.h"

#include <errno.h>  // errno
#include <math.h>   // floor
#include <stdlib.h> // realloc
#include <string.h> // memcpy, memmove
#include <unistd.h> // access

#include "shard.h"

enum { kGpt2Vocab = 50257, kMostTokens = 1 << 30 };

static void shard_path(const ShardWriter *writer, const ShardSeries *series,
                       char path[FILE_PATH_MAX])
{
    snprintf(path, FILE_PATH_MAX, "%s_%s_%06d.bin", writer->config.prefix, series->name,
             series->number);
}

static bool check_absent(const ShardWriter *writer, const ShardSeries *series, Error *err)
{
    char path[FILE_PATH_MAX];
    shard_path(writer, series, path);
    return access(path, F_OK) != 0 ||
           fail(err, "%.300s exists: remove the old shards, or choose another prefix", path);
}

bool shard_writer_open(ShardWriter *writer, const ShardWriterConfig *config, Error *err)
{
    *writer = (ShardWriter){.config = *config};
    writer->train = (ShardSeries){.name = "train", .number = 1};
    writer->val = (ShardSeries){.name = "val"};
    if (config->shard_tokens < 2 || config->shard_tokens > kMostTokens)
        return fail(err, "a shard of %lld tokens: 2 to %d are possible",
                    (long long)config->shard_tokens, kMostTokens);
    if (config->cut < 0 || config->cut == 1)
        return fail(err, "documents of %lld tokens: 2 or more, or 0 for no limit",
                    (long long)config->cut);
    const char *slash = strrchr(config->prefix, '/');
    if (slash && !slash[1])
        return fail(err, "the prefix %.300s ends with '/': a name must follow", config->prefix);
    if (!config->prefix[0]) return fail(err, "the prefix of the shards is empty");
    if (slash && slash > config->prefix) {
        char folder[FILE_PATH_MAX];
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - config->prefix), config->prefix);
        if (!folder_make(folder, err)) return false;
    }
    return check_absent(writer, &writer->train, err) && check_absent(writer, &writer->val, err);
}

// Writes the first `count` tokens of the series and keeps the rest.
static bool shard_write(ShardWriter *writer, ShardSeries *series, int64_t count, Error *err)
{
    const int vocab = writer->config.vocab_size;
    int32_t header[SHARD_HEADER_BYTES / 4] = {SHARD_MAGIC, 1, (int32_t)count,
                                              vocab == kGpt2Vocab ? 0 : vocab};
    char path[FILE_PATH_MAX], line[FILE_PATH_MAX + 64];
    AtomicFile file;
    shard_path(writer, series, path);
    if (!check_absent(writer, series, err) ||
        !atomic_file_open(&file, path, sizeof header + 2 * (uint64_t)count, err) ||
        !atomic_file_write(&file, header, sizeof header, err) ||
        !atomic_file_write(&file, series->tokens, 2 * (size_t)count, err) ||
        !atomic_file_commit(&file, err))
        return false;
    series->number++;
    series->count -= count;
    series->start -= count;
    memmove(series->tokens, series->tokens + count, 2 * (size_t)series->count);
    snprintf(line, sizeof line, "%s: %lld tokens", path, (long long)count);
    if (writer->report) writer->report(line);
    return true;
}

// Room for more tokens, at most up to the size of a shard.
static bool series_grow(ShardSeries *series, int64_t more, int64_t most, Error *err)
{
    if (series->capacity - series->count >= more || series->capacity == most) return true;
    int64_t capacity = 2 * series->capacity;
    if (capacity < series->count + more) capacity = series->count + more;
    if (capacity > most) capacity = most;
    uint16_t *larger = realloc(series->tokens, 2 * (size_t)capacity);
    if (!larger)
        return fail(err, "no memory for a shard of %lld tokens: give smaller shards",
                    (long long)capacity);
    series->tokens = larger;
    series->capacity = capacity;
    return true;
}

// Appends to the current document.
static bool append(ShardWriter *writer, const uint16_t *tokens, int64_t count, Error *err)
{
    ShardSeries *series = writer->at;
    const int64_t most = writer->config.shard_tokens;
    const uint16_t bos = (uint16_t)(writer->config.vocab_size - 1);
    while (count > 0) {
        if (series->count == most) {
            const bool cut = series->start < most / 2;
            if (!shard_write(writer, series, cut ? most : series->start, err)) return false;
            if (cut) {
                series->tokens[0] = bos;
                series->count = 1;
                series->start = 0;
                series->total_tokens++;
                writer->shard_cuts++;
            }
        }
        if (!series_grow(series, count, most, err)) return false;
        const int64_t room = series->capacity - series->count, some = count < room ? count : room;
        memcpy(series->tokens + series->count, tokens, 2 * (size_t)some);
        series->count += some;
        series->total_tokens += some;
        tokens += some;
        count -= some;
    }
    return true;
}

// The next document begins: which side is it for?
static bool begin(ShardWriter *writer, Error *err)
{
    const uint16_t bos = (uint16_t)(writer->config.vocab_size - 1);
    const double share = writer->config.val_fraction, n = (double)writer->documents++;
    const bool val = floor((n + 1) * share + 0.5) > floor(n * share + 0.5);
    writer->at = val ? &writer->val : &writer->train;
    writer->at->start = writer->at->count;
    writer->at->documents++;
    writer->length = 1;
    if (writer->longest < 1) writer->longest = 1;
    return append(writer, &bos, 1, err);
}

bool shard_writer_add(ShardWriter *writer, const uint16_t *tokens, int64_t count, Error *err)
{
    const uint16_t bos = (uint16_t)(writer->config.vocab_size - 1);
    const int64_t cut = writer->config.cut ? writer->config.cut : INT64_MAX;
    for (int64_t i = 0; i < count;) {
        if (tokens[i] == bos || writer->length == cut) {
            i += tokens[i] == bos;
            if (!begin(writer, err)) return false;
            continue;
        }
        if (!writer->at) return fail(err, "the first document does not begin with end of text");
        int64_t end = i + 1;
        const int64_t most = count - i < cut - writer->length ? count : i + cut - writer->length;
        while (end < most && tokens[end] != bos) end++;
        if (!append(writer, tokens + i, end - i, err)) return false;
        writer->length += end - i;
        if (writer->length > writer->longest) writer->longest = writer->length;
        i = end;
    }
    return true;
}

bool shard_writer_finish(ShardWriter *writer, Error *err)
{
    const double share = writer->config.val_fraction;
    if (writer->documents == 0) return fail(err, "no document with any text: nothing to write");
    if ((share > 0 && writer->val.documents == 0) || (share < 1 && writer->train.documents == 0))
        return fail(err,
                    "%lld documents are too few to split: %s gets none of them at --val-fraction "
                    "%g; change it (0: no validation), or make more documents by --cut or "
                    "--separator",
                    (long long)writer->documents, writer->val.documents ? "training" : "validation",
                    share);
    ShardSeries *const both[] = {&writer->train, &writer->val};
    for (int i = 0; i < 2; i++)
        if (both[i]->count > 0 && !shard_write(writer, both[i], both[i]->count, err)) return false;
    return true;
}

void shard_writer_free(ShardWriter *writer)
{
    free(writer->train.tokens);
    free(writer->val.tokens);
    *writer = (ShardWriter){0};
}
