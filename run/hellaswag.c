#include "hellaswag.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

enum { ENDINGS = 4, PACKED = 16384, MULTIPLE = 256 };

typedef struct {
    size_t ctx, ending[ENDINGS], end; // where each begins in the tokens; the last one ends
    int label;
} Item;

struct HellaSwag {
    Tokens tokens;
    Item *items;
    int count, capacity;
    int end_of_text;
};

// The four endings, each after a space, into texts + i.
static bool read_endings(Json *json, const char *texts[ENDINGS], size_t sizes[ENDINGS])
{
    if (!json_expect(json, '[')) return false;
    for (int i = 0; i < ENDINGS; i++)
        if ((i && !json_expect(json, ',')) || !json_text(json, &texts[i], &sizes[i])) return false;
    return json_expect(json, ']');
}

typedef struct {
    const char *ctx, *ending[ENDINGS];
    size_t ctx_size, ending_size[ENDINGS];
    int64_t label;
} Fields;

static bool read_fields(Json *json, Fields *f)
{
    *f = (Fields){.label = -1};
    bool ok = json_expect(json, '{'), more = ok && !json_accept(json, '}');
    while (ok && more) {
        const char *key;
        ok = json_string(json, &key) && json_expect(json, ':');
        if (!ok) return false;
        if (!strcmp(key, "ctx"))
            ok = json_text(json, &f->ctx, &f->ctx_size);
        else if (!strcmp(key, "endings"))
            ok = read_endings(json, f->ending, f->ending_size);
        else if (!strcmp(key, "label"))
            ok = json_size(json, &f->label);
        else
            ok = json_skip(json);
        more = ok && json_accept(json, ',');
        if (ok && !more) ok = json_expect(json, '}');
    }
    if (!ok) return false;
    json_skip_space(json);
    if (json->at != json->end) return json_fail(json, "more than one object");
    if (!f->ctx || !f->ending[0]) return json_fail(json, "no \"ctx\" or no \"endings\"");
    return (f->label >= 0 && f->label < ENDINGS) || json_fail(json, "\"label\" is not 0 to 3");
}

static bool add_item(HellaSwag *set, Encoder *encoder, const Fields *f, char *room, Error *err)
{
    if (set->count == set->capacity) {
        const int capacity = set->capacity ? 2 * set->capacity : 1024;
        Item *items = realloc(set->items, (size_t)capacity * sizeof *items);
        if (!items) return fail(err, "out of memory for %d items", capacity);
        set->items = items, set->capacity = capacity;
    }
    Item *item = &set->items[set->count];
    *item = (Item){.ctx = set->tokens.count, .label = (int)f->label};
    if (!encoder_encode(encoder, f->ctx, f->ctx_size, &set->tokens, err)) return false;
    for (int i = 0; i < ENDINGS; i++) {
        item->ending[i] = set->tokens.count;
        room[0] = ' ';
        memcpy(room + 1, f->ending[i], f->ending_size[i]);
        if (!encoder_encode(encoder, room, f->ending_size[i] + 1, &set->tokens, err)) return false;
    }
    item->end = set->tokens.count;
    set->count++;
    return true;
}

static bool read_line(HellaSwag *set, Encoder *encoder, const char *line, size_t n, Error *err)
{
    char *room = malloc(2 * n + 16);
    if (!room) return fail(err, "out of memory for a line of %zu bytes", n);
    Json json = {
        .text = line, .at = line, .end = line + n, .room = room, .err = err, .name = "the item"};
    Fields fields;
    const bool ok =
        read_fields(&json, &fields) && add_item(set, encoder, &fields, room + n + 8, err);
    free(room);
    return ok;
}

static bool read_lines(HellaSwag *set, Encoder *encoder, FILE *file, const char *path, int most,
                       Error *err)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    bool ok = true;
    for (int number = 1; ok && (most == 0 || set->count < most); number++) {
        Error why;
        if ((n = getline(&line, &size, file)) < 0) break;
        if (line[strspn(line, " \t\r\n")] == '\0' && strlen(line) == (size_t)n) continue;
        if (!read_line(set, encoder, line, (size_t)n, &why))
            ok = fail(err, "%.256s:%d: %.200s", path, number, why.text);
    }
    free(line);
    if (ok && ferror(file)) ok = fail(err, "cannot read %.256s: %s", path, strerror(errno));
    return ok && (set->count > 0 || fail(err, "%.256s has no items", path));
}

HellaSwag *hellaswag_open(const char *path, const Tokenizer *tokenizer, int most, Error *err)
{
    HellaSwag *set = calloc(1, sizeof *set);
    Encoder *encoder = encoder_open(tokenizer, err);
    FILE *file = fopen(path, "r");
    bool ok = encoder != NULL;
    if (ok && !set) ok = fail(err, "out of memory for HellaSwag");
    if (ok && !file) ok = fail(err, "cannot read %.256s: %s", path, strerror(errno));
    if (ok) set->end_of_text = tokenizer_end_of_text(tokenizer);
    ok = ok && read_lines(set, encoder, file, path, most, err);
    if (file) fclose(file);
    encoder_close(encoder);
    if (ok) return set;
    hellaswag_close(set);
    return NULL;
}

void hellaswag_close(HellaSwag *set)
{
    if (!set) return;
    free(set->tokens.ids);
    free(set->items);
    free(set);
}

