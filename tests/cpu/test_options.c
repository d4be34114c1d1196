// The command line: values and their forms, refusals that name the option and its range, --help.
#include "../../run/options.h"

#include <stdlib.h>
#include <string.h>

#include "../test.h"

enum { kMaxWords = 16 };

// Parses the words of a line (no quotes), kept alive for the options that point into them.
static bool parse(Options *options, const char *line, Error *err)
{
    static char words[512];
    char *argv[kMaxWords] = {"train_gpt"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word && argc < kMaxWords; word = strtok(NULL, " "))
        argv[argc++] = word;
    return options_parse(options, argc, argv, err);
}

static void refused(const char *line, const char *hint)
{
    Options o;
    Recipe r;
    Error err = {""};
    bool ok = parse(&o, line, &err) && options_recipe(&o, "tiny", &r, &err);
    CHECK(!ok && strstr(err.text, hint), "\"%s\": %s, not: %s", line, ok ? "accepted" : err.text,
          hint);
    CHECK(!strchr(err.text, '\n'));
}

TEST(defaults_are_in_range)
{
    Options o, again;
    Error err = {""};
    CHECK(parse(&o, "", &err), "%s", err.text);
    CHECK(!strcmp(o.device, "auto") && o.seed == 1 && !o.help && !o.recipe[0] && !o.resume[0]);
    // every default is a value that the option takes
    char line[256], text[1024];
    snprintf(line, sizeof line,
             "--device %s --storage %s --steps %d --keep %d --samples %d --threads %d", o.device,
             o.storage, o.steps, o.keep, o.samples, o.threads);
    CHECK(parse(&again, line, &err), "%s", err.text);
    CHECK(memcmp(&o, &again, sizeof o) == 0);
    CHECK(!strcmp(options_describe(&o, text, sizeof text), ""), "%s", text);
}

TEST(forms_of_an_option)
{
    Options o;
    Recipe r;
    Error err = {""};
    CHECK(
        parse(&o, "--steps 5 --seed=7 --checkpoint_every 9 --sample-tokens=3 --print-recipe", &err),
        "%s", err.text);
    CHECK(o.steps == 5 && o.seed == 7 && o.checkpoint_every == 9 && o.sample_tokens == 3 &&
          o.print_recipe);
    CHECK(parse(&o, "--help=no -h --version=yes", &err) && o.help && o.version, "%s", err.text);
    CHECK(parse(&o, "--steps 5 --steps 6", &err) && o.steps == 6, "the last one counts");
    CHECK(parse(&o, "--seed 9007199254740992", &err) && o.seed == 9007199254740992);
    CHECK(parse(&o, "--recipe mini --heads 4 --micro_batch=2048 --adam-lr 1e-3", &err), "%s",
          err.text);
    CHECK(options_recipe(&o, "tiny", &r, &err), "%s", err.text);
    CHECK(!strcmp(r.name, "mini") && r.heads == 4 && r.width == 256 && r.micro_batch == 2048 &&
          r.adam_lr == 1e-3);
    char *argv[] = {"train_gpt", "--layers", "- smb lm<1", "--ns-norm", ""};
    CHECK(options_parse(&o, 5, argv, &err) && options_recipe(&o, "tiny", &r, &err), "%s", err.text);
    CHECK(!strcmp(r.name, "tiny") && r.n_slots == 3);
}

TEST(resume_with_and_without_a_path)
{
    Options o;
    Error err = {""};
    CHECK(parse(&o, "--resume", &err) && !strcmp(o.resume, "latest"), "%s", err.text);
    CHECK(parse(&o, "--resume --steps 3", &err) && !strcmp(o.resume, "latest") && o.steps == 3);
    CHECK(parse(&o, "--resume a/b.ckpt --steps 3", &err) && !strcmp(o.resume, "a/b.ckpt"), "%s",
          o.resume);
    CHECK(parse(&o, "--resume=a/b.ckpt", &err) && !strcmp(o.resume, "a/b.ckpt"), "%s", o.resume);
}

TEST(refusals)
{
    refused("--heads 0", "--heads 0 is out of range: 1 to 64");
    refused("--heads=65", "--heads 65 is out of range: 1 to 64");
    refused("--heads six", "--heads six is not a whole number: 1 to 64");
    refused("--heads", "--heads needs a value");
    refused("--heads --steps 3", "--heads needs a value");
    refused("--head fp9", "--head fp9 is not one of: fp8, full");
    refused("--device gpu", "--device gpu is not one of: auto, cpu, cuda");
    refused("--graphs maybe", "--graphs maybe is not one of: yes, no");
    refused("--adam-lr nan", "--adam-lr nan is not a number: 0 to 10");
    refused("--micro_batch 8", "--micro-batch 8 is out of range: 16 to 1048576");
    refused("--steps -1", "--steps -1 is out of range: 0 to 100000000");
    refused("--help=maybe", "--help maybe is not one of: yes, no");
    refused("--micro-bath 5", "unknown option --micro-bath: is it --micro-batch?");
    refused("--micro-bath=5", "unknown option --micro-bath: is it --micro-batch?");
    refused("--stpes 5", "is it --steps?");
    refused("--temprature 5", "is it --temperature?");
    refused("--no-such-thing 5", "unknown option --no-such-thing: --help lists them");
    refused("--", "unexpected argument --");
    refused("train", "unexpected argument train");
    refused("-x", "unexpected argument -x");
    refused("--run ../x", "--run ../x may not hold '/'");
    refused("--run ..", "--run .. may not begin with a dot");
    refused("--recipe nano", "no recipe nano: there are speedrun, mini, tiny");
    refused("--head-dim 65", "--head-dim 65: it is 64 or 128");
    refused("--=3", "unknown option --");
}

