#include "launch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "options.h"

enum { DEFAULT_PORT = 29500, GRACE_MS = 2000 };

// ---- the environment ---------------------------------------------------------------------------

static const char *first_set(const char *const *names)
{
    for (; *names; names++)
        if (getenv(*names) && *getenv(*names)) return *names;
    return NULL;
}

// The first of some variables that is set, as a number in [low, high]; `otherwise` when none is.
static bool number(const char *const *names, int low, int high, int otherwise, int *value,
                   Error *err)
{
    const char *name = first_set(names), *text = name ? getenv(name) : NULL;
    char *end;
    *value = otherwise;
    if (!name) return true;
    errno = 0;
    const long n = strtol(text, &end, 10);
    *value = (int)n;
    return (!errno && *text && !*end && n >= low && n <= high) ||
           fail(err, "the environment's %s is \"%.64s\": a number from %d to %d is needed", name,
                text, low, high);
}

// The first of Slurm's hosts: "rack[2-3]n[01-04,07]-ib,other" begins with rack2n01-ib.
static void first_host(const char *list, char *host, size_t size)
{
    size_t n = 0;
    for (const char *at = list; *at && *at != ','; at++) {
        const bool range = *at == '[';
        const size_t some = range ? strcspn(at + 1, "-,]") : 1;
        for (size_t i = 0; i < some && n + 1 < size; i++) host[n++] = at[(range ? 1 : 0) + i];
        if (range) at += strcspn(at, "]");
        if (!*at) break; // no bracket ends the range
    }
    host[n] = '\0';
}

// The tasks of a node in Slurm's list of them: "4(x2),3" is 4, 4, 3. 0 when it does not tell.
static int tasks_of_node(const char *list, int node)
{
    while (list && *list) {
        char *end;
        const long tasks = strtol(list, &end, 10);
        const long times = strncmp(end, "(x", 2) ? 1 : strtol(end + 2, &end, 10);
        if (end == list || tasks < 1 || tasks > LAUNCH_MAX_RANKS || times < 1) return 0;
        if (node < times) return (int)tasks;
        node -= (int)times;
        list = end + strspn(end, "),");
    }
    return 0;
}

// Where ranks of several nodes, or those that others started, meet.
static bool meeting_place(RankEnv *env, Error *err)
{
    static const char *const ports[] = {"MASTER_PORT", NULL}, *const jobs[] = {"SLURM_JOB_ID",
                                                                               NULL};
    const char *hosts = getenv("SLURM_STEP_NODELIST"), *master = getenv("MASTER_ADDR");
    int job;
    snprintf(env->master, sizeof env->master, "127.0.0.1");
    if (hosts && *hosts) first_host(hosts, env->master, sizeof env->master);
    if (master && *master) snprintf(env->master, sizeof env->master, "%s", master);
    return number(jobs, 0, 2147483647, 0, &job, err) &&
           number(ports, 1, 65535, job ? 20000 + job % 20000 : DEFAULT_PORT, &env->port, err);
}

bool launch_environment(RankEnv *env, Error *err)
{
    static const char *const ranks[] = {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID",
                                        NULL};
    static const char *const worlds[] = {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                         "SLURM_STEP_NUM_TASKS", NULL};
    static const char *const locals[] = {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
                                         "MPI_LOCALRANKID", "SLURM_LOCALID", NULL};
    static const char *const on_node[] = {"LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE",
                                          "MPI_LOCALNRANKS", NULL};
    static const char *const nodes[] = {"SLURM_NODEID", NULL};
    int node;
    *env = (RankEnv){.world = 1, .listener = -1};
    if (!number(worlds, 1, LAUNCH_MAX_RANKS, 1, &env->world, err)) return false;
    if (env->world == 1) return true; // of whatever else is set nothing is used
    if (!first_set(ranks))
        return fail(err, "the environment's %s is %d, and RANK is not set", first_set(worlds),
                    env->world);
    if (!number(ranks, 0, env->world - 1, 0, &env->rank, err) ||
        !number(locals, 0, LAUNCH_MAX_RANKS - 1, env->rank, &env->local_rank, err) ||
        !number(nodes, 0, LAUNCH_MAX_RANKS - 1, 0, &node, err))
        return false;
    return number(on_node, 1, LAUNCH_MAX_RANKS,
                  tasks_of_node(getenv("SLURM_STEP_TASKS_PER_NODE"), node), &env->local_world,
                  err) &&
           meeting_place(env, err);
}

int launch_gpu(const RankEnv *env, int visible, Error *err)
{
    if (env->local_rank < visible) return env->local_rank;
    if (visible == 1 && !env->board) return 0;
    fail(err,
         "GPU %d is wanted for rank %d, and CUDA shows %d: start at most %d ranks on this node "
         "(--gpus, --nproc-per-node), or let LOCAL_RANK count from 0 on each",
         env->local_rank, env->rank, visible, visible);
    return -1;
}

