// libFuzzer target: a log.jsonl that a resumed run finds, any bytes. Its curves are read, or what
// cannot be is left out; every point has finite numbers.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../run/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[64], path[96];
    Error err;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/fuzz_log_XXXXXX");
        if (!mkdtemp(folder)) abort();
        snprintf(path, sizeof path, "%s/log.jsonl", folder);
    }
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
    Log *log = log_open(folder, true, &err);
    if (log) {
        const Series *curves[] = {log_train_curve(log), log_val_curve(log)};
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < curves[k]->n; i++)
                if (!isfinite(curves[k]->x[i])) abort();
        log_close(log, &err);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/log.txt", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    return 0;
}
