// ablations: studies of orthogonalisation on the CPU, and the page made of them.
//
//   ablations error    errors, bias and spectra of every normaliser and table, to CSV files
//   ablations remedies what may mend AOL's error: iterations by matrix, scaling both sides
//   ablations time     microseconds of the named methods
//   ablations page     docs/ablations.md and its figures from the folder's tables
#include <stdlib.h>
#include <string.h>

#include "../ops/field.h"
#include "../run/atomic_file.h"
#include "../run/threads.h"
#include "inputs.h"
#include "page.h"
#include "studies.h"

enum { USAGE = 2 };

typedef struct {
    char folder[1024], sizes[256], inputs[256], momentum[1024], page[1024], gpu[1024],
        command[1024];
    int seeds, momentum_matrices;
    int64_t seed;
    bool help;
} Options;

static const Field table[] = {
    FIELD_S(Options, folder, NULL, "FOLDER",
            "of the tables; rows that are there are not made again"),
    FIELD_S(Options, sizes, "0123456789x,", "MxN,..", "of the random matrices, m at most n"),
    FIELD_S(Options, inputs, NULL, "NAMES", "their distributions, with commas between"),
    FIELD_N(Options, seeds, 1, 1000, "matrices of each"),
    FIELD_S(Options, momentum, NULL, "FILE", "of train_gpt --dump-momentum: real matrices too"),
    FIELD_N(Options, momentum_matrices, 1, 1000, "of each of its banks, spread over the layers"),
    FIELD_N(Options, seed, 0, 4294967295, "another seed, other matrices"),
    FIELD_S(Options, page, NULL, "FILE", "that `ablations page` writes; figures go beside it"),
    FIELD_S(Options, gpu, NULL, "FOLDER", "of scripts/ablate_gpu.sh's tables, for the page"),
    FIELD_S(Options, command, NULL, "TEXT", "what the page says of how its tables were made"),
    FIELD_B(Options, help, "print this, and stop"),
    {.name = NULL},
};

static const Options defaults = {
    .folder = "runs/ablations",
    .sizes = "64x64,96x384",
    .inputs = "gaussian,uniform,levy1.0,levy1.5,levy1.75,rows,columns,low-rank",
    .page = "docs/ablations.md",
    .gpu = "bench/ablations_gpu",
    .seeds = 2,
    .momentum_matrices = 4,
    .seed = 1};

static void help(void)
{
    printf("ablations compares orthogonalisers on the CPU.\n\nusage: ablations "
           "error|remedies|time|page "
           "[--option "
           "value]...\n\noptions [default; range]:\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, stdout);
}

static bool parse(Options *options, const char **study, int argc, char **argv, Error *err)
{
    *options = defaults;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' && !*study) {
            *study = argv[i];
            continue;
        }
        bool took;
        if (!field_parse(table, options, argv[i], argv[i + 1], &took, err)) return false;
        i += took;
    }
    return options->help || *study || fail(err, "which study: error, remedies, time or page");
}

static bool to_studies(Studies *s, Options *o, Error *err)
{
    *s = (Studies){.seeds = o->seeds,
                   .momentum = o->momentum[0] ? o->momentum : NULL,
                   .momentum_matrices = o->momentum_matrices,
                   .seed = (uint64_t)o->seed};
    snprintf(s->folder, sizeof s->folder, "%s", o->folder);
    for (char *word = strtok(o->sizes, ","); word; word = strtok(NULL, ",")) {
        int m = 0, n = 0, used = 0;
        if (sscanf(word, "%4dx%5d%n", &m, &n, &used) != 2 || word[used] || m < 2 || n < m ||
            n > 16384)
            return fail(err, "--sizes: '%.40s' is not MxN with 2 <= M <= N <= 16384", word);
        if (s->n_sizes == STUDY_MAX) return fail(err, "--sizes: more than %d", STUDY_MAX);
        s->size[s->n_sizes].m = m, s->size[s->n_sizes++].n = n;
    }
    for (char *word = strtok(o->inputs, ","); word; word = strtok(NULL, ",")) {
        double probe[4];
        if (!inputs_fill(probe, 2, 2, word, 0))
            return fail(err, "--inputs: no distribution '%.40s'", word);
        if (s->n_inputs == STUDY_MAX) return fail(err, "--inputs: more than %d", STUDY_MAX);
        s->input[s->n_inputs++] = word;
    }
    return true;
}

static bool run(Options *o, const char *study, bool *usage, Error *err)
{
    Studies s;
    *usage = true;
    if (!to_studies(&s, o, err)) return false;
    if (strcmp(study, "error") && strcmp(study, "remedies") && strcmp(study, "time") &&
        strcmp(study, "page"))
        return fail(err, "no study '%.40s': there are error, remedies, time and page", study);
    *usage = false;
    if (!strcmp(study, "page")) return page_write(o->folder, o->gpu, o->page, o->command, err);
    return folder_make(o->folder, err) && (!strcmp(study, "error")      ? studies_error(&s, err)
                                           : !strcmp(study, "remedies") ? studies_remedies(&s, err)
                                                                        : studies_time(&s, err));
}

int main(int argc, char **argv)
{
    Options options;
    Error err;
    threads_spin_briefly(argv);
    const char *study = NULL;
    bool usage = true;
    if (parse(&options, &study, argc, argv, &err)) {
        if (options.help) return help(), 0;
        if (run(&options, study, &usage, &err)) return 0;
    }
    fprintf(stderr, "error: %s\n", err.text);
    return usage ? USAGE : 1;
}
