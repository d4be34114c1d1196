// The compiled grammar, shared by grammar.c (draw, parse) and grammar_check.c (proof).
#ifndef DATA_GRAMMAR_INSIDE_H
#define DATA_GRAMMAR_INSIDE_H

#include "grammar.h"

enum {
    kMaxRules = 160,
    kMaxProductions = 1200,
    kMaxSymbols = 2400,
    kMaxForms = 6,
    kVariables = 26,
    kNothing = -1,
};

enum symbol_kind { SYMBOL_TEXT, SYMBOL_CALL, SYMBOL_RECALL, SYMBOL_ALIAS };

struct symbol {
    enum symbol_kind kind;
    const char *text; // TEXT: the bytes
    int length;       // TEXT: how many
    bool capital;     // TEXT, RECALL: the first byte is written as a capital
    int rule;         // CALL
    int variable;     // CALL: what remembers the word, or kNothing; RECALL, ALIAS: whose value
    int source;       // ALIAS: whose value it takes
    int form;         // CALL, RECALL
};

struct production {
    int weight;
    int first_symbol, symbol_count; // of a word: its forms, each one TEXT symbol
};

struct rule {
    const char *name;
    int first, count; // its productions
    bool is_words;
    int forms; // of a word list: the least number of forms of its words
};

struct grammar {
    struct rule rules[kMaxRules];
    struct production productions[kMaxProductions];
    struct symbol symbols[kMaxSymbols];
    int rule_count, production_count, symbol_count;
    int variable_rule[kVariables];   // the word list of each variable, or kNothing
    bool variable_alias[kVariables]; // set by <S=A>: need not differ from other variables
};

// Byte i of a TEXT symbol as it is written.
char symbol_byte(const struct symbol *symbol, int i);

// Form `form` of the word `production`, as a TEXT symbol.
struct symbol grammar_word(const struct grammar *grammar, int production, int form, bool capital);

#endif
