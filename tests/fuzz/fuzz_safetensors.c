// Any bytes as the header of a safetensors file. What is accepted must keep the promises of
// safetensors_header.h: tensors cover the data exactly, sizes follow from shapes, names differ.
// The first two bytes give the size of the data; the rest is the header's text.
#include "../../run/safetensors_header.h"

#include <stdlib.h> // abort, malloc

static void require(bool promise)
{
    if (!promise) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SafetensorsHeader header;
    Error err;
    size_t length;
    if (size >= 8 && safetensors_header_length(data, size, &length, &err))
        require(length <= size - 8);
    if (size < 2) return 0;

    uint64_t data_bytes = (uint64_t)(data[0] | data[1] << 8), at = 0, bytes;
    char *text =
        malloc(size - 2); // of its exact size, so that a sanitizer sees a read past the end
    if (!text) return 0;
    memcpy(text, data + 2, size - 2);
    bool accepted = safetensors_header_parse(&header, text, size - 2, data_bytes, &err);
    free(text);
    if (!accepted) {
        require(memchr(err.text, '\0', sizeof err.text) && !strchr(err.text, '\n'));
        return 0;
    }
    for (int i = 0; i < header.count; i++) {
        const SafetensorsEntry *entry = &header.entries[i];
        char described[ST_SHAPE_TEXT];
        require(safetensors_tensor_bytes(&entry->tensor, &bytes, &err) && bytes == entry->bytes);
        require(entry->begin == at);
        at += bytes;
        require(safetensors_header_find(&header, entry->tensor.name) == entry);
        require(strlen(safetensors_describe(&entry->tensor, described)) < ST_SHAPE_TEXT);
    }
    require(at == data_bytes);
    for (int i = 1; i < header.metadata.count; i++)
        require(strcmp(header.metadata.pairs[i - 1].key, header.metadata.pairs[i].key) < 0);
    safetensors_header_free(&header);
    return 0;
}
