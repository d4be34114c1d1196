#include "safetensors.h"

#include <errno.h>    // errno
#include <fcntl.h>    // open
#include <stdlib.h>   // malloc, free
#include <sys/stat.h> // fstat
#include <unistd.h>   // pread, close

#include "xxh64.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the data is written as it is in memory");

enum { kAlignment = 64, kPiece = 1 << 20 }; // bytes; a piece is read at a time when verifying

// How every header of ours begins; 16 hex digits follow.
static const char kOpening[] = "{\"__metadata__\":{\"checksum\":\"";
enum { kDigitsAt = sizeof kOpening - 1, kDigits = 16 };

// The checksum of a header's text, in which the digits are zeroed.
static void header_checksum(char *text, size_t length, char digits[kDigits + 1])
{
    memset(text + kDigitsAt, '0', kDigits);
    snprintf(digits, kDigits + 1, "%016llx", (unsigned long long)xxh64(text, length));
}

// ---- saving

// "<prefix><string>" in JSON.
static void print_string(FILE *out, const char *prefix, const char *string)
{
    fprintf(out, "\"%s", prefix);
    for (const char *p = string; *p; p++) {
        if (*p == '"' || *p == '\\') fputc('\\', out);
        if ((unsigned char)*p < 0x20)
            fprintf(out, "\\u%04x", (unsigned)*p);
        else
            fputc(*p, out);
    }
    fputc('"', out);
}

// One field per tensor, in the order of the data: elements of 8 bytes first, of 1 byte last.
static void print_entries(FILE *out, const SafetensorsTensor *tensors, int count)
{
    uint64_t begin = 0, bytes;
    Error checked_before;
    for (size_t size = 8; size >= 1; size /= 2)
        for (int i = 0; i < count; i++) {
            const SafetensorsTensor *t = &tensors[i];
            if (safetensors_dtype_size(t->dtype) != size) continue;
            safetensors_tensor_bytes(t, &bytes, &checked_before);
            fputc(',', out);
            print_string(out, "", t->name);
            fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", safetensors_dtype_name(t->dtype));
            for (int d = 0; d < t->ndim; d++)
                fprintf(out, "%s%lld", d ? "," : "", (long long)t->shape[d]);
            fprintf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin,
                    (unsigned long long)(begin + bytes));
            begin += bytes;
        }
}

static void print_header(FILE *out, const SafetensorsTensor *tensors, int count,
                         const Metadata *metadata)
{
    fprintf(out, "%s%0*d\"", kOpening, kDigits, 0);
    for (int i = 0; i < metadata->count; i++) {
        fputc(',', out);
        print_string(out, "", metadata->pairs[i].key);
        fputc(':', out);
        print_string(out, "", metadata->pairs[i].value);
    }
    for (int i = 0; i < count; i++) {
        uint64_t bytes;
        Error checked_before;
        safetensors_tensor_bytes(&tensors[i], &bytes, &checked_before);
        fputc(',', out);
        print_string(out, "checksum.", tensors[i].name);
        fprintf(out, ":\"%016llx\"", (unsigned long long)xxh64(tensors[i].data, bytes));
    }
    fputc('}', out);
    print_entries(out, tensors, count);
    fputc('}', out);
}

