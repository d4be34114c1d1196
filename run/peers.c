#include "peers_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum {
    CONNECT_MS = 60000,
    BEAT_MS = 500,
    SILENCE_MS = 8000, // of a rank that is alive: a few beats, and a busy machine
};

typedef struct {
    uint32_t magic, kind;
    int32_t rank, step;
    uint32_t bytes; // that follow
} Frame;
static const uint32_t magic = 0x74756d75;

// ---- frames ------------------------------------------------------------------------------------

static bool send_all(int fd, const void *data, size_t bytes)
{
    const char *next = data;
    while (bytes > 0) {
        const ssize_t sent = send(fd, next, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        next += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t bytes)
{
    char *next = data;
    while (bytes > 0) {
        const ssize_t got = recv(fd, next, bytes, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        next += got;
        bytes -= (size_t)got;
    }
    return true;
}

bool peers_send_frame(Peers *p, const Peer *peer, Kind kind, const void *data, size_t bytes)
{
    const Frame frame = {magic, kind, p->env.rank, atomic_load(&p->step), (uint32_t)bytes};
    pthread_mutex_lock(&p->lock);
    const bool ok = send_all(peer->fd, &frame, sizeof frame) && send_all(peer->fd, data, bytes);
    pthread_mutex_unlock(&p->lock);
    return ok;
}

// ---- stopping ----------------------------------------------------------------------------------

// Whether nobody has told yet why the run ends, and this process is to.
static bool claim(Peers *p)
{
    if (p->env.board) return !atomic_exchange(&p->env.board->said, 1);
    return p->env.rank <= 1 && !atomic_exchange(&p->said, 1);
}

// Ends this rank, and on rank 0 all the others.
__attribute__((noreturn)) static void stop(Peers *p, const char *text)
{
    if (text && claim(p)) fprintf(stderr, "error: %s\n", text);
    for (int i = 0; p->env.rank == 0 && i < p->n; i++)
        if (p->peer[i].fd >= 0) peers_send_frame(p, &p->peer[i], STOP, NULL, 0);
    _exit(1);
}

__attribute__((noreturn)) static void lost(Peers *p, const Peer *peer, const char *how)
{
    char text[256];
    const int rank = p->env.rank ? 0 : (int)(peer - p->peer);
    snprintf(text, sizeof text, "rank %d %s after step %d; all ranks are stopped", rank, how,
             atomic_load(&peer->step));
    stop(p, text);
}

_Noreturn void peers_broken(Peers *p, const Peer *peer)
{
    usleep(100000);
    lost(p, peer, "is gone");
}

// ---- the watching thread -----------------------------------------------------------------------

static void leave(Peers *p, Peer *peer)
{
    pthread_mutex_lock(&p->lock);
    atomic_store(&peer->gone, true);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void receive(Peers *p, Peer *peer)
{
    Frame frame;
    char text[640];
    if (!receive_all(peer->fd, &frame, sizeof frame) || frame.magic != magic ||
        frame.bytes > MAX_PAYLOAD) {
        if (!atomic_load(&p->closing)) peers_broken(p, peer);
        leave(p, peer);
        return;
    }
    Message *message = calloc(1, sizeof *message + frame.bytes + 1);
    if (!message) stop(p, "out of memory for the ranks' messages");
    if (!receive_all(peer->fd, message->data, frame.bytes)) peers_broken(p, peer);
    message->bytes = frame.bytes;
    peer->heard = now_ms();
    atomic_store(&peer->step, frame.step);
    switch (frame.kind) {
    case DATA:
        pthread_mutex_lock(&p->lock);
        Message **last = &peer->first;
        while (*last) last = &(*last)->next;
        *last = message;
        pthread_cond_broadcast(&p->changed);
        pthread_mutex_unlock(&p->lock);
        return;
    case FAIL:
        snprintf(text, sizeof text, "rank %d: %.500s", frame.rank, message->data);
        stop(p, text);
        break;
    case STOP:
        stop(p, NULL);
        break;
    case BYE:
        leave(p, peer);
        break;
    default:
        break;
    }
    free(message);
}

static bool is_there(const Peer *peer) { return peer->fd >= 0 && !atomic_load(&peer->gone); }

static void *watch(void *argument)
{
    Peers *p = argument;
    struct pollfd *polled = calloc((size_t)p->n, sizeof *polled);
    double beaten = 0;
    if (!polled) stop(p, "out of memory to watch the ranks");
    for (;;) {
        bool any = false;
        for (int i = 0; i < p->n; i++) {
            const bool there = is_there(&p->peer[i]);
            polled[i] = (struct pollfd){.fd = there ? p->peer[i].fd : -1, .events = POLLIN};
            any = any || there;
        }
        if (!any && atomic_load(&p->closing)) break;
        const double before = now_ms();
        poll(polled, (nfds_t)p->n, BEAT_MS / 2);
        const double now = now_ms();
        // A machine, or this process, that stood still is no reason to blame others.
        if (now - before > 2 * BEAT_MS)
            for (int i = 0; i < p->n; i++) p->peer[i].heard = now;
        for (int i = 0; i < p->n; i++) {
            Peer *peer = &p->peer[i];
            if (polled[i].revents) receive(p, peer);
            if (!is_there(peer)) continue;
            if (now - peer->heard > SILENCE_MS) lost(p, peer, "does not answer");
            if (now - beaten >= BEAT_MS) peers_send_frame(p, peer, BEAT, NULL, 0);
        }
        if (now - beaten >= BEAT_MS) beaten = now;
    }
    free(polled);
    return NULL;
}

// ---- connecting --------------------------------------------------------------------------------

static void tune(int fd)
{
    const int on = 1;
    const struct timeval limit = {.tv_sec = SILENCE_MS / 1000}; // within a frame
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static bool listen_at(Peers *p, Error *err)
{
    const struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                         .sin6_port = htons((uint16_t)p->env.port),
                                         .sin6_addr = in6addr_any};
    const struct sockaddr_in address4 = {.sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)p->env.port)};
    const int on = 1, off = 0;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool six = fd >= 0;
    if (!six) fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (six) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (fd < 0 ||
        (six ? bind(fd, (const struct sockaddr *)&address, sizeof address)
             : bind(fd, (const struct sockaddr *)&address4, sizeof address4)) ||
        listen(fd, LAUNCH_MAX_RANKS))
        return fail(err, "rank 0 cannot listen at port %d: %s; choose another MASTER_PORT",
                    p->env.port, strerror(errno));
    p->env.listener = fd;
    return true;
}

// Rank 0: a connection from every other rank.
static bool accept_all(Peers *p, Error *err)
{
    const double deadline = now_ms() + CONNECT_MS;
    if (p->env.listener < 0 && !listen_at(p, err)) return false;
    for (int missing = p->env.world - 1; missing > 0;) {
        struct pollfd polled = {.fd = p->env.listener, .events = POLLIN};
        Frame hello;
        const double left = deadline - now_ms();
        if (left <= 0)
            return fail(err, "%d of %d ranks did not come to port %d within %d s: start them all",
                        missing, p->env.world, p->env.port, CONNECT_MS / 1000);
        if (poll(&polled, 1, left < 1000 ? (int)left : 1000) <= 0) continue;
        const int fd = accept(p->env.listener, NULL, NULL);
        const struct timeval limit = {.tv_sec = 2};
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        if (!receive_all(fd, &hello, sizeof hello) || hello.magic != magic || hello.kind != HELLO) {
            close(fd); // a stranger
            continue;
        }
        if (hello.rank < 1 || hello.rank >= p->env.world || hello.step != p->env.world)
            return fail(err, "a process that is rank %d of %d came to rank 0 of %d", hello.rank,
                        hello.step, p->env.world);
        if (p->peer[hello.rank].fd >= 0)
            return fail(err, "two processes say that they are rank %d", hello.rank);
        tune(fd);
        p->peer[hello.rank].fd = fd;
        missing--;
    }
    close(p->env.listener);
    return true;
}

// Another rank: a connection to rank 0, which may not listen yet.
static bool connect_first(Peers *p, Error *err)
{
    const double deadline = now_ms() + CONNECT_MS;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    const Frame hello = {magic, HELLO, p->env.rank, p->env.world, 0};
    char port[16];
    snprintf(port, sizeof port, "%d", p->env.port);
    for (;;) {
        struct addrinfo *found = NULL;
        const int status = getaddrinfo(p->env.master, port, &hints, &found);
        for (struct addrinfo *a = found; !status && a; a = a->ai_next) {
            const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen) &&
                send_all(fd, &hello, sizeof hello)) {
                freeaddrinfo(found);
                tune(fd);
                p->peer[0].fd = fd;
                return true;
            }
            if (fd >= 0) close(fd);
        }
        if (found) freeaddrinfo(found);
        if (now_ms() > deadline)
            return fail(err, "rank %d cannot reach rank 0 at %.200s port %d: %s", p->env.rank,
                        p->env.master, p->env.port,
                        status ? gai_strerror(status) : strerror(errno));
        usleep(50000);
    }
}

