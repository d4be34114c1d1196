#include "safetensors_header.h"

#include <stdlib.h> // malloc, realloc, qsort, bsearch

#include "json.h"

static const struct {
    const char *name;
    size_t size;
} kDTypes[] = {
    [ST_F64] = {"F64", 8}, [ST_F32] = {"F32", 4}, [ST_BF16] = {"BF16", 2}, [ST_F16] = {"F16", 2},
    [ST_I64] = {"I64", 8}, [ST_I32] = {"I32", 4}, [ST_U8] = {"U8", 1},
};
enum { kDTypeCount = sizeof kDTypes / sizeof *kDTypes };

size_t safetensors_dtype_size(SafetensorsDType dtype) { return kDTypes[dtype].size; }
const char *safetensors_dtype_name(SafetensorsDType dtype) { return kDTypes[dtype].name; }

bool safetensors_tensor_bytes(const SafetensorsTensor *tensor, uint64_t *bytes, Error *err)
{
    if ((unsigned)tensor->dtype >= kDTypeCount || tensor->ndim < 0 || tensor->ndim > ST_MAX_DIMS)
        return fail(err, "tensor \"%.80s\": a dtype or number of dimensions that no file can hold",
                    tensor->name);
    int64_t size = (int64_t)kDTypes[tensor->dtype].size;
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] < 0 || __builtin_mul_overflow(size, tensor->shape[i], &size))
            return fail(err, "tensor \"%.80s\": dimension %d makes its size negative or too large",
                        tensor->name, i);
    *bytes = (uint64_t)size;
    return true;
}

const char *safetensors_describe(const SafetensorsTensor *tensor, char text[ST_SHAPE_TEXT])
{
    int at = snprintf(text, ST_SHAPE_TEXT, "%s (", safetensors_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->ndim; i++)
        at += snprintf(text + at, (size_t)(ST_SHAPE_TEXT - at), "%s%lld", i ? "," : "",
                       (long long)tensor->shape[i]);
    snprintf(text + at, (size_t)(ST_SHAPE_TEXT - at), ")");
    return text;
}

static bool parse_dtype(Json *json, SafetensorsTensor *tensor)
{
    const char *name;
    if (!json_string(json, &name)) return false;
    for (int i = 0; i < kDTypeCount; i++)
        if (!strcmp(name, kDTypes[i].name)) {
            tensor->dtype = (SafetensorsDType)i;
            return true;
        }
    return fail(json->err,
                "tensor \"%.80s\" has dtype %.20s; F64, F32, BF16, F16, I64, I32 and U8 "
                "can be read",
                tensor->name, name);
}

static bool parse_entry(Json *json, SafetensorsEntry *entry)
{
    static const char *const kFields[] = {"dtype", "shape", "data_offsets"};
    SafetensorsTensor *tensor = &entry->tensor;
    int64_t offsets[2] = {0};
    int seen = 0, count = 0;
    if (!json_expect(json, '{')) return false;
    do {
        const char *field;
        if (!json_string(json, &field) || !json_expect(json, ':')) return false;
        int which = 0;
        while (which < 3 && strcmp(field, kFields[which])) which++;
        if (which == 3 || seen & 1 << which)
            return json_fail(
                json, "a field that is unknown or there twice; a tensor has dtype, shape and "
                      "data_offsets");
        seen |= 1 << which;
        if (which == 0 && !parse_dtype(json, tensor)) return false;
        if (which == 1 && !json_sizes(json, tensor->shape, ST_MAX_DIMS, &tensor->ndim))
            return false;
        if (which == 2 && !json_sizes(json, offsets, 2, &count)) return false;
    } while (json_accept(json, ','));
    if (!json_expect(json, '}')) return false;
    if (seen != 7 || count != 2)
        return fail(json->err, "tensor \"%.80s\" lacks a dtype, a shape or two data_offsets",
                    tensor->name);
    if (!safetensors_tensor_bytes(tensor, &entry->bytes, json->err)) return false;
    entry->begin = (uint64_t)offsets[0];
    if (offsets[1] < offsets[0] || (uint64_t)(offsets[1] - offsets[0]) != entry->bytes) {
        char text[ST_SHAPE_TEXT];
        return fail(json->err,
                    "tensor \"%.80s\" is %s, %llu bytes, but its data_offsets are %lld to %lld",
                    tensor->name, safetensors_describe(tensor, text),
                    (unsigned long long)entry->bytes, (long long)offsets[0], (long long)offsets[1]);
    }
    return true;
}

static bool parse_metadata(Json *json, Metadata *metadata)
{
    if (!json_expect(json, '{')) return false;
    if (json_accept(json, '}')) return true;
    do {
        const char *key, *value;
        char *room = json->room;
        if (!json_string(json, &key) || !json_expect(json, ':') || !json_string(json, &value))
            return false;
        if (!metadata_put_string(metadata, key, value, json->err)) return false;
        json->room = room; // it was copied
    } while (json_accept(json, ','));
    return json_expect(json, '}');
}

