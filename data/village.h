// The grammar of the built-in corpus: the papers of a few villages (see data/README.md).
#ifndef DATA_VILLAGE_H
#define DATA_VILLAGE_H

#include "grammar.h"

extern const struct grammar_line village_lines[];
extern const int village_line_count;

#endif