// The whole header with its length in front, padded so that the data is aligned; NULL on failure.
// It is read back as a file's would be: what we write, we accept.
static char *make_header(const SafetensorsTensor *tensors, int count, const Metadata *metadata,
                         size_t *size, uint64_t *data_bytes, Error *err)
{
    *data_bytes = 0;
    for (int i = 0; i < count; i++) {
        uint64_t bytes;
        if (!safetensors_tensor_bytes(&tensors[i], &bytes, err)) return NULL;
        *data_bytes += bytes;
    }
    for (int i = 0; i < metadata->count; i++) {
        const char *key = metadata->pairs[i].key;
        if (!strcmp(key, "checksum") || !strncmp(key, "checksum.", 9)) {
            fail(err, "the metadata key \"%.80s\" is reserved", key);
            return NULL;
        }
    }
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (out) {
        fprintf(out, "%8s", ""); // the length, filled in below
        print_header(out, tensors, count, metadata);
        long end = ftell(out);
        fprintf(out, "%*s", (int)(-end & (kAlignment - 1)), "");
    }
    bool printed = out && !ferror(out);
    if (out && fclose(out)) printed = false;
    if (!printed) {
        free(text);
        fail(err, "out of memory for the header of %d tensors", count);
        return NULL;
    }
    uint64_t length = *size - 8;
    char digits[kDigits + 1];
    header_checksum(text + 8, length, digits);
    memcpy(text + 8 + kDigitsAt, digits, kDigits);
    memcpy(text, &length, 8);

    SafetensorsHeader header;
    size_t parsed;
    if (!safetensors_header_length((unsigned char *)text, *size + *data_bytes, &parsed, err) ||
        !safetensors_header_parse(&header, text + 8, parsed, *data_bytes, err)) {
        free(text);
        return NULL;
    }
    safetensors_header_free(&header);
    return text;
}

bool safetensors_save(const char *path, const SafetensorsTensor *tensors, int count,
                      const Metadata *metadata, Error *err)
{
    size_t header_size;
    uint64_t data_bytes, bytes;
    Error why;
    AtomicFile file;
    char *header = make_header(tensors, count, metadata, &header_size, &data_bytes, &why);
    if (!header) return fail(err, "cannot write %.200s: %.280s", path, why.text);
    bool ok = atomic_file_open(&file, path, header_size + data_bytes, err) &&
              atomic_file_write(&file, header, header_size, err);
    free(header);
    for (size_t size = 8; size >= 1; size /= 2)
        for (int i = 0; i < count && ok; i++)
            if (safetensors_dtype_size(tensors[i].dtype) == size)
                ok = safetensors_tensor_bytes(&tensors[i], &bytes, err) &&
                     atomic_file_write(&file, tensors[i].data, bytes, err);
    return ok && atomic_file_commit(&file, err);
}

// ---- reading

