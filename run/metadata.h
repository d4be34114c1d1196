// Key/value texts that travel with tensors: counters, seeds, the recipe as text.
#ifndef RUN_METADATA_H
#define RUN_METADATA_H

#include <stdint.h>

#include "../ops/error.h"

typedef struct {
    char *key, *value; // one allocation, at key
} MetadataPair;

typedef struct {
    MetadataPair *pairs;
    int count, capacity;
} Metadata; // {0} is empty

// Append a copy. A key must not be put twice: saving refuses it. They fail when memory runs out.
bool metadata_put_string(Metadata *metadata, const char *key, const char *value, Error *err);
bool metadata_put_int64(Metadata *metadata, const char *key, int64_t value, Error *err);
bool metadata_put_double(Metadata *metadata, const char *key, double value, Error *err); // %.17g

const char *metadata_find(const Metadata *metadata, const char *key); // NULL when it is not there

// Fail when the key is missing or its text is not one number of that type. A double comes back with
// the bits that were put (but for the payload of a NaN). The string lives as long as the metadata.
bool metadata_get_string(const Metadata *metadata, const char *key, const char **value, Error *err);
bool metadata_get_int64(const Metadata *metadata, const char *key, int64_t *value, Error *err);
bool metadata_get_double(const Metadata *metadata, const char *key, double *value, Error *err);

void metadata_free(Metadata *metadata); // leaves it empty

#endif
