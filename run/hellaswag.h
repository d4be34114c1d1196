// HellaSwag (Zellers et al. 2019) as llm.c scores it: of four endings of a context the model
// chooses the one whose tokens have the least loss, in sum (`accuracy`) or per token
// (`accuracy_norm`).
//
// The file has a JSON object a line with "ctx", four "endings" and "label", the right one; other
// members are skipped. The tokens scored are those of " " + ending after those of the context. Each
// ending is a document, begun with the end-of-text token as in training. The smear hands that token
// the one before it, of another document; so that a score does not depend on what that is, one more
// end-of-text token, a document of its own, comes before each.
#ifndef RUN_HELLASWAG_H
#define RUN_HELLASWAG_H

#include <stdio.h>

#include "../gpt/gpt.h"
#include "tokenizer.h"

typedef struct HellaSwag HellaSwag;
typedef struct {
    int items;
    double accuracy, accuracy_norm; // fractions
} HellaSwagScore;

// Reads the first `most` items (0: all). NULL, with the file and the line, for what is no such
// item.
HellaSwag *hellaswag_open(const char *path, const Tokenizer *tokenizer, int most, Error *err);
void hellaswag_close(HellaSwag *set); // also right on NULL
// Scores all items in evaluation mode. `details`, unless NULL, receives a line an item: its label,
// the four sums of losses, the four numbers of tokens. False for an item longer than the model's
// longest sequence, for losses that are not numbers, and without memory.
bool hellaswag_score(const HellaSwag *set, Gpt *gpt, HellaSwagScore *score, FILE *details,
                     Error *err);

#endif
