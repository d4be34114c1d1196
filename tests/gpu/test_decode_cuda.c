// Generation on the GPU: its two operations against the double device, and the logits of a cached
// sequence against those of whole passes on the GPU and in double.
#include "gpu_check.h"

#include "../../gpt/internal.h"
#include "../cpu/model.h"

static const Ops *const exact = &ops_cpu_f64;

// C (1,N) of several shapes, the model's among them; some that only cuBLASLt can do.
TEST(products_of_one_row)
{
    static const struct {
        int n, k;
    } shapes[] = {{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}, {50304, 768}, {8, 8},
                  {1, 8},      {384, 128}, {40, 16},    {33, 24},    {24, 33},     {264, 2568}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = MM_NN; kind <= MM_NT; kind++)
            for (int add = 0; add < 2; add++, free_arrays()) {
                const int n = shapes[i].n, k = shapes[i].k;
                Array *c = array("c", DT_BF16, (size_t)n, 1);
                Array *a = array("a", DT_BF16, (size_t)k, 1);
                Array *b = array("b", DT_BF16, (size_t)n * (size_t)k, 1);
                RUN_TWICE(
                    cuda->matmul(c->gpu, a->gpu, b->gpu, (MatmulKind)kind, 1, n, k, 0.75, add));
                exact->matmul(c->exact, a->exact, b->exact, (MatmulKind)kind, 1, n, k, 0.75, add);
                CHECK_ARRAY(c, 64 + k / 32);
            }
}

// In every window and document, and next to rows that are not a number, which no query may see.
TEST(attention_of_one_query)
{
    static const struct {
        int p, first, window, h, d;
    } cases[] = {{0, 0, 128, 6, 128},     {1, 0, 0, 2, 64},        {5, 0, 1000, 1, 64},
                 {63, 0, 1000, 6, 128},   {64, 0, 64, 6, 128},     {64, 1, 1000, 3, 128},
                 {127, 64, 20, 2, 64},    {700, 0, 128, 6, 128},   {700, 650, 640, 6, 128},
                 {3000, 0, 2560, 6, 128}, {3000, 3000, 768, 2, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++, free_arrays()) {
        const int p = cases[i].p, h = cases[i].h, d = cases[i].d, first = cases[i].first;
        const int begin = p - cases[i].window > first ? p - cases[i].window : first;
        const size_t row = (size_t)3 * h * d;
        Array *qkv = array("qkv", DT_BF16, (size_t)(p + 2) * row, 1.5);
        Array *o = array("o", DT_BF16, (size_t)h * d, 1);
        for (size_t j = 0; j < row; j++) {
            set_number(qkv, (size_t)(p + 1) * row + j, NAN);
            if (begin > 0) set_number(qkv, (size_t)(begin - 1) * row + j, NAN);
        }
        int32_t *window = put_ints(&cases[i].window, 1);
        const double scale = 0.12;
        double *device_scale = cuda->mem_alloc(sizeof scale);
        cuda->mem_put(device_scale, &scale, sizeof scale);
        RUN_TWICE(cuda->attention_decode(o->gpu, qkv->gpu, p, first, window, device_scale, h, d));
        exact->attention_decode(o->exact, qkv->exact, p, first, &cases[i].window, &scale, h, d);
        CHECK_ARRAY(o, 4 * d); // scores of about 20 carry their rounding into the exponential
        cuda->mem_free(window);
        cuda->mem_free(device_scale);
    }
}

// |a - b| / |b| over the raw logits.
static double distance(const GptDecode *a, const GptDecode *b)
{
    double sum = 0, size = 0;
    for (int j = 0; j < a->gpt->recipe.vocab_padded; j++) {
        const double x = dtype_get(a->u, a->gpt->ops->real_type, (size_t)j);
        const double y = dtype_get(b->u, b->gpt->ops->real_type, (size_t)j);
        sum += (x - y) * (x - y), size += y * y;
    }
    return sqrt(sum / size);
}

// The double model's parameters become the GPU's.
static void share_parameters(Gpt *gpu, Gpt *cpu)
{
    for (int id = 0; id < GPT_BANKS; id++) {
        GptBank *to = gpt_bank(gpu, (BankId)id), *from = gpt_bank(cpu, (BankId)id);
        const size_t n = model_bank_size(from), size = dtype_size(to->dtype);
        char *host = malloc(n * size + 1);
        for (size_t i = 0; i < n; i++) {
            const double x = (double)round_bf16((float)dtype_get(from->param, from->dtype, i));
            dtype_set(host, to->dtype, i, x);
            dtype_set(from->param, from->dtype, i, x);
        }
        cuda->mem_put(to->param, host, n * size);
        gpt_load_weights(gpu, (BankId)id);
        gpt_load_weights(cpu, (BankId)id);
        free(host);
    }
}

// A sequence token by token and in whole passes, both on the GPU, against double.
TEST(cached_logits)
{
    enum { LONGEST = 300, PROMPT = 7 };
    const char *fields[] = {"heads",        "2",         "head_dim", "128",        "micro_batch",
                            "16",           "val_chunk", "300",      "val_tokens", "300",
                            "window_block", "16",        "head",     "full",       "vocab_size",
                            "1000",         NULL};
    Recipe recipe = model_recipe("speedrun", fields);
    Gpt *gpu = model_create(&recipe, cuda, false, 0);
    Gpt *cpu = model_create(&recipe, &ops_cpu_f64, true, 0);
    Error err = {""};
    static int32_t ids[LONGEST];
    static float logits[1000];
    double cached_error = 0, whole_error = 0;
    model_randomize(cpu, 0.05);
    share_parameters(gpu, cpu);
    gpt_set_step(gpu, recipe.total_steps);
    gpt_set_step(cpu, recipe.total_steps);
    for (int p = 0; p < LONGEST; p++)
        ids[p] = p % 90 == 0 ? 999 : (int32_t)((model_random() + 1) / 2 * 999);
    GptDecode *cached = gpt_decode_create(gpu, LONGEST, &err);
    GptDecode *whole = gpt_decode_create(gpu, LONGEST, &err);
    GptDecode *truth = gpt_decode_create(cpu, LONGEST, &err);
    CHECK(gpt_decode_append(cached, ids, PROMPT, logits, &err));
    CHECK(gpt_decode_append(truth, ids, PROMPT, logits, &err));
    int compared = 0;
    for (int n = PROMPT; n < LONGEST; n++) {
        CHECK(gpt_decode_append(cached, ids + n, 1, logits, &err));
        CHECK(gpt_decode_append(truth, ids + n, 1, logits, &err));
        if (n % 13) continue;
        gpt_decode_truncate(whole, 0);
        CHECK(gpt_decode_append(whole, ids, n + 1, logits, &err));
        cached_error += distance(cached, truth), whole_error += distance(whole, truth);
        compared++;
    }
    printf("     logits' error: cached %.5f, whole passes %.5f\n", cached_error / compared,
           whole_error / compared);
    CHECK(whole_error > 0 && cached_error <= 2 * whole_error);
    gpt_decode_free(cached);
    gpt_decode_free(whole);
    gpt_decode_free(truth);
    gpt_free(gpu);
    gpt_free(cpu);
}

int main(void)
{
    find_gpu();
    RUN(products_of_one_row);
    RUN(attention_of_one_query);
    RUN(cached_logits);
    return TEST_SUMMARY();
}
