// Orthogonalisation by Newton-Schulz iteration: methods as data, usable on its own.
//
// Given G (m,n) with singular value decomposition U S V^T, each method returns an approximation of
// the polar factor U V^T by iterating X <- a X + (b A + c A^2) X with A = X X^T on a normalised X.
// A method is a normaliser, a list of coefficient triples, and a variant (standard or gram).
//   NsMethod method;
//   Error err;
//   if (!ns_method_find(&method, "turbo4", &err)) puts(err.text);
//   void *work = malloc(ns_workspace_size(&method, 1, 768, 3072, sizeof(float)));
//   ns_orthogonalize_f32(&method, x, 1, 768, 3072, work, 1);
// Sources: Muon (Jordan 2024), Polar Express (arXiv 2505.16932), CANS (arXiv 2506.10935),
// Turbo-Muon (arXiv 2512.04632), AOL (arXiv 2208.03160); the gram form (Dao-AILab 2026) iterates on
// A alone, the same polynomial in exact arithmetic.
#ifndef NS_H
#define NS_H

#include <stdbool.h>
#include <stddef.h>

#include "ops/dtype.h"
#include "ops/error.h"

enum { NS_MAX_ITERATIONS = 8 };

// Which method to take, by docs/ablations.md, for whoever has to name one.
#define NS_ADVICE                                                                                  \
    "turbo4 is the recipe's, s4-gram5 had a lower loss to step 250 of the speedrun in about the "  \
    "same time a step (docs/ablations.md)"

typedef enum {
    NS_NORM_NONE,
    NS_NORM_FROBENIUS, // X = G / ((1+delta) |G|_F + eps)
    NS_NORM_AOL,       // X = diag(s) G, s_i = ((1+delta) sum_j |(G G^T)_ij| + eps)^(-1/2)
    NS_NORM_SCHATTEN4, // X = G / ((1+delta) |G G^T|_F + eps)^(1/2)
} NsNorm;

typedef struct {
    double a, b, c;
} NsCoeff;

// A named list of coefficients, first iteration first.
typedef struct {
    char name[32];
    int rows; // 1 .. NS_MAX_ITERATIONS
    NsCoeff row[NS_MAX_ITERATIONS];
} NsTable;

typedef struct NsMethod {
    char name[32]; // of the method
    NsNorm norm;
    double delta, eps;
    bool relative;  // eps in units of |G|_F (Frobenius) or |G|_F^2, not of G: no scale matters
    char table[32]; // name of the coefficient table
    int iterations; // 1 .. NS_MAX_ITERATIONS
    NsCoeff coeff[NS_MAX_ITERATIONS];
    bool gram;         // iterate on the Gram matrix, apply once (and at each restart)
    bool by_shape;     // the gram variant where that is the faster one (ns_method_for)
    unsigned restarts; // bit k set: gram restarts after iteration k (1-based, below `iterations`)
    DType storage; // what X, A, B round to after each product: DT_BF16, DT_F16, or DT_F32 / DT_F64
                   // for the precision of the arithmetic itself
} NsMethod;

// A named method: muon5, you5, polar5, turbo4, turbo4-you, turbo4-ga, s4-gram4, s4-gram5, ...
// False with the list of names when there is none.
bool ns_method_find(NsMethod *method, const char *name, Error *err);
// Bytes of an NsMethod, for callers in other languages.
size_t ns_method_size(void);
// The i-th method's name, NULL past the end.
const char *ns_method_name(int i);

