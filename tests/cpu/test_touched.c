// The plan by which ranks exchange rows: against every rank's rows, looked at directly.
#include <stdlib.h>
#include <string.h>

#include "../../run/touched.h"
#include "../test.h"

enum { MAX_WORLD = 8 };

static uint32_t state = 1;
static int drawn(int below)
{
    state = state * 1664525u + 1013904223u;
    return (int)((state >> 8) % (uint32_t)below);
}

static Touched rank[MAX_WORLD];

// The ranks' sum, as comm_sum makes it.
static void tell_all(int world)
{
    const size_t n = (size_t)world * (size_t)rank[0].per;
    double *sum = calloc(n, sizeof *sum);
    for (int r = 0; r < world; r++) {
        touched_tell(&rank[r]);
        for (size_t i = 0; i < n; i++) sum[i] += rank[r].words[i];
    }
    for (int r = 0; r < world; r++) memcpy(rank[r].words, sum, n * sizeof *sum);
    free(sum);
}

static void open_all(int world, int rows)
{
    Error err;
    for (int r = 0; r < world; r++)
        if (!touched_create(&rank[r], rows, world, r, &err)) abort();
}

static void close_all(int world)
{
    for (int r = 0; r < world; r++) touched_free(&rank[r]);
}

static void check_plan(int world, int rows)
{
    const int part = rows / world;
    for (int me = 0; me < world; me++) {
        const Touched *t = &rank[me];
        int n = 0, n_received = 0;
        for (int to = 0; to < world; to++) {
            size_t sent = 0, received = 0;
            for (int i = 0; i < part; i++) {
                if (t->touched[to * part + i]) {
                    CHECK(t->row[n++] == to * part + i);
                    sent++;
                }
                if (rank[to].touched[me * part + i]) {
                    CHECK(t->id[n_received++] == i);
                    received++;
                }
            }
            CHECK(t->sent[to] == sent && t->received[to] == received);
        }
        CHECK(t->n == n && t->n_received == n_received);
        for (int i = 1; i < n_received; i++) { // sorted by (id, position), each position once
            const int a = t->order[i - 1], b = t->order[i];
            CHECK(t->id[a] < t->id[b] || (a < b && t->id[a] == t->id[b]));
        }
    }
}

TEST(few_rows_are_planned)
{
    for (int world = 1; world <= MAX_WORLD; world *= 2)
        for (int rows = 16; rows <= 1024; rows *= 4) {
            open_all(world, rows);
            for (int r = 0; r < world; r++)
                for (int i = 0; i < rows / 4; i++) {
                    const int32_t id = drawn(drawn(rows) + 1); // small ids more often, as in text
                    touched_add(&rank[r], &id, 1);
                }
            tell_all(world);
            int planned = 0;
            for (int r = 0; r < world; r++) planned += touched_plan(&rank[r]);
            CHECK(planned == 0 || planned == world, "%d of %d ranks", planned, world);
            CHECK(planned || world == 1 || rows < 64, "%d ranks, %d rows", world, rows);
            if (planned) check_plan(world, rows);
            close_all(world);
        }
}

TEST(whole_tables_when_they_are_fewer)
{
    open_all(4, 64);
    tell_all(4);
    for (int r = 0; r < 4; r++)
        CHECK(touched_plan(&rank[r]) && rank[r].n + rank[r].n_received == 0);
    touched_add_all(&rank[2]); // one rank after a checkpoint is enough
    tell_all(4);
    for (int r = 0; r < 4; r++) CHECK(!touched_plan(&rank[r]));
    touched_clear(&rank[2]);
    for (int r = 0; r < 4; r++) // all send few, and all of it to rank 0
        for (int32_t i = 0; i < 16; i++) touched_add(&rank[r], &i, 1);
    tell_all(4);
    for (int r = 0; r < 4; r++) CHECK(!touched_plan(&rank[r]));
    close_all(4);
}

int main(void)
{
    RUN(few_rows_are_planned);
    RUN(whole_tables_when_they_are_fewer);
    return TEST_SUMMARY();
}
