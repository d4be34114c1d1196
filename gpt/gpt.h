// The model: parameters in banks, activations in one arena, forward and backward over ops.h alone.
// This is the only code that knows the architecture, and it knows it through the recipe's layer
// table.
//
// Shapes: T tokens in a packed micro-batch, D width, H heads, F hidden, V padded vocabulary.
#ifndef GPT_GPT_H
#define GPT_GPT_H

#include <stdbool.h>
#include <stdint.h>

#include "../muon.h"
#include "../ops/ops.h"
#include "recipe.h"

// Equal-shaped tensors that lie contiguously, in backward order (the last slot first): the unit of
// orthogonalisation, of sharding and of communication.
typedef enum {
    BANK_ATTN,        // 4 per attention: Q, K, V, O of a slot, each (D,D) stored (out,in)
    BANK_MLP,         // 2 per MLP: c_fc (in,hidden), c_proj (out,hidden), each (D,F)
    BANK_ATTN_GATE,   // (H,C) per attention
    BANK_SMEAR_GATE,  // (1,C)
    BANK_SCALARS,     // (1,n): skip gates, lambdas; specification 1.2
    BANK_LM_HEAD,     // (V,D)
    BANK_EMBED,       // (V,D)
    BANK_VALUE_EMBED, // (V,D) each
    GPT_BANKS
} BankId;

typedef struct {
    const char *name;
    int count, rows, cols;
    bool muon;      // updated by NorMuon; else by Adam
    DType dtype;    // of param and grad
    double *lr_mul; // (count), on the host
    void *param, *grad;
    void *weight; // working copy that operations read: real, or float_acc for scalars;
                  // the parameter itself when the types agree
    void *delta;  // float_acc gradient of one micro-batch, rounded into grad by `accumulate`; NULL
                  // where products add to grad directly (the matrices)
} GptBank;

// A packed sequence of T tokens, on the host.
typedef struct {
    const int32_t *ids, *targets; // (T)
    const int32_t *cu;            // (n_docs + 1) document starts, from 0 to T; empty ones allowed
    int n_docs, tokens;           // n_docs <= T + 1
} GptBatch;

typedef struct {
    const char *purpose;
    size_t bytes;
} GptMemory;
enum { GPT_MEMORY_ROWS = 4 };

typedef struct Gpt Gpt;

// Takes all memory for the recipe (finished by recipe_finish): parameters, gradients, working
// copies, and activations for max(micro_batch with backward, val_chunk without). With real_storage
// every tensor is kept in the device's float_acc and nothing is rounded to a narrower type.
// grad_scale_batches is A, the micro-batches this rank adds up in one step. NULL, with the sizes,
// when memory is short.
Gpt *gpt_create(const Recipe *recipe, const Ops *ops, bool real_storage, int grad_scale_batches,
                Error *err);
void gpt_free(Gpt *gpt);
GptBank *gpt_bank(Gpt *gpt, BankId id);
const Recipe *gpt_recipe(const Gpt *gpt);
const Ops *gpt_ops(const Gpt *gpt);
const GptMemory *gpt_memory(const Gpt *gpt); // GPT_MEMORY_ROWS rows: what was taken for what
// Index of a slot's first matrix in BANK_ATTN (Q; K, V, O follow) or BANK_MLP (c_fc; c_proj
// follows), or of its row in BANK_ATTN_GATE; -1 when the slot has none.
int gpt_matrix_index(const Gpt *gpt, BankId id, int slot);
size_t gpt_bank_size(const GptBank *bank); // numbers in it
size_t gpt_parameter_count(const Gpt *gpt);

// Initial values of specification 1.1, from a seed: the same bits for a seed on every device.
void gpt_init(Gpt *gpt, uint64_t seed);
// Call whenever parameters were changed from outside (init, optimizer, checkpoint): refreshes the
// working copies of one bank.
void gpt_load_weights(Gpt *gpt, BankId id);

// Sets what varies from step to step: windows, YaRN tables and softmax scale, learning rates,
// momentum. step in 0..total_steps; total_steps has the final validation's windows.
void gpt_set_step(Gpt *gpt, int step);
// Rotary frequencies (rotary_active of them) and softmax scale at a step: the start values after
// every YaRN update so far (specification 5.3), kept in fp32 when `narrow`. Returns how many
// windows the schedule has seen.
int gpt_yarn(const Recipe *recipe, int step, bool narrow, double *omega, double *scale);
const StepState *gpt_step_state(const Gpt *gpt); // as set, on the device

// Adds the gradient of (sum of token losses)/A to the banks' grads; returns the mean token loss.
double gpt_forward_backward(Gpt *gpt, const GptBatch *batch);
// Mean token loss in evaluation mode (head in full precision). tokens <= val_chunk or micro_batch.
double gpt_evaluate(Gpt *gpt, const GptBatch *batch);
// Softcapped logits (vocab_size floats) of the token that follows ids[0..n), one document; n at
// most gpt_max_tokens. False when memory is short.
bool gpt_next_logits(Gpt *gpt, const int32_t *ids, int n, float *logits);
int gpt_max_tokens(const Gpt *gpt);

#endif
