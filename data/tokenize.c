// tokenize: text files or lines of JSON to training and validation shards.
//
// The main thread reads blocks of text and writes tokens, both in order; the workers in between
// turn blocks into tokens, in any order.
#include "documents.h"

#include "../ops/field.h"
#include "../run/clock.h"
#include "../run/shard_writer.h"

#include <pthread.h>
#include <signal.h>   // signal, sigaction
#include <stdlib.h>   // calloc, free
#include <string.h>   // strcmp, strncmp
#include <sys/stat.h> // stat
#include <unistd.h>   // isatty, sysconf

enum { kUsage = 2, kBlockBytes = 1 << 20, kMaxThreads = 256 };

// ---- options

typedef struct {
    char output[2048], vocab[1024], jsonl[256], separator[256];
    int64_t shard_tokens, cut;
    double val_fraction;
    int threads;
    bool help;
} Options;

#define N(member, low, high, text) FIELD_N(Options, member, low, high, text)
#define S(member, value, text) FIELD_S(Options, member, NULL, value, text)

static const Field table[] = {
    S(output, "PREFIX", "shards are PREFIX_train_000001.bin and on, PREFIX_val_000000.bin; or -o"),
    S(vocab, "VOCAB", "bytes, or a folder with GPT-2's encoder.json and vocab.bpe"),
    S(jsonl, "FIELD", "each line is a JSON object, and this field of it a document"),
    S(separator, "TEXT", "separates documents within a file of plain text; \\n is a line's end"),
    N(cut, 0, 1 << 30,
      "tokens at which a document is cut into several; 0 is never. Training reads the first "
      "max_doc tokens of each"),
    FIELD_X(Options, val_fraction, 0, 1, "of the documents are for validation, spread evenly"),
    N(shard_tokens, 1024, 1 << 30, "tokens of a shard at most"),
    N(threads, 0, kMaxThreads, "to encode with; 0 is one per core"),
    FIELD_B(Options, help, "print this, and stop"),
    {.name = NULL},
};

static const Options defaults = {
    .vocab = TOKENIZER_GPT2_FOLDER, .shard_tokens = 100000000, .val_fraction = 0.01};

