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
        printf("     %d ranks: losses %.2g apart, parameters' change %.2g\n", world, losses,
               change);
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

int main(void)
{
    RUN(every_item_has_one_owner);
    RUN(collectives);
    RUN(ranks_train_as_one_program_does);
    RUN(ranks_train_in_the_recipes_types);
    return TEST_SUMMARY();
}