// ---- scoring -----------------------------------------------------------------------------------

typedef struct {
    int32_t *ids, *cu; // (room + 1), (room + 2)
    double *losses;    // (room)
    int room, used, docs;
} Pack;

static size_t context_length(const Item *item) { return item->ending[0] - item->ctx; }
static size_t ending_length(const Item *item, int i)
{
    return (i + 1 < ENDINGS ? item->ending[i + 1] : item->end) - item->ending[i];
}

// Tokens that the item takes: two ends of text, the context and an ending, four times.
static size_t item_length(const Item *item)
{
    return ENDINGS * (2 + context_length(item)) + item->end - item->ending[0];
}

static void begin_document(Pack *p, int end_of_text)
{
    p->cu[p->docs++] = p->used;
    p->ids[p->used++] = end_of_text;
}

static void pack_item(const HellaSwag *set, const Item *item, Pack *p)
{
    for (int i = 0; i < ENDINGS; i++) {
        begin_document(p, set->end_of_text);
        begin_document(p, set->end_of_text);
        for (size_t k = item->ctx; k < item->ending[0]; k++) p->ids[p->used++] = set->tokens.ids[k];
        for (size_t k = 0; k < ending_length(item, i); k++)
            p->ids[p->used++] = set->tokens.ids[item->ending[i] + k];
    }
}

// Pads the sequence to one of few lengths, and runs the model over it.
static bool run_pack(const HellaSwag *set, Gpt *gpt, Pack *p, Error *err)
{
    if (p->used % MULTIPLE && p->used < p->room) begin_document(p, set->end_of_text);
    while (p->used % MULTIPLE && p->used < p->room) p->ids[p->used++] = set->end_of_text;
    p->ids[p->used] = set->end_of_text;
    p->cu[p->docs] = p->used;
    const GptBatch batch = {
        .ids = p->ids, .targets = p->ids + 1, .cu = p->cu, .n_docs = p->docs, .tokens = p->used};
    return gpt_token_losses(gpt, &batch, p->losses) || fail(err, "out of memory for HellaSwag");
}

// Reads the losses of an item whose tokens begin at `at`; which ending is chosen by sum and by
// mean. Returns where the next item begins, or -1 when the losses are not numbers.
static int judge(const Item *item, const double *losses, int at, HellaSwagScore *score,
                 FILE *details)
{
    double sum[ENDINGS];
    int by_sum = 0, by_mean = 0;
    for (int i = 0; i < ENDINGS; i++) {
        const int n = (int)ending_length(item, i);
        at += 2 + (int)context_length(item); // the first token of the ending
        sum[i] = 0;
        for (int k = 0; k < n; k++) sum[i] += losses[at + k - 1];
        at += n;
        if (!isfinite(sum[i])) return -1;
        if (sum[i] < sum[by_sum]) by_sum = i;
        if (sum[i] / n < sum[by_mean] / (double)ending_length(item, by_mean)) by_mean = i;
    }
    score->items++;
    score->accuracy += by_sum == item->label;
    score->accuracy_norm += by_mean == item->label;
    if (details) {
        fprintf(details, "%d", item->label);
        for (int i = 0; i < ENDINGS; i++) fprintf(details, " %.17g", sum[i]);
        for (int i = 0; i < ENDINGS; i++) fprintf(details, " %zu", ending_length(item, i));
        fputc('\n', details);
    }
    return at;
}

static bool score_items(const HellaSwag *set, Gpt *gpt, Pack *p, HellaSwagScore *score,
                        FILE *details, Error *err)
{
    for (int first = 0, last; first < set->count; first = last) {
        p->used = p->docs = 0;
        for (last = first; last < set->count; last++) {
            const size_t n = item_length(&set->items[last]);
            if (n > (size_t)p->room)
                return fail(err, "HellaSwag's item %d has %zu tokens: the model takes %d at once",
                            last + 1, n, p->room);
            if (n > (size_t)(p->room - p->used)) break;
            pack_item(set, &set->items[last], p);
        }
        if (!run_pack(set, gpt, p, err)) return false;
        for (int i = first, at = 0; i < last; i++) {
            at = judge(&set->items[i], p->losses, at, score, details);
            if (at < 0)
                return fail(err, "the model's losses of HellaSwag's item %d are not numbers",
                            i + 1);
        }
    }
    return true;
}

bool hellaswag_score(const HellaSwag *set, Gpt *gpt, HellaSwagScore *score, FILE *details,
                     Error *err)
{
    const int most = gpt_max_tokens(gpt), room = most < PACKED ? most : PACKED;
    Pack p = {.room = room,
              .ids = malloc(((size_t)room + 1) * sizeof *p.ids),
              .cu = malloc(((size_t)room + 2) * sizeof *p.cu),
              .losses = malloc((size_t)room * sizeof *p.losses)};
    *score = (HellaSwagScore){0};
    const bool ok = (p.ids && p.cu && p.losses) ? score_items(set, gpt, &p, score, details, err)
                                                : fail(err, "out of memory for HellaSwag");
    free(p.ids);
    free(p.cu);
    free(p.losses);
    score->accuracy /= score->items ? score->items : 1;
    score->accuracy_norm /= score->items ? score->items : 1;
    return ok;
}
