#include "plan_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../ops/plans.h"
#include "atomic_file.h"
#include "xxh64.h"

enum { MOST_BYTES = 4 << 20, CHECKSUM_BYTES = 23 };
static const char checksum_format[] = "xxh64 %016llx\n";

// The folder, without making it; false when there is to be none.
static bool cache_folder(char *folder, size_t size)
{
    const char *own = getenv("TURBOMUON_CACHE"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    int n = -1;
    if (own)
        n = own[0] ? snprintf(folder, size, "%s", own) : -1;
    else if (cache && cache[0])
        n = snprintf(folder, size, "%s/turbomuon", cache);
    else if (home && home[0])
        n = snprintf(folder, size, "%s/.cache/turbomuon", home);
    return n > 0 && (size_t)n < size;
}

// The file for the owner of these choices: "NVIDIA H200, cuBLASLt 130100" without what a file's
// name should not have.
static bool file_path(char path[FILE_PATH_MAX], const char *folder, const char *owner)
{
    char name[sizeof((Plans *)0)->owner + 1];
    size_t n = 0;
    for (const char *c = owner; *c; c++) {
        const bool plain = (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') ||
                           (*c >= 'a' && *c <= 'z') || *c == '.' || *c == '_';
        if (plain) name[n++] = *c;
        if (!plain && n > 0 && name[n - 1] != '-') name[n++] = '-';
    }
    name[n] = '\0';
    return snprintf(path, FILE_PATH_MAX, "%.3900s/gemm-%s.txt", folder, name) < FILE_PATH_MAX;
}

// What the device has chosen so far, and the path of its file. False when there is none to be.
static bool describe(const Ops *ops, Plans *chosen, char path[FILE_PATH_MAX])
{
    char folder[FILE_PATH_MAX];
    Error unused;
    char *text = ops->plans_text && cache_folder(folder, sizeof folder) ? ops->plans_text() : NULL;
    const bool ok = text && plans_parse(chosen, text, &unused);
    free(text);
    if (ok && file_path(path, folder, chosen->owner)) return true;
    if (ok) plans_free(chosen);
    return false;
}

static void print_checksum(char line[CHECKSUM_BYTES + 1], const char *text, size_t bytes)
{
    snprintf(line, CHECKSUM_BYTES + 1, checksum_format, (unsigned long long)xxh64(text, bytes));
}

// The file's text without its checksum, for the caller to free. NULL when it cannot be used: `err`
// says why, and nothing when there is none.
static char *read_text(const char *path, Error *err)
{
    char checksum[CHECKSUM_BYTES + 1];
    err->text[0] = '\0';
    FILE *file = fopen(path, "r");
    if (!file && (errno == ENOENT || errno == ENOTDIR)) return NULL;
    char *text = file ? malloc(MOST_BYTES + 1) : NULL;
    size_t n = text ? fread(text, 1, MOST_BYTES + 1, file) : 0;
    const bool readable = text && !ferror(file);
    if (file) fclose(file);
    if (readable && n >= CHECKSUM_BYTES && n <= MOST_BYTES) {
        n -= CHECKSUM_BYTES;
        print_checksum(checksum, text, n);
        if (!memcmp(text + n, checksum, CHECKSUM_BYTES) && !memchr(text, '\0', n)) {
            text[n] = '\0';
            return text;
        }
    }
    free(text);
    fail(err, readable ? "it is damaged" : "it cannot be read");
    return NULL;
}

void plan_file_load(const Ops *ops)
{
    char path[FILE_PATH_MAX];
    Plans chosen;
    Error err;
    if (!describe(ops, &chosen, path)) return;
    char *text = read_text(path, &err);
    if ((!text && err.text[0]) || (text && !ops->plans_restore(text, &err)))
        fprintf(stderr, "warning: %.300s is not used: %.150s; it will be made anew\n", path,
                err.text);
    free(text);
    plans_free(&chosen);
}

// Writes `plans` with their checksum; what fails leaves the old file.
static void write_file(const char *path, const char *text)
{
    char folder[FILE_PATH_MAX], checksum[CHECKSUM_BYTES + 1];
    AtomicFile file;
    Error unused;
    const size_t n = strlen(text);
    print_checksum(checksum, text, n);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    if (!folder_make(folder, &unused) ||
        !atomic_file_open(&file, path, n + CHECKSUM_BYTES, &unused) ||
        !atomic_file_write(&file, text, n, &unused) ||
        !atomic_file_write(&file, checksum, CHECKSUM_BYTES, &unused))
        return;
    atomic_file_commit(&file, &unused);
}

void plan_file_save(const Ops *ops)
{
    char path[FILE_PATH_MAX];
    Plans chosen, kept;
    Error unused;
    if (!describe(ops, &chosen, path)) return;
    char *before = read_text(path, &unused), *after = NULL;
    if (!before || !plans_parse(&kept, before, &unused) || strcmp(kept.owner, chosen.owner)) {
        if (before) plans_free(&kept);
        kept = (Plans){.capacity = 0};
        memcpy(kept.owner, chosen.owner, sizeof kept.owner);
    }
    bool ok = true;
    for (int i = 0; i < chosen.count && ok; i++) ok = plans_put(&kept, &chosen.choice[i]);
    if (ok && chosen.count > 0) after = plans_print(&kept);
    if (after && (!before || strcmp(before, after))) write_file(path, after);
    free(before);
    free(after);
    plans_free(&kept);
    plans_free(&chosen);
}
