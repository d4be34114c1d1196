// A file that appears whole or not at all: written beside its final name, made durable, renamed.
#ifndef RUN_ATOMIC_FILE_H
#define RUN_ATOMIC_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "../ops/error.h"

enum { FILE_PATH_MAX = 4096 };

typedef struct {
    int fd;
    uint64_t need; // bytes the whole file will have, for the message when a disk is full
    char path[FILE_PATH_MAX];
    char temp[FILE_PATH_MAX]; // path + ".tmp." + process id: two runs never write into one file
} AtomicFile;

// Usage: open, write in order, commit. When any of them fails the temporary file is gone, whatever
// was at `path` before is untouched, and the file must not be used further. A disk that is full, a
// quota and a file size limit (with SIGXFSZ ignored) say how much was needed and how much is free.
// What is at `path` must be a file if anything: a device or a folder is refused, not replaced.
bool atomic_file_open(AtomicFile *file, const char *path, uint64_t need, Error *err);
bool atomic_file_write(AtomicFile *file, const void *data, size_t bytes, Error *err);
// fsync of the file, rename, fsync of the folder. Only when the last fails is the new file in place
// although false is returned.
bool atomic_file_commit(AtomicFile *file, Error *err);
// Removes the temporary file, if there is one; also right on {.fd = -1}.
void atomic_file_discard(AtomicFile *file);

// Makes the folder and those above it that are missing, durably. Existing is no error; being
// something other than a folder is.
bool folder_make(const char *path, Error *err);

#endif