static void help(void)
{
    printf("tokenize turns text into token shards for training, in the FineWeb format.\n\n"
           "usage: tokenize FILE... -o PREFIX [--option value]...\n"
           "A file is a document unless --separator or --jsonl says otherwise; - is standard "
           "input.\n\noptions [default; range]:\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, stdout);
}

// \n, \t, \r and \\ in place.
static bool unescape(char *text, Error *err)
{
    static const char names[] = "ntr\\", values[] = "\n\t\r\\";
    char *to = text;
    for (const char *at = text; *at; at++) {
        const char *name = *at == '\\' && at[1] ? strchr(names, at[1]) : NULL;
        if (*at == '\\' && !name)
            return fail(err, "--separator: a backslash stands before n, t, r or another one only");
        *to++ = name ? values[name - names] : *at;
        at += name != NULL;
    }
    *to = '\0';
    return true;
}

// Sets the options; what is not one goes to paths (argc).
static bool parse(Options *options, int argc, char **argv, char **paths, int *n_paths, Error *err)
{
    *options = defaults;
    for (int i = 1; i < argc; i++) {
        const char *word = !strcmp(argv[i], "-o")   ? "--output"
                           : !strcmp(argv[i], "-h") ? "--help"
                                                    : argv[i];
        if (word[0] != '-' || !word[1]) {
            paths[(*n_paths)++] = argv[i];
            continue;
        }
        bool took;
        if (!field_parse(table, options, word, argv[i + 1], &took, err)) return false;
        i += took;
    }
    if (options->help) return true;
    if (*n_paths == 0) return fail(err, "no files: name them, or - for standard input");
    if (!options->output[0]) return fail(err, "-o PREFIX is missing: where the shards go");
    if (options->cut == 1)
        return fail(err, "--cut 1 leaves nothing of a document: 0, or 2 or more");
    if (options->jsonl[0] && options->separator[0])
        return fail(err, "--separator is for plain text, --jsonl for lines of JSON: give one");
    return unescape(options->separator, err);
}

// ---- the pipeline

// Ctrl-C takes effect between two blocks, so that it leaves no part of a shard.
static volatile sig_atomic_t interrupted;
static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

// Without SA_RESTART, so that a read returns; a signal that was ignored from the start stays so.
static void listen_to(int signal)
{
    const struct sigaction action = {.sa_handler = interrupt};
    struct sigaction before;
    if (sigaction(signal, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(signal, &action, NULL);
}

typedef struct {
    DocumentsBlock block;
    Tokens tokens;
    bool done, ok;
    Error err;
} Slot;

typedef struct {
    DocumentsConfig config;
    const Tokenizer *tokenizer;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    Slot *slots; // (n_slots) a ring: block i is in slot i % n_slots
    int64_t n_slots, filled, taken;
    bool stop;
} Pipeline;

static void *worker(void *argument)
{
    Pipeline *pipeline = argument;
    const int end_of_text = tokenizer_end_of_text(pipeline->tokenizer);
    DocumentsScratch scratch = {0};
    Error err;
    Encoder *encoder = encoder_open(pipeline->tokenizer, &err);
    pthread_mutex_lock(&pipeline->lock);
    for (;;) {
        while (!pipeline->stop && pipeline->taken == pipeline->filled)
            pthread_cond_wait(&pipeline->changed, &pipeline->lock);
        if (pipeline->stop) break;
        Slot *slot = &pipeline->slots[pipeline->taken++ % pipeline->n_slots];
        pthread_mutex_unlock(&pipeline->lock);
        slot->tokens.count = 0;
        slot->err = err; // of the encoder's opening
        slot->ok = encoder && documents_encode(&pipeline->config, &slot->block, encoder,
                                               end_of_text, &scratch, &slot->tokens, &slot->err);
        pthread_mutex_lock(&pipeline->lock);
        slot->done = true;
        pthread_cond_broadcast(&pipeline->changed);
    }
    pthread_mutex_unlock(&pipeline->lock);
    encoder_close(encoder);
    free(scratch.room);
    return NULL;
}

typedef struct {
    double started, shown;
    int64_t bytes, total; // done, and of all files; 0: unknown
    bool terminal;
} Progress;

static double now(void) { return now_ms() / 1e3; }

static void progress_show(Progress *progress)
{
    const double time = now(), seconds = time - progress->started;
    const double rate = (double)progress->bytes / (seconds > 1e-9 ? seconds : 1e-9);
    if (!progress->terminal || time - progress->shown < 0.5) return;
    progress->shown = time;
    fprintf(stderr, "\r%.1f MB, %.1f MB/s", (double)progress->bytes * 1e-6, rate * 1e-6);
    if (progress->total > 0)
        fprintf(stderr, ", %.0f%%, %.0f s left ",
                100 * (double)progress->bytes / (double)progress->total,
                (double)(progress->total - progress->bytes) / rate);
    fprintf(stderr, "\033[K");
}

// Reads, and writes what the workers made of it, until the end of everything.
static bool pump(Pipeline *pipeline, Documents *documents, ShardWriter *writer, Progress *progress,
                 Error *err)
{
    bool end = false;
    for (int64_t written = 0;;) {
        if (!end && pipeline->filled - written < pipeline->n_slots) {
            Slot *slot = &pipeline->slots[pipeline->filled % pipeline->n_slots];
            if (!documents_read(documents, &slot->block, err)) return false;
            end = slot->block.size == 0;
            if (end) continue;
            pthread_mutex_lock(&pipeline->lock);
            slot->done = false;
            pipeline->filled++;
            pthread_cond_broadcast(&pipeline->changed);
            pthread_mutex_unlock(&pipeline->lock);
            continue;
        }
        if (written == pipeline->filled) return true;
        Slot *slot = &pipeline->slots[written++ % pipeline->n_slots];
        pthread_mutex_lock(&pipeline->lock);
        while (!slot->done) pthread_cond_wait(&pipeline->changed, &pipeline->lock);
        pthread_mutex_unlock(&pipeline->lock);
        if (!slot->ok) return fail(err, "%s", slot->err.text);
        if (interrupted) return fail(err, "interrupted: the shards that are there are whole");
        if (!shard_writer_add(writer, slot->tokens.ids, (int64_t)slot->tokens.count, err))
            return false;
        progress->bytes += (int64_t)slot->block.size;
        progress_show(progress);
    }
}

static bool run(Pipeline *pipeline, int threads, ShardWriter *writer, Progress *progress,
                Error *err)
{
    pthread_t thread[kMaxThreads];
    int started = 0;
    Documents documents;
    documents_open(&documents, &pipeline->config);
    pipeline->n_slots = 2 * threads + 2;
    pipeline->slots = calloc((size_t)pipeline->n_slots, sizeof *pipeline->slots);
    pthread_mutex_init(&pipeline->lock, NULL);
    pthread_cond_init(&pipeline->changed, NULL);
    while (pipeline->slots && started < threads &&
           pthread_create(&thread[started], NULL, worker, pipeline) == 0)
        started++;
    bool ok = started > 0 || fail(err, "cannot start a thread");
    ok = ok && pump(pipeline, &documents, writer, progress, err);
    pthread_mutex_lock(&pipeline->lock);
    pipeline->stop = true;
    pthread_cond_broadcast(&pipeline->changed);
    pthread_mutex_unlock(&pipeline->lock);
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
    for (int64_t i = 0; pipeline->slots && i < pipeline->n_slots; i++) {
        free(pipeline->slots[i].block.text);
        free(pipeline->slots[i].tokens.ids);
    }
    free(pipeline->slots);
    documents_close(&documents);
    if (progress->terminal) fprintf(stderr, "\r\033[K");
    return ok;
}

// ---- the program

static void report(const char *line) { printf("%s\n", line); }

// Bytes of all files; 0 when one of them is not regular.
static int64_t total_bytes(char *const *paths, int n)
{
    int64_t total = 0;
    struct stat info;
    for (int i = 0; i < n; i++) {
        if (stat(paths[i], &info) != 0 || !S_ISREG(info.st_mode)) return 0;
        total += info.st_size;
    }
    return total;
}

static void summary(const ShardWriter *writer, const Progress *progress, const Options *options)
{
    const double mb = (double)progress->bytes * 1e-6, seconds = now() - progress->started;
    const ShardSeries *both[] = {&writer->train, &writer->val};
    for (int i = 0; i < 2; i++)
        printf("%-6s%lld documents, %lld tokens, %d shards\n", both[i]->name,
               (long long)both[i]->documents, (long long)both[i]->total_tokens,
               both[i]->number - (i == 0));
    printf("%.2f MB in %.2f s, %.1f MB/s\n", mb, seconds, mb / seconds);
    if (writer->shard_cuts > 0)
        printf("note: %lld times a document was cut because a shard was full\n",
               (long long)writer->shard_cuts);
    if (options->cut == 0 && writer->longest > 2048)
        printf("note: the longest document has %lld tokens, of which training reads the first "
               "max_doc; --cut 2048 would make several of it\n",
               (long long)writer->longest);
}

static bool tokenize(const Options *options, char **paths, int n_paths, Error *err)
{
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = options->threads ? options->threads : cores > 0 ? (int)cores : 1;
    if (threads > kMaxThreads) threads = kMaxThreads;
    Tokenizer *tokenizer = tokenizer_open(options->vocab, err);
    if (!tokenizer) return false;
    ShardWriterConfig config = {.vocab_size = tokenizer_vocab_size(tokenizer),
                                .shard_tokens = options->shard_tokens,
                                .cut = options->cut,
                                .val_fraction = options->val_fraction};
    snprintf(config.prefix, sizeof config.prefix, "%s", options->output);
    Pipeline pipeline = {.tokenizer = tokenizer,
                         .config = {.paths = paths,
                                    .n_paths = n_paths,
                                    .separator = options->separator,
                                    .field = options->jsonl,
                                    .block_bytes = kBlockBytes,
                                    .stop = &interrupted}};
    Progress progress = {.started = now(), .total = total_bytes(paths, n_paths)};
    progress.terminal = isatty(STDERR_FILENO);
    ShardWriter writer;
    bool ok = shard_writer_open(&writer, &config, err);
    writer.report = report;
    ok =
        ok && run(&pipeline, threads, &writer, &progress, err) && shard_writer_finish(&writer, err);
    if (ok) summary(&writer, &progress, options);
    shard_writer_free(&writer);
    tokenizer_close(tokenizer);
    return ok && (fflush(stdout) == 0 || fail(err, "cannot print"));
}

int main(int argc, char **argv)
{
    static Options options;
    Error err = {.text = ""};
    int n_paths = 0;
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes is an error like a full disk
    listen_to(SIGINT);
    listen_to(SIGTERM);
    char **paths = calloc((size_t)argc + 1, sizeof *paths);
    int status = 1;
    if (!paths)
        fail(&err, "no memory for the arguments");
    else if (!parse(&options, argc, argv, paths, &n_paths, &err))
        status = kUsage;
    else if (options.help)
        help(), status = 0;
    else if (tokenize(&options, paths, n_paths, &err))
        status = 0;
    if (status) fprintf(stderr, "error: %s\n", err.text);
    free(paths);
    return status;
}
