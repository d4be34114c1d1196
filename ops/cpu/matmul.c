// cpu_matmul: C = alpha op(A) op(B) + beta C, a blocked matrix product in portable C.
//
// Data path. For each block of KC of the sum and NC columns, all threads together pack op(B) into
// slivers NR wide (shared; L3). Then each takes blocks of MC rows, packs op(A) into slivers MR wide
// (its own; L2), and runs the micro-kernel over them: an MR x NR tile of C in registers, one vector
// of B times one broadcast number of A per multiply-add. Packing pads with zeros, so there is one
// kernel for every size. The three kinds differ in nothing but the strides that packing reads with.
// Few rows do not repay packing and go through matmul_rows, which also serves when memory is short.
//
// Bound by the multiply-add units: on one Zen 4 core with AVX-512 (124 GFLOP/s measured with
// registers alone) float runs at 96 to 110, 0.97 to 1.06 of OpenBLAS 0.3.21, where M, N and K are
// in the hundreds; less where C's memory traffic bounds it (K = 64: 77). See bench/matmul_bench.c.
//
// Order of the sum. KC splits K in the same way whatever the number of threads, and one thread
// computes a whole tile: the result depends on shapes alone, bit for bit.
#include "cpu.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef USE_OPENBLAS
#include <cblas.h>
#endif

// Registers bound MR: MR x 2 accumulators, two vectors of B and one of A.
#if defined __AVX512F__
enum { VECTOR_BYTES = 64, MR = 12 };
#elif defined __AVX2__
enum { VECTOR_BYTES = 32, MR = 6 };
#elif defined __aarch64__
enum { VECTOR_BYTES = 16, MR = 12 };
#else
enum { VECTOR_BYTES = 16, MR = 6 };
#endif

enum {
    LANES = VECTOR_BYTES / sizeof(real),
    NR = 2 * LANES,
    KC = 384,                     // of the sum
    MC = 240 * 4 / sizeof(real),  // rows: MC x KC of packed A stays in L2
    NC = 1536 * 4 / sizeof(real), // columns: KC x NC of packed B, twice, stays in L3
    ROWS = 4,                     // at most this many rows go unpacked
    COLUMNS = 512,                // that matmul_rows sums at a time
    SERIAL_FLOPS = 1000000,       // less than this is not worth waking threads for
};

typedef real Vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef real UnalignedVector
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE __builtin_shufflevector
#endif
#endif

typedef struct {
    const real *data;
    size_t row, col; // strides of op(X), in numbers
} Operand;

static int min_int(int a, int b) { return a < b ? a : b; }
static int div_up(int a, int b) { return (a + b - 1) / b; }
static int round_up(int a, int b) { return div_up(a, b) * b; }

// Multiplication and addition may fuse in this file; ISO mode would forbid it to GCC.
#if defined __GNUC__ && !defined __clang__
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")
#endif

// The m x n corner of one tile of C: alpha a b + beta c over kc packed steps. beta 0 does not read
// c. `rows` >= m is constant where this is inlined, and the sums are in registers.
static inline __attribute__((always_inline)) void
tile_kernel(int rows, real *restrict c, size_t ldc, int m, int n, const real *restrict a,
            const real *restrict b, int kc, real alpha, real beta)
{
    Vector acc[MR][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = (Vector){0};
    for (int p = 0; p < kc; p++, a += MR, b += NR) {
        Vector b0 = *(const Vector *)b, b1 = *(const Vector *)(b + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            acc[i][0] += a[i] * b0;
            acc[i][1] += a[i] * b1;
        }
    }
    if (m == rows && n == NR) {
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            UnalignedVector *row = (UnalignedVector *)(c + i * ldc);
            row[0] = beta == 0 ? alpha * acc[i][0] : alpha * acc[i][0] + beta * row[0];
            row[1] = beta == 0 ? alpha * acc[i][1] : alpha * acc[i][1] + beta * row[1];
        }
        return;
    }
    real tile[MR][NR];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        *(UnalignedVector *)tile[i] = alpha * acc[i][0];
        *(UnalignedVector *)(tile[i] + LANES) = alpha * acc[i][1];
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            real *out = c + i * ldc + j;
            *out = beta == 0 ? tile[i][j] : tile[i][j] + beta * *out;
        }
}

