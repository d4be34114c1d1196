// The Turbo-Muon / NorMuon update of a bank: equal-shaped matrices that lie contiguously.
//
// Per matrix (specification 4.1): momentum as an average, Nesterov mix, orthogonalisation by ns.h,
// per-column second moments that even out the columns' scale, the norm restored, cautious weight
// decay folded in, and the step. Roundings follow the specification's operator-by-operator model:
// the parameter's dtype P for momentum and statistics, bf16 for the orthogonalised update. With a
// method whose storage is DT_F32 or DT_F64 nothing is rounded but the final stores.
#ifndef MUON_H
#define MUON_H

#include <stddef.h>

#include "ns.h"
#include "ops/ops.h"

typedef struct MuonBank {
    int count, rows, cols; // `count` matrices of rows x cols
    DType dtype;           // P, of all four buffers: DT_F32, DT_BF16, or DT_F64
    void *param;           // (count, rows, cols)
    const void *grad;      // (count, rows, cols)
    void *momentum;        // (count, rows, cols), zero at the start
    void *second_moment;   // (count, cols), zero at the start
    const double *lr_mul;  // (count), on the host
    double beta2;          // of the second moment: 0.95
} MuonBank;

// Called through ops->normuon and ops->normuon_workspace (bytes); step gives muon_lr,
// muon_momentum and muon_wd. The effective step is muon_lr sqrt(max(1, rows/cols)) lr_mul.
// A matrix whose gradient holds a NaN or an infinity is poisoned with NaN, which the loss check of
// the training loop reports; nothing is skipped silently.

#endif
