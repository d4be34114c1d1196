// The NorMuon update (specification 4.1), matrix by matrix. Roundings are written out where the
// specification has them: P to the parameter's type, O to bf16, and neither with a method whose
// storage is the arithmetic's own precision.
#include "cpu.h"

#ifdef _OPENMP
#include <omp.h>
#endif

// A fused multiply-add would skip a rounding that the specification has; gcc's -std=c11 never
// fuses.
#pragma STDC FP_CONTRACT OFF

#define INLINED __attribute__((always_inline)) static inline

typedef struct {
    DType stored, p, o; // the bank's type; what P and O round to
} Types;

typedef struct {
    real mix, momentum_rest; // weight of the new average in the Nesterov mix; 1 - momentum
    real second_rest;        // 1 - beta2
    real lr, decay;          // rounded as P: lr lr_mul, and lr wd
} Coefficients;

// start + weight (end - start), from the nearer end as torch computes it.
INLINED real lerp(real start, real end, real weight)
{
    return weight < (real)0.5 ? start + weight * (end - start) : end - (end - start) * (1 - weight);
}

// Steps 2 and 3: the momentum m in place, and the mix of g and m that is orthogonalised.
INLINED void mix_momentum(real *mix, void *m, const void *g, size_t first, size_t n, Types t,
                          Coefficients c)
{
    for (size_t i = 0; i < n; i++) {
        real gi = load_stored(g, t.stored, first + i);
        real mi = round_stored(lerp(load_stored(m, t.stored, first + i), gi, c.momentum_rest), t.p);
        store_rounded(m, t.stored, first + i, mi);
        mix[i] = round_stored(lerp(gi, mi, c.mix), t.p);
    }
}

// Steps 6 and 7: |O|_F, and the sum of squares of every column.
INLINED real measure(real *restrict column, real *restrict o, int rows, int cols, DType o_type)
{
    double total = 0;
    for (int j = 0; j < cols; j++) column[j] = 0;
    for (int i = 0; i < rows; i++) {
        real *row = o + (size_t)i * cols, sum = 0;
        for (int j = 0; j < cols; j++) {
            row[j] = round_stored(row[j], o_type);
            column[j] += round_stored(row[j] * row[j], o_type);
        }
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < cols; j++) sum += row[j] * row[j];
        total += sum;
    }
    return round_stored((real)sqrt(total), o_type);
}

// Steps 7 and 8: the second moments s in place; `column` becomes the factor of every column.
INLINED void second_moments(real *column, void *s, size_t first, int rows, int cols, Types t,
                            Coefficients c)
{
    const real least = round_stored((real)1e-10, t.p);
    for (int j = 0; j < cols; j++) {
        real mean = round_stored(round_stored(column[j] / (real)rows, t.o), t.p);
        real sj = round_stored(
            lerp(load_stored(s, t.stored, first + (size_t)j), mean, c.second_rest), t.p);
        store_rounded(s, t.stored, first + (size_t)j, sj);
        column[j] = round_stored((real)(1 / sqrt((double)(sj < least ? least : sj))), t.p);
    }
}

// Steps 9 and 10: columns evened out; returns the new |O|_F.
INLINED real scale_columns(real *restrict o, const real *restrict factor, int rows, int cols,
                           DType o_type)
{
    double total = 0;
    for (int i = 0; i < rows; i++) {
        real *row = o + (size_t)i * cols, sum = 0;
        for (int j = 0; j < cols; j++) row[j] = round_stored(row[j] * factor[j], o_type);
#pragma omp simd reduction(+ : sum)
        for (int j = 0; j < cols; j++) sum += row[j] * row[j];
        total += sum;
    }
    return round_stored((real)sqrt(total), o_type);
}