static void micro_kernel(real *restrict c, size_t ldc, int m, int n, const real *restrict a,
                         const real *restrict b, int kc, real alpha, real beta)
{
    if (m > 2 * MR / 3)
        tile_kernel(MR, c, ldc, m, n, a, b, kc, alpha, beta);
    else if (m > MR / 3)
        tile_kernel(2 * MR / 3, c, ldc, m, n, a, b, kc, alpha, beta);
    else
        tile_kernel(MR / 3, c, ldc, m, n, a, b, kc, alpha, beta);
}

static real dot(const real *a, const real *b, int n)
{
    Vector acc[4] = {{0}};
    real sum = 0;
    int p = 0;
    for (; p + 4 * LANES <= n; p += 4 * LANES)
        for (int u = 0; u < 4; u++)
            acc[u] += *(const UnalignedVector *)(a + p + u * LANES) *
                      *(const UnalignedVector *)(b + p + u * LANES);
    for (; p < n; p++) sum += a[p] * b[p];
    acc[0] = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    for (int l = 0; l < LANES; l++) sum += acc[0][l];
    return sum;
}

// Unpacked: C's rows [i0, i1) of columns [j0, j1), at most ROWS x COLUMNS.
static void matmul_rows(real *c, int n, Operand a, Operand b, int i0, int i1, int j0, int j1, int k,
                        real alpha, real beta)
{
    real acc[ROWS][COLUMNS] = {{0}};
    if (b.col == 1) {
        for (int p = 0; p < k; p++)
            for (int i = i0; i < i1; i++) {
                real x = a.data[i * a.row + p * a.col];
                const real *y = b.data + p * b.row + j0;
                for (int j = 0; j < j1 - j0; j++) acc[i - i0][j] += x * y[j];
            }
    } else { // NT: both rows are contiguous
        for (int j = j0; j < j1; j++)
            for (int i = i0; i < i1; i++)
                acc[i - i0][j - j0] = dot(a.data + i * a.row, b.data + j * b.col, k);
    }
    for (int i = i0; i < i1; i++)
        for (int j = j0; j < j1; j++) {
            real *out = c + (size_t)i * n + j;
            *out = alpha * acc[i - i0][j - j0] + (beta == 0 ? 0 : beta * *out);
        }
}
#if defined __GNUC__ && !defined __clang__
#pragma GCC pop_options
#endif

// Transposes a 4 x 4 block: to[p * width + i] = from[i * across + p].
static inline void transpose4(real *restrict to, const real *restrict from, int width,
                              size_t across)
{
#ifdef SHUFFLE
    typedef real Quad
        __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));
    Quad r0 = *(const Quad *)from, r1 = *(const Quad *)(from + across);
    Quad r2 = *(const Quad *)(from + 2 * across), r3 = *(const Quad *)(from + 3 * across);
    Quad low01 = SHUFFLE(r0, r1, 0, 4, 1, 5), high01 = SHUFFLE(r0, r1, 2, 6, 3, 7);
    Quad low23 = SHUFFLE(r2, r3, 0, 4, 1, 5), high23 = SHUFFLE(r2, r3, 2, 6, 3, 7);
    *(Quad *)to = SHUFFLE(low01, low23, 0, 1, 4, 5);
    *(Quad *)(to + width) = SHUFFLE(low01, low23, 2, 3, 6, 7);
    *(Quad *)(to + 2 * width) = SHUFFLE(high01, high23, 0, 1, 4, 5);
    *(Quad *)(to + 3 * width) = SHUFFLE(high01, high23, 2, 3, 6, 7);
#else
    for (int p = 0; p < 4; p++)
        for (int i = 0; i < 4; i++) to[p * width + i] = from[i * across + p];
#endif
}

