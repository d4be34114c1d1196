// The sharded optimizer over ranks that are processes: 1, 2, 4 and 8 of them train as one program
// does, in double precision, and twice to the same bits; tables of buckets and owners; collectives
// against sums made by hand.
#include "../test.h"

#include "../../run/comm_shm.h"
#include "../../run/partition.h"
#include "ranks.h"

static const Ops *device = &ops_cpu;

static size_t prepare_ranks(void **shared, int world)
{
    Error err;
    *shared = shared_memory(comm_shm_size(world));
    if (!comm_shm_prepare(*shared, world, &err)) abort();
    return comm_shm_size(world);
}

static Rank open_rank(void *shared, int rank, int world)
{
    Error err;
    const Rank r = {comm_shm_open(shared, rank, world, &err), device};
    if (!r.comm) abort();
    return r;
}

// ---- tables ------------------------------------------------------------------------------------

TEST(every_item_has_one_owner)
{
    for (int world = 1; world <= 8; world++)
        for (int items = 0; items <= 44; items++) {
            int owners[44] = {0}, all = 0, in_buckets = 0;
            for (int rank = 0; rank < world; rank++) {
                const int owned = partition_owned(items, world, rank);
                for (int k = 0; k < owned; k++) {
                    CHECK(k * world + rank < items);
                    owners[k * world + rank]++;
                }
                all += owned;
            }
            for (int i = 0; i < items; i++) CHECK(owners[i] == 1, "item %d of %d", i, items);
            for (int b = 0; b < partition_buckets(items, world); b++) {
                const int parts = partition_parts(items, world, b);
                CHECK(parts >= 1 && parts <= world);
                in_buckets += parts;
            }
            CHECK(all == items && in_buckets == items);
        }
    // The speedrun's MLPs over 8 ranks: two whole buckets, and six matrices.
    CHECK(partition_buckets(22, 8) == 3 && partition_parts(22, 8, 2) == 6);
    CHECK(partition_owned(22, 8, 5) == 3 && partition_owned(22, 8, 6) == 2);
}

TEST(collectives)
{
    for (int world = 1; world <= 8; world *= 2) CHECK(in_ranks(world, check_collectives, NULL));
}

TEST(ranks_train_as_one_program_does)
{
    device = &ops_cpu_f64;
    Outcome *alone = outcome_of(1, true, true);
    CHECK(alone->loss[STEPS - 1] < alone->loss[2] - 0.01, "the losses do not fall: %g to %g",
          alone->loss[2], alone->loss[STEPS - 1]);
    for (int world = 1; world <= 8; world *= 2) {
        Outcome *o = outcome_of(world, true, false);
        const double losses = losses_apart(alone, o), change = change_apart(alone, o);
        printf(
            "     %d ranks: losses %.2g apart, parameters' change %.2g; embeddings by rows in %d "
            "steps\n",
            world, losses, change, o->by_rows);
        CHECK(o->by_rows == (world > 1 ? STEPS / 2 : 0), "embeddings by rows in %d steps",
              o->by_rows);
        CHECK(o->n == alone->n && losses <= 1e-9 && change <= 1e-6, "%d ranks", world);
        double state = 0;
        for (size_t i = 0; i < o->n; i++) state = fmax(state, fabs(o->state[i] - alone->state[i]));
        CHECK(state <= 1e-6, "momentum of %d ranks: %g apart", world, state);
        Outcome *again = outcome_of(world, true, false);
        CHECK(same(o, again), "%d ranks differ from run to run", world);
        munmap(again, sizeof *again);
        munmap(o, sizeof *o);
    }
    munmap(alone, sizeof *alone);
}

// With the recipe's narrow types, roundings differ with the number of ranks (specification 6.4).
TEST(ranks_train_in_the_recipes_types)
{
    device = &ops_cpu;
    Outcome *alone = outcome_of(1, false, true);
    Outcome *o = outcome_of(4, false, false);
    Outcome *again = outcome_of(4, false, false);
    printf("     4 ranks: losses %.2g apart, parameters' change %.2g\n", losses_apart(alone, o),
           change_apart(alone, o));
    // Adam's bf16 parameters of size 1 move by ulps of 2^-8; the head's bf16 logits by as much.
    CHECK(losses_apart(alone, o) <= 0.05);
    CHECK(same(o, again), "4 ranks differ from run to run");
    munmap(alone, sizeof *alone);
    munmap(o, sizeof *o);
    munmap(again, sizeof *again);
}

// ---- a timeline --------------------------------------------------------------------------------

