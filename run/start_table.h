// The table that a run begins with: model, device, memory by purpose, data, steps.
#ifndef RUN_START_TABLE_H
#define RUN_START_TABLE_H

#include "run.h"

// Everything of the run is open. Goes to standard output and to the log.
void start_table(Run *run, const char *version);

#endif
