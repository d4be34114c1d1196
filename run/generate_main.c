// generate: what a trained model writes, how it scores on HellaSwag, and its weights for others.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "atomic_file.h"
#include "clock.h"
#include "escape.h"
#include "hellaswag.h"
#include "options.h" // EXIT_USAGE
#include "prompt.h"
#include "sample.h"
#include "threads.h"
#include "weights.h"
#ifdef USE_CUDA
#include "../ops/cuda/device.h"
#endif

typedef struct {
    char checkpoint[1024], prompt_file[1024];
    int tokens, samples, top_k, threads, hellaswag_items;
    double temperature, top_p;
    int64_t seed;
    char device[8];
    char export[1024], hellaswag[1024], hellaswag_details[1024];
    bool help;
    const char *prompt; // points into argv: any bytes
} Settings;

#define N(member, low, high, text) FIELD_N(Settings, member, low, high, text)
#define X(member, low, high, text) FIELD_X(Settings, member, low, high, text)
#define S(member, value, text) FIELD_S(Settings, member, NULL, value, text)

static const Field table[] = {
    S(checkpoint, "PATH", "a checkpoint, the folder of a run or of an export, or latest"),
    S(prompt_file, "FILE", "what to continue, instead of --prompt TEXT; - is standard input"),
    N(tokens, 0, 1 << 20,
      "tokens to write, unless the text ends before; 0 is 256 if there is room"),
    N(samples, 1, 1000000, "texts to write"),
    X(temperature, 0, 10, "divides the logits; 0 takes the likeliest token"),
    N(top_k, 0, 65536, "draw among so many likeliest tokens; 0 is all"),
    X(top_p, 0, 1, "draw among the fewest tokens that have this probability together"),
    N(seed, 0, 9007199254740992.0, "of the draws"),
    FIELD_C(Settings, device, "auto|cpu|cuda", "where to compute; auto is a GPU if there is one"),
    N(threads, 0, 1024, "CPU threads; 0 is one per core"),
    S(hellaswag, "FILE", "score the model on HellaSwag's items, JSON lines, instead of writing"),
    N(hellaswag_items, 0, 100000000, "items to score, from the file's beginning; 0 is all"),
    S(hellaswag_details, "FILE", "a line an item: label, four sums of losses, numbers of tokens"),
    S(export, "FOLDER", "write the weights and their description there, instead of text"),
    FIELD_B(Settings, help, "print this, and stop"),
    {.name = NULL},
};

static const Settings defaults = {.checkpoint = "latest",
                                  .samples = 1,
                                  .temperature = 0.8,
                                  .top_p = 1,
                                  .seed = 1,
                                  .device = "auto"};

static void help(void)
{
    printf("generate continues a text with a trained model.\n\n"
           "usage: generate [--option value]...\n\noptions [default; range]:\n"
           "  --prompt TEXT           what to continue; without it, a new text\n");
    for (const Field *field = table; field->name; field++) field_help(field, &defaults, stdout);
}

static bool parse_one(Settings *s, const char *word, const char *next, int *used, Error *err)
{
    char name[64], option[64];
    if (!strcmp(word, "-h")) word = "--help";
    if (strncmp(word, "--", 2) || !word[2])
        return fail(err, "unexpected argument %.64s: options are --name value",
                    word[0] ? word : "\"\"");
    const char *equals = strchr(word, '=');
    snprintf(name, sizeof name, "%.*s", (int)(strcspn(word + 2, "=") & 63), word + 2);
    const bool prompt = !strcmp(name, "prompt");
    const Field *field = prompt ? NULL : field_find(table, name);
    int distance = field_typo(name);
    const char *near = field || prompt ? NULL : field_nearest(table, name, &distance);
    if (!field && !prompt && near)
        return fail(err, "unknown option --%.60s: is it %s? (--help lists them)", name,
                    field_option(field_find(table, near), option, sizeof option));
    if (!field && !prompt) return fail(err, "unknown option --%.60s: --help lists them", name);
    const char *value = equals ? equals + 1 : NULL;
    if (!value && field && field->type == FIELD_BOOL) value = "yes";
    *used = value ? 1 : 2;
    if (!value && !next) return fail(err, "--%.60s needs a value: --help says which", name);
    if (!value) value = next;
    if (!prompt) return field_set(field, s, value, err);
    s->prompt = value;
    return true;
}

