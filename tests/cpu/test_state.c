// A state with a number that is not finite is never saved, and what was saved before stays. What is
// saved tells the algorithms of the device.
#include "../../run/state.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../test.h"

static const char plans[] = "turbomuon gemm plans 1: \"X\"\n1 2 3\n";
static char *plans_text(void) { return strdup(plans); }

static void check_plans(const char *path, const char *expected)
{
    Safetensors file;
    Error err = {""};
    const bool open = checkpoint_open(&file, path, &err);
    CHECK(open, "%s", err.text);
    if (!open) return;
    const char *found = state_plans(&file);
    CHECK(expected ? found && !strcmp(found, expected) : !found, "%s", found ? found : "none");
    safetensors_close(&file);
}

static void save_refuses_what_is_not_finite(bool real_storage, BankId id, double bad)
{
    Recipe recipe;
    char folder[] = "/tmp/test_state.XXXXXX", path[FILE_PATH_MAX], kept[FILE_PATH_MAX];
    Error err = {""}, warning;
    Optimizer optimizer = {0};
    Unigram unigram = {0};
    Gpt *gpt = NULL;
    Ops ops = ops_cpu;
    if (real_storage) ops.plans_text = plans_text;
    const bool made =
        mkdtemp(folder) && recipe_find(&recipe, "tiny", &err) &&
        recipe_set(&recipe, "heads", "1", &err) && recipe_set(&recipe, "val_chunk", "16", &err) &&
        recipe_set(&recipe, "micro_batch", "16", &err) && recipe_finish(&recipe, &err) &&
        (gpt = gpt_create(&recipe, &ops, real_storage, 1, &err)) &&
        optimizer_create(&optimizer, gpt, &err) && unigram_open(&unigram, recipe.vocab_size, &err);
    CHECK(made, "%s", err.text);
    if (!made) return;
    TrainState state = {.gpt = gpt, .optimizer = &optimizer, .unigram = &unigram, .step = 1};
    CHECK(state_save(&state, folder, 1, kept, &err), "%s", err.text);

    const GptBank *b = gpt_bank(gpt, id);
    const size_t last = (size_t)b->count * (size_t)b->rows * (size_t)b->cols - 1;
    void *places[] = {b->param, optimizer.first[id], optimizer.second[id]};
    state.step = 2;
    for (int i = 0; i < 3; i++) {
        const size_t at = i < 2 ? last : 0;
        const double was = dtype_get(places[i], b->dtype, at);
        dtype_set(places[i], b->dtype, at, bad);
        CHECK(!state_save(&state, folder, 1, path, &err));
        CHECK(strstr(err.text, b->name) && strstr(err.text, "earlier checkpoints are intact"), "%s",
              err.text);
        dtype_set(places[i], b->dtype, at, was);
        CHECK(checkpoint_latest(folder, path, &warning, &err) && !strcmp(path, kept), "%s",
              err.text);
    }
    CHECK(state_save(&state, folder, 1, path, &err), "%s", err.text);
    check_plans(path, real_storage ? plans : NULL);

    unlink(path);
    rmdir(folder);
    unigram_close(&unigram);
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

TEST(not_a_number_in_f32) { save_refuses_what_is_not_finite(false, BANK_ATTN, NAN); }
TEST(infinity_in_f32) { save_refuses_what_is_not_finite(false, BANK_SCALARS, -INFINITY); }
TEST(not_a_number_in_bf16) { save_refuses_what_is_not_finite(false, BANK_EMBED, NAN); }
TEST(infinity_in_bf16) { save_refuses_what_is_not_finite(false, BANK_ATTN_GATE, INFINITY); }
TEST(real_storage) { save_refuses_what_is_not_finite(true, BANK_EMBED, INFINITY); }

int main(void)
{
    RUN(not_a_number_in_f32);
    RUN(infinity_in_f32);
    RUN(not_a_number_in_bf16);
    RUN(infinity_in_bf16);
    RUN(real_storage);
    return TEST_SUMMARY();
}
