// Writes the built-in corpus: training and validation shards of documents drawn from the grammar in
// village.c, whose exact entropy ("the floor") goes into the header of the validation shard.
#define _POSIX_C_SOURCE 200809L

#include "grammar.h"
#include "ngram.h"
#include "village.h"

#include <errno.h>    // errno
#include <math.h>     // fabs, lround
#include <stdio.h>    // printf, fopen, ..
#include <stdlib.h>   // malloc, free, strtoull
#include <string.h>   // strcmp, strerror
#include <sys/stat.h> // mkdir
#include <unistd.h>   // getpid, unlink

enum {
    kBos = 256, // starts every document
    kVocabulary = 257,
    kMagic = 20240520,
    kVersion = 1,
    kHeaderWords = 256,
    kMaxShards = 100,
    kPathSize = 4096,
    kTail = 1200,         // tokens at a shard's end that are drawn again until they fit
    kTailTries = 1000000, // one try in about 400 fits
};

struct options {
    const char *output;
    unsigned long long seed, train_shards, train_tokens, val_tokens, show, ngram;
};

static struct options options = {.output = "data/corpus"};

static const struct option {
    const char *name, *letter;
    unsigned long long *value; // NULL: the text option, --output
    unsigned long long initial, low, high;
    const char *help;
} option_table[] = {
    {"--output", "-o", NULL, 0, 0, 0, "the folder to write to [data/corpus]"},
    {"--seed", "", &options.seed, 1, 0, 4294967295, "another seed, another corpus"},
    {"--train-shards", "", &options.train_shards, 2, 1, kMaxShards, "training shards to write"},
    {"--train-tokens", "", &options.train_tokens, 3000000, 2048, 200000000, "tokens of each"},
    {"--val-tokens", "", &options.val_tokens, 65536, 2048, 200000000,
     "predicted tokens of the validation shard; it holds one more"},
    {"--show", "", &options.show, 0, 0, 1000000,
     "print that many documents of the validation shard, and write nothing"},
    {"--ngram", "", &options.ngram, 0, 0, kNgramMaxOrder,
     "then print the validation losses of the 1-gram to n-gram models"},
};

enum { kOptions = sizeof option_table / sizeof option_table[0] };

static void print_help(void)
{
    printf("usage: make_corpus [option value]..\nWrites the built-in corpus.\n");
    for (int i = 0; i < kOptions; i++) {
        const struct option *option = &option_table[i];
        printf("  %-3s%-15s %s", option->letter, option->name, option->help);
        if (option->value)
            printf(" [%llu; %llu to %llu]", option->initial, option->low, option->high);
        printf("\n");
    }
}

static int usage_error(const char *what, const char *argument)
{
    fprintf(stderr, "make_corpus: %s '%s'; --help lists the options\n", what, argument);
    return 2;
}

// 0, or the exit status of a usage error.
static int options_parse(int argc, char **argv)
{
    for (int i = 0; i < kOptions; i++)
        if (option_table[i].value) *option_table[i].value = option_table[i].initial;
    for (int a = 1; a < argc; a += 2) {
        int i = 0;
        while (i < kOptions && strcmp(argv[a], option_table[i].name) != 0 &&
               strcmp(argv[a], option_table[i].letter) != 0)
            i++;
        if (i == kOptions) return usage_error("unknown option", argv[a]);
        if (a + 1 == argc) return usage_error("no value after", argv[a]);
        const struct option *option = &option_table[i];
        const char *text = argv[a + 1];
        if (!option->value) {
            if (*text == '\0') return usage_error("no folder after", argv[a]);
            options.output = text;
            continue;
        }
        char *end;
        errno = 0;
        unsigned long long value = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || errno || value < option->low ||
            value > option->high) {
            fprintf(stderr, "make_corpus: %s must be a whole number from %llu to %llu, not '%s'\n",
                    option->name, option->low, option->high, text);
            return 2;
        }
        *option->value = value;
    }
    return 0;
}

// ---- drawing a shard

struct shard {
    uint16_t *tokens;
    size_t count;
    long documents;
    double log_probability; // of all documents
};

