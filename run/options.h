// The program's options: one table of its own, and every field of the recipe.
//
// --name value, --name=value, and for a yes-or-no option --name alone. '-' and '_' are the same in
// names. When an option is given twice, the last one counts.
#ifndef RUN_OPTIONS_H
#define RUN_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "../gpt/recipe.h"
#include "../ops/error.h"

enum {
    EXIT_USAGE = 2, // what a wrong command line ends with; every other failure ends with 1
    OPTIONS_MAX_CHANGES = 96,
};

typedef struct {
    char recipe[256];            // built-in or file; "": the program chooses
    char train[1024], val[1024]; // shards; "": the program chooses
    char run[128];     // name of the run's folder under runs/; "": the recipe's name and a number
    char resume[1024]; // a checkpoint; "latest": the newest in the run's folder; "": a fresh run
    char device[8];    // auto, cpu, cuda
    char storage[8];   // recipe or real
    int gpus, ranks;   // processes to start on this node, on GPUs or CPUs; 0: none
    int nodes, node;   // nodes that do so, and which this is
    int steps;         // stop after so many steps of the schedule; 0: all of it
    int64_t seed;
    int epochs; // passes over the training shards at most, 1 by default; 0: as many as the steps
                // take
    int checkpoint_every;    // 0: at the end only
    int keep;                // checkpoints kept
    char dump_momentum[256]; // steps, with commas between, after which the momentum is written
    int samples, sample_tokens;
    char init_from[1024];     // a checkpoint or an export whose weights a fresh run starts from
    char hellaswag[1024];     // items to score at every validation
    int hellaswag_items;      // the first so many; 0: all
    int sample_every;         // steps between samples; 0: at the end only
    char sample_prompt[1024]; // what they continue; "": a document's beginning
    double temperature;
    int threads;        // 0: one per core
    char kernels[16];   // auto or portable
    bool deterministic; // products by the library's order, not by timing
    char graphs[8];     // yes or no: micro-batches from their recordings
    int timeline;       // the training step to draw a timeline of, 1 is the first; 0: none
    bool print_recipe, help, version;
    // The recipe's fields that were given, by their place in recipe_fields(); NULL: not given. They
    // point into argv.
    const char *change[OPTIONS_MAX_CHANGES];
} Options;

// Defaults, then the command line; argv[0] is not looked at. False, for an exit with EXIT_USAGE, on
// an unknown option (with the nearest name), a missing value, or one outside its range.
bool options_parse(Options *options, int argc, char *const argv[], Error *err);
// The recipe of the options (`otherwise` when they name none) with their changes, finished. A
// refusal is a usage error too.
bool options_recipe(const Options *options, const char *otherwise, Recipe *recipe, Error *err);
// The same changes to a recipe at hand, such as a checkpoint's, and recipe_finish.
bool options_apply(const Options *options, Recipe *recipe, Error *err);
// Whether --dump-momentum names the step.
bool options_dumps(const Options *options, int step);
// The text of --help: usage, the options, then the recipe's fields with `recipe`'s values.
void options_help(const Recipe *recipe, FILE *out);
// The options that are not at their defaults, as a shell's command line without the program's name;
// returns `text`.
char *options_describe(const Options *options, char *text, size_t size);

#endif
