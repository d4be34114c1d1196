// The text that tells a device's algorithms, and the file that keeps them from run to run, with a
// device that has nothing but plans.
#include "../../ops/plans.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../run/plan_file.h"
#include "../test.h"

// The n-th product's choice of some device.
static PlanChoice choice(int n, unsigned char mark)
{
    PlanChoice c = {{n, 2304, 768, 1, 1, 14, 14, 14, 0, 0, 256, 256, 16, INT32_MAX}, {mark}};
    c.algorithm[n % PLAN_BYTES] = mark;
    return c;
}

static Plans some_plans(const char *owner, int first, int count, unsigned char mark)
{
    Plans plans = {.capacity = 0};
    snprintf(plans.owner, sizeof plans.owner, "%s", owner);
    for (int i = first; i < first + count; i++) {
        const PlanChoice c = choice(i, mark);
        CHECK(plans_put(&plans, &c));
    }
    return plans;
}

// ---- text --------------------------------------------------------------------------------------

TEST(text_and_back)
{
    Plans plans = some_plans("NVIDIA H200, cuBLASLt 130100", 0, 100, 0xa7), again;
    const PlanChoice other = choice(5, 0x11), all = {{1}, {0}};
    Error err = {""};
    CHECK(plans_put(&plans, &other) && plans.count == 100, "a key's second choice replaces it");
    CHECK(plans_put(&plans, &all) && plans.count == 101);
    char *text = plans_print(&plans);
    CHECK(plans_parse(&again, text, &err), "%s", err.text);
    CHECK(again.count == 101 && !strcmp(again.owner, plans.owner));
    CHECK(!memcmp(again.choice, plans.choice, 101 * sizeof *again.choice));
    CHECK(plans_find(&again, other.key)->algorithm[5] == 0x11);
    const int32_t absent[PLAN_NUMBERS] = {101};
    CHECK(!plans_find(&again, absent));
    plans_free(&again);
    plans_free(&plans);
    CHECK(plans_parse(&again, "turbomuon gemm plans 1: X\n", &err) && again.count == 0);
    plans_free(&again);
    free(text);
}

TEST(text_that_is_none)
{
    static const char line[] = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 ";
    const char *const bad[] = {
        "",
        "turbomuon gemm plans 2: X\n",
        "turbomuon gemm plans 1: ",
        "turbomuon gemm plans 1: \n",
        "turbomuon gemm plans 1: X",
        "turbomuon gemm plans 1: \x1b[2J\n",
        "turbomuon gemm plans 1: X\n\n",
        "turbomuon gemm plans 1: X\n1 2 3\n",
        "turbomuon gemm plans 1: X\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 0",
        "turbomuon gemm plans 1: X\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 0\n",
        "turbomuon gemm plans 1: X\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 0g\n",
        "turbomuon gemm plans 1: X\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 AB\n",
        "turbomuon gemm plans 1: X\n-1 2 3 4 5 6 7 8 9 10 11 12 13 14 00\n",
        "turbomuon gemm plans 1: X\n2147483648 2 3 4 5 6 7 8 9 10 11 12 13 14 00\n",
        "turbomuon gemm plans 1: X\n1  2 3 4 5 6 7 8 9 10 11 12 13 14 00\n",
    };
    Plans plans;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error err = {""};
        CHECK(!plans_parse(&plans, bad[i], &err) && err.text[0], "accepted: %s", bad[i]);
        CHECK(plans.count == 0 && !plans.choice);
    }
    char text[512];
    for (int digits = 126; digits <= 130; digits += 2) {
        Error err = {""};
        snprintf(text, sizeof text, "turbomuon gemm plans 1: X\n%s%0*d\n", line, digits, 0);
        CHECK(plans_parse(&plans, text, &err) == (digits <= 128), "%d digits", digits);
        plans_free(&plans);
    }
}

TEST(no_more_than_fit)
{
    Plans plans = some_plans("X", 1, PLANS_MOST, 1), again;
    const PlanChoice more = choice(PLANS_MOST + 1, 1);
    Error err = {""};
    CHECK(plans.count == PLANS_MOST && !plans_put(&plans, &more) && plans.count == PLANS_MOST);
    char *text = plans_print(&plans), *longer = malloc(strlen(text) + 80);
    CHECK(plans_parse(&again, text, &err), "%s", err.text);
    plans_free(&again);
    sprintf(longer, "%s9999999 2 3 4 5 6 7 8 9 10 11 12 13 14 00\n", text);
    CHECK(!plans_parse(&again, longer, &err) && strstr(err.text, "4096"), "%s", err.text);
    free(text);
    free(longer);
    plans_free(&plans);
}

// ---- file --------------------------------------------------------------------------------------

static Plans device, given; // what the device chose; what it was given

static char *device_text(void) { return plans_print(&device); }

static bool device_restore(const char *text, Error *err)
{
    plans_free(&given);
    if (!plans_parse(&given, text, err)) return false;
    return !strcmp(given.owner, device.owner) || fail(err, "they are for another GPU");
}

static const Ops ops = {.plans_text = device_text, .plans_restore = device_restore};

static char folder[64], path[128];

