// Other programs' times of orthogonalisation, and a chart of ours beside them.
#ifndef ABLATE_PEERS_H
#define ABLATE_PEERS_H

#include <stdbool.h>
#include <stddef.h>

#include "../ops/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int batch, m, n;
} BankShape;

// Microseconds of a peer on one H200, as published for this project (turbo_muon.md section 3) or
// measured beside ours (gram-newton-schulz 0.1.6), NaN where there are none.
typedef enum { PEER_TORCH, PEER_DION, PEER_FLASH, PEER_GRAM, N_PEERS } Peer;
const char *peer_name(Peer peer);
double peer_us(Peer peer, const BankShape *shape);

// An SVG of times by shape, relative to flash-newton-schulz's; `us` (n_shapes,n_methods), `device`
// the GPU's name. Shapes without a peer are left out, and so are methods for which there is no
// room, the last ones. The chart's caption comes back in `finding`.
bool peers_chart(const char *path, const BankShape *shapes, int n_shapes,
                 const char *const *methods, int n_methods, const double *us, const char *device,
                 char *finding, size_t size, Error *err);

#ifdef __cplusplus
}
#endif

#endif
