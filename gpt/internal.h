// What the files of gpt/ share: the model's structure and its activations. Nobody else includes
// this, but for tests that look at activations.
#ifndef GPT_INTERNAL_H
#define GPT_INTERNAL_H

#include "gpt.h"

// Activations of one slot that backward needs. (T,D) unless said otherwise.
typedef struct {
    void *x;                // the slot's output: the residual stream after its sublayers
    void *attn_in, *attn_r; // normed input of the attention; r (T)
    void *qkv_lin, *qkv;    // (T,3,H,d) as projected; after norm, rotary and value mix
    void *o, *lse, *y;      // attention's output; (T,H); after the gate
    void *mlp_in, *mlp_r;   // normed input of the MLP; r (T)
    void *h, *relu2;        // (T,F) before and after the activation
    void *dskip;            // gradient that comes back through the skip taken from this slot
} SlotActs;

typedef struct {
    // Generation: `past` tokens before the batch's only one have their keys and values in
    // slot[].qkv, and that one's document begins at `document`. Elsewhere past is 0.
    int past, document;
    int n_docs;                          // in cu, with empty ones at the end (put_inputs)
    int32_t *ids, *targets, *cu, *order; // the batch on the device
    void *x0, *r0;                       // normed embedding; r (T)
    SlotActs slot[RECIPE_MAX_SLOTS];
    void *final, *final_r; // normed output (T,D); r (T)
    void *logits;          // (head_rows, V): the head runs in slices of rows
    int head_rows;
    void *x8, *x8t;                   // fp8 of `final` (head_rows, D), transposed (D, head_rows)
    void *g8, *g8t;                   // of the logits' gradient (head_rows, V), (V, head_rows)
    void *losses;                     // (T)
    void *dx, *dx0, *dx_back, *dnorm; // gradients (T,D)
    void *dy;                         // (T,D) of y, then of o
    void *dqkv, *dqkv_lin;            // (T,3D)
    void *delta;                      // (T,H)
    void *dh;                         // (T,F)
    void *dve[RECIPE_MAX_VALUE_EMBEDS];
} Acts;

// A hook's call: before_layer(at) where `bank` is -1, else grads_final(bank, at).
typedef struct {
    int bank, at;
} HookCall;

// The operations of a micro-batch as the device recorded them, in parts with a hook's call between
// each two. The first numbers are all that their arguments depend on.
enum { RECORDINGS = 8, RECORDING_PARTS = 3 * RECIPE_MAX_SLOTS + 16 };
typedef struct {
    int tokens, sequence, n_docs;
    int parts; // 0: such a micro-batch has come once, and is not recorded yet
    void *part[RECORDING_PARTS];
    HookCall after[RECORDING_PARTS]; // the part
} Recording;

struct Gpt {
    Recipe recipe;
    const Ops *ops;
    bool real_storage;
    int sequences; // A: of one step on this rank
    GptBank bank[GPT_BANKS];
    void *arena;                   // activations, laid out anew for each batch
    void *rotary_cos, *rotary_sin; // (max tokens, active frequencies), float_acc
    int rotary_phase;              // windows seen when the tables were built, 0 when none
    void *head_w8, *head_w8t;      // fp8 of the head's weight (V,D), (D,V); NULL for a full head
    StepState *device_step;
    double *device_loss; // sum of token losses since gpt_loss, on the device; then an evaluation's
    int64_t loss_tokens; // in the first sum
    GptHooks hooks;
    Recording recording[RECORDINGS]; // the i-th kind of micro-batch is in i % RECORDINGS
    int kinds;                       // that have come
    Recording *recorder;             // what is being recorded, NULL mostly
    int32_t *host_cu;                // documents with empty ones behind them
    int32_t *host_order;             // positions sorted by token id
    int32_t *host_start;             // (V + 1) scratch of that sorting
    GptMemory memory[GPT_MEMORY_ROWS];
};

// A sequence that grows. The keys and values of all its positions are kept where attention left
// them, in a qkv per slot: (max_tokens,3,H,d) real.
struct GptDecode {
    Gpt *gpt;
    int max_tokens, n; // n: tokens so far
    int32_t *ids;      // (max_tokens) on the host
    void *qkv[RECIPE_MAX_SLOTS];
    void *u; // (V) real, on the host: logits of the token that follows, before the softcap
};

// arena.c: lays the activations out from `base` and returns the bytes; a NULL base only measures.
size_t acts_layout(Acts *acts, const Gpt *gpt, int tokens, bool training, void *base);
int acts_cu_room(const Gpt *gpt, int tokens); // numbers that acts->cu has room for

// inputs.c: a batch's ids and documents to the device, where trunk_forward's operations read them.
// With acts->past the batch is one token, batch->ids[-1] is the one before it, and acts' ids, x0
// and r0 have room for that too.
void put_inputs(const Gpt *gpt, Acts *acts, const GptBatch *batch);

// gpt.c: everything before the head, from those to acts->final.
void trunk_forward(const Gpt *gpt, const Acts *acts, const GptBatch *batch);
// gpt_forward_backward's operations, all but the puts.
void micro_batch(Gpt *gpt, const Acts *acts, const GptBatch *batch);

// recording.c: queues micro_batch, from its recording where the device has one.
void micro_batch_queue(Gpt *gpt, const Acts *acts, const GptBatch *batch);
void hook(const Gpt *gpt, HookCall call); // between operations
void recordings_forget(Gpt *gpt);

// params.c: pointers to the i-th item of a bank.
void *weight_of(const Gpt *gpt, BankId id, int i);
void *grad_of(const Gpt *gpt, BankId id, int i);  // of a matrix: float_acc
void *delta_of(const Gpt *gpt, BankId id, int i); // of a gate or the head: float_acc
void *scalar_weight(const Gpt *gpt, int index);
void *scalar_delta(const Gpt *gpt, int index);

#endif