// One sliver: to[p * width + i] = from[i * across + p * along], i < count, p < kc, zero up to
// width. One of the strides is 1. Transposing goes by blocks of LINE steps, a cache line of each
// row.
static inline __attribute__((always_inline)) void pack_sliver(real *restrict to,
                                                              const real *restrict from, int width,
                                                              int count, int kc, size_t across,
                                                              size_t along)
{
    enum { LINE = 64 / sizeof(real) };
    if (count < width) memset(to, 0, sizeof(real) * width * kc);
    if (across == 1 && count == width) {
        for (int p = 0; p < kc; p++) memcpy(to + p * width, from + p * along, width * sizeof(real));
        return;
    }
    int rows = across == 1 ? 0 : count / 4 * 4, steps = kc / LINE * LINE;
    for (int p0 = 0; p0 < steps; p0 += LINE)
        for (int i = 0; i < rows; i += 4)
            for (int p = p0; p < p0 + LINE; p += 4)
                transpose4(to + p * width + i, from + i * across + p, width, across);
    for (int p = 0; p < kc; p++)
        for (int i = p < steps ? rows : 0; i < count; i++)
            to[p * width + i] = from[i * across + p * along];
}

// One sliver of the block of op(B) that starts at (p0, j0): its columns [j, j + NR).
static void pack_b(real *packed_b, Operand b, int n, int k, int j0, int p0, int j, int nc, int kc)
{
    int columns = min_int(nc, n - j0), steps = min_int(kc, k - p0);
    pack_sliver(packed_b + (size_t)j * steps, b.data + p0 * b.row + (j0 + j) * b.col, NR,
                min_int(NR, columns - j), steps, b.col, b.row);
}

// This thread's buffer, grown to `n` numbers and kept; NULL when it cannot be had.
static real *workspace(size_t n)
{
    static _Thread_local struct {
        real *data;
        size_t size;
    } ws;
    if (n > ws.size) {
        free(ws.data);
        ws.data = aligned_alloc(64, (n * sizeof(real) + 63) / 64 * 64);
        ws.size = ws.data ? n : 0;
    }
    return ws.data;
}

// As many threads as the work is worth; one when the caller already runs in parallel.
static int thread_count(int m, int n, int k)
{
#ifdef _OPENMP
    if (!omp_in_parallel() && 2.0 * m * n * k >= SERIAL_FLOPS) return omp_get_max_threads();
#endif
    (void)m, (void)n, (void)k;
    return 1;
}

