#include "atomic_file.h"

#include <errno.h>       // errno and its values
#include <fcntl.h>       // open
#include <string.h>      // strerror, strlen, strrchr, memcpy
#include <sys/stat.h>    // mkdir, stat
#include <sys/statvfs.h> // statvfs
#include <unistd.h>      // write, fsync, close, unlink, getpid

// The folder that holds `path`.
static void folder_of(const char *path, char folder[FILE_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int length = slash == path ? 1 : slash ? (int)(slash - path) : 0;
    if (slash)
        snprintf(folder, FILE_PATH_MAX, "%.*s", length, path);
    else
        snprintf(folder, FILE_PATH_MAX, ".");
}

static bool folder_sync(const char *folder, Error *err)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok =
        fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); // EINVAL: folders cannot be synced here
    int why = errno;
    if (fd >= 0) close(fd);
    return ok || fail(err, "cannot make the folder %.300s durable: %s", folder, strerror(why));
}

static const char *print_bytes(uint64_t bytes, char text[32])
{
    if (bytes >= 1000000000)
        snprintf(text, 32, "%.2f GB", (double)bytes * 1e-9);
    else if (bytes >= 1000000)
        snprintf(text, 32, "%.2f MB", (double)bytes * 1e-6);
    else
        snprintf(text, 32, "%d bytes", (int)bytes);
    return text;
}

void atomic_file_discard(AtomicFile *file)
{
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
    unlink(file->temp); // after a commit there is none
}

// Removes the temporary file and words the error, errno telling the cause.
static bool abandon(AtomicFile *file, const char *action, Error *err)
{
    int why = errno;
    atomic_file_discard(file); // first: what it held counts as free again
    if (why == ENOSPC || why == EDQUOT || why == EFBIG) {
        char folder[FILE_PATH_MAX], needed[32], available[32];
        struct statvfs disk;
        folder_of(file->path, folder);
        print_bytes(file->need, needed);
        if (statvfs(folder, &disk) == 0)
            return fail(err, "cannot %s %.250s: %s; it needs %s, and %s are free on that disk",
                        action, file->path, strerror(why), needed,
                        print_bytes((uint64_t)disk.f_bavail * disk.f_frsize, available));
        return fail(err, "cannot %s %.250s: %s; it needs %s", action, file->path, strerror(why),
                    needed);
    }
    return fail(err, "cannot %s %.300s: %s", action, file->path, strerror(why));
}

bool atomic_file_open(AtomicFile *file, const char *path, uint64_t need, Error *err)
{
    struct stat info;
    file->fd = -1;
    file->need = need;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return fail(err, "cannot write %.300s: a %s is there", path,
                    S_ISDIR(info.st_mode) ? "folder" : "device");
    size_t size = strlen(path) + 1, room = FILE_PATH_MAX - sizeof ".tmp." - 20;
    if (size > room) return fail(err, "a path longer than %zu bytes: %.200s...", room - 1, path);
    memcpy(file->path, path, size);
    memcpy(file->temp, path, size);
    snprintf(file->temp + size - 1, FILE_PATH_MAX - size, ".tmp.%ld", (long)getpid());
    unlink(file->temp); // left by a killed process that had our id
    file->fd = open(file->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return file->fd >= 0 || abandon(file, "create", err);
}

bool atomic_file_write(AtomicFile *file, const void *data, size_t bytes, Error *err)
{
    const char *next = data;
    while (bytes > 0) {
        ssize_t written = write(file->fd, next, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return abandon(file, "write", err);
        next += written;
        bytes -= (size_t)written;
    }
    return true;
}

bool atomic_file_commit(AtomicFile *file, Error *err)
{
    if (fsync(file->fd)) return abandon(file, "write", err);
    int closed = close(file->fd);
    file->fd = -1;
    if (closed) return abandon(file, "write", err);
    if (rename(file->temp, file->path)) return abandon(file, "put in place", err);
    char folder[FILE_PATH_MAX];
    folder_of(file->path, folder);
    return folder_sync(folder, err);
}

bool folder_make(const char *path, Error *err)
{
    char part[FILE_PATH_MAX], parent[FILE_PATH_MAX];
    size_t length = strlen(path);
    if (length == 0) return fail(err, "the name of a folder is empty");
    if (length >= sizeof part) return fail(err, "a path of %zu bytes: %.200s...", length, path);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        snprintf(part, sizeof part, "%.*s", (int)i, path);
        if (mkdir(part, 0777) == 0) {
            folder_of(part, parent);
            if (!folder_sync(parent, err)) return false;
            continue;
        }
        int why = errno;
        struct stat info;
        if (stat(part, &info) == 0) {
            if (S_ISDIR(info.st_mode)) continue;
            return fail(err, "%.300s is a file, and a folder is needed there", part);
        }
        return fail(err, "cannot make the folder %.300s: %s", part, strerror(why));
    }
    return true;
}
