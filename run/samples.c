#include "samples.h"

#include <stdlib.h>
#include <string.h>

#include "prompt.h"
#include "sample.h"

typedef struct {
    const Tokenizer *tokenizer;
    const volatile sig_atomic_t *stop;
    char *text;
    size_t size, room;
    bool short_of_memory;
} Text;

static bool add_bytes(Text *t, const char *bytes, size_t n)
{
    if (t->size + n > t->room) {
        const size_t room = 2 * (t->size + n) + 256;
        char *grown = realloc(t->text, room);
        if (!grown) return !(t->short_of_memory = true);
        t->text = grown, t->room = room;
    }
    if (n > 0) memcpy(t->text + t->size, bytes, n);
    t->size += n;
    return true;
}

static bool add_token(void *context, int token)
{
    Text *t = context;
    size_t n;
    const char *bytes = tokenizer_decode(t->tokenizer, token, &n);
    return add_bytes(t, bytes, n) && !*t->stop;
}

static bool write_one(Run *run, GptDecode *decode, float *logits, int i, Text *t, Error *err)
{
    const Options *o = &run->options;
    Sampler sampler = {.temperature = o->temperature,
                       .top_p = 1,
                       .seed = (uint64_t)run->state.seed * 1000 + (uint64_t)i};
    int count;
    t->size = 0;
    if (!add_bytes(t, o->sample_prompt, strlen(o->sample_prompt)) ||
        !sample_continue(decode, logits, &sampler, o->sample_tokens, add_token, t, &count, err))
        return !t->short_of_memory ? false : fail(err, "out of memory for samples");
    log_sample(run->log, run->state.step, t->text ? t->text : "", t->size);
    return true;
}

static bool write_all(Run *run, const int32_t *prompt, int n, Text *t, Error *err)
{
    const Options *o = &run->options;
    const int most = gpt_max_tokens(run->gpt);
    const size_t vocab = (size_t)run->recipe.vocab_size;
    if (n > most)
        return fail(err, "--sample-prompt: %d tokens, and the model has %d positions", n, most);
    float *first = malloc(vocab * sizeof *first), *logits = malloc(vocab * sizeof *logits);
    GptDecode *decode = gpt_decode_create(
        run->gpt, n + (o->sample_tokens < most - n ? o->sample_tokens : most - n), err);
    bool ok = decode && ((first && logits) || fail(err, "out of memory for samples")) &&
              gpt_decode_append(decode, prompt, n, first, err);
    for (int i = 0; ok && i < o->samples && !*t->stop; i++) {
        gpt_decode_truncate(decode, n);
        memcpy(logits, first, vocab * sizeof *logits);
        ok = write_one(run, decode, logits, i, t, err);
    }
    gpt_decode_free(decode);
    free(first);
    free(logits);
    return ok;
}

bool samples_write(Run *run, const volatile sig_atomic_t *stop, Error *err)
{
    const char *text = run->options.sample_prompt;
    Error why;
    int n;
    if (run->options.samples == 0) return true;
    Tokenizer *tokenizer = tokenizer_for(run->recipe.vocab_size, &why);
    if (!tokenizer) {
        log_line(run->log, "no samples   %s", why.text);
        return true;
    }
    Text t = {.tokenizer = tokenizer, .stop = stop};
    int32_t *prompt = prompt_tokens(tokenizer, text, strlen(text), &n, err);
    const bool ok = prompt && write_all(run, prompt, n, &t, err);
    free(prompt);
    free(t.text);
    tokenizer_close(tokenizer);
    return ok;
}
