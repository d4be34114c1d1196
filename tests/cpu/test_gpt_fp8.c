// The fp8 head inside the model: the values that the specification gives for step 0 (9.2, 12), and
// weights that fp8 holds exactly, for which the loss is that of the full head.
#include "../../gpt/internal.h"
#include "../test.h"
#include "fp8_naive.h"
#include "model.h"

// 9.2, 12. Rows of embed that hold +-1 and +-1/2 have rms sqrt(5/8), so that the normed stream is
// +-1.265 and +-0.632, and its fp8 operand, divided by 8/448, +-72 and +-36 (from 70.8 and 35.4).
static void fp8_head_case(int batches)
{
    static ModelBatch m;
    const Recipe recipe = model_narrow_speedrun("fp8");
    Gpt *gpt = model_create(&recipe, &ops_cpu, false, batches);
    GptBank *embed = gpt_bank(gpt, BANK_EMBED), *head = gpt_bank(gpt, BANK_LM_HEAD);
    enum { D = 64, T = 48 };
    for (size_t i = 0; i < model_bank_size(embed); i++)
        dtype_set(embed->param, embed->dtype, i, (model_random() < 0 ? -1 : 1) * (i % 2 ? 0.5 : 1));
    gpt_load_weights(gpt, BANK_EMBED);
    model_batch(&m, 1000, (int[]){30, 18, -1}); // targets below 1000
    Acts acts;
    acts_layout(&acts, gpt, T, true, gpt->arena);
    gpt_forward_backward(gpt, &m.batch);

    const float *x8 = acts.x8, *delta = head->delta;
    const uint16_t *grad = head->grad;
    for (int i = 0; i < T * D; i++) {
        const double e = dtype_get(embed->param, embed->dtype, (size_t)(m.ids[i / D] * D + i % D));
        CHECK((double)x8[i] == 72 * e, "%g for %g", (double)x8[i], e);
    }
    const double unit = 0.009765625 / 448 / batches;
    CHECK_NEAR(unit * batches, 2.17983e-05, 0.5e-10);
    static const int sampled[] = {1000, 31415, 50256, 50257,
                                  50303}; // never targets; two of padding
    for (int k = 0; k < 5 + T; k++) {
        const int v = k < 5 ? sampled[k] : m.targets[k - 5];
        for (int j = 0; j < D; j++) {
            double sum = 0;
            for (int p = 0; p < T; p++)
                sum += (double)x8[p * D + j] / 56 * (m.targets[p] == v ? -1.0 / batches : unit);
            // sums of multiples of 36: only the final factor and rare wide sums round
            const float got = delta[v * D + j];
            CHECK_NEAR((double)got, sum, 0x1p-20 * fabs(sum) + 1e-12);
            CHECK(grad[v * D + j] == bf16_from_f32(got));
        }
    }
    gpt_free(gpt);
}

TEST(fp8_head_at_step_0)
{
    fp8_head_case(1);
    fp8_head_case(8);
}

// What the head left as the logits' gradient: 448 times it, rounded to bf16 and to e5m2, and its
// transpose.
static void check_fp8_gradient(const Gpt *gpt, const ModelBatch *m)
{
    static SmallFloat e5m2;
    small_float(&e5m2, 0x7b, 2, 15);
    const Recipe *r = &gpt->recipe;
    const int t = m->batch.tokens, v = r->vocab_padded;
    Acts acts;
    acts_layout(&acts, gpt, t, true, gpt->arena);
    float *u = malloc(((size_t)t * (size_t)v + (size_t)t) * sizeof *u),
          *loss = u + (size_t)t * (size_t)v;
    int wrong = 0;
    const float *g8 = acts.g8, *g8t = acts.g8t;
    ops_cpu.matmul(u, acts.x8, gpt->head_w8, MM_NT, t, v, r->width, 8.0 / 448 * 0x1p-9, 0);
    ops_cpu.softcap_loss(loss, u, m->targets, 1, t, v, r->softcap, r->softcap_div);
    for (size_t i = 0; i < (size_t)t * (size_t)v; i++) {
        const double want = small_float_round(&e5m2, (double)(round_bf16(u[i]) * 448));
        wrong += want != (double)g8[i];
        wrong += want != (double)g8t[i % (size_t)v * (size_t)t + i / (size_t)v];
    }
    CHECK(acts.head_rows == t && wrong == 0, "%d wrong", wrong);
    free(u);
}

// The fp8 head away from zero: weights that e4m3 holds exactly once divided by 2^-9, but for some
// of
// +-1.5, which saturate at 448 2^-9 = 0.875; and a stream of +-1, which it holds once divided by
// 8/448. The loss is then that of the full head with the saturated weights. The gradient that
// enters the trunk differs by the rounding of each du to e5m2, 1/8 of it at most: 1/8 in norm when
// the roundings are independent of the weights, and twice that is allowed.
TEST(fp8_head_of_exact_weights)
{
    static ModelBatch m;
    const Recipe recipes[] = {model_narrow_speedrun("fp8"), model_narrow_speedrun("full")};
    Gpt *gpt[2];
    model_batch(&m, recipes[0].vocab_size, (int[]){30, 18, -1});
    double loss[2];
    for (int k = 0; k < 2; k++) {
        gpt[k] = model_create(&recipes[k], &ops_cpu, false, 1);
        const BankId ids[] = {BANK_EMBED, BANK_LM_HEAD};
        for (int i = 0; i < 2; i++) {
            GptBank *b = gpt_bank(gpt[k], ids[i]);
            uint32_t bits = 7;
            for (size_t j = 0; j < model_bank_size(b); j++) {
                bits = bits * 1664525u + 1013904223u;
                double w = (bits >> 24 & 15) * 0x1p-6; // 0 to 15/64: four bits
                if (bits >> 20 & 1) w = k ? 0.875 : 1.5;
                dtype_set(b->param, b->dtype, j, (bits >> 31 ? -1 : 1) * (i ? w : 1));
            }
            gpt_load_weights(gpt[k], ids[i]);
        }
        loss[k] = model_loss(gpt[k], &m.batch);
    }
    check_fp8_gradient(gpt[0], &m);
    CHECK(loss[1] > 11); // far from init
    CHECK_NEAR(loss[0], loss[1], 64 * 0x1p-23 * loss[1]);
    CHECK_NEAR(gpt_evaluate(gpt[1], &m.batch), loss[1], 64 * 0x1p-23 * loss[1]);
    const GptBank *b[2] = {gpt_bank(gpt[0], BANK_EMBED), gpt_bank(gpt[1], BANK_EMBED)};
    double error = 0, norm = 0;
    for (size_t j = 0; j < model_bank_size(b[0]); j++) {
        const double want = dtype_get(b[1]->grad, b[1]->dtype, j);
        error += pow(dtype_get(b[0]->grad, b[0]->dtype, j) - want, 2);
        norm += want * want;
    }
    CHECK(norm > 0 && sqrt(error / norm) < 0.25, "relative error %.3g", sqrt(error / norm));
    for (int k = 0; k < 2; k++) gpt_free(gpt[k]);
}

int main(void)
{
    RUN(fp8_head_at_step_0);
    RUN(fp8_head_of_exact_weights);
    return TEST_SUMMARY();
}