// Appends one document, if it fits into `room` tokens. False on failure; *fits tells the rest.
static bool shard_draw(struct shard *shard, const struct grammar *grammar,
                       struct grammar_random *random, struct grammar_text *text, size_t room,
                       bool *fits)
{
    double log_probability = 0, parsed = 0;
    text->length = 0;
    if (!grammar_draw(grammar, random, text, &log_probability)) {
        fprintf(stderr, "make_corpus: out of memory for a document\n");
        return false;
    }
    *fits = text->length + 1 <= room;
    if (!*fits) return true;
    // The floor stands on this: the text alone gives its probability back.
    if (!grammar_parse(grammar, text->bytes, text->length, &parsed) ||
        fabs(parsed - log_probability) > 1e-9) {
        fprintf(stderr, "make_corpus: the grammar is not what it must be: a drawn document has no "
                        "single derivation\n");
        return false;
    }
    shard->tokens[shard->count++] = kBos;
    for (size_t i = 0; i < text->length; i++)
        shard->tokens[shard->count++] = (unsigned char)text->bytes[i];
    shard->documents++;
    shard->log_probability += log_probability;
    return true;
}

// Draws documents that fill exactly `target` tokens. Only the last few are drawn again until they
// fit; every document's probability counts as the grammar gives it.
static bool shard_fill(struct shard *shard, const struct grammar *grammar,
                       struct grammar_random *random, size_t target)
{
    struct grammar_text text = {0};
    *shard = (struct shard){.tokens = malloc((target + 1) * sizeof(uint16_t))};
    bool good = shard->tokens != NULL, fits = true;
    if (!good) fprintf(stderr, "make_corpus: out of memory for %zu tokens\n", target);
    while (good && target - shard->count > kTail)
        good = shard_draw(shard, grammar, random, &text, target - shard->count, &fits);
    const struct shard before_tail = *shard;
    for (int tries = 0; good && shard->count < target; tries++) {
        if (tries == kTailTries) {
            fprintf(stderr, "make_corpus: no documents fit the end of a shard; change --seed\n");
            good = false;
        }
        *shard = before_tail;
        fits = true;
        while (good && fits && shard->count < target)
            good = shard_draw(shard, grammar, random, &text, target - shard->count, &fits);
    }
    free(text.bytes);
    return good;
}

// ---- writing it

static void put_little_endian(unsigned char *out, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(value >> (8 * i));
}

static bool write_tokens(FILE *file, const struct shard *shard, int32_t floor_micronats)
{
    const uint32_t words[] = {kMagic, kVersion, (uint32_t)shard->count, kVocabulary,
                              (uint32_t)floor_micronats};
    unsigned char bytes[4 * kHeaderWords] = {0};
    for (int i = 0; i < (int)(sizeof words / sizeof words[0]); i++)
        put_little_endian(bytes + 4 * i, words[i], 4);
    if (fwrite(bytes, 1, sizeof bytes, file) != sizeof bytes) return false;
    for (size_t done = 0; done < shard->count;) {
        size_t some = shard->count - done;
        if (some > sizeof bytes / 2) some = sizeof bytes / 2;
        for (size_t i = 0; i < some; i++)
            put_little_endian(bytes + 2 * i, shard->tokens[done + i], 2);
        if (fwrite(bytes, 2, some, file) != some) return false;
        done += some;
    }
    return fflush(file) == 0;
}

// The shard appears under its name whole or not at all. The temporary name has the process number,
// so that two runs at once do not write into each other's file.
static bool shard_write(const struct shard *shard, const char *name, int number,
                        int32_t floor_micronats)
{
    char path[kPathSize], temporary[kPathSize + 32];
    int length = snprintf(path, sizeof path, "%s/corpus_%s_%06d.bin", options.output, name, number);
    if (length < 0 || length >= (int)sizeof path) {
        fprintf(stderr, "make_corpus: the folder's name is too long\n");
        return false;
    }
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    FILE *file = fopen(temporary, "wb");
    bool good = file && write_tokens(file, shard, floor_micronats);
    int error = errno;
    if (file && fclose(file) != 0 && good) {
        error = errno;
        good = false;
    }
    if (good && rename(temporary, path) != 0) {
        error = errno;
        good = false;
    }
    if (!good) {
        fprintf(stderr, "make_corpus: cannot write %s: %s\n", path, strerror(error));
        if (file) unlink(temporary);
        return false;
    }
    printf("corpus: %s: %ld documents, %zu tokens\n", path, shard->documents, shard->count);
    return true;
}

