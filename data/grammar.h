// A probabilistic grammar held as data: one generator, one parser and one proof of unambiguity walk
// the same table, so the probability of a text is known exactly.
//
// A table line is a rule, a weight, and a text. A rule draws one of its lines with probability
// weight / (sum of the rule's weights), and writes the line's text, in which
//
//     <rule>        draws a line of another rule;
//     <A:words>     draws a word, remembers it as the variable A (one capital letter, always with
//                   the same word list), and writes it; a word held by another variable is left out
//                   of the draw, so the variables of one list always differ from each other;
//     <A.2:words>   the same, written in the word's form 2;
//     $A  $A.2      writes the remembered word, in form 0 or 2; $^A.2 with a capital;
//     <S=A>         makes the variable S an alias: it now holds what A holds; writes nothing.
//
// A line with a negative weight -s is a word list: words are parted by ", ", the forms of a word by
// "|", and the word of rank r = 0, 1, .. has the weight 10000/(s + r), rounded down. Only word
// lists can be remembered. All draws are in integers, so a seed gives the same text everywhere.
#ifndef DATA_GRAMMAR_H
#define DATA_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grammar_line {
    const char *rule;
    int weight;
    const char *text;
};

struct grammar;

// A growing text. Start with zeros; the owner frees `bytes`.
struct grammar_text {
    char *bytes;
    size_t length, capacity;
};

// SplitMix64 (Steele, Lea and Flood 2014). Streams of different numbers are independent.
struct grammar_random {
    uint64_t state;
};
struct grammar_random grammar_random_stream(uint64_t seed, uint64_t stream);

// Compiles `count` lines; the first line's rule is the start. The lines of a rule stand together.
// The strings must outlive the grammar. NULL, and a one-line `error`, when the table is wrong.
struct grammar *grammar_compile(const struct grammar_line *lines, int count, char *error,
                                size_t error_size);
void grammar_free(struct grammar *grammar);

// Appends one drawn text to `text` and adds the natural logarithm of its probability to
// *log_probability. False when memory runs out, or a line recalls a variable that holds nothing.
bool grammar_draw(const struct grammar *grammar, struct grammar_random *random,
                  struct grammar_text *text, double *log_probability);

// Recovers the derivation of a whole text from its bytes alone, and sets *log_probability. False if
// the text is not of the language, or if at any choice two lines match.
bool grammar_parse(const struct grammar *grammar, const char *bytes, size_t length,
                   double *log_probability);

// Proves that every text has one derivation, and that no text is the beginning of another (see the
// comment in grammar_check.c). False, and the offending rule and lines in `witness`, if the proof
// fails; that does not by itself show that the grammar is ambiguous.
bool grammar_prefix_free(const struct grammar *grammar, char *witness, size_t witness_size);

#endif
