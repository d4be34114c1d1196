// From the lines of a grammar to symbols that the generator, the parser and the proof walk.
#include "grammar_inside.h"

#include <stdio.h>  // snprintf
#include <stdlib.h> // calloc, free
#include <string.h> // memcmp, strchr, strcmp, strcspn, strlen

struct compiler {
    struct grammar *grammar;
    const struct grammar_line *lines;
    int line_count;
    char *error;
    size_t error_size;
};

static bool compile_fails(struct compiler *compiler, const char *rule, const char *why,
                          const char *text)
{
    snprintf(compiler->error, compiler->error_size, "grammar rule '%s': %s: %.40s", rule, why,
             text);
    return false;
}

static int rule_find(const struct grammar *grammar, const char *name, size_t length)
{
    for (int r = 0; r < grammar->rule_count; r++)
        if (strlen(grammar->rules[r].name) == length &&
            memcmp(grammar->rules[r].name, name, length) == 0)
            return r;
    return kNothing;
}

static bool is_variable(char c) { return c >= 'A' && c <= 'Z'; }

static struct symbol *symbol_add(struct grammar *grammar, enum symbol_kind kind)
{
    if (grammar->symbol_count == kMaxSymbols) return NULL;
    struct symbol *symbol = &grammar->symbols[grammar->symbol_count++];
    *symbol = (struct symbol){.kind = kind, .rule = kNothing, .variable = kNothing};
    return symbol;
}

static struct production *production_add(struct grammar *grammar, int weight)
{
    if (grammar->production_count == kMaxProductions) return NULL;
    struct production *production = &grammar->productions[grammar->production_count++];
    *production = (struct production){.weight = weight, .first_symbol = grammar->symbol_count};
    return production;
}

static bool compile_words(struct compiler *compiler, struct rule *rule,
                          const struct grammar_line *line)
{
    struct grammar *grammar = compiler->grammar;
    const char *at = line->text;
    rule->is_words = true;
    rule->forms = kMaxForms;
    for (int rank = 0;; rank++) {
        struct production *word = production_add(grammar, 10000 / (rank - line->weight));
        if (!word) return compile_fails(compiler, line->rule, "too many words", at);
        rule->count++;
        for (;;) {
            struct symbol *form = symbol_add(grammar, SYMBOL_TEXT);
            if (!form || word->symbol_count == kMaxForms)
                return compile_fails(compiler, line->rule, "too many forms", at);
            word->symbol_count++;
            form->text = at;
            form->length = (int)strcspn(at, "|,");
            at += form->length;
            if (*at != '|') break;
            at++;
        }
        if (word->symbol_count < rule->forms) rule->forms = word->symbol_count;
        if (*at == '\0') return true;
        if (at[1] != ' ') return compile_fails(compiler, line->rule, "no space after comma", at);
        at += 2;
    }
}

// The optional ".2" of a variable. Returns what follows it.
static const char *compile_form(const char *at, int *form)
{
    if (at[0] != '.' || at[1] < '0' || at[1] > '9') return at;
    *form = at[1] - '0';
    return at + 2;
}

// What stands between < and >. Returns what follows the >, or NULL.
static const char *compile_call(struct grammar *grammar, const char *at)
{
    struct symbol *symbol = symbol_add(grammar, SYMBOL_CALL);
    const char *end = strchr(at, '>');
    if (!symbol || !end) return NULL;
    if (is_variable(at[0]) && at[1] == '=' && is_variable(at[2]) && end == at + 3) {
        symbol->kind = SYMBOL_ALIAS;
        symbol->variable = at[0] - 'A';
        symbol->source = at[2] - 'A';
        grammar->variable_alias[symbol->variable] = true;
        return end + 1;
    }
    if (is_variable(at[0])) {
        symbol->variable = at[0] - 'A';
        at = compile_form(at + 1, &symbol->form);
        if (*at++ != ':') return NULL;
    }
    symbol->rule = rule_find(grammar, at, (size_t)(end - at));
    if (symbol->rule == kNothing) return NULL;
    if (symbol->variable != kNothing) {
        int *rule = &grammar->variable_rule[symbol->variable];
        if (*rule != kNothing && *rule != symbol->rule) return NULL;
        *rule = symbol->rule;
    }
    return end + 1;
}

