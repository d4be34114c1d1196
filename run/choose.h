// What a run works on, from its options and from the checkpoint it continues: recipe, data, folder.
// The device (run->ops) is chosen before.
#ifndef RUN_CHOOSE_H
#define RUN_CHOOSE_H

#include "run.h"

// The recipe of a program without options: the speedrun where a GPU and its data are, else `tiny`.
const char *choose_default_recipe(const Run *run);
// A resumed run has its checkpoint's recipe, and leaves it open in run->resume; a new one that of
// the options, or the default. Either with the command line's changes. False, with run->usage when
// the command line is at fault, for what options_recipe, checkpoint_latest, checkpoint_open and
// state_recipe refuse, and for options that contradict the checkpoint.
bool choose_recipe(Run *run, Error *err);
// The speedrun recipe on a CPU takes weeks: false unless the options insist.
bool choose_patiently(const Run *run, Error *err);
// Shards by the vocabulary when the options name none: GPT-2's are FineWeb's, 257 is the corpus's.
// False where no file matches, before anything large is made for them.
bool choose_data(Run *run, Error *err);
// The folder of the results and that of its checkpoints; a new run's is made. False as log_folder.
bool choose_folder(Run *run, Error *err);

#endif
