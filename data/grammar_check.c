// The proof that a grammar is unambiguous.
//
// Claim: whatever the variables hold, the texts of a rule form a prefix code (no text of the rule
// is the beginning of another), and each text has one derivation. A reader who stands at a place
// where a rule begins then knows, from the bytes that follow, which line was drawn and where the
// rule's text ends; so the derivation of a whole text, its end included, can only be one, and its
// probability is the product of the probabilities of its choices.
//
// It is enough to show, for every two lines a and b of every rule, that no text of a is the
// beginning of a text of b or the other way round (`separate`). For then, of two derivations of
// texts u and v from the same rule with u the beginning of v: they drew the same line; so their
// first symbols read the same place with the same variables, and by induction on the size of the
// derivations they are the same and end together; so are their second symbols, and so on to the
// end.
//
// `separate` reads both lines side by side, from the left, until the bytes differ:
//   - if both stand before the same rule, then, by the induction above (what is inside is a smaller
//     derivation), either the texts differ there, or both derive the same and go on;
//   - two different variables of one list hold different words, whose forms 0 are a prefix code;
//   - otherwise one of them is replaced by each of its possible texts: a rule by all its lines, a
//     variable by all words of its list (more than can occur, which is on the safe side).
// A variable bound on one side only, so that both sides may disagree on it, is called loose, and
// the first two shortcuts are not taken with it. The search gives up at kMaxDepth steps and then
// reports failure, so it is a proof when it succeeds.
#include "grammar_inside.h"

#include <stdio.h> // snprintf

enum { kMaxDepth = 200 };

// What remains to be read of a line: some symbols, the first from a byte on, then an outer line.
struct rest {
    const struct symbol *symbol;
    int count, offset;
    const struct rest *outer;
};

static struct rest rest_settle(struct rest rest)
{
    for (;;) {
        if (rest.count > 0) {
            const struct symbol *symbol = rest.symbol;
            if (symbol->kind != SYMBOL_TEXT || rest.offset < symbol->length) return rest;
            rest.symbol++, rest.count--, rest.offset = 0;
        } else if (rest.outer) {
            rest = *rest.outer;
        } else {
            return rest;
        }
    }
}

static struct rest rest_next(struct rest rest)
{
    rest.symbol++, rest.count--, rest.offset = 0;
    return rest;
}

static unsigned bit(int variable) { return variable == kNothing ? 0 : 1u << variable; }

static bool separate(const struct grammar *grammar, struct rest a, struct rest b, unsigned loose,
                     int depth);

// Replaces the first symbol of `a` by each of its possible texts.
static bool separate_expanded(const struct grammar *grammar, struct rest a, struct rest b,
                              unsigned loose, int depth)
{
    const struct symbol *head = a.symbol;
    const struct rule *rule = &grammar->rules[head->rule];
    struct rest outer = rest_next(a);
    if (head->kind == SYMBOL_CALL) loose |= bit(head->variable);
    for (int p = rule->first; p < rule->first + rule->count; p++) {
        const struct production *production = &grammar->productions[p];
        struct symbol word;
        struct rest inner = {&grammar->symbols[production->first_symbol], production->symbol_count,
                             0, &outer};
        if (rule->is_words) {
            word = grammar_word(grammar, p, head->form, head->capital);
            inner.symbol = &word;
            inner.count = 1;
        }
        if (!separate(grammar, inner, b, loose, depth + 1)) return false;
    }
    return true;
}

// Both stand before the same thing, so that equal bytes mean an equal derivation.
static bool in_step(const struct grammar *grammar, const struct symbol *x, const struct symbol *y,
                    unsigned loose)
{
    if (x->kind != y->kind) return false;
    if (x->kind == SYMBOL_RECALL)
        return x->variable == y->variable && x->form == y->form && x->capital == y->capital &&
               !(loose & bit(x->variable));
    return x->kind == SYMBOL_CALL && x->rule == y->rule && x->form == y->form &&
           (grammar->rules[x->rule].is_words || !loose);
}