// ---- the parent --------------------------------------------------------------------------------

static pid_t children[LAUNCH_MAX_RANKS];
static int n_children;

// A terminal's Ctrl-C reaches the parent alone: each rank is a process group. As in a run of one
// rank, SIGINT counts although a script that started the program by `&` had it ignored.
static void forward(int signal)
{
    for (int i = 0; i < n_children; i++)
        if (children[i] > 0) kill(children[i], signal);
}

static void forward_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction now;
        const struct sigaction action = {.sa_handler = forward};
        if (signals[i] == SIGHUP && !sigaction(SIGHUP, NULL, &now) && now.sa_handler == SIG_IGN)
            continue; // nohup's
        sigaction(signals[i], &action, NULL);
    }
}

// Tells how a rank ended badly, unless it or another has said why.
static void tell(Board *board, int rank, int local, int status)
{
    const int step = atomic_load(&board->step[local]);
    if (atomic_exchange(&board->said, 1)) return;
    if (WIFSIGNALED(status))
        fprintf(
            stderr,
            "error: rank %d was killed by signal %d (%s) after step %d; all ranks are stopped\n",
            rank, WTERMSIG(status), strsignal(WTERMSIG(status)), step);
    else
        fprintf(stderr,
                "error: rank %d ended with status %d after step %d; all ranks are stopped\n", rank,
                WEXITSTATUS(status), step);
}

// Waits for all ranks; once one has ended badly, for a moment, and then kills the rest. Returns the
// status of the run: of the first bad end, which may be that of a rank whose peer refused the
// command line and is gone, so a refusal comes before it; else of this node's first rank.
static int watch(Board *board, int first_rank)
{
    int left = n_children, bad = 0, good = 0;
    double deadline = 0;
    while (left > 0) {
        int status;
        const pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) {
            int i = 0;
            while (i < n_children && children[i] != pid) i++;
            if (i == n_children) continue;
            children[i] = 0;
            left--;
            // A run stopped by a signal ends well, with 128 and more.
            const bool well =
                WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) > 128);
            if (i == 0 && well) good = WEXITSTATUS(status);
            if (well) continue;
            if (!bad) {
                tell(board, first_rank + i, i, status);
                bad = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
                deadline = now_ms() + GRACE_MS;
            }
            if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USAGE) bad = EXIT_USAGE;
            continue;
        }
        if (bad && now_ms() > deadline) forward(SIGKILL);
        usleep(5000);
    }
    return bad ? bad : good;
}

static bool listen_anywhere(RankEnv *env, Error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    env->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (env->listener < 0 || bind(env->listener, (struct sockaddr *)&address, size) ||
        listen(env->listener, LAUNCH_MAX_RANKS) ||
        getsockname(env->listener, (struct sockaddr *)&address, &size))
        return fail(err, "cannot open a socket for the ranks to meet at: %s", strerror(errno));
    snprintf(env->master, sizeof env->master, "127.0.0.1");
    env->port = ntohs(address.sin_port);
    return true;
}

static bool start(RankEnv *env, int count, int first_rank, Error *err)
{
    const pid_t parent = getpid();
    for (int i = 0; i < count; i++) {
        const pid_t pid = fork();
        if (pid < 0) {
            forward(SIGKILL);
            return fail(err, "cannot start rank %d: %s", first_rank + i, strerror(errno));
        }
        if (pid > 0) {
            children[n_children++] = pid;
            continue;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1); // it died before the call
        setpgid(0, 0);
        n_children = 0;
        env->local_rank = i;
        env->rank = first_rank + i;
        if (env->rank != 0 && env->listener >= 0) {
            close(env->listener);
            env->listener = -1;
        }
        return true;
    }
    return true;
}

bool launch_ranks(RankEnv *env, int count, int nodes, int node, Error *err)
{
    const bool own_port = nodes == 1;
    if (count > LAUNCH_MAX_RANKS / nodes)
        return fail(err, "%d ranks on %d nodes: %d in all are the most", count, nodes,
                    LAUNCH_MAX_RANKS);
    RankEnv child = *env;
    child.world = count * nodes;
    child.local_world = count;
    child.rank = -1;
    child.board =
        mmap(NULL, sizeof *child.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (child.board == MAP_FAILED) return fail(err, "no memory to share with the ranks");
    if (!(own_port ? listen_anywhere(&child, err) : meeting_place(&child, err))) return false;
    if (!start(&child, count, node * count, err)) return false;
    if (child.rank >= 0) {
        *env = child;
        return true;
    }
    if (own_port) close(child.listener);
    forward_signals();
    exit(watch(child.board, node * count));
}