TEST(refusals_of_choices_that_may_be_empty)
{
    refused("--ns-variant gra", "--ns-variant gra is not one of: standard, gram, shape");
}

// Micro-batches of more sequences leave the step's tokens; a part of one is another recipe.
TEST(micro_batches_of_sequences)
{
    static const struct {
        const char *words[5];
        int sequence, micro_batch, micro_batches;
    } cases[] = {
        {{"train_gpt"}, 32768, 32768, 8},
        {{"train_gpt", "--micro-batch", "65536"}, 32768, 65536, 4},
        {{"train_gpt", "--micro-batch", "65536", "--micro-batches", "8"}, 32768, 65536, 8},
        {{"train_gpt", "--micro-batch", "98304"}, 32768, 98304, 8},
        {{"train_gpt", "--micro-batch", "16384"}, 16384, 16384, 8},
        {{"train_gpt", "--micro-batch", "49152"}, 49152, 49152, 8},
        {{"train_gpt", "--sequence", "16384"}, 16384, 32768, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Options o;
        Recipe r;
        Error err;
        int n = 0;
        while (n < 5 && cases[i].words[n]) n++;
        CHECK(options_parse(&o, n, (char *const *)cases[i].words, &err) &&
                  options_recipe(&o, "speedrun", &r, &err),
              "%s", err.text);
        CHECK(r.sequence == cases[i].sequence && r.micro_batch == cases[i].micro_batch &&
                  r.micro_batches == cases[i].micro_batches,
              "case %zu: %d, %d x %d", i, r.sequence, r.micro_batches, r.micro_batch);
    }
}

TEST(hostile_words)
{
    Options o;
    Error err = {""};
    char *longest = malloc(100001);
    memset(longest, 'a', 100000);
    longest[100000] = '\0';
    longest[0] = longest[1] = '-';
    char *argv[] = {"train_gpt", longest, "--train", longest + 2, "--run", "a\nb", ""};
    CHECK(!options_parse(&o, 2, argv, &err) && strstr(err.text, "unknown option"), "%s", err.text);
    CHECK(!options_parse(&o, 3, argv + 1, &err) &&
              strstr(err.text, "too long (99998 bytes): at most 1023"),
          "%s", err.text);
    CHECK(!options_parse(&o, 3, argv + 3, &err) && strstr(err.text, "may not hold byte 10"), "%s",
          err.text);
    CHECK(!strchr(err.text, '\n'));
    CHECK(!options_parse(&o, 2, argv + 5, &err) && strstr(err.text, "unexpected argument \"\""),
          "%s", err.text);
    free(longest);
}

// --help names every option and field once, within the width of a terminal.
TEST(help_lists_everything)
{
    Recipe r;
    Error err;
    char *text = NULL, option[80];
    size_t size = 0;
    CHECK(recipe_find(&r, "tiny", &err) && recipe_finish(&r, &err));
    FILE *out = open_memstream(&text, &size);
    options_help(&r, out);
    fclose(out);
    for (const Field *f = recipe_fields(); f->name; f++) {
        char *end = stpcpy(option, "\n  ");
        field_option(f, end, sizeof option - 3);
        CHECK(strstr(text, option), "%s is not in --help", f->name);
    }
    CHECK(strstr(text, "--resume [PATH]") && strstr(text, "--device auto|cpu|cuda"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 100, "%s", line);
    free(text);
}

TEST(description_reads_back)
{
    Options o, again;
    Error err = {""};
    char text[512];
    CHECK(parse(&o, "--steps 5 --heads 4 --temperature 0.30000000000000004 --resume", &err), "%s",
          err.text);
    options_describe(&o, text, sizeof text);
    CHECK(!strcmp(text, "--resume latest --steps 5 --temperature 0.30000000000000004 --heads 4"),
          "%s", text);
    CHECK(parse(&again, text, &err) && again.temperature == o.temperature && again.steps == 5, "%s",
          err.text);
    CHECK(strlen(options_describe(&o, text, 10)) < 10);
}

TEST(room_for_every_field)
{
    int n = 0;
    while (recipe_fields()[n].name) n++;
    CHECK(n <= OPTIONS_MAX_CHANGES, "%d fields", n);
}

int main(void)
{
    RUN(defaults_are_in_range);
    RUN(forms_of_an_option);
    RUN(resume_with_and_without_a_path);
    RUN(refusals);
    RUN(refusals_of_choices_that_may_be_empty);
    RUN(micro_batches_of_sequences);
    RUN(hostile_words);
    RUN(help_lists_everything);
    RUN(description_reads_back);
    RUN(room_for_every_field);
    return TEST_SUMMARY();
}
