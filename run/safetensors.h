// Saving and reading safetensors files whose contents are guarded: the metadata holds the XXH64 of
// each tensor's data under "checksum.<name>", and, first in the header, "checksum" of the header's
// own text (taken with that value's 16 digits as zeros). So any flipped bit of the file is found.
// Python's safetensors library opens these files, and the files that it writes can be read; theirs
// have no checksums unless someone put them there.
#ifndef RUN_SAFETENSORS_H
#define RUN_SAFETENSORS_H

#include "atomic_file.h"
#include "safetensors_header.h"

// Writes the file through a temporary one (atomic_file.h): after a failure, or a kill at any
// moment, whatever was at `path` is still there. Tensors are laid out by descending size of their
// elements, else as given, from a 64-byte boundary, so each is aligned to its elements.
// Data of tensors without elements may be NULL. Keys of the metadata must not be or begin with
// "checksum". Fails when memory or the disk runs out, and for names that no file can hold.
bool safetensors_save(const char *path, const SafetensorsTensor *tensors, int count,
                      const Metadata *metadata, Error *err);

typedef struct {
    int fd;
    char path[FILE_PATH_MAX];
    uint64_t data_at; // offset of the data in the file
    SafetensorsHeader header;
    bool guarded; // it has the checksum of its header, which is right
} Safetensors;

// Opens the file, reads its header and checks all that safetensors_header_parse does, and the
// checksum of the header if there is one. The data is not read. Errors name the file.
bool safetensors_open(Safetensors *file, const char *path, Error *err);

// Copies the tensor of that name to `out`. Fails when it is missing, has another dtype or shape, or
// does not have its checksum; then `out` may be overwritten.
bool safetensors_read(const Safetensors *file, const char *name, SafetensorsDType dtype, int ndim,
                      const int64_t *shape, void *out, Error *err);

// Reads all the data and checks every checksum that there is.
bool safetensors_verify(const Safetensors *file, Error *err);

void safetensors_close(Safetensors *file);

#endif
