// The messages of ranks to one another: what one has for all, and what rank 0 judges of all.
#include <stdlib.h>
#include <string.h>

#include "peers_internal.h"

// The next message of a peer, to be freed. One that has ended sends none: then the run ends, since
// the watching thread looks no longer at a peer that said goodbye.
static Message *take(Peers *p, Peer *peer)
{
    pthread_mutex_lock(&p->lock);
    while (!peer->first && !atomic_load(&peer->gone)) pthread_cond_wait(&p->changed, &p->lock);
    Message *message = peer->first;
    if (message) peer->first = message->next;
    pthread_mutex_unlock(&p->lock);
    if (!message) peers_broken(p, peer);
    return message;
}

bool peers_broadcast(Peers *p, void *data, size_t bytes, Error *err)
{
    if (bytes > MAX_PAYLOAD) return fail(err, "a message of %zu bytes", bytes);
    if (p->env.rank == 0) {
        for (int i = 1; i < p->n; i++)
            if (!peers_send_frame(p, &p->peer[i], DATA, data, bytes)) peers_broken(p, &p->peer[i]);
        return true;
    }
    Message *message = take(p, &p->peer[0]);
    const bool ok = message->bytes == bytes;
    if (ok) memcpy(data, message->data, bytes);
    free(message);
    return ok || fail(err, "rank 0 runs another version of this program");
}

// The first line in which two texts differ, of each.
static void first_difference(const char *a, const char *b, char *line_a, char *line_b, size_t size)
{
    while (*a && *b) {
        const size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");
        if (na != nb || memcmp(a, b, na)) break;
        a += na + (a[na] == '\n');
        b += nb + (b[nb] == '\n');
    }
    snprintf(line_a, size, "%.*s", (int)strcspn(a, "\n"), a);
    snprintf(line_b, size, "%.*s", (int)strcspn(b, "\n"), b);
}

// Every rank's text comes to rank 0, which judges them in the order of ranks, its own first; its
// verdict, an empty text when it has nothing to say, is every rank's.
typedef void Judge(Error *verdict, void *context, int rank, const char *text);

static bool judge_texts(Peers *p, const char *text, Judge *judge, void *context, Error *err)
{
    Error verdict = {""};
    if (p->env.rank != 0 && !peers_send_frame(p, &p->peer[0], DATA, text, strlen(text)))
        peers_broken(p, &p->peer[0]);
    if (p->env.rank == 0) judge(&verdict, context, 0, text);
    for (int i = 1; p->env.rank == 0 && i < p->n; i++) {
        Message *other = take(p, &p->peer[i]);
        judge(&verdict, context, i, other->data);
        free(other);
    }
    if (!peers_broadcast(p, &verdict, sizeof verdict, err)) return false;
    *err = verdict;
    return !verdict.text[0];
}

static void judge_equal(Error *verdict, void *context, int rank, const char *text)
{
    const char *first = context;
    char here[160], there[160];
    if (verdict->text[0] || !strcmp(first, text)) return;
    first_difference(first, text, here, there, sizeof here);
    fail(verdict,
         "the ranks were started differently: rank 0 has \"%s\" and rank %d \"%s\"; give all of "
         "them the same options and data",
         here, rank, there);
}

bool peers_agree(Peers *p, const char *text, Error *err)
{
    return judge_texts(p, text, judge_equal, (void *)(uintptr_t)text, err);
}

typedef struct {
    const char *what;
    char (*seen)[PEERS_NAME_MAX]; // (world)
} Names;

static void judge_unique(Error *verdict, void *context, int rank, const char *text)
{
    const Names *names = context;
    snprintf(names->seen[rank], PEERS_NAME_MAX, "%s", text);
    for (int i = 0; i < rank && !verdict->text[0]; i++)
        if (!strcmp(names->seen[i], names->seen[rank]))
            fail(verdict, "rank %d and rank %d share %s %s: give each one of its own", i, rank,
                 names->what, text);
}

bool peers_unique(Peers *p, const char *what, const char *name, Error *err)
{
    Names names = {what, calloc((size_t)p->env.world, sizeof *names.seen)};
    if (!names.seen) return fail(err, "out of memory to compare the ranks");
    const bool ok = judge_texts(p, name, judge_unique, &names, err);
    free(names.seen);
    return ok;
}

static void judge_failure(Error *verdict, void *context, int rank, const char *text)
{
    (void)context, (void)rank;
    if (!verdict->text[0]) snprintf(verdict->text, sizeof verdict->text, "%.500s", text);
}

bool peers_share_failure(Peers *p, Error *err)
{
    const Error own = *err;
    return judge_texts(p, own.text, judge_failure, NULL, err);
}
