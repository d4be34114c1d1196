#include "checkpoint.h"

#include <ctype.h>    // isdigit
#include <dirent.h>   // opendir, readdir
#include <errno.h>    // errno
#include <stdlib.h>   // malloc, realloc, qsort, strtoll
#include <sys/stat.h> // stat
#include <unistd.h>   // unlink

static const char kPrefix[] = "step_", kSuffix[] = ".safetensors", kTempSuffix[] = ".tmp.";
enum { kNameMax = 64 };

static void checkpoint_name(char name[kNameMax], int64_t step)
{
    snprintf(name, kNameMax, "%s%06lld%s", kPrefix, (long long)step, kSuffix);
}

bool checkpoint_path(char path[FILE_PATH_MAX], const char *folder, int64_t step, Error *err)
{
    char name[kNameMax];
    if (step < 0) return fail(err, "a checkpoint of step %lld", (long long)step);
    checkpoint_name(name, step);
    int length = snprintf(path, FILE_PATH_MAX, "%s/%s", folder, name);
    return length < FILE_PATH_MAX || fail(err, "a path of %d bytes: %.200s...", length, folder);
}

// The step that a name of ours tells, or -1. *temporary: the name is of an unfinished file.
static int64_t step_of_name(const char *name, bool *temporary)
{
    char whole[kNameMax];
    if (strncmp(name, kPrefix, sizeof kPrefix - 1) || !isdigit((unsigned char)name[5])) return -1;
    errno = 0;
    int64_t step = strtoll(name + 5, NULL, 10);
    if (errno) return -1;
    checkpoint_name(whole, step);
    size_t length = strlen(whole);
    if (strncmp(name, whole, length)) return -1;
    *temporary = !strncmp(name + length, kTempSuffix, sizeof kTempSuffix - 1);
    return *temporary || name[length] == '\0' ? step : -1;
}

// ---- the contents of a folder

typedef struct {
    int64_t *steps; // of the checkpoints, the newest first
    int count;
} StepList;

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static DIR *open_folder(const char *folder, Error *err)
{
    struct stat info;
    if (stat(folder, &info) == 0 && !S_ISDIR(info.st_mode)) {
        fail(err, "%.300s is a file, and the folder that holds the checkpoints is needed", folder);
        return NULL;
    }
    DIR *dir = opendir(folder);
    if (!dir) fail(err, "cannot open the folder %.300s: %s", folder, strerror(errno));
    return dir;
}

static bool list_steps(StepList *list, const char *folder, Error *err)
{
    *list = (StepList){0};
    DIR *dir = open_folder(folder, err);
    if (!dir) return false;
    int capacity = 0;
    bool ok = true, temporary;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        int64_t step = step_of_name(entry->d_name, &temporary);
        if (step < 0 || temporary) continue;
        if (list->count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            int64_t *grown = realloc(list->steps, (size_t)capacity * sizeof *grown);
            if (!grown) ok = fail(err, "out of memory to list %.300s", folder);
            if (grown) list->steps = grown;
        }
        if (ok) list->steps[list->count++] = step;
    }
    closedir(dir);
    if (!ok)
        free(list->steps);
    else if (list->count)
        qsort(list->steps, (size_t)list->count, sizeof *list->steps, newest_first);
    return ok;
}

// They may fill the disk that the next checkpoint needs. One that cannot be removed does no harm.
static bool remove_temporaries(const char *folder, Error *err)
{
    DIR *dir = open_folder(folder, err);
    if (!dir) return false;
    bool temporary;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (step_of_name(entry->d_name, &temporary) >= 0 && temporary)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return true;
}

static bool remove_older(const char *folder, int64_t step, int keep, Error *err)
{
    StepList list;
    Error why;
    char path[FILE_PATH_MAX];
    if (!list_steps(&list, folder, err)) return false;
    bool ok = true;
    int kept = 0;
    for (int i = 0; i < list.count && ok; i++) {
        if (list.steps[i] > step || ++kept <= keep) continue;
        ok = checkpoint_path(path, folder, list.steps[i], err);
        if (ok && unlink(path) && errno != ENOENT)
            ok = fail(err, "cannot remove %.300s: %s", path, strerror(errno));
    }
    free(list.steps);
    if (ok) return true;
    why = *err;
    return fail(err, "the checkpoint of step %lld is saved, but older ones are still there: %.300s",
                (long long)step, why.text);
}

// ---- saving, finding, opening

bool checkpoint_save(const char *folder, int64_t step, const SafetensorsTensor *tensors, int count,
                     const Metadata *metadata, int keep, Error *err)
{
    char path[FILE_PATH_MAX];
    Error why;
    if (!checkpoint_path(path, folder, step, &why) || !folder_make(folder, &why) ||
        !remove_temporaries(folder, &why) ||
        !safetensors_save(path, tensors, count, metadata, &why))
        return fail(err,
                    "the checkpoint of step %lld is not saved (earlier ones are intact): %.400s",
                    (long long)step, why.text);
    return keep <= 0 || remove_older(folder, step, keep, err);
}

bool checkpoint_open(Safetensors *file, const char *path, Error *err)
{
    if (!safetensors_open(file, path, err)) return false;
    if (file->guarded) return true;
    safetensors_close(file);
    return fail(err,
                "%.300s is a safetensors file but no checkpoint of this program: its header has "
                "no checksum",
                path);
}

static bool is_whole(const char *path, Error *err)
{
    Safetensors file;
    if (!checkpoint_open(&file, path, err)) return false;
    bool whole = safetensors_verify(&file, err);
    safetensors_close(&file);
    return whole;
}

bool checkpoint_latest(const char *folder, char path[FILE_PATH_MAX], Error *warning, Error *err)
{
    StepList list;
    Error first = {""}, why; // why the newest cannot be used, and each
    warning->text[0] = '\0';
    if (!list_steps(&list, folder, err)) return false;
    int passed = 0;
    while (passed < list.count &&
           !(checkpoint_path(path, folder, list.steps[passed], &why) && is_whole(path, &why)))
        if (passed++ == 0) first = why;
    int count = list.count;
    free(list.steps);
    if (count == 0)
        return fail(err, "no checkpoint (step_000123.safetensors) in the folder %.300s", folder);
    if (passed == count)
        return fail(err, "none of the %d checkpoints in %.200s is whole; the newest: %.250s", count,
                    folder, first.text);
    if (passed > 0) {
        int length = (int)strlen(path);
        fail(warning, "%d checkpoint%s passed over, and %.*s is used: %.300s", passed,
             passed == 1 ? " is" : "s are", length < 150 ? length : 150, path, first.text);
    }
    return true;
}