static bool choose_device(const Settings *s, const Ops **ops, Error *err)
{
    Error reason;
    *ops = &ops_cpu;
#ifdef _OPENMP
    if (s->threads > 0) omp_set_num_threads(s->threads);
#endif
    if (!strcmp(s->device, "cpu")) return true;
#ifdef USE_CUDA
    char description[256];
    if (ops_cuda_find(ops, description, sizeof description, &reason)) return true;
#else
    fail(&reason, "this program was built without CUDA");
#endif
    return strcmp(s->device, "cuda") ||
           fail(err, "--device cuda: %.400s; use --device cpu", reason.text);
}

static double seconds(void) { return now_ms() / 1e3; }

// ---- text --------------------------------------------------------------------------------------

enum { kMostPrompt = 1 << 26 }; // bytes, far more than a model has positions for

// All of a file or of standard input; NULL when it cannot be read.
static char *read_text(const char *path, size_t *size, Error *err)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    char *text = NULL;
    size_t room = 0, n = 1;
    *size = 0;
    while (file && n > 0 && *size <= kMostPrompt) {
        if (*size + 4096 > room) {
            char *grown = realloc(text, room = 2 * room + 8192);
            if (!grown) break;
            text = grown;
        }
        *size += n = fread(text + *size, 1, 4096, file);
    }
    const bool long_one = *size > kMostPrompt, ok = file && n == 0 && !ferror(file) && !long_one;
    if (!ok)
        fail(err, "cannot read %.256s: %s", path,
             long_one ? "a prompt of more than 64 MB" : strerror(errno));
    if (file && file != stdin) fclose(file);
    if (ok) return text;
    free(text);
    return NULL;
}

// The text as it comes, in whole characters. A terminal gets no control characters but newlines and
// tabs; anything else gets the bytes.
typedef struct {
    const Tokenizer *tokenizer;
    bool terminal;
    char held[4]; // the beginning of a character, and the next byte
    size_t n_held;
} Printer;

static void print_held(Printer *p, size_t size)
{
    if (p->terminal)
        escape_terminal(stdout, p->held, size);
    else
        fwrite(p->held, 1, size, stdout);
    p->n_held -= size;
    memmove(p->held, p->held + size, p->n_held);
}

static void print_bytes(Printer *p, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        p->held[p->n_held++] = bytes[i];
        print_held(p, prompt_whole_characters(p->held, p->n_held));
    }
    fflush(stdout);
}

static void print_rest(Printer *p)
{
    print_held(p, p->n_held);
    putchar('\n');
    fflush(stdout);
}

static bool print_token(void *context, int token)
{
    Printer *p = context;
    size_t n;
    const char *bytes = tokenizer_decode(p->tokenizer, token, &n);
    print_bytes(p, bytes, n);
    return !ferror(stdout);
}

typedef struct {
    Settings settings;
    const Ops *ops;
    Weights weights;
    Tokenizer *tokenizer;
    char *file; // the prompt's, when it came from one
} Program;

static bool write_texts(Program *g, const char *text, size_t size, const int32_t *prompt, int n,
                        Error *err)
{
    const Settings *s = &g->settings;
    Printer printer = {.tokenizer = g->tokenizer, .terminal = isatty(STDOUT_FILENO)};
    const size_t vocab = (size_t)tokenizer_vocab_size(g->tokenizer);
    float *first = malloc(vocab * sizeof *first), *logits = malloc(vocab * sizeof *logits);
    GptDecode *decode = gpt_decode_create(g->weights.gpt, n + s->tokens, err);
    const double start = seconds();
    bool ok = decode && ((first && logits) || fail(err, "out of memory for the logits")) &&
              gpt_decode_append(decode, prompt, n, first, err);
    const double read = seconds();
    long long written = 0;
    for (int i = 0; ok && i < s->samples; i++) {
        Sampler sampler = {s->temperature, s->top_k, s->top_p, (uint64_t)s->seed + (uint64_t)i};
        int count;
        if (s->samples > 1) printf("---- sample %d ----\n", i + 1);
        print_bytes(&printer, text, size);
        gpt_decode_truncate(decode, n);
        memcpy(logits, first, vocab * sizeof *logits);
        ok = sample_continue(decode, logits, &sampler, s->tokens, print_token, &printer, &count,
                             err);
        print_rest(&printer);
        written += count;
    }
    const double end = seconds();
    if (ok)
        fprintf(stderr, "%lld tokens in %.2f s: %.1f tokens/s on %s; prompt of %d in %.3f s\n",
                written, end - read, (double)written / (end - read), g->ops->name, n, read - start);
    gpt_decode_free(decode);
    free(first);
    free(logits);
    return ok;
}

