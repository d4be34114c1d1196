// Checkpoints: what is kept, what is found, and that nothing but a whole one is ever used, with the
// disk full, the folder read-only, and the process killed while it saves.
#include "../../run/checkpoint.h"
#include "../test.h"

#include <dirent.h>       // opendir
#include <fcntl.h>        // open
#include <signal.h>       // kill, signal
#include <stdlib.h>       // mkdtemp, calloc
#include <sys/mount.h>    // mount
#include <sys/resource.h> // setrlimit
#include <sys/stat.h>     // mkdir, chmod
#include <sys/wait.h>     // waitpid
#include <unistd.h>       // fork, unlink, rmdir, usleep

static char root[64];

// A folder of its own for each test, not made yet.
static const char *folder_named(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

// Saves two tensors that hold the step all over, `size` numbers in the first.
static bool save(const char *folder, int64_t step, int64_t size, int keep, Error *err)
{
    int32_t *numbers = calloc((size_t)size, sizeof *numbers);
    Metadata metadata = {0};
    for (int64_t i = 0; i < size; i++) numbers[i] = (int32_t)(step * 1000003 + i);
    SafetensorsTensor tensors[] = {{"numbers", ST_I32, 1, {size}, numbers},
                                   {"step", ST_I64, 0, {0}, &step}};
    metadata_put_int64(&metadata, "step", step, err);
    bool ok = checkpoint_save(folder, step, tensors, 2, &metadata, keep, err);
    metadata_free(&metadata);
    free(numbers);
    return ok;
}

// The step of the newest whole checkpoint, whose contents are checked, or -1.
static int64_t newest(const char *folder, int64_t size, Error *warning, Error *err)
{
    char path[FILE_PATH_MAX];
    Safetensors file;
    int64_t step = -1, named = -1;
    if (!checkpoint_latest(folder, path, warning, err)) return -1;
    CHECK(checkpoint_open(&file, path, err), "%s", err->text);
    int32_t *numbers = calloc((size_t)size, sizeof *numbers);
    CHECK(safetensors_read(&file, "numbers", ST_I32, 1, &size, numbers, err), "%s", err->text);
    CHECK(safetensors_read(&file, "step", ST_I64, 0, NULL, &step, err), "%s", err->text);
    CHECK(metadata_get_int64(&file.header.metadata, "step", &named, err) && named == step);
    for (int64_t i = 0; i < size; i++)
        if (numbers[i] != (int32_t)(step * 1000003 + i)) step = -2;
    CHECK(step != -2, "%s has the numbers of another step", path);
    free(numbers);
    safetensors_close(&file);
    return step;
}

// Files in the folder whose names contain the word.
static int count_files(const char *folder, const char *word)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        count += entry->d_name[0] != '.' && strstr(entry->d_name, word) != NULL;
    if (dir) closedir(dir);
    return count;
}

static void touch(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    close(open(path, O_CREAT | O_WRONLY, 0666));
}

static bool exists(const char *folder, int64_t step)
{
    char path[FILE_PATH_MAX];
    Error err;
    return checkpoint_path(path, folder, step, &err) && access(path, F_OK) == 0;
}

TEST(the_newest_are_kept)
{
    Error err = {""}, warning;
    const char *folder = folder_named("new/checkpoints"); // neither exists
    for (int64_t step = 0; step <= 50; step += 10)
        CHECK(save(folder, step, 5, 0, &err), "%s", err.text);
    CHECK(count_files(folder, "") == 6);
    touch(folder, "step_000033.safetensors.tmp.1234"), touch(folder, "notes.tmp");
    touch(folder, "step_33.safetensors"), touch(folder, "step_000033.safetensors.copy");
    CHECK(newest(folder, 5, &warning, &err) == 50 && !warning.text[0], "%s", warning.text);
    CHECK(save(folder, 60, 5, 2, &err), "%s", err.text);
    CHECK(exists(folder, 60) && exists(folder, 50) && !exists(folder, 40) && !exists(folder, 0));
    CHECK(count_files(folder, "") == 5 && count_files(folder, ".tmp.") == 0); // three are not ours

    // Resumed from an earlier step: what is later stays, and does not push out what is saved now.
    CHECK(save(folder, 20, 5, 1, &err), "%s", err.text);
    CHECK(exists(folder, 20) && exists(folder, 50) && exists(folder, 60));
    CHECK(save(folder, 60, 5, 1, &err), "again: %s", err.text);
    CHECK(exists(folder, 60) && !exists(folder, 50) && !exists(folder, 20));
    CHECK(save(folder, 1234567, 5, 2, &err) && save(folder, 999999, 5, 0, &err), "%s", err.text);
    CHECK(newest(folder, 5, &warning, &err) == 1234567, "%s", err.text);
    CHECK(!save(folder, -1, 5, 0, &err));
}

