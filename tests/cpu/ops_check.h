// Runs one call of an operation on four devices over the same numbers: ops_cpu, ops_cpu_f64, and
// the plain transcriptions of naive_ops.h in float and double. Then the double device must agree
// with the plain double, the float device must be at most twice as far from it as plain float is,
// the gradients must agree with finite differences, and two threads must give the bits of one.
#ifndef TESTS_CPU_OPS_CHECK_H
#define TESTS_CPU_OPS_CHECK_H

#include <stdlib.h>
#include <string.h>

#include "../../ops/ops.h"
#include "../test.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { MAX_WIDTH = 768 };

#define NUM double
#define NAIVE(name) name##_plain_f64
#include "naive_ops.h"
#define NUM float
#define NAIVE(name) name##_plain_f32
#include "naive_ops.h"

enum { CPU, CPU64, PLAIN, PLAIN64, DEVICES };
static const Ops *const devices[DEVICES] = {&ops_cpu, &ops_cpu_f64, &naive_plain_f32,
                                            &naive_plain_f64};
static const DType device_type[DEVICES] = {DT_F32, DT_F64, DT_F32, DT_F64};

// A buffer on each device. `start` is what `nums_reset` puts back; NaN where an operation must
// overwrite everything.
typedef struct {
    size_t n;
    double *start;
    void *on[DEVICES];
} Nums;

static Nums *pool[64]; // of the case that runs
static int pool_size;

static inline double check_random(void) // in [-1, 1), a float
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 40) * 0x1p-23 - 1;
}

static inline Nums *nums_new(int n, double scale)
{
    Nums *x = malloc(sizeof *x);
    x->n = (size_t)n;
    x->start = malloc(x->n * sizeof(double));
    for (size_t i = 0; i < x->n; i++) x->start[i] = (double)(float)(scale * check_random());
    for (int k = 0; k < DEVICES; k++) {
        x->on[k] = malloc(x->n * dtype_size(device_type[k]));
        for (size_t i = 0; i < x->n; i++) dtype_set(x->on[k], device_type[k], i, x->start[i]);
    }
    return pool[pool_size++] = x;
}

static inline void nums_set(Nums *x, size_t i, double value) // as a float, the same everywhere
{
    x->start[i] = (double)(float)value;
    for (int k = 0; k < DEVICES; k++) dtype_set(x->on[k], device_type[k], i, x->start[i]);
}

static inline Nums *nums_out(int n) // to be overwritten
{
    Nums *x = nums_new(n, 0);
    for (size_t i = 0; i < x->n; i++) nums_set(x, i, NAN);
    return x;
}

static inline double nums_get(const Nums *x, int k, size_t i)
{
    return dtype_get(x->on[k], device_type[k], i);
}

static inline void nums_reset(void)
{
    for (int p = 0; p < pool_size; p++)
        for (size_t i = 0; i < pool[p]->n; i++) nums_set(pool[p], i, pool[p]->start[i]);
}

static inline void nums_free(void)
{
    for (int p = 0; p < pool_size; p++) {
        for (int k = 0; k < DEVICES; k++) free(pool[p]->on[k]);
        free(pool[p]->start);
        free(pool[p]);
    }
    pool_size = 0;
}

// FNV-1a over the numbers of both CPU devices: equal exactly when all bits are, but for a
// collision.
static inline uint64_t nums_hash(void)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int p = 0; p < pool_size; p++)
        for (int k = CPU; k <= CPU64; k++)
            for (size_t i = 0; i < pool[p]->n * dtype_size(device_type[k]); i++)
                hash = (hash ^ ((unsigned char *)pool[p]->on[k])[i]) * 0x100000001b3u;
    return hash;
}

