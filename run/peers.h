// The ranks' control connections: every rank is connected to rank 0, over TCP, for the whole run.
// Over them ranks exchange small messages before the first step, tell that they are alive, and stop
// together: when a rank ends, hangs or is unreachable, each of the others prints nothing or the one
// message, naming that rank and the last step, and ends with status 1 within 15 s.
#ifndef RUN_PEERS_H
#define RUN_PEERS_H

#include <stddef.h>

#include "launch.h"

typedef struct Peers Peers;

// Connects all ranks, waiting up to a minute for the last, and starts the thread that watches them.
bool peers_open(Peers **peers, const RankEnv *env, Error *err);
// Orderly end: others may go on, and this one's silence is no failure. Rank 0 waits for the others.
// NULL is allowed.
void peers_close(Peers *peers);

// Rank 0's `data` (bytes) reach every rank.
bool peers_broadcast(Peers *peers, void *data, size_t bytes, Error *err);
// Refuses, on every rank and with the first line that differs, unless all ranks give the same text
// of "name value" lines.
bool peers_agree(Peers *peers, const char *text, Error *err);

// Refuses, on every rank and naming two, unless all ranks give different names; `what` says what
// they name. Names may have PEERS_NAME_MAX - 1 characters.
enum { PEERS_NAME_MAX = 64 };
bool peers_unique(Peers *peers, const char *what, const char *name, Error *err);

// Each rank gives its failure, or an empty text. True when none has one; else false on every rank,
// and err is the failure of the first rank that has one. It takes a message to rank 0 and back.
bool peers_share_failure(Peers *peers, Error *err);

// This rank has done so many steps.
void peers_step(Peers *peers, int step);
// Whether it is for this rank to print why the run ends: then nobody else does. Print before
// peers_fail, which makes the others stop, and them this one. NULL is a run alone.
bool peers_claim(Peers *peers);
// This rank fails: the others will stop.
void peers_fail(Peers *peers, const char *text);

#endif