static bool generate(Program *g, Error *err)
{
    Settings *s = &g->settings;
    const char *text = s->prompt ? s->prompt : "";
    size_t size = strlen(text);
    int n, vocab;
    if (s->prompt_file[0] && !(text = g->file = read_text(s->prompt_file, &size, err)))
        return false;
    if (!weights_open(&g->weights, s->checkpoint, err)) return false;
    vocab = g->weights.recipe.vocab_size;
    if (!(g->tokenizer = tokenizer_for(vocab, err))) return false;
    int32_t *prompt = prompt_tokens(g->tokenizer, text, size, &n, err);
    const int most = weights_positions(&g->weights);
    bool ok = prompt != NULL;
    if (s->tokens == 0) s->tokens = most - n > 256 ? 256 : most > n ? most - n : 1;
    if (ok && (n > most || s->tokens > most - n))
        ok = fail(err,
                  "a prompt of %d tokens and %d more: the model's recipe has %d positions; shorten "
                  "the prompt or ask for fewer --tokens",
                  n, s->tokens, most);
    ok = ok && weights_model(&g->weights, g->ops, n + s->tokens, err) &&
         write_texts(g, text, size, prompt, n, err);
    free(prompt);
    return ok;
}

static bool score(Program *g, Error *err)
{
    const Settings *s = &g->settings;
    HellaSwagScore result;
    if (!weights_open(&g->weights, s->checkpoint, err) ||
        !(g->tokenizer = tokenizer_for(g->weights.recipe.vocab_size, err)))
        return false;
    HellaSwag *set = hellaswag_open(s->hellaswag, g->tokenizer, s->hellaswag_items, err);
    if (!set) return false;
    const int most = weights_positions(&g->weights);
    AtomicFile file = {.fd = -1};
    char *lines = NULL;
    size_t size = 0;
    FILE *details = s->hellaswag_details[0] ? open_memstream(&lines, &size) : NULL;
    bool ok = details ? atomic_file_open(&file, s->hellaswag_details, 0, err)
                      : !s->hellaswag_details[0] || fail(err, "out of memory for HellaSwag");
    ok = ok && weights_model(&g->weights, g->ops, most < 16384 ? most : 16384, err);
    const double start = seconds();
    ok = ok && hellaswag_score(set, g->weights.gpt, &result, details, err);
    if (details && fclose(details) && ok) ok = fail(err, "out of memory for HellaSwag");
    file.need = size;
    if (details && ok)
        ok = atomic_file_write(&file, lines, size, err) && atomic_file_commit(&file, err);
    if (ok)
        printf("hellaswag acc_norm:%.4f acc:%.4f items:%d (%.1f s)\n", result.accuracy_norm,
               result.accuracy, result.items, seconds() - start);
    atomic_file_discard(&file);
    free(lines);
    hellaswag_close(set);
    return ok;
}

static bool export_weights(Program *g, Error *err)
{
    const Settings *s = &g->settings;
    if (!weights_open(&g->weights, s->checkpoint, err) ||
        !weights_model(&g->weights, g->ops, 16, err) ||
        !weights_export(&g->weights, s->export, err))
        return false;
    printf("%s/model.safetensors, %s/config.json: step %d of %s\n", s->export, s->export,
           g->weights.step, g->weights.recipe.name);
    return true;
}

int main(int argc, char **argv)
{
    static Program g;
    Error err = {""};
    bool ok = true, usage;
    threads_spin_briefly(argv);
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes is an error like a full disk
    g.settings = defaults;
    for (int i = 1, used = 1; ok && i < argc; i += used)
        ok = parse_one(&g.settings, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used, &err);
    if (ok && g.settings.prompt && g.settings.prompt_file[0])
        ok = fail(&err, "--prompt and --prompt-file: one of them");
    usage = !ok;
    if (ok && g.settings.help) {
        help();
    } else if (ok) {
        ok = choose_device(&g.settings, &g.ops, &err) &&
             (g.settings.export[0]      ? export_weights(&g, &err)
              : g.settings.hellaswag[0] ? score(&g, &err)
                                        : generate(&g, &err));
    }
    weights_close(&g.weights);
    tokenizer_close(g.tokenizer);
    free(g.file);
    if (ok && (fflush(stdout) || ferror(stdout)))
        ok = fail(&err, "cannot write to standard output: %s", strerror(errno));
    if (!ok) fprintf(stderr, "error: %s\n", err.text);
    return ok ? 0 : usage ? EXIT_USAGE : 1;
}
