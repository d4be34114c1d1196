// Memory of the CPU devices, working copies of parameters, and gradients joining their sums.
#include "ops_check.h"

static const Ops *const cpus[] = {&ops_cpu, &ops_cpu_f64};
static const DType types[] = {DT_F64, DT_F32, DT_BF16, DT_F16};

TEST(tables_are_full)
{
    for (int k = 0; k < 2; k++) {
        const Ops *ops = cpus[k];
        CHECK(ops->real_size == dtype_size(ops->real_type));
        CHECK(ops->acc_size == dtype_size(ops->acc_type));
        CHECK(ops->real_type == (k ? DT_F64 : DT_F32) && ops->acc_type == ops->real_type);
        CHECK(!strcmp(ops->name, k ? "cpu-f64" : "cpu"));
        // from mem_alloc on, all members are pointers to functions; these a CPU has no use for
        static const size_t absent[] = {
            offsetof(Ops, mem_info), offsetof(Ops, phase),      offsetof(Ops, record),
            offsetof(Ops, recorded), offsetof(Ops, replay),     offsetof(Ops, forget),
            offsetof(Ops, tune),     offsetof(Ops, plans_text), offsetof(Ops, plans_restore)};
        void (*const *function)(void) = (void (*const *)(void)) & ops->mem_alloc;
        for (size_t i = 0; i < (sizeof *ops - offsetof(Ops, mem_alloc)) / sizeof *function; i++) {
            bool wanted = true;
            for (size_t j = 0; j < sizeof absent / sizeof *absent; j++)
                wanted &= offsetof(Ops, mem_alloc) + i * sizeof *function != absent[j];
            CHECK((function[i] != NULL) == wanted, "function %zu of %s", i, ops->name);
        }
    }
}

// Under the address sanitizer, that a request cannot be met is for the caller to see.
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

TEST(memory)
{
    for (int k = 0; k < 2; k++) {
        const Ops *ops = cpus[k];
        const size_t sizes[] = {0, 1, 63, 64, 65, 1 << 20};
        for (int i = 0; i < 6; i++) {
            void *dirty = ops->mem_alloc(sizes[i]); // likely to be given out again
            memset(dirty, 0xff, sizes[i]);
            ops->mem_free(dirty);
            unsigned char *p = ops->mem_alloc(sizes[i]), *host = malloc(sizes[i] + 1);
            CHECK(p != NULL);
            for (size_t j = 0; j < sizes[i]; j++) {
                CHECK(p[j] == 0, "byte %zu of %zu", j, sizes[i]);
                host[j] = (unsigned char)(j * 7 + 1);
            }
            ops->mem_put(p, host, sizes[i]);
            memset(host, 0, sizes[i]);
            ops->sync();
            ops->mem_get(host, p, sizes[i]);
            for (size_t j = 0; j < sizes[i]; j++) CHECK(host[j] == (unsigned char)(j * 7 + 1));
            ops->mem_zero(p, sizes[i] / 2);
            for (size_t j = 0; j < sizes[i]; j++)
                CHECK((p[j] == 0) == (j < sizes[i] / 2 || !host[j]));
            ops->mem_free(p);
            free(host);
        }
        CHECK(ops->mem_alloc(SIZE_MAX) == NULL && ops->mem_alloc(SIZE_MAX / 2) == NULL);
        ops->mem_free(NULL);
    }
}

TEST(load_param)
{
    enum { N = 1003 };
    double param[N], weight[N]; // large enough for any type
    for (int k = 0; k < 2; k++)
        for (int from = 0; from < 4; from++)
            for (int to = 0; to < 4; to++)
                for (size_t n = 1; n <= N; n += 501) {
                    for (size_t i = 0; i < n; i++) dtype_set(param, types[from], i, check_random());
                    memset(weight, 0xff, sizeof weight);
                    cpus[k]->load_param(weight, types[to], param, types[from], n);
                    for (size_t i = 0; i < n; i++) {
                        double want, stored = dtype_get(param, types[from], i);
                        if (k == 0) stored = (double)(float)stored; // through the device's `real`
                        dtype_set(&want, types[to], 0, stored);
                        CHECK(dtype_get(weight, types[to], i) == dtype_get(&want, types[to], 0));
                    }
                    CHECK(n == N || isnan(dtype_get(weight, types[to], n)));
                }
}

// R(grad + R(delta)): the delta is rounded before it is added, and the sum again.
TEST(accumulate)
{
    enum { N = 777 };
    double grad[N], before[N];
    Nums *delta = nums_new(N, 1);
    for (int k = 0; k < 2; k++)
        for (int type = 0; type < 4; type++) {
            for (size_t i = 0; i < N; i++) dtype_set(grad, types[type], i, check_random());
            memcpy(before, grad, sizeof grad);
            cpus[k]->accumulate(grad, types[type], delta->on[k], N);
            for (size_t i = 0; i < N; i++) {
                double rounded, want;
                dtype_set(&rounded, types[type], 0, nums_get(delta, k, i));
                double sum =
                    dtype_get(before, types[type], i) + dtype_get(&rounded, types[type], 0);
                if (k == 0) sum = (double)(float)sum;
                dtype_set(&want, types[type], 0, sum);
                CHECK(dtype_get(grad, types[type], i) == dtype_get(&want, types[type], 0));
            }
        }
    nums_free();
    // 256 + 1.00390625: rounded first, the delta is 1, and 257 is a tie that goes to 256; the sum
    // rounded once would be 258.
    uint16_t sum = bf16_from_f32(256);
    const float slightly_more = 1.00390625f;
    ops_cpu.accumulate(&sum, DT_BF16, &slightly_more, 1);
    CHECK(bf16_to_f32(sum) == 256);
}

int main(void)
{
    RUN(tables_are_full);
    RUN(memory);
    RUN(load_param);
    RUN(accumulate);
    return TEST_SUMMARY();
}