// Two variables that hold different words of one list, both shown in form 0.
static bool held_apart(const struct grammar *grammar, const struct symbol *x,
                       const struct symbol *y, unsigned loose)
{
    return x->kind == SYMBOL_RECALL && y->kind == SYMBOL_RECALL && x->variable != y->variable &&
           x->rule == y->rule && x->form == 0 && y->form == 0 && !x->capital && !y->capital &&
           !grammar->variable_alias[x->variable] && !grammar->variable_alias[y->variable] &&
           !(loose & (bit(x->variable) | bit(y->variable)));
}

// True if it is proved that no text of `a` begins a text of `b`, nor the other way round.
static bool separate(const struct grammar *grammar, struct rest a, struct rest b, unsigned loose,
                     int depth)
{
    if (depth > kMaxDepth) return false;
    for (;;) {
        a = rest_settle(a);
        b = rest_settle(b);
        // An alias written on one side is loose; it writes no text of its own.
        if (a.count > 0 && a.symbol->kind == SYMBOL_ALIAS) {
            loose |= bit(a.symbol->variable);
            a = rest_next(a);
            continue;
        }
        if (b.count > 0 && b.symbol->kind == SYMBOL_ALIAS) {
            loose |= bit(b.symbol->variable);
            b = rest_next(b);
            continue;
        }
        if (a.count == 0 || b.count == 0) return false;
        const struct symbol *x = a.symbol, *y = b.symbol;
        if (x->kind == SYMBOL_TEXT && y->kind == SYMBOL_TEXT) {
            if (symbol_byte(x, a.offset) != symbol_byte(y, b.offset)) return true;
            a.offset++, b.offset++;
        } else if (in_step(grammar, x, y, loose)) {
            if (x->kind == SYMBOL_CALL && x->variable != y->variable)
                loose |= bit(x->variable) | bit(y->variable);
            a = rest_next(a);
            b = rest_next(b);
        } else if (held_apart(grammar, x, y, loose)) {
            return true;
        } else if (x->kind != SYMBOL_TEXT) {
            return separate_expanded(grammar, a, b, loose, depth);
        } else {
            return separate_expanded(grammar, b, a, loose, depth);
        }
    }
}

// The words of a list, all in the same form, are a prefix code.
static bool words_separate(const struct grammar *grammar, int rule_index, int form, char *witness,
                           size_t witness_size)
{
    const struct rule *rule = &grammar->rules[rule_index];
    for (int p = rule->first; p < rule->first + rule->count; p++)
        for (int q = rule->first; q < p; q++) {
            struct symbol x = grammar_word(grammar, p, form, false);
            struct symbol y = grammar_word(grammar, q, form, false);
            if (separate(grammar, (struct rest){&x, 1, 0, NULL}, (struct rest){&y, 1, 0, NULL}, 0,
                         0))
                continue;
            snprintf(witness, witness_size, "rule '%s': form %d of the words '%.*s' and '%.*s'",
                     rule->name, form, x.length, x.text, y.length, y.text);
            return false;
        }
    return true;
}

bool grammar_prefix_free(const struct grammar *grammar, char *witness, size_t witness_size)
{
    for (int r = 0; r < grammar->rule_count; r++) {
        const struct rule *rule = &grammar->rules[r];
        if (rule->is_words) {
            if (!words_separate(grammar, r, 0, witness, witness_size)) return false;
            continue;
        }
        for (int i = 0; i < rule->count; i++)
            for (int j = 0; j < i; j++) {
                const struct production *p = &grammar->productions[rule->first + i];
                const struct production *q = &grammar->productions[rule->first + j];
                struct rest a = {&grammar->symbols[p->first_symbol], p->symbol_count, 0, NULL};
                struct rest b = {&grammar->symbols[q->first_symbol], q->symbol_count, 0, NULL};
                if (separate(grammar, a, b, 0, 0)) continue;
                snprintf(witness, witness_size, "rule '%s': lines %d and %d", rule->name, j + 1,
                         i + 1);
                return false;
            }
    }
    // Where a word is drawn in another form than 0, it must be known by that form.
    for (int s = 0; s < grammar->symbol_count; s++) {
        const struct symbol *symbol = &grammar->symbols[s];
        if (symbol->kind == SYMBOL_CALL && symbol->form > 0 &&
            !words_separate(grammar, symbol->rule, symbol->form, witness, witness_size))
            return false;
    }
    return true;
}