static void flip_last_byte(const char *folder, int64_t step)
{
    char path[FILE_PATH_MAX];
    Error err;
    unsigned char byte = 0;
    checkpoint_path(path, folder, step, &err);
    int fd = open(path, O_RDWR);
    off_t last = lseek(fd, 0, SEEK_END) - 1;
    CHECK(pread(fd, &byte, 1, last) == 1);
    byte ^= 4;
    CHECK(pwrite(fd, &byte, 1, last) == 1);
    close(fd);
}

TEST(damaged_ones_are_passed_over)
{
    Error err = {""}, warning;
    char path[FILE_PATH_MAX];
    const char *folder = folder_named("damaged");
    for (int64_t step = 1; step <= 4; step++)
        CHECK(save(folder, step, 100, 0, &err), "%s", err.text);
    flip_last_byte(folder, 4);
    CHECK(newest(folder, 100, &warning, &err) == 3, "%s", err.text);
    CHECK(strstr(warning.text,
                 "000004.safetensors is corrupt: tensor \"numbers\" fails its checksum"),
          "%s", warning.text);
    CHECK(checkpoint_path(path, folder, 3, &err) && truncate(path, 200) == 0);
    CHECK(checkpoint_path(path, folder, 2, &err) && unlink(path) == 0 && mkdir(path, 0777) == 0);
    CHECK(newest(folder, 100, &warning, &err) == 1, "%s", err.text);
    CHECK(strstr(warning.text, "3 checkpoints are passed over") &&
              strstr(warning.text, "step_000001"),
          "%s", warning.text);
    flip_last_byte(folder, 1);
    CHECK(newest(folder, 100, &warning, &err) == -1 && strstr(err.text, "none of the 4"), "%s",
          err.text);
    rmdir(path);
}

TEST(mix_ups_are_told)
{
    Error err = {""}, warning;
    Safetensors file;
    char path[FILE_PATH_MAX];
    const char *folder = folder_named("mixed");
    CHECK(!checkpoint_latest(folder, path, &warning, &err) && strstr(err.text, "No such"), "%s",
          err.text);
    mkdir(folder, 0777);
    CHECK(!checkpoint_latest(folder, path, &warning, &err) && strstr(err.text, "no checkpoint"),
          "%s", err.text);
    CHECK(!checkpoint_open(&file, folder, &err) && strstr(err.text, "is a folder"), "%s", err.text);
    CHECK(save(folder, 5, 5, 0, &err) && checkpoint_path(path, folder, 5, &err), "%s", err.text);
    char given[FILE_PATH_MAX];
    snprintf(given, sizeof given, "%s", path);
    CHECK(!checkpoint_latest(given, path, &warning, &err) && strstr(err.text, "is a file"), "%s",
          err.text);
    CHECK(!save(given, 6, 5, 0, &err) && strstr(err.text, "is a file"), "%s", err.text);
    CHECK(newest(folder, 5, &warning, &err) == 5, "%s", err.text);
    static const char kForeign[] =
        "\x40\0\0\0\0\0\0\0{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"
        "             .";
    int fd = open(given, O_WRONLY | O_TRUNC);
    CHECK(write(fd, kForeign, 8 + 64 + 1) == 8 + 64 + 1);
    close(fd);
    CHECK(safetensors_open(&file, given, &err), "%s", err.text);
    safetensors_close(&file);
    CHECK(!checkpoint_open(&file, given, &err) && strstr(err.text, "no checkpoint"), "%s",
          err.text);
}

// ---- saving that fails

// After a save that must have failed: the message, the checkpoint before, and no temporary file.
static void check_failed_save(const char *folder, int64_t before, int64_t size, const char *reason)
{
    Error err = {""}, warning;
    CHECK(!save(folder, before + 1, 1000000, 1, &err), "it did not fail");
    CHECK(strstr(err.text, reason) && strstr(err.text, "earlier ones are intact"), "%s", err.text);
    CHECK(count_files(folder, ".tmp") == 0 && !exists(folder, before + 1));
    CHECK(newest(folder, size, &warning, &err) == before && !warning.text[0], "%s", err.text);
}

