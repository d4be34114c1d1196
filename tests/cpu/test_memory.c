// Whether a recipe fits: the sum is what is really taken, and the advice of a refusal is right.
#include "../../run/memory.h"

#include <stdlib.h>
#include <string.h>

#include "../test.h"

static size_t taken, free_bytes;
static void *counting_alloc(size_t bytes)
{
    taken += bytes;
    return calloc(1, bytes + 1);
}
static void fake_info(size_t *own, size_t *available, size_t *total)
{
    *own = 1000;
    *available = free_bytes;
    *total = (size_t)80e9;
}

static Recipe small(void)
{
    Recipe r;
    Error err = {""};
    CHECK(recipe_find(&r, "tiny", &err) && recipe_set(&r, "micro_batch", "2048", &err) &&
              recipe_set(&r, "max_doc", "64", &err) && recipe_set(&r, "val_chunk", "8192", &err) &&
              recipe_set(&r, "val_tokens", "16384", &err) && recipe_finish(&r, &err),
          "%s", err.text);
    return r;
}

TEST(need_is_what_is_taken)
{
    const Recipe r = small();
    Ops ops = ops_cpu;
    Error err = {""};
    Optimizer optimizer;
    ops.mem_alloc = counting_alloc;
    ops.mem_free = free;
    const size_t need = memory_need(&r, &ops, NULL, false, &err);
    CHECK(need > 0 && taken == 0, "finding out takes nothing: %zu", taken);
    Gpt *gpt = gpt_create(&r, &ops, false, 1, &err);
    CHECK(gpt && optimizer_create(&optimizer, gpt, &err), "%s", err.text);
    CHECK(taken == need, "took %zu, said %zu", taken, need);
    ops.mem_info = fake_info;
    CHECK(memory_need(&r, &ops, NULL, false, &err) == need + 1000);
    optimizer_free(&optimizer);
    gpt_free(gpt);
}

// Of every rank: with its part of the state, and what embedding gradients travel through.
TEST(need_of_a_rank_is_what_it_takes)
{
    const Recipe r = small();
    Ops ops = ops_cpu;
    Error err = {""};
    ops.mem_alloc = counting_alloc;
    ops.mem_free = free;
    const size_t alone = memory_need(&r, &ops, NULL, false, &err);
    for (int rank = 0; rank < 2; rank++) {
        Comm comm = {.rank = rank, .world = 2};
        ShardedOptimizer sharded;
        taken = 0;
        const size_t need = memory_need(&r, &ops, &comm, false, &err);
        CHECK(need > 0 && need != alone && taken == 0, "rank %d: %zu, %s", rank, need, err.text);
        Gpt *gpt = gpt_create(&r, &ops, false, 1, &err);
        CHECK(gpt && sharded_create(&sharded, gpt, &comm, &err), "%s", err.text);
        CHECK(taken == need, "rank %d took %zu, said %zu", rank, taken, need);
        const GptBank *b = gpt_bank(gpt, BANK_EMBED);
        const size_t table = gpt_bank_size(b) * dtype_size(b->dtype);
        const int tables = 1 + gpt_bank(gpt, BANK_VALUE_EMBED)->count;
        CHECK(sharded.rows.bytes > 2 * (size_t)tables * table, "sent and received: %zu of %zu",
              sharded.rows.bytes, table);
        sharded_free(&sharded);
        gpt_free(gpt);
    }
    Comm five = {.world = 5};
    CHECK(!memory_need(&r, &ops, &five, false, &err) && strstr(err.text, "do not divide"), "%s",
          err.text);
}

// Applies "--name value" pairs of the advice to a recipe, as a person would.
static void follow(Recipe *r, const char *advice)
{
    char text[512], *word;
    Error err = {""};
    snprintf(text, sizeof text, "%s", advice);
    for (word = strtok(text, " "); word && !strncmp(word, "--", 2); word = strtok(NULL, " ")) {
        const char *value = strtok(NULL, " ");
        CHECK(value && recipe_set(r, word + 2, value, &err), "%s: %s", word, err.text);
    }
    CHECK(recipe_finish(r, &err), "%s", err.text);
}

TEST(advice_fits)
{
    const size_t headroom = (size_t)512 << 20;
    const Recipe r = small();
    Ops ops = ops_cpu;
    Error err = {""};
    CHECK(memory_check(&r, &ops, NULL, false, &err), "a device that cannot tell: %s", err.text);
    ops.mem_info = fake_info;
    const size_t need = memory_need(&r, &ops, NULL, false, &err);
    free_bytes = need + headroom;
    CHECK(memory_check(&r, &ops, NULL, false, &err), "%s", err.text);
    int advised = 0, hopeless = 0;
    for (int percent = 99; percent > 0; percent -= 7) {
        free_bytes = headroom + need / 100 * (size_t)percent;
        CHECK(!memory_check(&r, &ops, NULL, false, &err));
        CHECK(strstr(err.text, "out of memory: recipe tiny needs") && strstr(err.text, " free"),
              "%s", err.text);
        const char *advice = strstr(err.text, "--");
        if (strstr(err.text, "no smaller batch")) {
            hopeless++;
            continue;
        }
        Recipe smaller = r;
        CHECK(advice, "%s", err.text);
        if (!advice) return;
        follow(&smaller, advice);
        advised++;
        CHECK(memory_check(&smaller, &ops, NULL, false, &err), "%d %%: %s", percent, err.text);
        CHECK((int64_t)smaller.micro_batch * smaller.micro_batches ==
                  (int64_t)r.micro_batch * r.micro_batches,
              "the step keeps its tokens");
    }
    CHECK(advised > 3 && hopeless > 0, "%d, %d", advised, hopeless);
    free_bytes = 100; // less than the headroom
    CHECK(!memory_check(&r, &ops, NULL, false, &err) && strlen(err.text) < 511);
}

int main(void)
{
    RUN(need_is_what_is_taken);
    RUN(need_of_a_rank_is_what_it_takes);
    RUN(advice_fits);
    return TEST_SUMMARY();
}
