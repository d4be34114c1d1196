// Runs a fuzz target without libFuzzer: every seed in tests/fuzz/seeds/NAME, then mutations of
// seeds and random bytes for a few seconds, from a fixed generator. A crash or an abort ends the
// program without its counts, which tests/run.sh takes as a failure.
//   build/tests/fuzz/fuzz_shard [SECONDS]
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SEEDS = 64, MAX_SIZE = 1 << 16 };
static struct {
    uint8_t *data;
    size_t size;
} seeds[MAX_SEEDS];
static int n_seeds;

static uint64_t state = 20260101;
static uint64_t random_below(uint64_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % n;
}

static void read_seeds(const char *name)
{
    char folder[256], path[600];
    snprintf(folder, sizeof folder, "tests/fuzz/seeds/%s", name);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && n_seeds < MAX_SEEDS && (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *file = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!file) continue;
        uint8_t *data = malloc(MAX_SIZE);
        if (data)
            seeds[n_seeds].data = data, seeds[n_seeds++].size = fread(data, 1, MAX_SIZE, file);
        fclose(file);
    }
    if (dir) closedir(dir);
}

// A seed with a few bytes changed, removed or repeated; or bytes from nowhere.
static size_t mutate(uint8_t *out)
{
    size_t size = 0;
    if (n_seeds > 0 && random_below(16)) {
        const int i = (int)random_below((uint64_t)n_seeds);
        size = seeds[i].size;
        memcpy(out, seeds[i].data, size);
    } else {
        size = random_below(200);
        for (size_t i = 0; i < size; i++) out[i] = (uint8_t)random_below(256);
    }
    for (uint64_t changes = random_below(6); changes > 0 && size > 0; changes--) {
        const size_t at = random_below(size);
        switch (random_below(4)) {
        case 0:
            out[at] = (uint8_t)random_below(256);
            break;
        case 1:
            out[at] ^= (uint8_t)(1u << random_below(8));
            break;
        case 2:
            memmove(out + at, out + at + 1, size - at - 1), size--;
            break;
        default:
            if (size < MAX_SIZE) memmove(out + at + 1, out + at, size - at), size++;
        }
    }
    return random_below(8) ? size : random_below(size + 1);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    const double seconds = argc > 1 ? atof(argv[1]) : 2;
    static uint8_t buffer[MAX_SIZE + 1];
    read_seeds(strncmp(name, "fuzz_", 5) ? name : name + 5);
    for (int i = 0; i < n_seeds; i++) LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
    long runs = n_seeds;
    for (const clock_t end = clock() + (clock_t)(seconds * CLOCKS_PER_SEC); clock() < end; runs++) {
        const size_t size = mutate(buffer);
        uint8_t *exact = malloc(size + 1); // its end is where a sanitizer looks
        if (!exact) return 1;
        memcpy(exact, buffer, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%ld inputs, %d of them seeds\n1 passed, 0 failed\n", runs, n_seeds);
    for (int i = 0; i < n_seeds; i++) free(seeds[i].data);
    return 0;
}
