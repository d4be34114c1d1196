#include "grammar_inside.h"

#include <math.h>   // log
#include <stdlib.h> // realloc

// ---- the generator of random numbers

static uint64_t random_next(struct grammar_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct grammar_random grammar_random_stream(uint64_t seed, uint64_t stream)
{
    struct grammar_random mixer = {seed};
    uint64_t mixed = random_next(&mixer);
    mixer.state = mixed ^ (stream * 0xd1342543de82ef95u);
    return (struct grammar_random){random_next(&mixer)};
}

// Exactly uniform in [0, bound): the uneven end of the 64-bit range is drawn again.
static uint64_t random_below(struct grammar_random *random, uint64_t bound)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound, drawn;
    do drawn = random_next(random);
    while (drawn >= limit);
    return drawn % bound;
}

// ---- what generator and parser share

// The production that each variable holds.
struct memory {
    int held[kVariables];
};

static struct memory memory_empty(void)
{
    struct memory memory;
    for (int v = 0; v < kVariables; v++) memory.held[v] = kNothing;
    return memory;
}

char symbol_byte(const struct symbol *symbol, int i)
{
    char c = symbol->text[i];
    return symbol->capital && i == 0 && c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

struct symbol grammar_word(const struct grammar *grammar, int production, int form, bool capital)
{
    struct symbol word = grammar->symbols[grammar->productions[production].first_symbol + form];
    word.capital = capital;
    return word;
}

// The weight of a production in a draw for `variable`: 0 if another variable holds it.
static int weight_now(const struct grammar *grammar, int production, int variable,
                      const struct memory *memory)
{
    if (variable != kNothing)
        for (int v = 0; v < kVariables; v++)
            if (v != variable && memory->held[v] == production && !grammar->variable_alias[v])
                return 0;
    return grammar->productions[production].weight;
}

static int weight_total(const struct grammar *grammar, const struct symbol *call,
                        const struct memory *memory)
{
    const struct rule *rule = &grammar->rules[call->rule];
    int total = 0;
    for (int p = rule->first; p < rule->first + rule->count; p++)
        total += weight_now(grammar, p, call->variable, memory);
    return total;
}

// ---- the generator

struct generator {
    const struct grammar *grammar;
    struct grammar_random *random;
    struct grammar_text *text;
    struct memory memory;
    double log_probability;
};

static bool generate_text(struct grammar_text *text, const struct symbol *symbol)
{
    if (text->capacity - text->length < (size_t)symbol->length) {
        size_t capacity = 2 * text->capacity + (size_t)symbol->length + 4096;
        char *bytes = realloc(text->bytes, capacity);
        if (!bytes) return false;
        text->bytes = bytes;
        text->capacity = capacity;
    }
    for (int i = 0; i < symbol->length; i++) text->bytes[text->length++] = symbol_byte(symbol, i);
    return true;
}

static bool generate_call(struct generator *generator, const struct symbol *call)
{
    const struct grammar *grammar = generator->grammar;
    const struct rule *rule = &grammar->rules[call->rule];
    struct memory *memory = &generator->memory;
    int total = weight_total(grammar, call, memory), weight, chosen = rule->first;
    if (total <= 0) return false;
    int drawn = (int)random_below(generator->random, (uint64_t)total);
    while (drawn >= (weight = weight_now(grammar, chosen, call->variable, memory)))
        drawn -= weight, chosen++;
    generator->log_probability += log((double)weight / total);
    if (rule->is_words) {
        if (call->variable != kNothing) memory->held[call->variable] = chosen;
        struct symbol word = grammar_word(grammar, chosen, call->form, false);
        return generate_text(generator->text, &word);
    }
    const struct production *production = &grammar->productions[chosen];
    for (int i = 0; i < production->symbol_count; i++) {
        const struct symbol *symbol = &grammar->symbols[production->first_symbol + i];
        if (symbol->kind == SYMBOL_CALL) {
            if (!generate_call(generator, symbol)) return false;
        } else if (symbol->kind == SYMBOL_ALIAS) {
            memory->held[symbol->variable] = memory->held[symbol->source];
        } else if (symbol->kind == SYMBOL_RECALL) {
            int held = memory->held[symbol->variable];
            if (held == kNothing) return false;
            struct symbol word = grammar_word(grammar, held, symbol->form, symbol->capital);
            if (!generate_text(generator->text, &word)) return false;
        } else if (!generate_text(generator->text, symbol)) {
            return false;
        }
    }
    return true;
}

bool grammar_draw(const struct grammar *grammar, struct grammar_random *random,
                  struct grammar_text *text, double *log_probability)
{
    struct generator generator = {grammar, random, text, memory_empty(), 0};
    struct symbol start = {.kind = SYMBOL_CALL, .rule = 0, .variable = kNothing};
    if (!generate_call(&generator, &start)) return false;
    *log_probability += generator.log_probability;
    return true;
}

// ---- the parser

struct reader {
    const char *at, *end;
    struct memory memory;
    double log_probability;
};

static bool parse_text(struct reader *reader, const struct symbol *symbol)
{
    if (reader->end - reader->at < symbol->length) return false;
    for (int i = 0; i < symbol->length; i++)
        if (reader->at[i] != symbol_byte(symbol, i)) return false;
    reader->at += symbol->length;
    return true;
}

static bool parse_call(const struct grammar *grammar, struct reader *reader,
                       const struct symbol *call);

static bool parse_production(const struct grammar *grammar, struct reader *reader,
                             const struct production *production)
{
    for (int i = 0; i < production->symbol_count; i++) {
        const struct symbol *symbol = &grammar->symbols[production->first_symbol + i];
        if (symbol->kind == SYMBOL_CALL) {
            if (!parse_call(grammar, reader, symbol)) return false;
        } else if (symbol->kind == SYMBOL_ALIAS) {
            reader->memory.held[symbol->variable] = reader->memory.held[symbol->source];
        } else if (symbol->kind == SYMBOL_RECALL) {
            int held = reader->memory.held[symbol->variable];
            if (held == kNothing) return false;
            struct symbol word = grammar_word(grammar, held, symbol->form, symbol->capital);
            if (!parse_text(reader, &word)) return false;
        } else if (!parse_text(reader, symbol)) {
            return false;
        }
    }
    return true;
}

// Tries every production from here, and succeeds if just one matches: where each rule is prefix
// free, no second one can, and no later failure can make this choice wrong. So there is no
// backtracking over a success, and the derivation is the only one.
static bool parse_call(const struct grammar *grammar, struct reader *reader,
                       const struct symbol *call)
{
    const struct rule *rule = &grammar->rules[call->rule];
    int total = weight_total(grammar, call, &reader->memory), matches = 0;
    struct reader after = *reader;
    for (int p = rule->first; p < rule->first + rule->count; p++) {
        int weight = weight_now(grammar, p, call->variable, &reader->memory);
        if (weight == 0) continue;
        struct reader trial = *reader;
        if (rule->is_words) {
            struct symbol word = grammar_word(grammar, p, call->form, false);
            if (!parse_text(&trial, &word)) continue;
            if (call->variable != kNothing) trial.memory.held[call->variable] = p;
        } else if (!parse_production(grammar, &trial, &grammar->productions[p])) {
            continue;
        }
        matches++;
        trial.log_probability += log((double)weight / total);
        after = trial;
    }
    *reader = after;
    return matches == 1;
}

bool grammar_parse(const struct grammar *grammar, const char *bytes, size_t length,
                   double *log_probability)
{
    struct reader reader = {bytes, bytes + length, memory_empty(), 0};
    struct symbol start = {.kind = SYMBOL_CALL, .rule = 0, .variable = kNothing};
    if (!parse_call(grammar, &reader, &start) || reader.at != reader.end) return false;
    *log_probability = reader.log_probability;
    return true;
}
