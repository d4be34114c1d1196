// The timeline of a run: --timeline STEP. With 0 these do nothing.
#ifndef RUN_TIMELINE_RUN_H
#define RUN_TIMELINE_RUN_H

#include "run.h"

// Makes run->timeline on rank 0, when the first step is known. Refuses a run of one rank, and a
// step that is not among those to come.
bool timeline_run_open(Run *run, Error *err);
// Once the step after STEP is done, or the run has ended (`ended`): writes timeline.csv and
// timeline.svg to the run's folder, says what they show, and frees run->timeline.
//
// TURBOMUON_STUB_MS, the milliseconds of a step with TURBOMUON_COMM=stub, is told beside them.
bool timeline_run_draw(Run *run, bool ended, Error *err);

#endif
