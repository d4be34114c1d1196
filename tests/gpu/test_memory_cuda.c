// The program on a GPU whose memory another program holds: an error that says what helps, exit
// status 1, no crash.
#include <sys/wait.h>

#include "../shards.h"
#include "gpu_check.h"

// Takes memory until at most `left` bytes are free. Returns how many pieces are in `held`.
static int hold(void **held, int most, size_t left)
{
    size_t own, available, total;
    for (int n = 0; n < most; n++) {
        cuda->mem_info(&own, &available, &total);
        if (available <= left) return n;
        size_t piece = available - left;
        while (piece > 0 && !(held[n] = cuda->mem_alloc(piece))) piece = piece / 16 * 15;
        if (piece == 0) return n;
    }
    return most;
}

static void expect(const char *arguments, size_t left, const char *says)
{
    enum { MOST = 64 };
    void *held[MOST];
    const char *program = getenv("PROGRAM") ? getenv("PROGRAM") : "build/train_gpt";
    char command[1024], said[2048] = "";
    const uint16_t tokens[64] = {0};
    // The program looks for data before it asks for memory.
    const char *data = shards_write("data.bin", tokens, 64, 64, 0, 0);
    const int n = hold(held, MOST, left);
    snprintf(command, sizeof command,
             "TURBOMUON_CACHE= %s --device cuda --train %s --val %s %s 2>&1 >/dev/null", program,
             data, data, arguments);
    FILE *pipe = popen(command, "r");
    if (!pipe) abort();
    said[fread(said, 1, sizeof said - 1, pipe)] = '\0';
    const int status = pclose(pipe);
    for (int i = 0; i < n; i++) cuda->mem_free(held[i]);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, said);
    CHECK(!strncmp(said, "error: ", 7) && strstr(said, says), "it says: %s", said);
    printf("     %s", said);
}

TEST(some_memory) { expect("--recipe speedrun --run m1", (size_t)14e9, "--micro-batch"); }
TEST(little_memory) { expect("--recipe speedrun --run m2", (size_t)2e9, "no smaller batch"); }
TEST(hardly_any_memory) { expect("--recipe tiny --run m3", (size_t)50e6, "memory"); }

int main(void)
{
    shards_dir_make();
    find_gpu();
    RUN(some_memory);
    RUN(little_memory);
    RUN(hardly_any_memory);
    return TEST_SUMMARY();
}
