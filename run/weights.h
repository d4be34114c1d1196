// A model without its training: from a checkpoint of a run, or from an exported folder; and that
// folder.
//
// An export is FOLDER/model.safetensors, every matrix by name with the bits and the type it has in
// the checkpoint, and FOLDER/config.json, all that scripts/load_in_torch.py needs to know besides:
// sizes, the layers, and the windows, rotary frequencies and softmax scale of the step. For what
// the names mean see docs/architecture.md.
#ifndef RUN_WEIGHTS_H
#define RUN_WEIGHTS_H

#include "../gpt/gpt.h"
#include "safetensors.h"

// The file that a name stands for: itself, FOLDER/model.safetensors, the newest whole checkpoint of
// FOLDER or of FOLDER/checkpoints, or with "latest" that of the run in runs/ that saved last.
bool weights_find(const char *name, char path[FILE_PATH_MAX], Error *err);

typedef struct {
    Safetensors file; // open from weights_open to weights_close
    Recipe recipe;    // as it was trained; finished
    bool open, real_storage;
    int step;
    Gpt *gpt;
} Weights; // {0} is closed

// Opens the file that a name stands for, and reads all but the numbers. Nothing of
// orthogonalisation is kept in the recipe: its tables may be files that are elsewhere.
bool weights_open(Weights *weights, const char *name, Error *err);
int weights_positions(const Weights *weights); // tokens in the recipe's longest pass
// Makes weights->gpt, which only evaluates and generates, for sequences of up to `tokens`, at the
// file's step with the windows of its validation, and loads it.
bool weights_model(Weights *weights, const Ops *ops, int tokens, Error *err);
void weights_close(Weights *weights); // its model too

// Reads the file's parameters into a model of the same shapes and types, and refreshes the working
// copies. On failure some may have been read.
bool weights_load(Gpt *gpt, const Safetensors *file, Error *err);

// The same from a name.
bool weights_init(Gpt *gpt, const char *name, Error *err);

// Writes the two files of an export, making the folder. Existing ones are replaced.
bool weights_export(Weights *weights, const char *folder, Error *err);

#endif