// Changes to a method, each checked; a refusal says what is allowed and leaves the method as it
// was. The normaliser: none, frobenius, aol or schatten4. delta and eps stay the method's.
bool ns_method_set_norm(NsMethod *method, const char *norm, Error *err);
// The coefficients for k iterations: the last k rows of a table, or the last row repeated when k is
// longer. A table is jordan, you, polar_express, cans, turbo_ga, cubic, or a file that
// ns_table_parse accepts. Restarts that the new count leaves behind are dropped.
bool ns_method_set_coeffs(NsMethod *method, const char *table, int iterations, Error *err);
// The variant, by shape no longer: standard, or gram with a list of restarts such as "2", "2,4" or
// "" (NULL is "").
bool ns_method_set_gram(NsMethod *method, bool gram, const char *restarts, Error *err);
// The variant that is faster for the shape: see ns_method_for. With more than four iterations the
// gram variant restarts after the second, as the named ones do.
void ns_method_set_by_shape(NsMethod *method);
// The method that is used for matrices (m,n): `method`, or, when that goes by shape, its gram
// variant in f16 instead of bf16 where the longer side is twice the shorter one or more, and else
// the standard loop. Measured on one H100 (bench/RESULTS.md): gram takes two thirds of the time at
// 1 : 4, and a seventh more at 1 : 1. All that orthogonalises calls this itself.
NsMethod ns_method_for(const NsMethod *method, int m, int n);
// What the normaliser's eps is in units of: abs for those of the input, as published; rel for its
// Frobenius norm (its square with AOL and Schatten-4), so that the result does not change when the
// input is multiplied by a number, not in a bit if that is a power of two (and, for bf16 matrices
// on a GPU, if norms stay between 2^-30 and 2^50; between 1e-35 and 1e32 it changes by roundings
// alone).
bool ns_method_set_eps(NsMethod *method, const char *eps, Error *err);
// The storage: bf16, f16, or real for the precision of the arithmetic itself.
bool ns_method_set_storage(NsMethod *method, const char *storage, Error *err);
// One line: "turbo4: aol(0.02, 1e-06) polar_express x4, standard, bf16". A method that was changed
// since ns_method_find is called "turbo4 (changed)".
void ns_method_describe(const NsMethod *method, char *text, size_t size);

// Reads a coefficient table from `length` bytes of text: a line with the table's name, then 1 to
// NS_MAX_ITERATIONS lines "a b c". Blank lines and what follows a # are skipped. Errors begin with
// `source` and the line's number.
bool ns_table_parse(NsTable *table, const char *text, size_t length, const char *source,
                    Error *err);

// Bytes of workspace for working on `at_once` matrices at the same time (any m, n; tall matrices
// are treated as their transposes); real_size is the size of one element of x.
size_t ns_workspace_size(const NsMethod *method, int at_once, int m, int n, size_t real_size);
// x (batch,m,n), row-major, replaced by its orthogonalisation. Zeros give zeros. `at_once` is what
// the workspace was sized for; more than 1 spreads the batch over threads, without any effect on
// the result. A matrix with a NaN or an infinity, or whose iteration overflowed, comes back all
// NaN, and the call returns the number of such matrices (0 is success).
int ns_orthogonalize_f32(const NsMethod *method, float *x, int batch, int m, int n, void *workspace,
                         int at_once);
int ns_orthogonalize_f64(const NsMethod *method, double *x, int batch, int m, int n,
                         void *workspace, int at_once);

// ---- on a GPU (ns_kernels.cu) -------------------------------------------------------------------
// The same for matrices in device memory, on a cudaStream_t `stream`. Calls return at once, take no
// memory, and may be captured into a CUDA graph (where cuBLASLt is used, after one call outside);
// results are bit for bit the same every time. Sums are fp32; a storage of DT_F32 or DT_F64 is
// fp32. Pointers are aligned to 16 bytes, the workspace to 256.
size_t ns_workspace_size_cuda(const NsMethod *method, int batch, int m, int n);
// x (batch,m,n) of dtype DT_F32, DT_BF16 or DT_F16, in place. Returns 0, or -1 for a dtype or shape
// that is not possible.
int ns_orthogonalize_cuda(const NsMethod *method, void *x, DType dtype, int batch, int m, int n,
                          void *workspace, void *stream);
// From x to out, each of its own dtype; out may be x when both have one dtype. `squares_known`: the
// caller has left sums of squares of x where ns_square_sums_cuda points, (batch, *parts) of them,
// so that x is read once less where it has to be copied; else they are not looked at. NULL for
// small matrices, which need none.
int ns_orthogonalize_to_cuda(const NsMethod *method, void *out, DType out_dtype, const void *x,
                             DType dtype, bool squares_known, int batch, int m, int n,
                             void *workspace, void *stream);
double *ns_square_sums_cuda(const NsMethod *method, int batch, int m, int n, void *workspace,
                            int *parts);
// How many matrices of the last call with this workspace came back NaN. Waits for the stream.
int ns_failed_cuda(const void *workspace, void *stream);

#endif
