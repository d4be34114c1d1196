// run/loader: resuming, refusing, and closing.
#include "../loading.h"

// ---- resuming ----------------------------------------------------------------------------------

// Batch and cursor after it agree at every step, so all that follows does.
TEST(resumes_from_every_cursor)
{
    Shards3 s = three_shards("resume", 11, 25, 40);
    s.config.world = 2;
    s.config.rank = 1;
    s.config.epochs = 2;
    Loader *whole = open_at(&s.config, NULL);
    Naive naive = naive_of(&s);
    StreamCursor at = loader_cursor(whole);
    int calls = 0;
    for (; naive_call(&naive) == NAIVE_OK; calls++) {
        Loader *resumed = open_at(&s.config, &at);
        CHECK(naive_equal(&naive, 1, next(resumed)) && naive_equal(&naive, 1, next(whole)));
        StreamCursor after = loader_cursor(resumed);
        at = loader_cursor(whole);
        CHECK(memcmp(&at, &after, sizeof at) == 0);
        loader_close(resumed);
    }
    CHECK(calls > 60, "%d", calls);
    Loader *resumed = open_at(&s.config, &at); // at the very end
    next_refused(resumed, "ran out");
    loader_close(resumed);
    loader_close(whole);
    naive_free(&naive);
    free3(&s);
}

TEST(a_zero_cursor_is_the_start)
{
    Shards3 s = three_shards("zero", 13, 20, 60);
    Loader *a = open_at(&s.config, NULL), *b = open_at(&s.config, &(StreamCursor){0});
    CHECK(memcmp(next(a)->ids, next(b)->ids, 8 * sizeof(int32_t)) == 0);
    loader_close(a);
    loader_close(b);
    free3(&s);
}

TEST(a_cursor_of_other_data_is_refused)
{
    Shards3 s = three_shards("other", 17, 20, 60);
    s.config.epochs = 2;
    Loader *loader = open_at(&s.config, NULL);
    next(loader);
    StreamCursor at = loader_cursor(loader), bad = at, second_pass = at;
    loader_close(loader);
    second_pass.epoch = 1;

    bad.bos = 61;
    open_refused(&s.config, &bad, "is at document 61");
    bad.bos = -1;
    open_refused(&s.config, &bad, "damaged");
    bad = at;
    bad.shard = 3;
    open_refused(&s.config, &bad, "damaged");
    bad = at;
    bad.data_hash ^= 1;
    open_refused(&s.config, &bad, "names or sizes differ");
    s.config.epochs = 1;
    open_refused(&s.config, &second_pass, "use at least --epochs 2");
    s.config.epochs = 2;

    // One more shard: behind the others it may come in the first pass, before them never.
    shards_docs("other_3.bin", 0, (int[]){30, 30}, 2, 1, NULL);
    loader = open_at(&s.config, &at);
    CHECK(loader_cursor(loader).n_shards == 4 && loader_cursor(loader).bos == at.bos);
    loader_close(loader);
    open_refused(&s.config, &second_pass, "first pass only");
    rename(shards_path("other_3.bin"), shards_path("other_.bin"));
    open_refused(&s.config, &at, "names or sizes differ");
    unlink(shards_path("other_.bin"));
    unlink(shards_path("other_2.bin"));
    open_refused(&s.config, &at, "it knew 3 shards");
    free3(&s);
}

// ---- refusals ----------------------------------------------------------------------------------

TEST(running_out_says_what_is_missing)
{
    Shards3 s = three_shards("out", 19, 20, 60);
    StreamConfig *c = &s.config;
    Naive naive = naive_of(&s);
    int count = 0;
    while (naive_call(&naive) == NAIVE_OK) count++;
    c->total = count;
    Loader *loader = open_at(c, NULL);
    for (int i = 0; i < count; i++) next(loader);
    loader_close(loader);

    c->total = count + 5;
    loader = open_at(c, NULL); // at most so many tokens, so not refused yet
    for (int i = 0; i < count; i++) next(loader);
    next_refused(loader, ", 40 more tokens are needed for the remaining steps: 3 training shards");
    next_refused(loader, "--epochs N to cycle them in name order (0: without end)");
    StreamCursor at = loader_cursor(loader);
    loader_close(loader);
    c->epochs = 2; // the fix that the message names
    loader = open_at(c, &at);
    for (int i = 0; i < 5; i++) next(loader);
    CHECK(loader_cursor(loader).epoch == 1 && loader_cursor(loader).micro_batches == c->total);
    loader_close(loader);

    c->epochs = 1;
    c->total = 1000000;
    open_refused(c, NULL, "8000000 tokens are needed for the remaining steps");
    c->epochs = 0;
    loader_close(open_at(c, NULL));
    naive_free(&naive);
    free3(&s);
}

TEST(a_shard_too_small_for_a_call_is_refused_also_without_end)
{
    shards_docs("small_0.bin", 0, (int[]){20, 20}, 2, 1, NULL);
    StreamConfig c = config_of("small");
    c.epochs = 0;
    c.world = 3;
    Loader *loader = open_at(&c, NULL);
    next_refused(loader, "cannot give even one call: 3 micro-batches of 8 + 1 tokens");
    loader_close(loader);
}

// A token outside the vocabulary hides from the header's check; what comes before is delivered.
TEST(a_damaged_shard_is_reported_when_it_is_needed)
{
    Shards3 s = three_shards("harm", 23, 20, 60);
    s.tokens[1][70] = 300;
    shards_write("harm_1.bin", s.tokens[1], s.n_tokens[1], (int32_t)s.n_tokens[1], kByteVocab, 0);
    Naive naive = naive_of(&s);
    Loader *loader = open_at(&s.config, NULL);
    while (naive_call(&naive) == NAIVE_OK && naive.file == 0)
        CHECK(naive_equal(&naive, 0, next(loader)));
    next_refused(loader, "harm_1.bin: token 300 at position 70 ");
    loader_close(loader);
    naive_free(&naive);
    free3(&s);
}

TEST(what_the_header_shows_is_reported_at_once)
{
    Shards3 s = three_shards("head", 29, 20, 60);
    shards_write("head_2.bin", s.tokens[2], s.n_tokens[2] - 1, (int32_t)s.n_tokens[2], kByteVocab,
                 0);
    open_refused(&s.config, NULL, "head_2.bin is truncated");
    s.config.vocab_size = 50257;
    open_refused(&s.config, NULL, "vocabulary of 257");
    StreamConfig c = config_of("nothing");
    open_refused(&c, NULL, "no file matches");
    c.rank = 1;
    open_refused(&c, NULL, "rank 1 of 1");
    free3(&s);
}

// ---- shutdown ----------------------------------------------------------------------------------

TEST(closes_at_any_moment)
{
    Shards3 s = three_shards("close", 31, 20, 60);
    s.config.epochs = 0;
    for (int batches = 0; batches < 40; batches++) {
        Loader *loader = open_at(&s.config, NULL);
        for (int i = 0; i < batches; i++) next(loader);
        loader_close(loader);
    }
    loader_close(NULL);
    free3(&s);
}

int main(void)
{
    shards_dir_make();
    RUN(resumes_from_every_cursor);
    RUN(a_zero_cursor_is_the_start);
    RUN(a_cursor_of_other_data_is_refused);
    RUN(running_out_says_what_is_missing);
    RUN(a_shard_too_small_for_a_call_is_refused_also_without_end);
    RUN(a_damaged_shard_is_reported_when_it_is_needed);
    RUN(what_the_header_shows_is_reported_at_once);
    RUN(closes_at_any_moment);
    return TEST_SUMMARY();
}