// Loads the file; true when that said something, and then removes what was given.
static bool load_warns(void)
{
    char said[512];
    plans_free(&given);
    fflush(stderr);
    const int before = dup(2), file = open("said", O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(file, 2);
    plan_file_load(&ops);
    dup2(before, 2);
    close(before);
    const ssize_t n = pread(file, said, sizeof said - 1, 0);
    close(file);
    said[n > 0 ? n : 0] = '\0';
    CHECK(n <= 0 || (!strncmp(said, "warning: ", 9) && strchr(said, '\n') == said + n - 1),
          "not one line: %s", said);
    return n > 0;
}

static void use(const char *owner, int first, int count, unsigned char mark)
{
    plans_free(&device);
    device = some_plans(owner, first, count, mark);
}

TEST(file_is_kept_and_grows)
{
    struct stat first, second;
    use("NVIDIA H200, cuBLASLt 130100", 0, 3, 1);
    CHECK(!load_warns() && given.count == 0, "a missing file is no news");
    plan_file_save(&ops);
    CHECK(stat(path, &first) == 0, "%s is not there", path);
    CHECK(!load_warns() && given.count == 3);
    plan_file_save(&ops);
    CHECK(stat(path, &second) == 0 && first.st_ino == second.st_ino, "written without need");
    use("NVIDIA H200, cuBLASLt 130100", 2, 3, 2); // one of the three, and two others
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 5);
    const PlanChoice old = choice(1, 1), changed = choice(2, 2);
    CHECK(plans_find(&given, old.key) && plans_find(&given, changed.key)->algorithm[0] == 2);
    use("NVIDIA H200, cuBLASLt 130100", 0, 0, 0);
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 5, "a device without choices leaves the file");
}

TEST(damaged_file_is_passed_over)
{
    use("NVIDIA H200, cuBLASLt 130100", 0, 3, 1);
    plan_file_save(&ops);
    char whole[2048], now[2048];
    const int fd = open(path, O_RDWR);
    const ssize_t n = read(fd, whole, sizeof whole);
    CHECK(n > 100 && n < (ssize_t)sizeof whole);
    for (ssize_t at = 0; at < n; at += 7) {
        const char flipped = (char)(whole[at] ^ 1);
        CHECK(pwrite(fd, &flipped, 1, at) == 1);
        CHECK(load_warns() && given.count == 0, "byte %zd", at);
        CHECK(pwrite(fd, whole + at, 1, at) == 1);
    }
    for (ssize_t length = 0; length < n; length += 11) {
        CHECK(ftruncate(fd, length) == 0);
        CHECK(load_warns() && given.count == 0, "%zd bytes", length);
    }
    close(fd);
    plan_file_save(&ops);
    FILE *file = fopen(path, "r");
    CHECK(file && fread(now, 1, sizeof now, file) > 0 && !memcmp(now, whole, 100),
          "a damaged file is made anew");
    if (file) fclose(file);
    CHECK(!load_warns() && given.count >= 3);
}

TEST(another_gpus_file_is_passed_over)
{
    char other[128];
    use("NVIDIA H200, cuBLASLt 130100", 0, 3, 1);
    plan_file_save(&ops);
    use("NVIDIA H100 80GB HBM3/x, cuBLASLt 130100", 0, 2, 3);
    CHECK(!load_warns(), "each GPU has its own");
    snprintf(other, sizeof other, "%s/gemm-NVIDIA-H100-80GB-HBM3-x-cuBLASLt-130100.txt", folder);
    CHECK(rename(path, other) == 0);
    CHECK(load_warns());
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 2, "and is made anew");
}

TEST(no_place_for_a_file)
{
    struct stat info;
    use("NVIDIA H200, cuBLASLt 130100", 0, 3, 1);
    setenv("TURBOMUON_CACHE", "", 1);
    setenv("XDG_CACHE_HOME", folder, 1);
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 0 && stat("turbomuon", &info) != 0, "it was turned off");
    unlink("said");
    setenv("TURBOMUON_CACHE", "said/below/a/file", 1);
    CHECK(!load_warns());
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 0);
    unsetenv("TURBOMUON_CACHE");
    plan_file_save(&ops);
    CHECK(stat("turbomuon/gemm-NVIDIA-H200-cuBLASLt-130100.txt", &info) == 0, "$XDG_CACHE_HOME");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", folder, 1);
    plan_file_save(&ops);
    CHECK(stat(".cache/turbomuon/gemm-NVIDIA-H200-cuBLASLt-130100.txt", &info) == 0, "$HOME");
    unsetenv("HOME");
    plan_file_save(&ops);
    CHECK(!load_warns() && given.count == 0);
    plan_file_save(&(Ops){.name = "cpu"}); // a device without plans
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/test_plans_XXXXXX");
    if (!mkdtemp(folder) || chdir(folder)) return 1;
    snprintf(path, sizeof path, "%s/gemm-NVIDIA-H200-cuBLASLt-130100.txt", folder);
    setenv("TURBOMUON_CACHE", folder, 1);
    RUN(text_and_back);
    RUN(text_that_is_none);
    RUN(no_more_than_fit);
    RUN(file_is_kept_and_grows);
    RUN(damaged_file_is_passed_over);
    RUN(another_gpus_file_is_passed_over);
    RUN(no_place_for_a_file);
    plans_free(&device);
    plans_free(&given);
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) ? 1 : TEST_SUMMARY();
}