static int thread_index(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static void matmul_unpacked(real *c, Operand a, Operand b, int m, int n, int k, real alpha,
                            real beta, int threads)
{
    (void)threads;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (int i = 0; i < m; i += ROWS)
        for (int j = 0; j < n; j += COLUMNS)
            matmul_rows(c, n, a, b, i, min_int(i + ROWS, m), j, min_int(j + COLUMNS, n), k, alpha,
                        beta);
}

void cpu_matmul_own(void *c_, const void *a_, const void *b_, MatmulKind kind, int m, int n, int k,
                    double alpha, double beta)
{
    if (m <= 0 || n <= 0) return;
    real *c = c_;
    Operand a = {a_, kind == MM_TN ? 1 : (size_t)k, kind == MM_TN ? (size_t)m : 1};
    Operand b = {b_, kind == MM_NT ? 1 : (size_t)n, kind == MM_NT ? (size_t)k : 1};
    int threads = thread_count(m, n, k);

    // Blocks of equal size, at most KC, MC and NC, and enough of them for the threads.
    int k_blocks = div_up(k, KC), kc = k_blocks ? div_up(k, k_blocks) : 0;
    int n_blocks = div_up(n, NC), nc = round_up(div_up(n, n_blocks), NR);
    int m_blocks = div_up(m, MC);
    if (m_blocks % threads) m_blocks = min_int(round_up(m_blocks, threads), div_up(m, 2 * MR));
    int mc = round_up(div_up(m, m_blocks), MR);
    int groups = min_int(div_up(threads, m_blocks), div_up(nc, NR));
    int group = round_up(div_up(nc, groups), NR);

    // op(B)'s block s + 1 is packed while block s is used, so there are two buffers for it.
    int blocks = k_blocks * n_blocks;
    size_t b_size = (size_t)kc * nc, a_size = (size_t)kc * mc;
    real *packed = m > ROWS && k > 0 ? workspace(2 * b_size + threads * a_size) : NULL;
    if (!packed) {
        matmul_unpacked(c, a, b, m, n, k, (real)alpha, (real)beta, threads);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        real *packed_a = packed + 2 * b_size + thread_index() * a_size;
#pragma omp for schedule(static)
        for (int j = 0; j < min_int(nc, n); j += NR) pack_b(packed, b, n, k, 0, 0, j, nc, kc);
        for (int s = 0; s < blocks; s++) {
            int j0 = s / k_blocks * nc, p0 = s % k_blocks * kc;
            int columns = min_int(nc, n - j0), steps = min_int(kc, k - p0);
            const real *packed_b = packed + (s & 1) * b_size;
#pragma omp for collapse(2) schedule(dynamic) nowait
            for (int i0 = 0; i0 < m; i0 += mc)
                for (int g = 0; g < groups; g++) {
                    int rows = min_int(mc, m - i0), j_end = min_int((g + 1) * group, columns);
                    for (int i = 0; i < rows; i += MR)
                        pack_sliver(packed_a + (size_t)i * steps,
                                    a.data + (i0 + i) * a.row + p0 * a.col, MR,
                                    min_int(MR, rows - i), steps, a.row, a.col);
                    for (int j = g * group; j < j_end; j += NR)
                        for (int i = 0; i < rows; i += MR)
                            micro_kernel(c + (size_t)(i0 + i) * n + j0 + j, n,
                                         min_int(MR, rows - i), min_int(NR, columns - j),
                                         packed_a + (size_t)i * steps, packed_b + (size_t)j * steps,
                                         steps, (real)alpha, p0 ? 1 : (real)beta);
                }
            // The barrier at the end of this loop separates the blocks.
            int next_j0 = (s + 1) / k_blocks * nc, next_p0 = (s + 1) % k_blocks * kc;
#pragma omp for schedule(dynamic, 4)
            for (int j = 0; j < (s + 1 < blocks ? min_int(nc, n - next_j0) : 0); j += NR)
                pack_b(packed + ((s + 1) & 1) * b_size, b, n, k, next_j0, next_p0, j, nc, kc);
        }
    }
}

#ifdef USE_OPENBLAS
#ifdef REAL_DOUBLE
#define cblas_gemm cblas_dgemm
#else
#define cblas_gemm cblas_sgemm
#endif

void cpu_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                double alpha, double beta)
{
    bool nested = false; // OpenBLAS would start its threads once for each of ours
#ifdef _OPENMP
    static int threads_set = 0;
    nested = omp_in_parallel();
    if (!nested && omp_get_max_threads() != threads_set)
        openblas_set_num_threads(threads_set = omp_get_max_threads());
#endif
    if (nested || m <= 0 || n <= 0 || k <= 0) {
        cpu_matmul_own(c, a, b, kind, m, n, k, alpha, beta);
        return;
    }
    cblas_gemm(CblasRowMajor, kind == MM_TN ? CblasTrans : CblasNoTrans,
               kind == MM_NT ? CblasTrans : CblasNoTrans, m, n, k, (real)alpha, a,
               kind == MM_TN ? m : k, b, kind == MM_NT ? k : n, (real)beta, c, n);
}
#else
void cpu_matmul(void *c, const void *a, const void *b, MatmulKind kind, int m, int n, int k,
                double alpha, double beta)
{
    cpu_matmul_own(c, a, b, kind, m, n, k, alpha, beta);
}
#endif

void cpu_matmul_fp8(void *c, bool c_is_acc, const void *a, Fp8Format a_format, const void *b,
                    Fp8Format b_format, int m, int n, int k, double alpha, double beta)
{
    (void)c_is_acc, (void)a_format, (void)b_format; // every number here is a real
    cpu_matmul(c, a, b, MM_NT, m, n, k, alpha, beta);
}
