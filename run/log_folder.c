// The folder of a run: which name, new or continued.
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic_file.h"
#include "log.h"

// The highest n of the folders <recipe>-<n> in root, 0 when there is none.
static int highest_number(const char *root, const char *recipe)
{
    size_t length = strlen(recipe);
    int highest = 0;
    DIR *dir = opendir(root);
    if (!dir) return 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strncmp(name, recipe, length) || name[length] != '-') continue;
        const char *digits = name + length + 1;
        size_t n = strspn(digits, "0123456789");
        if (n == 0 || n > 8 || digits[n]) continue;
        int number = atoi(digits);
        if (number > highest) highest = number;
    }
    closedir(dir);
    return highest;
}

static bool has_log(const char *path)
{
    char log[FILE_PATH_MAX];
    snprintf(log, sizeof log, "%.4000s/log.jsonl", path);
    return access(log, F_OK) == 0;
}

static bool new_numbered(const char *root, const char *recipe, char *path, size_t size, Error *err)
{
    for (int n = highest_number(root, recipe) + 1;; n++) {
        snprintf(path, size, "%s/%s-%d", root, recipe, n);
        if (mkdir(path, 0777) == 0) return true; // ours alone, also when two runs start at once
        if (errno != EEXIST)
            return fail(err, "cannot make the folder %.256s: %s", path, strerror(errno));
    }
}

bool log_folder(const char *root, const char *name, const char *recipe, bool resume, char *path,
                size_t size, Error *err)
{
    if (strlen(root) + strlen(name) + strlen(recipe) + 16 > size)
        return fail(err, "the path of the run's folder is longer than %zu bytes", size);
    if (!resume && !folder_make(root, err)) return false;
    if (!name[0] && !resume) return new_numbered(root, recipe, path, size, err);
    int number = name[0] ? 0 : highest_number(root, recipe);
    if (!name[0] && !number)
        return fail(err, "there is no run of recipe %s in %.256s to resume: name one with --run",
                    recipe, root);
    if (name[0])
        snprintf(path, size, "%s/%s", root, name);
    else
        snprintf(path, size, "%s/%s-%d", root, recipe, number);
    if (resume && !has_log(path))
        return fail(err, "there is no run to resume in %.256s: name one with --run", path);
    if (!resume && has_log(path))
        return fail(
            err, "%.256s already has a run: --resume continues it, another --run starts one", path);
    return resume || folder_make(path, err);
}