TEST(a_file_size_limit_leaves_the_earlier_checkpoint)
{
    Error err = {""};
    const char *folder = folder_named("limited");
    CHECK(save(folder, 1, 1000, 0, &err), "%s", err.text);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t kLimits[] = {0, 100, 700, 1 << 20, 4000000};
    for (size_t i = 0; i < sizeof kLimits / sizeof *kLimits; i++) {
        limit = (struct rlimit){kLimits[i], before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        check_failed_save(folder, 1, 1000, "it needs 4.00 MB, and ");
    }
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
}

TEST(a_full_disk_leaves_the_earlier_checkpoint)
{
    Error err = {""};
    char folder[128];
    snprintf(folder, sizeof folder, "%s", folder_named("disk"));
    mkdir(folder, 0777);
    if (mount("tmpfs", folder, "tmpfs", 0, "size=1m")) {
        printf("skip: only root may mount a small disk\n");
        rmdir(folder);
        return;
    }
    CHECK(save(folder, 1, 100000, 0, &err), "%s", err.text);
    check_failed_save(folder, 1, 100000, "No space left on device; it needs 4.00 MB, and ");
    touch(folder, "step_000002.safetensors.tmp.1"); // a leftover must not fill the disk for ever
    CHECK(truncate(folder_named("disk/step_000002.safetensors.tmp.1"), 600000) == 0);
    CHECK(save(folder, 2, 100000, 1, &err), "%s", err.text);
    CHECK(umount(folder) == 0 && rmdir(folder) == 0);
}

TEST(a_read_only_folder_leaves_the_earlier_checkpoint)
{
    Error err = {""};
    const char *folder = folder_named("locked");
    CHECK(save(folder, 1, 1000, 0, &err), "%s", err.text);
    CHECK(chmod(root, 0755) == 0 && chmod(folder, 0555) == 0);
    bool superuser = geteuid() == 0; // to whom permissions do not apply
    CHECK(!superuser || seteuid(65534) == 0);
    check_failed_save(folder, 1, 1000, "Permission denied");
    CHECK(!superuser || seteuid(0) == 0);
    chmod(folder, 0755);
}

// Saves until it is killed, keeping two.
static void save_for_ever(const char *folder, int64_t step, int64_t size)
{
    Error err = {""};
    while (save(folder, ++step, size, 2, &err)) {
    }
    fprintf(stderr, "%s\n", err.text);
    _exit(1);
}

TEST(killed_at_any_moment_the_last_whole_one_is_there)
{
    enum { kKills = 30, kSize = 500000 };
    Error err = {""}, warning;
    const char *folder = folder_named("killed");
    int64_t step = 1;
    int unfinished = 0, advanced = 0;
    uint32_t random = 12345;
    CHECK(save(folder, step, kSize, 2, &err), "%s", err.text);
    for (int i = 0; i < kKills; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child < 0) return; // and never kill(-1)
        if (child == 0) save_for_ever(folder, step, kSize);
        random = random * 1664525 + 1013904223;
        usleep(random >> 16); // up to 65 ms
        kill(child, SIGKILL);
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        int64_t found = newest(folder, kSize, &warning, &err);
        CHECK(found >= step && !warning.text[0], "%s%s", err.text, warning.text);
        CHECK(found == 1 || exists(folder, found - 1)); // at every moment, the one before it too
        CHECK(count_files(folder, "") - count_files(folder, ".tmp.") <= 3);
        unfinished += count_files(folder, ".tmp.") > 0;
        advanced += found > step;
        step = found + 1; // a whole save removes what the kill left over
        CHECK(save(folder, step, kSize, 2, &err) && count_files(folder, "") == 2, "%s", err.text);
    }
    printf("%d kills: %d left an unfinished file, %d came after a new checkpoint, %lld saved\n",
           kKills, unfinished, advanced, (long long)step);
    CHECK(save(folder, step + 1, kSize, 2, &err) && count_files(folder, "") == 2, "%s", err.text);
}

int main(void)
{
    char command[96];
    snprintf(root, sizeof root, "/tmp/test_checkpoint_XXXXXX");
    if (!mkdtemp(root)) return perror(root), 1;
    RUN(the_newest_are_kept);
    RUN(damaged_ones_are_passed_over);
    RUN(mix_ups_are_told);
    RUN(a_file_size_limit_leaves_the_earlier_checkpoint);
    RUN(a_full_disk_leaves_the_earlier_checkpoint);
    RUN(a_read_only_folder_leaves_the_earlier_checkpoint);
    RUN(killed_at_any_moment_the_last_whole_one_is_there);
    snprintf(command, sizeof command, "rm -r %s", root);
    if (system(command)) fprintf(stderr, "%s is left\n", root);
    return TEST_SUMMARY();
}