static inline void set_threads(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

// What a test calls: forward and backward of one operation over its buffers on device k.
typedef void Run(const Ops *ops, int k);

static inline void run_everywhere(Run *forward, Run *backward)
{
    uint64_t hash[2];
    for (int threads = 2; threads >= 1; threads--) {
        set_threads(threads);
        nums_reset();
        for (int k = 0; k < DEVICES; k++) {
            forward(devices[k], k);
            if (backward) backward(devices[k], k);
        }
        hash[threads - 1] = nums_hash();
    }
    CHECK(hash[0] == hash[1], "two threads give other bits than one");
}

// Largest |x - plain double| and largest |plain double|.
static inline double nums_error(const Nums *x, int k, double *largest)
{
    double error = *largest = 0;
    for (size_t i = 0; i < x->n; i++) {
        const double want = nums_get(x, PLAIN64, i), e = fabs(nums_get(x, k, i) - want);
        if (!(e <= error)) error = e; // a NaN stays
        if (fabs(want) > *largest) *largest = fabs(want);
    }
    return error;
}

static inline double nums_sum_abs(const Nums *x) // on the double device
{
    double sum = 0;
    for (size_t i = 0; i < x->n; i++) sum += fabs(nums_get(x, CPU64, i));
    return sum;
}

// Double: both sides are sums of at most N = 2^17 terms, whose error is below N 2^-53 of the
// largest in the worst case and near its root in practice; 2^-40 is between. Float: twice plain
// float's error and four half-ulps of the largest number, the 2 ulp of real_exp. Where there are
// too few numbers for plain float not to be lucky, or it was exact, the worst case of the sums over
// a row of `length` instead: gamma = (length + 8) 2^-24 times `terms`, the sum of the magnitudes of
// all terms if that is more than the result (Higham, section 3.1).
#define CHECK_NUMS(x, length, terms)                                                               \
    do {                                                                                           \
        double top_, e64_ = nums_error(x, CPU64, &top_), e32_ = nums_error(x, CPU, &top_);         \
        double plain_ = 2 * nums_error(x, PLAIN, &top_);                                           \
        if ((x)->n < 16 || plain_ == 0) plain_ = ((length) + 8) * 0x1p-24 * fmax(top_, terms);     \
        CHECK(isfinite(top_) && e64_ <= 0x1p-40 * top_, #x ": double is off by %.3g of %.3g",      \
              e64_, top_);                                                                         \
        CHECK(e32_ <= plain_ + 0x1p-22 * top_, #x ": float is off by %.3g, not %.3g", e32_,        \
              plain_);                                                                             \
    } while (0)

// sum of weight * out on the double device: the loss whose gradient backward computes from weight.
static inline double nums_dot(const Nums *weight, const Nums *out)
{
    double sum = 0;
    for (size_t i = 0; i < out->n; i++) sum += nums_get(weight, CPU64, i) * nums_get(out, CPU64, i);
    return sum;
}

// Fourth-order central differences of loss() in up to `samples` entries of x against dx, which was
// added to its start (or overwrote NaN). The step 2^-9 leaves (2^-9)^4 f^(5) / 30 ~ 5e-13 f^(5) of
// truncation and 2^-53 |f| 2^9 ~ 6e-14 |f| of rounding; f^(5) is some thousand times the gradient
// where RMS norms and softmax are composed.
static inline void check_differences(const char *what, const Nums *x, const Nums *dx,
                                     double (*loss)(void), int samples)
{
    static const double weight[] = {1, -8, 8, -1}, at[] = {-2, -1, 1, 2};
    const double step = 0x1p-9;
    double error = 0, largest = 0, size = 0;
    double *numbers = x->on[CPU64];
    for (int s = 0; s < samples && (size_t)s < x->n; s++) {
        size_t i =
            (size_t)samples >= x->n ? (size_t)s : (size_t)((check_random() + 1) / 2 * (double)x->n);
        const double saved = numbers[i], before = isnan(dx->start[i]) ? 0 : dx->start[i];
        double difference = 0;
        for (int k = 0; k < 4; k++) {
            numbers[i] = saved + at[k] * step;
            const double f = loss();
            difference += weight[k] * f / (12 * step);
            size = fmax(size, fabs(f));
        }
        numbers[i] = saved;
        const double e = fabs(nums_get(dx, CPU64, i) - before - difference);
        if (!(e <= error)) error = e;
        largest = fmax(largest, fabs(difference));
    }
    loss(); // outputs as they were
    CHECK(error <= 1e-8 * largest + 1e-12 * size, "%s: off by %.3g of %.3g", what, error, largest);
}

// Bits of x on both CPU devices against those of y.
static inline bool same_bits(const Nums *x, const Nums *y)
{
    for (int k = CPU; k <= CPU64; k++)
        if (x->n != y->n || memcmp(x->on[k], y->on[k], x->n * dtype_size(device_type[k])))
            return false;
    return true;
}

static inline void nums_copy(Nums *to, const Nums *from) // values as they are now
{
    for (int k = 0; k < DEVICES; k++)
        memcpy(to->on[k], from->on[k], from->n * dtype_size(device_type[k]));
}

#endif