// Steps 10 and 12 to 14: the norm restored, decay where the step already shrinks p, and the step.
INLINED void step_param(void *p, const real *o, size_t first, size_t n, real ratio, Types t,
                        Coefficients c)
{
    for (size_t i = 0; i < n; i++) {
        real pi = load_stored(p, t.stored, first + i), oi = round_stored(o[i] * ratio, t.o);
        real decay = round_stored(oi * pi, t.p) >= 0 ? c.decay : 0;
        oi = round_stored(oi + pi * decay, t.o);
        store_rounded(p, t.stored, first + i, pi - c.lr * oi);
    }
}

INLINED void update_matrix(const MuonBank *bank, const NsMethod *method, const StepState *step,
                           int index, real *workspace, Types t)
{
    const int rows = bank->rows, cols = bank->cols;
    const size_t size = (size_t)rows * cols, first = (size_t)index * size;
    real *o = workspace, *column = o + size, *ns_workspace = column + cols;
    const double shape = rows > cols ? sqrt((double)rows / cols) : 1;
    const Coefficients c = {
        .mix = (real)step->muon_momentum,
        .momentum_rest = (real)(1 - step->muon_momentum),
        .second_rest = (real)(1 - bank->beta2),
        .lr = round_stored((real)(step->muon_lr * shape * bank->lr_mul[index]), t.p),
        .decay = round_stored((real)(step->muon_lr * step->muon_wd), t.p),
    };
    mix_momentum(o, bank->momentum, bank->grad, first, size, t, c);
    ns_orthogonalize_real(method, o, 1, rows, cols, ns_workspace, 1);
    real before = measure(column, o, rows, cols, t.o);
    second_moments(column, bank->second_moment, (size_t)index * (size_t)cols, rows, cols, t, c);
    real after = scale_columns(o, column, rows, cols, t.o), least = round_stored((real)1e-10, t.o);
    real ratio = round_stored(before / (after < least ? least : after), t.o);
    step_param(bank->param, o, first, size, ratio, t, c);
}

// Every combination of types gets loops of its own, without branches.
static void update(const MuonBank *bank, const NsMethod *method, const StepState *step, int index,
                   real *workspace)
{
    const bool rounds = method->storage == DT_BF16 || method->storage == DT_F16;
#define UPDATE_AS(type)                                                                            \
    case type:                                                                                     \
        if (rounds)                                                                                \
            update_matrix(bank, method, step, index, workspace, (Types){type, type, DT_BF16});     \
        else                                                                                       \
            update_matrix(bank, method, step, index, workspace,                                    \
                          (Types){type, REAL_TYPE, REAL_TYPE});                                    \
        break;
    switch (bank->dtype) {
        UPDATE_AS(DT_F64)
        UPDATE_AS(DT_F32)
        UPDATE_AS(DT_BF16)
        UPDATE_AS(DT_F16)
    }
#undef UPDATE_AS
}

// One thread's numbers: O, the columns, and what the orthogonalisation needs.
static size_t slot_size(const MuonBank *bank, const NsMethod *method)
{
    return (size_t)bank->rows * bank->cols + bank->cols +
           ns_workspace_size(method, 1, bank->rows, bank->cols, 1);
}

// Threads that work on a matrix each; the number of OpenMP threads must not grow between the sizing
// of the workspace and its use.
static int slot_count(const MuonBank *bank)
{
    int threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    return bank->count < threads ? bank->count : threads;
}

size_t cpu_normuon_workspace(const MuonBank *bank, const NsMethod *method)
{
    return (size_t)slot_count(bank) * slot_size(bank, method) * sizeof(real);
}

void cpu_normuon(const MuonBank *bank, const NsMethod *method, const StepState *step,
                 void *workspace)
{
    const size_t slot = slot_size(bank, method);
    const int slots = slot_count(bank);
#pragma omp parallel for num_threads(slots) if (slots > 1)
    for (int i = 0; i < bank->count; i++) {
        int thread = 0;
#ifdef _OPENMP
        thread = omp_get_thread_num();
#endif
        update(bank, method, step, i, (real *)workspace + (size_t)thread * slot);
    }
    (void)slots; // not read without OpenMP
}
