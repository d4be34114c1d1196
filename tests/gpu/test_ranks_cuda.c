// Ranks on GPUs through NCCL: the collectives against sums made by hand, and a small model trained
// by two ranks, which must follow one GPU's within roundings, to the same bits twice. Skipped with
// fewer than two GPUs.
#include "../test.h"

#include "../../ops/cuda/device.h"
#include "../../run/cuda/comm_nccl.h"
#include "../cpu/ranks.h"

typedef struct {
    volatile int made;
    char id[COMM_NCCL_ID_BYTES];
} Meeting;

static size_t prepare_ranks(void **shared, int world)
{
    (void)world;
    *shared = shared_memory(sizeof(Meeting));
    return sizeof(Meeting);
}

static Rank open_rank(void *shared, int rank, int world)
{
    Meeting *meeting = shared;
    Error err;
    char description[256];
    Rank r;
    ops_cuda_select(rank);
    bool ok = ops_cuda_find(&r.ops, description, sizeof description, &err) && comm_nccl_load(&err);
    if (ok && rank == 0) {
        ok = comm_nccl_id(meeting->id, &err);
        meeting->made = 1;
    }
    while (ok && !meeting->made) usleep(1000);
    r.comm = ok ? comm_nccl_open(meeting->id, rank, world, &err) : NULL;
    if (r.comm) return r;
    fprintf(stderr, "%s\n", err.text);
    _exit(1);
}

TEST(collectives_on_gpus)
{
    CHECK(in_ranks(1, check_collectives, NULL));
    CHECK(in_ranks(2, check_collectives, NULL));
}

// Losses of bf16 products: 2^-9 of a loss of 4, gathered over steps. The parameters' change is
// Adam's and NorMuon's, whose signs a rounding can turn.
TEST(two_gpus_train_as_one)
{
    Outcome *alone = outcome_of(1, false, true);
    Outcome *two = outcome_of(2, false, false);
    Outcome *again = outcome_of(2, false, false);
    printf("     2 GPUs: losses %.2g apart, parameters' change %.2g; %g to %g\n",
           losses_apart(alone, two), change_apart(alone, two), alone->loss[0],
           alone->loss[STEPS - 1]);
    CHECK(alone->loss[STEPS - 1] < alone->loss[2] - 0.01);
    CHECK(losses_apart(alone, two) <= 0.05);
    CHECK(same(two, again), "2 GPUs differ from run to run");
}

// A GPU that fails ends the program in the way that was asked for: in a child, whose handler tells
// by its status.
static void leave_with_7(const char *line)
{
    _exit(strstr(line, "cudaFree") && strstr(line, "device.cu") ? 7 : 8);
}

TEST(a_gpu_that_fails_is_told)
{
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        const Ops *ops;
        Error err;
        char description[256], other[OPS_CUDA_UUID_BYTES], uuid[OPS_CUDA_UUID_BYTES];
        ops_cuda_select(0);
        if (!ops_cuda_find(&ops, description, sizeof description, &err)) _exit(1);
        ops_cuda_uuid(uuid);
        if (strlen(uuid) != 36 || !strcmp(uuid, "GPU-00000000000000000000000000000000")) _exit(2);
        ops_cuda_select(1); // only the identity is asked for
        ops_cuda_uuid(other);
        if (!strcmp(uuid, other)) _exit(3);
        ops_cuda_on_failure(leave_with_7);
        ops->mem_free(&status); // which is the host's
        _exit(0);
    }
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %d", status);
}

int main(void)
{
    int *count = shared_memory(sizeof *count), status;
    if (fork() == 0) { // the ranks need a process that has touched no GPU
        *count = ops_cuda_count();
        _exit(0);
    }
    wait(&status);
    if (*count < 2) {
        printf("skip: %d GPUs\n0 passed, 0 failed\n", *count);
        return 0;
    }
    RUN(collectives_on_gpus);
    RUN(two_gpus_train_as_one);
    RUN(a_gpu_that_fails_is_told);
    return TEST_SUMMARY();
}
