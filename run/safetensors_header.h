// The safetensors format (https://github.com/huggingface/safetensors#format), in memory:
//
//   8 bytes   length of the header, little-endian
//   header    JSON: {"__metadata__": {key: text, ...}, name: {"dtype": "F32", "shape": [2,3],
//             "data_offsets": [begin, end]}, ...}, then spaces
//   data      the tensors, row-major and little-endian, without gaps; offsets count from here
//
// Files by others may hold further dtypes; those are refused by name.
#ifndef RUN_SAFETENSORS_HEADER_H
#define RUN_SAFETENSORS_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/dtype.h"
#include "../ops/error.h"
#include "metadata.h"

// The first four have the values of DType, so that either converts with a cast.
typedef enum {
    ST_F64 = DT_F64,
    ST_F32 = DT_F32,
    ST_BF16 = DT_BF16,
    ST_F16 = DT_F16,
    ST_I64,
    ST_I32,
    ST_U8
} SafetensorsDType;

enum { ST_MAX_DIMS = 8, ST_MAX_HEADER = 100000000 }; // the latter is the Rust library's limit

typedef struct {
    const char *name; // UTF-8 without control characters
    SafetensorsDType dtype;
    int ndim; // 0: a scalar
    int64_t shape[ST_MAX_DIMS];
    const void *data; // for saving; NULL in a header that was read
} SafetensorsTensor;

typedef struct {
    SafetensorsTensor tensor;
    uint64_t begin, bytes; // in the data
    bool has_checksum;     // the metadata has "checksum.<name>": 16 hex digits, XXH64 of the data
    uint64_t checksum;
} SafetensorsEntry;

typedef struct {
    SafetensorsEntry *entries; // in the order of their data
    int count;
    Metadata metadata; // ordered by key
    char *names;       // storage
} SafetensorsHeader;

size_t safetensors_dtype_size(SafetensorsDType dtype);
const char *safetensors_dtype_name(SafetensorsDType dtype); // as in the file

// Fails for an unknown dtype, too many or negative dimensions, and a size past 2^63 - 1.
bool safetensors_tensor_bytes(const SafetensorsTensor *tensor, uint64_t *bytes, Error *err);

// "F32 (768,3072)" for messages.
enum { ST_SHAPE_TEXT = 192 };
const char *safetensors_describe(const SafetensorsTensor *tensor, char text[ST_SHAPE_TEXT]);

// The length of the header, from the first bytes of a file: fails when there are fewer than 8, when
// it exceeds ST_MAX_HEADER, or what the file holds.
bool safetensors_header_length(const unsigned char first[8], uint64_t file_bytes, size_t *length,
                               Error *err);

// Reads the header's text, any bytes, and checks all of it: JSON and UTF-8, no name or key twice,
// sizes that follow from shapes, tensors that cover data_bytes without gap or overlap. On failure
// the header is empty.
bool safetensors_header_parse(SafetensorsHeader *header, const char *text, size_t length,
                              uint64_t data_bytes, Error *err);
void safetensors_header_free(SafetensorsHeader *header);

const SafetensorsEntry *safetensors_header_find(const SafetensorsHeader *header, const char *name);

#endif
