#include "metadata.h"

#include <ctype.h>    // isspace
#include <errno.h>    // errno, ERANGE
#include <inttypes.h> // PRId64
#include <math.h>     // HUGE_VAL
#include <stdlib.h>   // malloc, realloc, strtoll, strtod
#include <string.h>   // strlen, strcmp, memcpy

bool metadata_put_string(Metadata *metadata, const char *key, const char *value, Error *err)
{
    if (metadata->count == metadata->capacity) {
        int capacity = metadata->capacity ? metadata->capacity * 2 : 16;
        MetadataPair *pairs = realloc(metadata->pairs, (size_t)capacity * sizeof *pairs);
        if (!pairs) return fail(err, "out of memory for %d metadata entries", capacity);
        metadata->pairs = pairs;
        metadata->capacity = capacity;
    }
    size_t key_size = strlen(key) + 1, value_size = strlen(value) + 1;
    char *text = malloc(key_size + value_size);
    if (!text) return fail(err, "out of memory for the metadata entry \"%.80s\"", key);
    memcpy(text, key, key_size);
    memcpy(text + key_size, value, value_size);
    metadata->pairs[metadata->count++] = (MetadataPair){text, text + key_size};
    return true;
}

bool metadata_put_int64(Metadata *metadata, const char *key, int64_t value, Error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return metadata_put_string(metadata, key, text, err);
}

bool metadata_put_double(Metadata *metadata, const char *key, double value, Error *err)
{
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    return metadata_put_string(metadata, key, text, err);
}

const char *metadata_find(const Metadata *metadata, const char *key)
{
    for (int i = 0; i < metadata->count; i++)
        if (!strcmp(metadata->pairs[i].key, key)) return metadata->pairs[i].value;
    return NULL;
}

bool metadata_get_string(const Metadata *metadata, const char *key, const char **value, Error *err)
{
    const char *text = metadata_find(metadata, key);
    if (!text) return fail(err, "the metadata has no entry \"%.80s\"", key);
    *value = text;
    return true;
}

bool metadata_get_int64(const Metadata *metadata, const char *key, int64_t *value, Error *err)
{
    const char *text = "";
    if (!metadata_get_string(metadata, key, &text, err)) return false;
    char *end;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (!*text || isspace((unsigned char)*text) || *end || errno)
        return fail(err, "the metadata entry \"%.80s\" is \"%.80s\", not a 64-bit integer", key,
                    text);
    *value = parsed;
    return true;
}

bool metadata_get_double(const Metadata *metadata, const char *key, double *value, Error *err)
{
    const char *text = "";
    if (!metadata_get_string(metadata, key, &text, err)) return false;
    char *end;
    errno = 0;
    double parsed = strtod(text, &end);
    bool overflow = errno == ERANGE && (parsed == HUGE_VAL || parsed == -HUGE_VAL);
    if (!*text || isspace((unsigned char)*text) || *end || overflow)
        return fail(err, "the metadata entry \"%.80s\" is \"%.80s\", not a number", key, text);
    *value = parsed;
    return true;
}

void metadata_free(Metadata *metadata)
{
    for (int i = 0; i < metadata->count; i++) free(metadata->pairs[i].key);
    free(metadata->pairs);
    *metadata = (Metadata){0};
}