// Reads exactly so many bytes from that offset.
static bool read_at(int fd, void *to, size_t bytes, uint64_t offset, Error *err)
{
    char *next = to;
    while (bytes > 0) {
        ssize_t got = pread(fd, next, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(err, "cannot be read: %s", strerror(errno));
        if (got == 0) return fail(err, "became shorter while it was read");
        next += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

// The checksum of the header, when it names one. `text` is changed where the digits are.
static bool check_guard(Safetensors *file, char *text, size_t length, Error *err)
{
    const char *stored = metadata_find(&file->header.metadata, "checksum");
    char digits[kDigits + 1];
    if (!stored) return true;
    bool ours = length >= kDigitsAt + kDigits && !memcmp(text, kOpening, kDigitsAt);
    if (ours) header_checksum(text, length, digits);
    file->guarded = ours && !strcmp(stored, digits);
    return file->guarded ||
           fail(err,
                "is corrupt: its header fails its checksum; use an earlier file or a good copy");
}

// Fills in all but fd and path; reasons without the path.
static bool read_header(Safetensors *file, Error *err)
{
    struct stat info;
    if (fstat(file->fd, &info)) return fail(err, "cannot be examined: %s", strerror(errno));
    if (S_ISDIR(info.st_mode)) return fail(err, "is a folder, and a safetensors file is needed");
    if (!S_ISREG(info.st_mode)) return fail(err, "is a device or pipe, not a file");

    uint64_t file_bytes = (uint64_t)info.st_size;
    unsigned char first[8] = {0};
    size_t length;
    Error why;
    if (file_bytes >= 8 && !read_at(file->fd, first, 8, 0, err)) return false;
    if (!safetensors_header_length(first, file_bytes, &length, &why))
        return fail(err, "cannot be used: %s", why.text);
    char *text = malloc(length + 1);
    if (!text) return fail(err, "cannot be read: out of memory for a header of %zu bytes", length);
    file->data_at = 8 + length;
    bool ok = read_at(file->fd, text, length, 8, err);
    if (ok &&
        !safetensors_header_parse(&file->header, text, length, file_bytes - file->data_at, &why))
        ok = fail(err, "cannot be used: %s", why.text);
    ok = ok && check_guard(file, text, length, err);
    free(text);
    return ok;
}

bool safetensors_open(Safetensors *file, const char *path, Error *err)
{
    *file = (Safetensors){.fd = -1};
    Error why;
    size_t size = strlen(path) + 1;
    if (size > sizeof file->path)
        return fail(err, "a path longer than %zu bytes: %.200s...", sizeof file->path - 1, path);
    memcpy(file->path, path, size);
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not block us
    if (file->fd < 0) return fail(err, "cannot open %.300s: %s", path, strerror(errno));
    if (read_header(file, &why)) return true;
    safetensors_close(file);
    return fail(err, "%.200s %.300s", path, why.text);
}

static bool checksum_differs(const Safetensors *file, const SafetensorsEntry *entry,
                             uint64_t actual, Error *err)
{
    return fail(err,
                "%.200s is corrupt: tensor \"%.80s\" fails its checksum (%016llx, not %016llx); "
                "use an earlier file or a good copy",
                file->path, entry->tensor.name, (unsigned long long)actual,
                (unsigned long long)entry->checksum);
}

bool safetensors_read(const Safetensors *file, const char *name, SafetensorsDType dtype, int ndim,
                      const int64_t *shape, void *out, Error *err)
{
    const SafetensorsEntry *entry = safetensors_header_find(&file->header, name);
    if (!entry) return fail(err, "%.200s has no tensor \"%.80s\"", file->path, name);
    const SafetensorsTensor *have = &entry->tensor;
    SafetensorsTensor want = {.name = name, .dtype = dtype, .ndim = ndim};
    uint64_t bytes;
    for (int i = 0; i < ndim && i < ST_MAX_DIMS; i++) want.shape[i] = shape[i];
    if (!safetensors_tensor_bytes(&want, &bytes, err)) return false;
    if (have->dtype != dtype || have->ndim != ndim ||
        memcmp(have->shape, want.shape, (size_t)ndim * sizeof *shape)) {
        char having[ST_SHAPE_TEXT], wanting[ST_SHAPE_TEXT];
        return fail(err, "%.200s: tensor \"%.80s\" is %s, and %s is needed", file->path, name,
                    safetensors_describe(have, having), safetensors_describe(&want, wanting));
    }
    Error why;
    if (!read_at(file->fd, out, entry->bytes, file->data_at + entry->begin, &why))
        return fail(err, "%.200s %.280s", file->path, why.text);
    if (!entry->has_checksum) return true;
    uint64_t actual = xxh64(out, entry->bytes);
    return actual == entry->checksum || checksum_differs(file, entry, actual, err);
}

static bool verify_entry(const Safetensors *file, const SafetensorsEntry *entry, char *piece,
                         Error *err)
{
    uint64_t at = file->data_at + entry->begin, left = entry->bytes;
    Xxh64 hash = xxh64_start();
    Error why;
    for (;; at += kPiece, left -= kPiece) {
        size_t bytes = left < kPiece ? (size_t)left : kPiece;
        if (!read_at(file->fd, piece, bytes, at, &why))
            return fail(err, "%.200s %.280s", file->path, why.text);
        if (bytes < kPiece) {
            uint64_t actual = xxh64_finish(&hash, piece, bytes);
            return actual == entry->checksum || checksum_differs(file, entry, actual, err);
        }
        xxh64_add(&hash, piece, kPiece);
    }
}

bool safetensors_verify(const Safetensors *file, Error *err)
{
    char *piece = malloc(kPiece);
    if (!piece) return fail(err, "%.200s: out of memory to verify it", file->path);
    bool ok = true;
    for (int i = 0; i < file->header.count && ok; i++)
        if (file->header.entries[i].has_checksum)
            ok = verify_entry(file, &file->header.entries[i], piece, err);
    free(piece);
    return ok;
}

void safetensors_close(Safetensors *file)
{
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
    safetensors_header_free(&file->header);
}
