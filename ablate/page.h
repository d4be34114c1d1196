// Figures and the page docs/ablations.md from the tables of a folder (studies.h).
#ifndef ABLATE_PAGE_H
#define ABLATE_PAGE_H

#include <stdbool.h>

#include "../ops/error.h"

// Reads error.csv, bias.csv, spectrum.csv, time.csv and training.csv ("method,seed,loss,ms") from
// the folder, any of which may be missing, and writes `page` and the figures page's name without
// .md +
// "_*.svg" beside it. `command`: how the tables were made, and on what machine.
bool page_write(const char *folder, const char *page, const char *command, Error *err);

#endif
