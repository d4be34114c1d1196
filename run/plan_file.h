// The file that keeps which algorithms a device's timing chose (Ops.plans_text), one per GPU and
// library, so that only the first run on a machine has to time:
//
//   $TURBOMUON_CACHE, $XDG_CACHE_HOME/turbomuon or ~/.cache/turbomuon
//       /gemm-NVIDIA-H200-cuBLASLt-130100.txt
//
// TURBOMUON_CACHE="" keeps none. The file is plans.h's text and a line with its checksum.
#ifndef RUN_PLAN_FILE_H
#define RUN_PLAN_FILE_H

#include "../ops/ops.h"

// Hands the file's choices to the device. A file that is damaged or is another GPU's is passed over
// with one warning on standard error; one that is missing, silently.
void plan_file_load(const Ops *ops);
// Writes the device's choices and those of the file that are about other products, if that changes
// the file: to a temporary name, then renamed. Where the folder cannot be written, nothing happens.
void plan_file_save(const Ops *ops);

#endif