// ---- the whole corpus: shards[0] is for validation, the others for training

static bool corpus_make(const struct grammar *grammar, struct shard *shards)
{
    if (mkdir(options.output, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "make_corpus: cannot make the folder %s: %s\n", options.output,
                strerror(errno));
        return false;
    }
    long documents = 0;
    size_t tokens = 0;
    double floor = 0;
    for (int s = 0; s <= (int)options.train_shards; s++) {
        struct shard *shard = &shards[s];
        struct grammar_random random = grammar_random_stream(options.seed, (uint64_t)s);
        size_t target = (size_t)(s == 0 ? options.val_tokens : options.train_tokens);
        if (!shard_fill(shard, grammar, &random, target)) return false;
        if (s == 0) {
            // The last document's end is predicted too.
            shard->tokens[shard->count++] = kBos;
            floor = -shard->log_probability / (double)target;
        }
        if (!shard_write(shard, s == 0 ? "val" : "train", s,
                         s == 0 ? (int32_t)lround(floor * 1e6) : 0))
            return false;
        documents += shard->documents;
        tokens += shard->count;
    }
    printf("corpus: %ld documents, %zu tokens, vocabulary %d, floor %.4f nats per token\n",
           documents, tokens, kVocabulary, floor);
    return true;
}

static bool corpus_ngram(const struct shard *shards)
{
    struct ngram_text train[kMaxShards];
    double losses[kNgramMaxOrder];
    for (int s = 0; s < (int)options.train_shards; s++)
        train[s] = (struct ngram_text){shards[s + 1].tokens, shards[s + 1].count};
    struct ngram_text val = {shards[0].tokens, shards[0].count};
    if (!ngram_losses(train, (int)options.train_shards, val, kVocabulary, (int)options.ngram,
                      losses)) {
        fprintf(stderr, "make_corpus: out of memory for the n-gram counts\n");
        return false;
    }
    for (int n = 1; n <= (int)options.ngram; n++)
        printf("corpus: %d-gram (Witten-Bell) validation loss %.4f nats per token\n", n,
               losses[n - 1]);
    return true;
}

static bool corpus_show(const struct grammar *grammar)
{
    struct grammar_random random = grammar_random_stream(options.seed, 0);
    struct grammar_text text = {0};
    bool good = true;
    for (unsigned long long i = 0; good && i < options.show; i++) {
        double log_probability = 0;
        text.length = 0;
        good = grammar_draw(grammar, &random, &text, &log_probability);
        if (good) printf("%s%.*s", i ? "\n" : "", (int)text.length, text.bytes);
    }
    if (!good) fprintf(stderr, "make_corpus: out of memory for a document\n");
    free(text.bytes);
    return good;
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help();
        return 0;
    }
    int status = options_parse(argc, argv);
    if (status) return status;
    char error[200];
    struct grammar *grammar =
        grammar_compile(village_lines, village_line_count, error, sizeof error);
    bool good = grammar && grammar_prefix_free(grammar, error, sizeof error);
    if (!good) fprintf(stderr, "make_corpus: %s\n", error);
    static struct shard shards[kMaxShards + 1];
    if (good && options.show > 0) {
        good = corpus_show(grammar);
    } else if (good) {
        good = corpus_make(grammar, shards) && (options.ngram == 0 || corpus_ngram(shards));
    }
    for (int s = 0; s <= kMaxShards; s++) free(shards[s].tokens);
    grammar_free(grammar);
    if (good && fflush(stdout) != 0) {
        fprintf(stderr, "make_corpus: cannot print: %s\n", strerror(errno));
        good = false;
    }
    return good ? 0 : 1;
}