static bool compile_text(struct compiler *compiler, struct production *production,
                         const struct grammar_line *line)
{
    struct grammar *grammar = compiler->grammar;
    production->first_symbol = grammar->symbol_count;
    for (const char *at = line->text, *next; *at; at = next) {
        if (*at == '<') {
            next = compile_call(grammar, at + 1);
        } else if (*at == '$') {
            struct symbol *symbol = symbol_add(grammar, SYMBOL_RECALL);
            next = at + 1;
            if (symbol && (symbol->capital = *next == '^')) next++;
            if (symbol) symbol->variable = *next - 'A';
            next = symbol && is_variable(*next) ? compile_form(next + 1, &symbol->form) : NULL;
        } else {
            struct symbol *symbol = symbol_add(grammar, SYMBOL_TEXT);
            size_t length = strcspn(at, "<$");
            if (symbol) symbol->text = at, symbol->length = (int)length;
            next = symbol ? at + length : NULL;
        }
        if (!next) return compile_fails(compiler, line->rule, "cannot read", at);
    }
    production->symbol_count = grammar->symbol_count - production->first_symbol;
    return true;
}

// An alias speaks of the word list of its source; every form asked for must be there.
static bool compile_resolve(struct compiler *compiler)
{
    struct grammar *grammar = compiler->grammar;
    for (int i = 0; i < grammar->symbol_count; i++) {
        struct symbol *symbol = &grammar->symbols[i];
        if (symbol->kind != SYMBOL_ALIAS) continue;
        int rule = grammar->variable_rule[symbol->source],
            *own = &grammar->variable_rule[symbol->variable];
        if (rule == kNothing || (*own != kNothing && *own != rule))
            return compile_fails(compiler, "?", "alias of another list", "");
        *own = rule;
    }
    for (int i = 0; i < grammar->symbol_count; i++) {
        struct symbol *symbol = &grammar->symbols[i];
        if (symbol->kind == SYMBOL_RECALL) symbol->rule = grammar->variable_rule[symbol->variable];
        bool remembers = symbol->kind == SYMBOL_CALL && symbol->variable != kNothing;
        if (symbol->kind != SYMBOL_RECALL && !remembers) continue;
        char name[2] = {(char)('A' + symbol->variable), '\0'};
        if (symbol->rule == kNothing || !grammar->rules[symbol->rule].is_words ||
            symbol->form >= grammar->rules[symbol->rule].forms)
            return compile_fails(compiler, "?", "no such word or form", name);
    }
    return true;
}

static bool compile_lines(struct compiler *compiler)
{
    struct grammar *grammar = compiler->grammar;
    const struct grammar_line *lines = compiler->lines;
    for (int i = 0; i < compiler->line_count; i++) {
        if (i > 0 && strcmp(lines[i].rule, lines[i - 1].rule) == 0) continue;
        if (rule_find(grammar, lines[i].rule, strlen(lines[i].rule)) != kNothing)
            return compile_fails(compiler, lines[i].rule, "lines stand apart", lines[i].text);
        if (grammar->rule_count == kMaxRules)
            return compile_fails(compiler, lines[i].rule, "too many rules", "");
        grammar->rules[grammar->rule_count++].name = lines[i].rule;
    }
    for (int i = 0, r = -1; i < compiler->line_count; i++) {
        bool is_new = i == 0 || strcmp(lines[i].rule, lines[i - 1].rule) != 0;
        struct rule *rule = &grammar->rules[r += is_new];
        if (is_new) rule->first = grammar->production_count;
        if (rule->is_words || (!is_new && lines[i].weight < 0) || lines[i].weight == 0)
            return compile_fails(compiler, rule->name, "bad weight or second list", lines[i].text);
        if (lines[i].weight < 0) {
            if (!compile_words(compiler, rule, &lines[i])) return false;
            continue;
        }
        struct production *production = production_add(grammar, lines[i].weight);
        if (!production) return compile_fails(compiler, rule->name, "too many lines", "");
        if (!compile_text(compiler, production, &lines[i])) return false;
        rule->count++;
    }
    return compile_resolve(compiler);
}

struct grammar *grammar_compile(const struct grammar_line *lines, int count, char *error,
                                size_t error_size)
{
    struct grammar *grammar = calloc(1, sizeof *grammar);
    if (!grammar) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    for (int v = 0; v < kVariables; v++) grammar->variable_rule[v] = kNothing;
    struct compiler compiler = {grammar, lines, count, error, error_size};
    if (!compile_lines(&compiler)) {
        grammar_free(grammar);
        return NULL;
    }
    return grammar;
}

void grammar_free(struct grammar *grammar) { free(grammar); }
