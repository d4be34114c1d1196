// What the environment of torchrun, mpirun and srun says of a process, and which GPU is a rank's.
#include <stdlib.h>
#include <string.h>

#include "../../run/launch.h"
#include "../test.h"

// Sets "NAME=value" pairs, up to NULL, and nothing else that a launcher would.
static bool environment(RankEnv *env, Error *err, const char *const *pairs)
{
    static const char *const known[] = {"RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "SLURM_PROCID",
                                        "SLURM_LOCALID",
                                        "SLURM_NODEID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_STEP_NODELIST",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "SLURM_JOB_ID",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) unsetenv(known[i]);
    for (; *pairs; pairs++) {
        char name[64];
        const char *equals = strchr(*pairs, '=');
        snprintf(name, sizeof name, "%.*s", (int)(equals - *pairs), *pairs);
        setenv(name, equals + 1, 1);
    }
    return launch_environment(env, err);
}
#define ENVIRONMENT(...) environment(&env, &err, (const char *const[]){__VA_ARGS__, NULL})

TEST(torchrun)
{
    RankEnv env;
    Error err;
    CHECK(ENVIRONMENT("RANK=9", "WORLD_SIZE=16", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=8",
                      "MASTER_ADDR=node0", "MASTER_PORT=1234"),
          "%s", err.text);
    CHECK(env.rank == 9 && env.world == 16 && env.local_rank == 1 && env.local_world == 8);
    CHECK(!strcmp(env.master, "node0") && env.port == 1234);
    CHECK(!ENVIRONMENT("WORLD_SIZE=2") && strstr(err.text, "RANK is not set"));
    CHECK(!ENVIRONMENT("WORLD_SIZE=2", "RANK=2") && strstr(err.text, "from 0 to 1"));
    CHECK(!ENVIRONMENT("WORLD_SIZE=2", "RANK=1", "MASTER_PORT=abc") &&
          strstr(err.text, "MASTER_PORT is \"abc\""));
}

// What one rank has no use for cannot keep it from running.
TEST(one_rank)
{
    RankEnv env;
    Error err;
    CHECK(ENVIRONMENT("MASTER_PORT=abc", "SLURM_JOB_ID=x_1", "SLURM_NODEID=?"), "%s", err.text);
    CHECK(env.world == 1 && env.rank == 0);
    CHECK(!ENVIRONMENT("WORLD_SIZE=two") && strstr(err.text, "WORLD_SIZE"));
}

static const char *host_of(const char *list)
{
    static RankEnv env;
    static Error err;
    char pair[256];
    snprintf(pair, sizeof pair, "SLURM_STEP_NODELIST=%s", list);
    return ENVIRONMENT("SLURM_STEP_NUM_TASKS=2", "SLURM_PROCID=0", pair) ? env.master : err.text;
}

TEST(hosts_of_slurm)
{
    static const char *const first[][2] = {
        {"node7", "node7"},
        {"node7,node8", "node7"},
        {"node[01-04,07],other", "node01"},
        {"node[3,5]", "node3"},
        {"node[01-04]-ib", "node01-ib"},
        {"rack[2-3]n[007-008].cluster,x[1-2]", "rack2n007.cluster"},
        {"node[12", "node12"},
        {"", "127.0.0.1"},
    };
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        CHECK(!strcmp(host_of(first[i][0]), first[i][1]), "%s: %s", first[i][0],
              host_of(first[i][0]));
}

static int tasks(const char *list, const char *node)
{
    RankEnv env;
    Error err;
    char pair[256], id[64];
    snprintf(pair, sizeof pair, "SLURM_STEP_TASKS_PER_NODE=%s", list);
    snprintf(id, sizeof id, "SLURM_NODEID=%s", node);
    return ENVIRONMENT("SLURM_STEP_NUM_TASKS=64", "SLURM_PROCID=0", "SLURM_LOCALID=0", pair, id)
               ? env.local_world
               : -1;
}

TEST(tasks_of_slurm)
{
    CHECK(tasks("8", "0") == 8);
    CHECK(tasks("8(x2)", "1") == 8);
    CHECK(tasks("4(x2),3,2(x3)", "0") == 4 && tasks("4(x2),3,2(x3)", "1") == 4);
    CHECK(tasks("4(x2),3,2(x3)", "2") == 3 && tasks("4(x2),3,2(x3)", "5") == 2);
    CHECK(tasks("4(x2),3,2(x3)", "6") == 0); // unknown, as it is without the variable
    CHECK(tasks("many", "0") == 0 && tasks("4(x", "1") == 0 && tasks("-4", "0") == 0);
}

TEST(gpu_of_a_rank)
{
    static Board board;
    Error err;
    const RankEnv slurm = {.rank = 5, .world = 8, .local_rank = 1, .local_world = 4};
    CHECK(launch_gpu(&slurm, 4, &err) == 1); // all of the node's are seen
    CHECK(launch_gpu(&slurm, 1, &err) == 0); // srun --gpus-per-task=1
    const RankEnv fourth = {.rank = 3, .world = 8, .local_rank = 3, .local_world = 4};
    CHECK(launch_gpu(&fourth, 2, &err) == -1 && strstr(err.text, "GPU 3 is wanted"));
    // Ranks that this program started see the same GPUs.
    const RankEnv own = {.rank = 1, .world = 2, .local_rank = 1, .local_world = 2, .board = &board};
    CHECK(launch_gpu(&own, 2, &err) == 1);
    CHECK(launch_gpu(&own, 1, &err) == -1 && strstr(err.text, "CUDA shows 1"));
}

int main(void)
{
    RUN(torchrun);
    RUN(one_rank);
    RUN(hosts_of_slurm);
    RUN(tasks_of_slurm);
    RUN(gpu_of_a_rank);
    return TEST_SUMMARY();
}
