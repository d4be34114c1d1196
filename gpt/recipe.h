// A model and its training as data: the layer table, shapes, schedules and hyper-parameters.
// Built-in recipes: `speedrun` (the specification to the letter), `mini` (GPT-2 vocabulary, for a
// CPU), `tiny` (bytes, for two CPU cores). Every field can be overridden by name. recipe.c holds
// the fields and the built-ins, recipe_finish.c the layer table and the checks, schedule.c the
// schedules.
#ifndef GPT_RECIPE_H
#define GPT_RECIPE_H

#include <stdbool.h>
#include <stdio.h>

#include "../ns.h"
#include "../ops/error.h"
#include "../ops/field.h"

enum { RECIPE_MAX_SLOTS = 32, RECIPE_MAX_VALUE_EMBEDS = 8, RECIPE_MAX_PHASES = 8 };

// One slot of the layer table. Written as a word of letters in the recipe's `layers`:
//   -      not executed, owns no tensors
//   s, l   attention with the short or the long window     m    an MLP
//   v0..v7 adds a value embedding to the attention's values <k  adds a gated skip from slot k
//   b      its output is x_back, subtracted before the head
typedef struct {
    bool executed, attention, mlp, long_window, backout;
    int value_embed; // index, or -1
    int skip_from;   // slot, or -1
    int skip_gate; // index of the gate among scalars: the n-th slot with a skip has the n-th gate,
                   // -1 without a skip
} LayerSlot;

typedef struct {
    char name[32];
    // model
    char layers[256]; // the layer table as text
    int vocab_size, heads, head_dim, mlp_ratio, gate_channels;
    int rotary_active; // frequencies that rotate, of head_dim/2; 0: half of those
    double rotary_base, attn_scale, yarn_alpha, yarn_beta;
    double softcap, softcap_div, norm_eps;
    char head[8]; // fp8 or full
    // batch and data
    int sequence;                   // tokens; the gradient does not depend on how many at once
    int micro_batch, micro_batches; // tokens in one, and how many make a step (over all ranks)
    int max_doc;                    // documents are cut to so many tokens
    int val_tokens, val_chunk, val_every;
    // schedules
    int scheduled_steps, extension_steps;
    double cooldown_frac, lr_floor;
    int window_block; // tokens in a window unit
    char windows[64]; // long window per phase of equal length, in blocks; short is half of it
    int window_extension, window_final;
    double momentum_start, momentum_peak;
    int momentum_warmup, momentum_cooldown;
    // optimizers
    double muon_lr, muon_wd, muon_beta2, fc_lr_mul;
    double adam_lr, adam_beta1, adam_beta2, adam_eps, embed_lr_mul, head_lr_mul, scalar_lr_mul;
    int adam_every; // Adam updates at steps k with k % adam_every == adam_every - 1
    char ortho[32]; // method of ns.h
    int ns_iters;   // 0: the method's own
    char ns_norm[16], ns_coeffs[256], ns_variant[16], ns_restarts[16], ns_storage[8]; // "": own
    char ns_eps[4];

    // Derived by recipe_finish.
    int n_slots, n_value_embeds, n_attention, n_mlp, n_skips;
    int backout_slot, last_slot;
    LayerSlot slot[RECIPE_MAX_SLOTS];
    int n_phases, window[RECIPE_MAX_PHASES];
    int width, hidden, vocab_padded, n_scalars, total_steps;
    NsMethod method;
} Recipe;

// A copy of a built-in recipe; a name with a '.' or a '/' is a file that recipe_print wrote, which
// must set every field. False, with the list of names, or the file and its line.
bool recipe_find(Recipe *recipe, const char *name, Error *err);
const char *recipe_name(int i); // the i-th built-in's name, NULL past the end
// Sets one field from text. False when the field is unknown (with the nearest name) or the value is
// not of its type or outside its range (with the range).
bool recipe_set(Recipe *recipe, const char *field, const char *value, Error *err);
bool recipe_has_field(const char *field);
const Field *recipe_fields(void); // the table behind these, for whoever lists options
// Parses the layer table, windows and method, computes what follows from the fields, and checks
// that they fit together. Call after the last recipe_set; calling it again is harmless.
bool recipe_finish(Recipe *recipe, Error *err);
// field = value lines with a comment each: the recipe, readable back by recipe_set and recipe_find.
void recipe_print(const Recipe *recipe, FILE *out);
// The value of one field as text (for checkpoints); field i, NULL past the end.
const char *recipe_field(const Recipe *recipe, int i, char *value, size_t size);
// One help line per field: name, default of `recipe`, range, meaning.
void recipe_help(const Recipe *recipe, FILE *out);

// ---- schedules (specification 5), all by the zero-based training step --------------------------
double recipe_lr_factor(const Recipe *recipe, int step);  // eta, 5.1
double recipe_momentum(const Recipe *recipe, int step);   // 5.4
int recipe_long_window(const Recipe *recipe, int step);   // in blocks, 5.2; total_steps: final
int recipe_short_window(const Recipe *recipe, int step);  // likewise; total_steps: the last step's
bool recipe_adam_updates(const Recipe *recipe, int step); // true at odd steps by default
int recipe_adam_count(const Recipe *recipe, int step); // t: Adam updates done up to and with step

// Indices into the vector of scalars (specification 1.2).
int recipe_skip_gate(const Recipe *recipe, int slot);
int recipe_lambda(const Recipe *recipe, int slot);       // two entries: x and x0
int recipe_value_lambda(const Recipe *recipe, int slot); // two entries: v and the value embedding
int recipe_smear(const Recipe *recipe);
int recipe_backout(const Recipe *recipe);

#endif
