// libFuzzer target: a command line, its words separated by newlines. It is refused in one line, or
// gives options that describe themselves, and a recipe that is refused or finished.
#include <stdlib.h>
#include <string.h>

#include "../../run/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MAX_WORDS = 32 };
    static Options options;
    static Recipe recipe;
    char *argv[MAX_WORDS + 2] = {"train_gpt"}, text[4096];
    int argc = 1;
    Error err = {""};
    char *line = malloc(size + 1);
    if (!line) return 0;
    memcpy(line, data, size);
    line[size] = '\0';
    for (char *word = strtok(line, "\n"); word && argc <= MAX_WORDS; word = strtok(NULL, "\n"))
        argv[argc++] = word;
    if (options_parse(&options, argc, argv, &err)) {
        if (strlen(options_describe(&options, text, sizeof text)) >= sizeof text) abort();
        // A recipe from a file would read whatever the fuzzer names.
        if (!strpbrk(options.recipe, "./")) options_recipe(&options, "tiny", &recipe, &err);
    } else if (!err.text[0] || strchr(err.text, '\n')) {
        abort();
    }
    free(line);
    return 0;
}
