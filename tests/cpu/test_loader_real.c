// run/loader and run/val on real shards: those of $TM_DATA (web_train_000001.bin and
// web_val_000000.bin, GPT-2 tokens, micro-batches of 32 768), else the built-in corpus (bytes).
#include "../../run/loader.h"
#include "../../run/val.h"

#include "../naive_stream.h"

typedef struct {
    StreamConfig train;
    ValConfig val;
} Data;

static Data data;

static bool find_data(void)
{
    static char train[512], val[512];
    const char *folder = getenv("TM_DATA");
    bool gpt2 = folder != NULL;
    snprintf(train, sizeof train, gpt2 ? "%s/web_train_000001.bin" : "data/corpus/*train*.bin",
             folder);
    snprintf(val, sizeof val, gpt2 ? "%s/web_val_000000.bin" : "data/corpus/*val*.bin", folder);
    data.train = (StreamConfig){.files = train,
                                .vocab_size = gpt2 ? 50257 : 257,
                                .micro_batch = gpt2 ? 32768 : 2048,
                                .max_doc = gpt2 ? 2048 : 256,
                                .world = 1,
                                .epochs = 1};
    data.val = (ValConfig){.files = val,
                           .vocab_size = data.train.vocab_size,
                           .tokens = gpt2 ? 10485760 : 0,
                           .chunk = gpt2 ? 262144 : 2048,
                           .world = 1};
    ShardList list;
    Error err;
    if (!shard_list(&list, train, &err)) return false;
    shard_list_free(&list);
    if (!shard_list(&list, val, &err)) return false;
    shard_list_free(&list);
    return true;
}

// The first shard to its end, for W = 1, 2, 4, 8 and all ranks, against the naive stream of W = 1.
TEST(real_shard_gives_the_same_micro_batches_for_every_world)
{
    StreamConfig c = data.train;
    ShardList list;
    Shard shard;
    Error err = {""};
    CHECK(shard_list(&list, c.files, &err));
    CHECK(shard_open(&shard, list.path[0], c.vocab_size, &err), "%s", err.text);
    Loader *loader[4][8] = {0};
    for (int k = 0; k < 4; k++)
        for (c.world = 1 << k, c.rank = 0; c.rank < c.world; c.rank++)
            CHECK(loader_open(&loader[k][c.rank], &c, NULL, &err), "%s", err.text);

    Naive naive = {.tokens = {shard.tokens},
                   .n_tokens = {shard.n_tokens},
                   .n_files = 1,
                   .bos = c.vocab_size - 1,
                   .micro_batch = c.micro_batch,
                   .max_doc = c.max_doc,
                   .world = 1,
                   .epochs = 1};
    naive_alloc(&naive);
    int count = 0, most_docs = 0;
    for (; naive_call(&naive) == NAIVE_OK; count++)
        for (int k = 0; k < 4; k++) {
            const Batch *batch;
            Loader *l = loader[k][count % (1 << k)];
            // The last call of W > 1 may be the one that the shard cannot complete.
            if (!loader_next(l, &batch, &err) || loader_cursor(l).shard > 0) {
                CHECK(k > 0 && (naive.n_tokens[0] - naive.at) < (int64_t)8 * 2 * c.micro_batch,
                      "%s", err.text);
                continue;
            }
            CHECK(naive_equal(&naive, 0, batch), "W %d, micro-batch %d", 1 << k, count);
            CHECK(batch_is_whole(batch, naive.bos, c.max_doc), "W %d, micro-batch %d", 1 << k,
                  count);
            if (batch->n_docs > most_docs) most_docs = batch->n_docs;
        }
    printf("     %d micro-batches of %d tokens, at most %d documents in one\n", count,
           c.micro_batch, most_docs);
    CHECK(count > 8);
    for (int k = 0; k < 4; k++)
        for (int r = 0; r < 8; r++) loader_close(loader[k][r]);
    naive_free(&naive);
    shard_close(&shard);
    shard_list_free(&list);
}

TEST(real_validation_covers_the_file_once)
{
    ValConfig c = data.val;
    for (c.world = 1; c.world <= 8; c.world *= 2) {
        int64_t tokens = 0, sequences_at_bos = 0, bos = 0;
        for (c.rank = 0; c.rank < c.world; c.rank++) {
            Val val;
            Error err = {""};
            CHECK(val_open(&val, &c, &err), "%s", err.text);
            const uint16_t *targets = val_targets(&val);
            for (int call = 0; call < val.calls; call++) {
                const Batch *batch = val_batch(&val, call);
                if (!batch) continue;
                int64_t begin = ((int64_t)call * c.world + c.rank) * c.chunk;
                bool same = true;
                for (int i = 0; i < c.chunk; i++) {
                    same = same && batch->targets[i] == targets[begin + i];
                    bos += batch->ids[i] == c.vocab_size - 1;
                }
                for (int d = 0; d < batch->n_docs; d++)
                    sequences_at_bos += batch->ids[batch->cu[d]] == c.vocab_size - 1;
                CHECK(same && batch->cu[batch->n_docs] == c.chunk);
                tokens += c.chunk;
            }
            CHECK(c.rank < c.world - 1 || tokens == val.tokens);
            val_close(&val);
        }
        CHECK(bos > 0 && bos == sequences_at_bos);
    }
}

TEST(skip_real_shards_because_TM_DATA_is_unset_and_no_corpus_is_built) {}

int main(void)
{
    if (find_data()) {
        RUN(real_shard_gives_the_same_micro_batches_for_every_world);
        RUN(real_validation_covers_the_file_once);
    } else {
        RUN(skip_real_shards_because_TM_DATA_is_unset_and_no_corpus_is_built);
    }
    return TEST_SUMMARY();
}
