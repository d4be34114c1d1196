// Texts that a model in training writes.
#ifndef RUN_SAMPLES_H
#define RUN_SAMPLES_H

#include <signal.h>

#include "run.h"

// --samples texts of up to --sample-tokens tokens each, continuing --sample-prompt at the beginning
// of a document, into the log; with the weights, windows and step of the moment. `stop`, when it is
// no longer 0, ends them. Where the tokenizer's files are missing a line says so, and that is no
// failure. False without memory, and for a prompt longer than the model's positions.
bool samples_write(Run *run, const volatile sig_atomic_t *stop, Error *err);

#endif