static bool parse_object(Json *json, SafetensorsHeader *header)
{
    int capacity = 0;
    bool has_metadata = false;
    if (json->at == json->end || *json->at != '{')
        return json_fail(json, "it does not begin with '{'");
    json->at++;
    if (!json_accept(json, '}')) {
        do {
            const char *name;
            if (!json_string(json, &name) || !json_expect(json, ':')) return false;
            if (!strcmp(name, "__metadata__")) {
                if (has_metadata) return json_fail(json, "__metadata__ is there twice");
                has_metadata = true;
                if (!parse_metadata(json, &header->metadata)) return false;
                continue;
            }
            for (const char *p = name; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                    return json_fail(json, "a control character in the name of a tensor");
            if (header->count == capacity) {
                capacity = capacity ? capacity * 2 : 64;
                SafetensorsEntry *grown =
                    realloc(header->entries, (size_t)capacity * sizeof *grown);
                if (!grown) return fail(json->err, "out of memory for %d tensors", capacity);
                header->entries = grown;
            }
            SafetensorsEntry *entry = &header->entries[header->count++];
            *entry = (SafetensorsEntry){.tensor.name = name};
            if (!parse_entry(json, entry)) return false;
        } while (json_accept(json, ','));
        if (!json_expect(json, '}')) return false;
    }
    json_skip_space(json);
    return json->at == json->end || json_fail(json, "something follows its end");
}

// ---- what only the whole tells

static int by_name(const void *a, const void *b)
{
    return strcmp(((const SafetensorsEntry *)a)->tensor.name,
                  ((const SafetensorsEntry *)b)->tensor.name);
}

static int by_begin(const void *a, const void *b)
{
    const SafetensorsEntry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); // those without elements come first
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const MetadataPair *)a)->key, ((const MetadataPair *)b)->key);
}

static const char kChecksum[] = "checksum.";

// Orders the name of a tensor against the key of a pair, as if the name were "checksum.<name>".
static int by_checksum_key(const void *name, const void *pair)
{
    const char *key = ((const MetadataPair *)pair)->key;
    int order = strncmp(kChecksum, key, sizeof kChecksum - 1);
    return order ? order : strcmp(name, key + sizeof kChecksum - 1);
}

static bool find_checksum(SafetensorsEntry *entry, const Metadata *metadata, Error *err)
{
    if (metadata->count == 0) return true;
    const MetadataPair *pair = bsearch(entry->tensor.name, metadata->pairs, (size_t)metadata->count,
                                       sizeof *pair, by_checksum_key);
    if (!pair) return true;
    if (strlen(pair->value) != 16 || strspn(pair->value, "0123456789abcdef") != 16)
        return fail(err, "the checksum of tensor \"%.80s\" is not 16 hex digits",
                    entry->tensor.name);
    entry->has_checksum = true;
    entry->checksum = strtoull(pair->value, NULL, 16);
    return true;
}

static bool check_whole(SafetensorsHeader *header, uint64_t data_bytes, Error *err)
{
    SafetensorsEntry *entries = header->entries;
    Metadata *metadata = &header->metadata;
    if (metadata->count)
        qsort(metadata->pairs, (size_t)metadata->count, sizeof *metadata->pairs, by_key);
    for (int i = 1; i < metadata->count; i++)
        if (!strcmp(metadata->pairs[i].key, metadata->pairs[i - 1].key))
            return fail(err, "the metadata has \"%.80s\" twice", metadata->pairs[i].key);

    if (header->count) qsort(entries, (size_t)header->count, sizeof *entries, by_name);
    for (int i = 1; i < header->count; i++)
        if (!strcmp(entries[i].tensor.name, entries[i - 1].tensor.name))
            return fail(err, "tensor \"%.80s\" is there twice", entries[i].tensor.name);

    if (header->count) qsort(entries, (size_t)header->count, sizeof *entries, by_begin);
    uint64_t at = 0;
    for (int i = 0; i < header->count; i++) {
        if (entries[i].begin != at)
            return fail(err,
                        "tensor \"%.80s\" begins at byte %llu of the data, where byte %llu "
                        "would follow the one before it",
                        entries[i].tensor.name, (unsigned long long)entries[i].begin,
                        (unsigned long long)at);
        at += entries[i].bytes; // each at most 2^63 - 1, and begin = at keeps the sum there
        if (!find_checksum(&entries[i], metadata, err)) return false;
    }
    if (at != data_bytes)
        return fail(err, "its tensors need %llu bytes of data, and there are %llu",
                    (unsigned long long)at, (unsigned long long)data_bytes);
    return true;
}

bool safetensors_header_length(const unsigned char first[8], uint64_t file_bytes, size_t *length,
                               Error *err)
{
    if (file_bytes < 8)
        return fail(err, "%d bytes are too few for a safetensors file", (int)file_bytes);
    uint64_t bytes = 0;
    for (int i = 0; i < 8; i++) bytes |= (uint64_t)first[i] << 8 * i;
    if (bytes > ST_MAX_HEADER)
        return fail(err, "not a safetensors file: its header would have %llu bytes",
                    (unsigned long long)bytes);
    if (bytes > file_bytes - 8)
        return fail(err, "a header of %llu bytes is cut short: the file has %llu bytes",
                    (unsigned long long)bytes, (unsigned long long)file_bytes);
    *length = (size_t)bytes;
    return true;
}

bool safetensors_header_parse(SafetensorsHeader *header, const char *text, size_t length,
                              uint64_t data_bytes, Error *err)
{
    *header = (SafetensorsHeader){0};
    header->names = malloc(length + 1);
    if (!header->names) return fail(err, "out of memory for a header of %zu bytes", length);
    Json json = {.text = text, .at = text, .end = text + length, .room = header->names, .err = err};
    json.name = "the header";
    if (parse_object(&json, header) && check_whole(header, data_bytes, err)) return true;
    safetensors_header_free(header);
    return false;
}

void safetensors_header_free(SafetensorsHeader *header)
{
    metadata_free(&header->metadata);
    free(header->entries);
    free(header->names);
    *header = (SafetensorsHeader){0};
}

const SafetensorsEntry *safetensors_header_find(const SafetensorsHeader *header, const char *name)
{
    for (int i = 0; i < header->count; i++)
        if (!strcmp(header->entries[i].tensor.name, name)) return &header->entries[i];
    return NULL;
}
