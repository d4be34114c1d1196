// The ranks' control connections, between processes: messages, what is refused of ranks that differ
// or do not, and orderly ends at different times. A build with -fsanitize=thread runs it for races:
//     make CUDA=0 OMP=0 BUILD=build/tsan OPT=-O1 EXTRA=-fsanitize=thread
//     build/tsan/tests/cpu/test_peers
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../run/clock.h"
#include "../../run/peers.h"
#include "../test.h"

enum { WORLD = 4 };

typedef void Work(Peers *peers, int rank);

static int listener(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, WORLD) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        abort();
    *port = ntohs(address.sin_port);
    return fd;
}

// Runs work in WORLD processes that are connected; how many of them ended with status 0.
static int in_peers(Work *work)
{
    pid_t child[WORLD];
    int well = 0;
    RankEnv env = {.world = WORLD, .master = "127.0.0.1"};
    env.listener = listener(&env.port);
    fflush(NULL);
    for (int rank = 0; rank < WORLD; rank++) {
        child[rank] = fork();
        if (child[rank] < 0) abort();
        if (child[rank] > 0) continue;
        alarm(60);
        Peers *peers;
        Error err;
        env.rank = rank;
        if (rank != 0) close(env.listener), env.listener = -1;
        if (!peers_open(&peers, &env, &err)) {
            fprintf(stderr, "rank %d: %s\n", rank, err.text);
            _exit(1);
        }
        work(peers, rank);
        peers_close(peers);
        fflush(NULL);
        exit(checks_failed ? 1 : 0); // not _exit: a sanitizer's status
    }
    close(env.listener);
    for (int rank = 0; rank < WORLD; rank++) {
        int status;
        waitpid(child[rank], &status, 0);
        well += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    return well;
}

static void exchange(Peers *peers, int rank)
{
    Error err = {""};
    for (int round = 0; round < 20; round++) {
        int data[3] = {rank, round, 7};
        CHECK(peers_broadcast(peers, data, sizeof data, &err) && data[0] == 0 && data[1] == round);
        CHECK(peers_agree(peers, "a 1\nb 2\n", &err), "%s", err.text);
        err.text[0] = '\0';
        CHECK(peers_share_failure(peers, &err));
        peers_step(peers, round + 1);
    }
}

static void differ(Peers *peers, int rank)
{
    Error err;
    char text[64];
    snprintf(text, sizeof text, "first 1\nsecond %d\nthird %d\n", rank == 2 ? 5 : 4, rank);
    if (rank < 2) text[strlen("first 1\nsecond 4\n")] = '\0'; // the first difference counts
    CHECK(!peers_agree(peers, rank == 1 ? "first 1\nsecond 4\n" : text, &err));
    CHECK(strstr(err.text, "rank 0 has \"second 4\" and rank 2 \"second 5\""), "%s", err.text);
}

static void fail_in_two(Peers *peers, int rank)
{
    Error err = {""};
    if (rank > 1) fail(&err, "no data on %d", rank);
    CHECK(!peers_share_failure(peers, &err) && !strcmp(err.text, "no data on 2"), "%s", err.text);
}

// As `srun --gpus-per-task=1` gives each task a GPU of its own, and as a wrong binding does not.
static void name_gpus(Peers *peers, int rank)
{
    Error err;
    char name[PEERS_NAME_MAX];
    snprintf(name, sizeof name, "GPU-%02d", rank);
    CHECK(peers_unique(peers, "the GPU", name, &err), "%s", err.text);
    snprintf(name, sizeof name, "GPU-%02d", rank == 3 ? 1 : rank);
    CHECK(!peers_unique(peers, "the GPU", name, &err));
    CHECK(strstr(err.text, "rank 1 and rank 3 share the GPU GPU-01"), "%s", err.text);
}

// Ranks that leave one after another, while others still talk.
static void leave(Peers *peers, int rank)
{
    (void)peers;
    usleep((useconds_t)(rank * 7 % 4) * 20000);
}

static void one_fails(Peers *peers, int rank)
{
    if (rank == 2) {
        peers_fail(peers, "of a test");
        exit(1);
    }
    for (;;) pause(); // until it is stopped
}

// It ends well, while the others still want its message.
static void one_leaves(Peers *peers, int rank)
{
    Error err = {""};
    if (rank != 2) peers_share_failure(peers, &err);
}

TEST(messages_reach_all) { CHECK(in_peers(exchange) == WORLD); }
TEST(differences_are_refused) { CHECK(in_peers(differ) == WORLD); }
TEST(a_failure_is_everybodys) { CHECK(in_peers(fail_in_two) == WORLD); }
TEST(two_ranks_on_one_gpu_are_refused) { CHECK(in_peers(name_gpus) == WORLD); }
TEST(ranks_leave_in_any_order)
{
    for (int round = 0; round < 5; round++) CHECK(in_peers(leave) == WORLD);
}
TEST(a_rank_that_fails_stops_all) { CHECK(in_peers(one_fails) == 0); }
TEST(a_rank_that_left_is_not_waited_for)
{
    char text[512] = "";
    FILE *said = tmpfile();
    const int standard_error = dup(STDERR_FILENO);
    const double start = now_ms();
    fflush(stderr);
    if (!said || standard_error < 0 || dup2(fileno(said), STDERR_FILENO) < 0) abort();
    const int well = in_peers(one_leaves);
    dup2(standard_error, STDERR_FILENO);
    close(standard_error);
    rewind(said);
    const size_t n = fread(text, 1, sizeof text - 1, said);
    fclose(said);
    CHECK(well == 0 && now_ms() - start < 15000, "%d ended well, after %.0f ms", well,
          now_ms() - start);
    CHECK(n > 0 && !strcmp(text, "error: rank 2 is gone after step 0; all ranks are stopped\n"),
          "one message: %s", text);
}

int main(void)
{
    RUN(messages_reach_all);
    RUN(differences_are_refused);
    RUN(a_failure_is_everybodys);
    RUN(two_ranks_on_one_gpu_are_refused);
    RUN(ranks_leave_in_any_order);
    RUN(a_rank_that_fails_stops_all);
    RUN(a_rank_that_left_is_not_waited_for);
    return TEST_SUMMARY();
}
