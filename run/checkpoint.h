// The checkpoints of a run: one folder, one safetensors file per step, `step_000123.safetensors`.
// What the tensors and the metadata mean is the caller's affair.
#ifndef RUN_CHECKPOINT_H
#define RUN_CHECKPOINT_H

#include "safetensors.h"

// Writes the checkpoint of a step, making the folder if it is missing, and once that is durably in
// place removes older ones so that, counted with it, `keep` remain (0 keeps all). Checkpoints of
// later steps, left when a run was resumed from an earlier one, are neither counted nor removed.
// Temporary files that killed runs left are removed first: so one run at a time may save in a
// folder. A failed save leaves every earlier checkpoint as it was; its message says so.
bool checkpoint_save(const char *folder, int64_t step, const SafetensorsTensor *tensors, int count,
                     const Metadata *metadata, int keep, Error *err);

// The path of the newest checkpoint that is whole: its header and all its checksums are right (so
// every byte is read). Damaged ones are passed over, and `warning`, else empty, says which and why.
// Fails when the folder is missing, is a file, or has no whole checkpoint.
bool checkpoint_latest(const char *folder, char path[FILE_PATH_MAX], Error *warning, Error *err);

// safetensors_open for a file that must be a checkpoint: one without the checksum of its header, as
// other programs write them, is refused.
bool checkpoint_open(Safetensors *file, const char *path, Error *err);

// The name of the checkpoint of a step, steps from 0.
bool checkpoint_path(char path[FILE_PATH_MAX], const char *folder, int64_t step, Error *err);

#endif
