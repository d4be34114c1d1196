// run/loader: training micro-batches against the specification's words, on shards made by hand.
#include "../loading.h"

static void cu_is(const Batch *batch, int n_docs, const int32_t *cu)
{
    CHECK(batch && batch->n_docs == n_docs &&
          memcmp(batch->cu, cu, ((size_t)n_docs + 1) * sizeof *cu) == 0);
}

TEST(equals_the_specification_on_random_shards)
{
    const int sizes[] = {1, 2, 7, 16, 64}, cuts[] = {1, 2, 5, 30, 1000}, worlds[] = {1, 2, 3, 4, 8};
    int batches = 0, switches = 0, too_small = 0;
    uint64_t seed = 1;
    for (int trial = 0; trial < 60; trial++) {
        int longest = (int[]){1, 3, 20, 90}[shards_random(&seed) % 4];
        Shards3 s = three_shards("random", seed, longest, 20 + (int)(shards_random(&seed) % 300));
        StreamConfig *c = &s.config;
        c->micro_batch = sizes[shards_random(&seed) % 5];
        c->max_doc = cuts[shards_random(&seed) % 5];
        c->world = worlds[shards_random(&seed) % 5];
        c->epochs = 1 + (int)(shards_random(&seed) % 3);
        for (c->rank = 0; c->rank < c->world; c->rank++) {
            Naive naive = naive_of(&s);
            Loader *loader = open_at(c, NULL);
            NaiveResult result = NAIVE_TOO_SMALL;
            while (loader && (result = naive_call(&naive)) == NAIVE_OK) {
                const Batch *batch = next(loader);
                if (!batch) break;
                CHECK(naive_equal(&naive, c->rank, batch), "trial %d", trial);
                CHECK(batch_is_whole(batch, kByteBos, c->max_doc), "trial %d", trial);
                batches++;
            }
            next_refused(loader, result == NAIVE_EXHAUSTED ? "ran out" : "even one call");
            switches += naive.switches;
            too_small += result == NAIVE_TOO_SMALL;
            loader_close(loader);
            naive_free(&naive);
        }
        free3(&s);
    }
    CHECK(batches > 1000 && switches > 100 && too_small > 0, "%d %d %d", batches, switches,
          too_small); // the trials did reach what they are for
}

TEST(same_micro_batches_for_every_world_up_to_the_first_switch)
{
    Shards3 s = three_shards("world", 5, 40, 300);
    s.config.micro_batch = 64;
    Naive naive = naive_of(&s);
    int count = 0;
    for (; naive_call(&naive) == NAIVE_OK && naive.switches == 0; count++)
        for (int world = 1; world <= 8; world *= 2) {
            StreamConfig c = s.config;
            c.world = world;
            c.rank = count % world;
            Loader *loader = open_at(&c, NULL);
            for (int call = 0; call < count / world; call++) next(loader);
            const Batch *batch = next(loader);
            // The call that the shard cannot complete for all ranks is where the streams part.
            if (batch && loader_cursor(loader).shard == 0) CHECK(naive_equal(&naive, 0, batch));
            loader_close(loader);
        }
    CHECK(count > 40, "%d", count);
    naive_free(&naive);
    free3(&s);
}

// Three sequences side by side are three batches in a row, and the positions come sorted.
TEST(sequences_side_by_side)
{
    enum { N = 8, S = 3 };
    shards_docs("side_0.bin", 0, (int[]){3, 5, 7, 4, 4, 9, 30, 1, 1, 12, 6, 20, 40}, 13, 1, NULL);
    StreamConfig c = config_of("side");
    Loader *one = open_at(&c, NULL);
    c.sequences = S;
    Loader *many = open_at(&c, NULL);
    for (int call = 0; call < 2; call++) {
        const Batch *batch = next(many);
        int docs = 0;
        CHECK(batch->n_tokens == S * N && batch->sequence == N && batch->has_order);
        for (int s = 0; s < S; s++) {
            const Batch *b = next(one);
            CHECK(!memcmp(batch->ids + s * N, b->ids, N * sizeof *b->ids));
            CHECK(!memcmp(batch->targets + s * N, b->targets, N * sizeof *b->ids));
            for (int i = 1; i <= b->n_docs; i++)
                CHECK(batch->cu[docs + i] == s * N + b->cu[i], "call %d sequence %d", call, s);
            docs += b->n_docs;
        }
        CHECK(batch->cu[0] == 0 && batch->n_docs == docs);
        for (int i = 1; i < S * N; i++) {
            const int p = batch->order[i - 1], q = batch->order[i];
            const int less = batch->ids[q] - batch->ids[p];
            CHECK(less > 0 || (less == 0 && p < q));
        }
        CHECK(loader_cursor(many).bos == loader_cursor(one).bos);
        CHECK(loader_cursor(many).micro_batches == S * (call + 1));
    }
    loader_close(one);
    loader_close(many);
}

