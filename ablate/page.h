// Figures and the page docs/ablations.md from the tables of a folder (studies.h).
#ifndef ABLATE_PAGE_H
#define ABLATE_PAGE_H

#include <stdbool.h>

#include "../ops/error.h"

// Reads error.csv, bias.csv, spectrum.csv, remedies.csv, time.csv and training.csv
// ("method,seed,step,loss,ms") from the folder, and from `gpu` what scripts/ablate_gpu.sh left
// there: error.csv, sweep.csv, time.csv, training.csv and machine.txt. Any of them may be missing.
// Writes `page`, and the figures beside it under its name without .md + "_*.svg". `command`: how
// the tables were made, and on what machine.
bool page_write(const char *folder, const char *gpu, const char *page, const char *command,
                Error *err);

#endif
