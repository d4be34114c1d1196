// Model-FLOP utilisation: visible pairs against counting them, the formula against numbers worked
// out by hand for the speedrun recipe.
#include "../../run/mfu.h"

#include "../test.h"

TEST(pairs_are_those_that_are_seen)
{
    const int32_t cu[] = {0, 1, 1, 8, 40, 41, 41};
    const int n_docs = sizeof cu / sizeof *cu - 1;
    for (int window = 0; window < 50; window++) {
        int seen = 0;
        for (int i = 0; i < n_docs; i++)
            for (int p = cu[i]; p < cu[i + 1]; p++)
                for (int j = cu[i]; j <= p; j++) seen += p - window <= j;
        CHECK(mfu_visible_pairs(cu, n_docs, window) == seen, "window %d: %g, not %d", window,
              mfu_visible_pairs(cu, n_docs, window), seen);
    }
    const int32_t one[] = {0, 262144}; // more pairs than an int holds
    CHECK(mfu_visible_pairs(one, 1, 1 << 20) == 262144.0 * 262145 / 2);
}

TEST(speedrun_by_hand)
{
    Recipe r;
    Error err = {""};
    CHECK(recipe_find(&r, "speedrun", &err) && recipe_finish(&r, &err), "%s", err.text);
    const int32_t cu[] = {0, 2048};
    const GptBatch batch = {.cu = cu, .n_docs = 1, .tokens = 2048};
    // Windows at step 0 are 128 and 384 tokens.
    const double matrices = 10.0 * 4 * 768 * 768 + 11.0 * 2 * 768 * 3072;
    double pairs = 0;
    int attentions = 0, mlps = 0;
    for (int i = 0; i < r.n_slots; i++) {
        if (!r.slot[i].executed) continue;
        attentions += r.slot[i].attention;
        mlps += r.slot[i].mlp;
        const double w = r.slot[i].long_window ? 384 : 128;
        if (r.slot[i].attention) pairs += (w + 1) * (w + 2) / 2 + (2048 - w - 1) * (w + 1);
    }
    CHECK(attentions == 10 && mlps == 11, "%d attentions, %d MLPs", attentions, mlps);
    Flops work = {0, 0};
    mfu_add(&work, &r, &batch, 0);
    CHECK_NEAR(work.bf16, 6 * matrices * 2048 + 12 * 768 * pairs, 1);
    CHECK_NEAR(work.fp8, 6.0 * 50304 * 768 * 2048, 1);
    mfu_add(&work, &r, &batch, 0);
    CHECK_NEAR(work.fp8, 12.0 * 50304 * 768 * 2048, 1);
    CHECK_NEAR(mfu_ideal_seconds((Flops){989e12, 1979e12}, mfu_peak("NVIDIA H200, 150 GB")), 2, 0);

    Flops full = {0, 0};
    CHECK(recipe_set(&r, "head", "full", &err) && recipe_finish(&r, &err), "%s", err.text);
    mfu_add(&full, &r, &batch, 0);
    CHECK(full.fp8 == 0 && full.bf16 > work.bf16 / 2);
    Flops later = {0, 0};
    mfu_add(&later, &r, &batch, r.total_steps - 1);
    CHECK(later.bf16 > full.bf16, "windows grow");
}

TEST(peaks_by_name)
{
    CHECK(mfu_peak("NVIDIA H100 80GB HBM3").bf16 == 989e12);
    CHECK(mfu_peak("NVIDIA H200").fp8 == 1979e12);
    CHECK(isnan(mfu_peak("NVIDIA H100 PCIe").bf16) && isnan(mfu_peak("NVIDIA H200 NVL").bf16));
    CHECK(isnan(mfu_peak("NVIDIA A100-SXM4-80GB").bf16) && isnan(mfu_peak("").fp8));
    CHECK(isnan(mfu_ideal_seconds((Flops){1, 0}, mfu_peak("a CPU"))));
}

int main(void)
{
    RUN(pairs_are_those_that_are_seen);
    RUN(speedrun_by_hand);
    RUN(peaks_by_name);
    return TEST_SUMMARY();
}