enum { TIMED = 4 }; // the step, counted from 1, with Adam's turn

static int count_of(const TimelineResult *r, int step, const char *name)
{
    int n = 0;
    for (int i = 0; i < r->n; i++)
        n += r->span[i].kind == SPAN_COLLECTIVE && r->span[i].step == step &&
             !strcmp(r->span[i].name, name);
    return n;
}

static void check_buckets(const TimelineResult *r, Gpt *gpt, int world)
{
    int all = 3; // gates and scalars, which are all-reduced
    CHECK(count_of(r, TIMED, "all-reduce attn_gate") == 1);
    CHECK(count_of(r, TIMED, "all-reduce smear_gate") == 1);
    CHECK(count_of(r, TIMED, "all-reduce scalars") == 1);
    for (int id = 0; id < GPT_BANKS; id++) {
        const GptBank *b = gpt_bank(gpt, (BankId)id);
        if (id == BANK_ATTN_GATE || id == BANK_SMEAR_GATE || id == BANK_SCALARS) continue;
        const int buckets = b->muon ? partition_buckets(b->count, world) : b->count;
        for (int k = 0; k < buckets; k++) {
            char name[64];
            snprintf(name, sizeof name, "reduce-scatter %s %d", b->name, k);
            CHECK(count_of(r, TIMED, name) == 1, "%s", name);
            snprintf(name, sizeof name, "all-gather %s %d", b->name, k);
            CHECK(count_of(r, TIMED, name) == 1, "%s", name);
        }
        all += 2 * buckets;
    }
    int noted = 0;
    for (int i = 0; i < r->n; i++)
        noted += r->span[i].kind == SPAN_COLLECTIVE && r->span[i].step == TIMED;
    CHECK(noted == all, "%d collectives, not %d", noted, all);
}

static void time_steps(Rank me, void *context)
{
    Error err;
    static ModelBatch m;
    TimelineResult r;
    ShardedOptimizer sharded;
    const Recipe recipe = small_recipe();
    Comm *comm = me.comm;
    (void)context;
    Gpt *gpt = model_create(&recipe, me.ops, false, BATCHES / comm->world);
    Timeline *timeline = comm->rank == 0 ? timeline_create(comm, TIMED, &err) : NULL;
    if (!sharded_create(&sharded, gpt, comm, &err)) abort();
    sharded_adopt(&sharded);
    for (int step = 0; step <= TIMED; step++) {
        gpt_set_step(gpt, step);
        timeline_step_begins(timeline, step + 1);
        for (int i = comm->rank; i < BATCHES; i += comm->world) {
            if (i + comm->world >= BATCHES) sharded_send(&sharded, step);
            stream_batch(&m, &recipe, step * BATCHES + i);
            gpt_forward_backward(gpt, &m.batch);
        }
        sharded_step(&sharded, step);
        timeline_step_ends(timeline);
    }
    if (timeline) {
        double shared = 0, last = -INFINITY;
        int phases = 0;
        CHECK(timeline_complete(timeline) && timeline_result(timeline, &r, &err), "%s", err.text);
        check_buckets(&r, gpt, comm->world);
        for (int i = 0; i < r.n; i++) {
            const Span *s = &r.span[i];
            CHECK(s->begin <= s->end && s->end > 0 && s->begin < r.until, "%s", s->name);
            if (s->kind == SPAN_WAIT) continue;
            if (s->kind == SPAN_COLLECTIVE) CHECK(s->begin >= last, "%s overlaps", s->name);
            if (s->kind == SPAN_COLLECTIVE) last = s->end, shared += s->end - s->begin;
            phases += s->kind == SPAN_PHASE && s->step == TIMED;
        }
        // Forward, head and backward of each micro-batch, and the update of each bank.
        CHECK(phases == 3 * BATCHES / comm->world + GPT_BANKS, "%d phases", phases);
        CHECK(r.step_ms > 0 && fabs(r.communication_ms - shared) < 1e-6 * r.step_ms);
        CHECK(r.exposed_ms == r.communication_ms); // as on every CPU
        free(r.span);
    }
    timeline_free(timeline);
    sharded_free(&sharded);
    gpt_free(gpt);
}

TEST(a_timeline_has_every_collective)
{
    device = &ops_cpu;
    CHECK(in_ranks(2, time_steps, NULL));
}

int main(void)
{
    RUN(every_item_has_one_owner);
    RUN(collectives);
    RUN(ranks_train_as_one_program_does);
    RUN(ranks_train_in_the_recipes_types);
    RUN(a_timeline_has_every_collective);
    return TEST_SUMMARY();
}
