// Model-FLOP utilisation: the time that a step's arithmetic takes at a GPU's peak, divided by the
// time that the step took.
//
//   ideal time = (6 P T + sum over attentions of 12 D pairs) / bf16 peak + 6 V D T / head's peak
//
// P parameters of the executed slots' matrices, T tokens, D width, V padded vocabulary; pairs of a
// query and a key that it sees through window and document. 6 is one multiply-add forward and two
// backward; a pair costs 2 D multiply-adds forward (scores, values) and 4 D backward. The head's
// peak is that of fp8 where the recipe says so. Norms, losses and optimizers count nothing, as
// usual (PaLM, arXiv 2204.02311, appendix B).
#ifndef RUN_MFU_H
#define RUN_MFU_H

#include "../gpt/gpt.h"

typedef struct {
    double bf16, fp8; // FLOPs, or FLOP/s; NAN when not known
} Flops;

// Dense peaks of a GPU by its name: 989 and 1979 TFLOP/s for an H100 or H200 with SXM, else NAN.
Flops mfu_peak(const char *gpu);
// Pairs (query, key) with key <= query <= key + window in one document; cu as in GptBatch.
double mfu_visible_pairs(const int32_t *cu, int n_docs, int window);
// Adds the arithmetic of one micro-batch at a training step.
void mfu_add(Flops *work, const Recipe *recipe, const GptBatch *batch, int step);
// Seconds that the work takes at a peak.
double mfu_ideal_seconds(Flops work, Flops peak);

#endif