TEST(exact_fit_takes_one_token_and_an_empty_sequence)
{
    shards_docs("fit_0.bin", 0, (int[]){3, 5, 7, 4, 4, 9}, 6, 1, NULL);
    StreamConfig c = config_of("fit");
    Loader *loader = open_at(&c, NULL);
    const Batch *batch = next(loader);
    cu_is(batch, 3, (int32_t[]){0, 3, 8, 8});
    CHECK(batch->targets[7] == kByteBos && batch->ids[0] == kByteBos && batch->ids[3] == kByteBos);
    CHECK(loader_cursor(loader).bos == 3); // the third document gave its BOS, its rest is dropped
    cu_is(next(loader), 3, (int32_t[]){0, 4, 8, 8});
    CHECK(loader_cursor(loader).bos == 6 && loader_cursor(loader).micro_batches == 2);
    next_refused(loader, "ran out after 16 tokens");
    loader_close(loader);
}

TEST(documents_are_cut_and_their_rest_is_dropped)
{
    uint16_t *tokens; // documents at 2, 12, 17
    shards_docs("cut_0.bin", 2, (int[]){10, 5, 30}, 3, 3, &tokens);
    StreamConfig c = config_of("cut");
    c.max_doc = 4;
    Loader *loader = open_at(&c, NULL);
    const Batch *batch = next(loader); // nothing of the two tokens before the first BOS
    cu_is(batch, 3, (int32_t[]){0, 4, 8, 8});
    for (int i = 0; i < 4; i++)
        CHECK(batch->ids[i] == tokens[2 + i] && batch->ids[4 + i] == tokens[12 + i]);
    CHECK(batch->targets[3] == kByteBos && batch->targets[7] == kByteBos);
    next_refused(loader, "ran out after 8 tokens");
    loader_close(loader);
    free(tokens);
}

TEST(documents_of_one_token_fill_a_batch)
{
    int ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    shards_docs("ones_0.bin", 0, ones, 9, 1, NULL);
    StreamConfig c = config_of("ones");
    Loader *loader = open_at(&c, NULL);
    cu_is(next(loader), 9, (int32_t[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 8});
    loader_close(loader);
}

// Three micro-batches and W = 2: the third, though whole, is discarded with its call.
TEST(a_shard_that_cannot_complete_a_call_loses_it)
{
    shards_docs("lost_0.bin", 0, (int[]){20, 20, 20}, 3, 1, NULL);
    uint16_t *tokens;
    shards_docs("lost_1.bin", 0, (int[]){20, 20}, 2, 2, &tokens);
    StreamConfig c = config_of("lost");
    for (c.world = 2, c.rank = 0; c.rank < 2; c.rank++) {
        Loader *loader = open_at(&c, NULL);
        next(loader);
        const Batch *batch = next(loader);
        for (int i = 0; i < 8; i++) CHECK(batch->ids[i] == tokens[20 * c.rank + i]);
        StreamCursor at = loader_cursor(loader);
        CHECK(at.shard == 1 && at.bos == 2 && at.micro_batches == 4 && at.epoch == 0);
        next_refused(loader, "ran out after 32 tokens");
        loader_close(loader);
    }
    free(tokens);
}

TEST(without_end_cycles_and_the_ring_never_outruns_the_cursor)
{
    Shards3 s = three_shards("cycle", 9, 20, 60);
    s.config.epochs = 0;
    Naive naive = naive_of(&s);
    Loader *loader = open_at(&s.config, NULL);
    while (naive.epoch < 5) {
        CHECK(naive_call(&naive) == NAIVE_OK && naive_equal(&naive, 0, next(loader)));
        StreamCursor at = loader_cursor(loader);
        CHECK(at.epoch == naive.epoch && at.shard == naive.file);
    }
    loader_close(loader);
    naive_free(&naive);
    free3(&s);
}

int main(void)
{
    shards_dir_make();
    RUN(equals_the_specification_on_random_shards);
    RUN(same_micro_batches_for_every_world_up_to_the_first_switch);
    RUN(sequences_side_by_side);
    RUN(exact_fit_takes_one_token_and_an_empty_sequence);
    RUN(documents_are_cut_and_their_rest_is_dropped);
    RUN(documents_of_one_token_fill_a_batch);
    RUN(a_shard_that_cannot_complete_a_call_loses_it);
    RUN(without_end_cycles_and_the_ring_never_outruns_the_cursor);
    return TEST_SUMMARY();
}
