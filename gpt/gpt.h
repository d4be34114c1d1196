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

// T tokens on the host: packed sequences of equal length, side by side. Positions, documents and
// the smear start anew in each.
typedef struct {
    const int32_t *ids, *targets; // (T)
    const int32_t *cu;            // (n_docs + 1) document starts, from 0 to T; empty ones allowed
    int n_docs, tokens;           // n_docs <= T + the number of sequences
    int sequence;                 // tokens in each, a divisor of T; 0: one of T
    const int32_t *order;         // (T) what gpt_sort_ids gives, or NULL: the model sorts
} GptBatch;

// Positions sorted by (id, position), by counting: the order in which embedding gradients are added
// up. `start` is scratch for vocab + 1 counts.
void gpt_sort_ids(int32_t *order, int32_t *start, const int32_t *ids, int t, int vocab);

typedef struct {
    const char *purpose;
    size_t bytes;
} GptMemory;
// Rows from GPT_MEMORY_ACTIVATIONS on grow with the batch; the others do not.
enum { GPT_MEMORY_ACTIVATIONS = 3, GPT_MEMORY_ROWS = 5 };

typedef struct Gpt Gpt;

// Takes all memory for the recipe (finished by recipe_finish): parameters, gradients, working
// copies, and activations for max(micro_batch with backward, val_chunk without). With real_storage
// every tensor is kept in the device's float_acc and nothing is rounded to a narrower type.
// grad_scale_batches is the micro-batches this rank adds up in one step, 0 for a model that only
// evaluates and generates, without gradients; A below is the sequences in them. NULL, with the
// sizes, when memory is short.
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
// Gives a bank's stored parameters back, where its working copies are another buffer: what is
// called with the bank afterwards may only read those. Ranks that share the parameters do this.
void gpt_drop_param(Gpt *gpt, BankId id);
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

// What the model calls while it runs: all that it knows of ranks. Either may be NULL.
typedef struct {
    void *context;
    // Before the first operation of a forward pass that reads the weights of a slot; -1: those of
    // the embedding, n_slots: of the head.
    void (*before_layer)(void *context, int slot);
    // The gradients of a bank's items [0, end) have had the micro-batch's last addition: banks lie
    // in backward order, so `end` grows to `count`.
    void (*grads_final)(void *context, BankId id, int end);
} GptHooks;
void gpt_set_hooks(Gpt *gpt, const GptHooks *hooks);

// Adds the gradient of (sum of token losses)/A to the banks' grads, and the losses to those that
// gpt_loss returns. Does not wait for the device.
void gpt_forward_backward(Gpt *gpt, const GptBatch *batch);
// Mean token loss of all batches since the last call (NaN when there was none); waits for the
// device.
double gpt_loss(Gpt *gpt);
// Where the sum of those losses lies on the device, for ranks that average it.
double *gpt_loss_sum(Gpt *gpt);
// Mean token loss in evaluation mode (head in full precision). tokens <= val_chunk or micro_batch.
double gpt_evaluate(Gpt *gpt, const GptBatch *batch);
// The same, token by token: losses (T). False when memory is short.
bool gpt_token_losses(Gpt *gpt, const GptBatch *batch, double *losses);
int gpt_max_tokens(const Gpt *gpt);

// ---- generation (decode.c) ---------------------------------------------------------------------
// One packed sequence that grows by a token at a time, each the last vocab_size - 1 beginning a
// document, with the keys and values of all its tokens kept. It has the windows, YaRN tables and
// weights that gpt_set_step and gpt_load_weights left; after either, start another.
typedef struct GptDecode GptDecode;
// An empty sequence with room for max_tokens. NULL when that is more than gpt_max_tokens, or memory
// is short.
GptDecode *gpt_decode_create(Gpt *gpt, int max_tokens, Error *err);
void gpt_decode_free(GptDecode *decode);
// Appends n >= 1 tokens, the first ones by one forward pass, later ones one by one; `logits`
// (vocab_size) receives the softcapped logits of the token that follows, as gpt_evaluate scores
// them. False, and nothing changed, when there is no room for them.
bool gpt_decode_append(GptDecode *decode, const int32_t *ids, int n, float *logits, Error *err);
// Forgets all but the first n tokens, 0 <= n <= gpt_decode_length.
void gpt_decode_truncate(GptDecode *decode, int n);
int gpt_decode_length(const GptDecode *decode);
int gpt_decode_room(const GptDecode *decode); // tokens that can still be appended
int gpt_decode_vocabulary(const GptDecode *decode);

#endif