bool peers_open(Peers **peers, const RankEnv *env, Error *err)
{
    Peers *p = calloc(1, sizeof *p);
    *peers = p;
    if (!p || !(p->peer = calloc((size_t)env->world, sizeof *p->peer)))
        return fail(err, "out of memory for the ranks' connections");
    p->env = *env;
    p->n = env->rank == 0 ? env->world : 1;
    for (int i = 0; i < env->world; i++) p->peer[i].fd = -1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    if (!(env->rank == 0 ? accept_all(p, err) : connect_first(p, err))) return false;
    for (int i = 0; i < p->n; i++) p->peer[i].heard = now_ms();
    if (pthread_create(&p->thread, NULL, watch, p))
        return fail(err, "cannot start the thread that watches the ranks");
    return true;
}

void peers_close(Peers *p)
{
    if (!p) return;
    if (p->thread) {
        // Rank 0 leaves last, so that the others find it until they do.
        pthread_mutex_lock(&p->lock);
        for (int i = 0; p->env.rank == 0 && i < p->n; i++)
            while (is_there(&p->peer[i])) pthread_cond_wait(&p->changed, &p->lock);
        pthread_mutex_unlock(&p->lock);
        atomic_store(&p->closing, true);
        for (int i = 0; i < p->n; i++)
            if (p->peer[i].fd >= 0) peers_send_frame(p, &p->peer[i], BYE, NULL, 0);
        pthread_join(p->thread, NULL);
    }
    for (int i = 0; p->peer && i < p->n; i++) {
        if (p->peer[i].fd >= 0) close(p->peer[i].fd);
        for (Message *next, *m = p->peer[i].first; m; m = next) next = m->next, free(m);
    }
    free(p->peer);
    free(p);
}

// ---- the run ------------------------------------------------------------------------------------

void peers_step(Peers *p, int step)
{
    atomic_store(&p->step, step);
    if (p->env.board) atomic_store(&p->env.board->step[p->env.local_rank], step);
}

bool peers_claim(Peers *p)
{
    if (!p) return true;
    if (!p->thread && !p->env.board) return true; // alone, as long as it is not connected
    return (!p->thread || p->env.rank == 0 || p->env.board) && claim(p);
}

void peers_fail(Peers *p, const char *text)
{
    const bool first = p && p->env.rank == 0;
    for (int i = 0; p && p->thread && i < p->n; i++)
        if (p->peer[i].fd >= 0)
            peers_send_frame(p, &p->peer[i], first ? STOP : FAIL, text, first ? 0 : strlen(text));
}
