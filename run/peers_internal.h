// What the connections (peers.c) and the messages over them (peers_messages.c) share.
#ifndef RUN_PEERS_INTERNAL_H
#define RUN_PEERS_INTERNAL_H

#include <pthread.h>

#include "peers.h"

enum { MAX_PAYLOAD = 1 << 16 };
typedef enum { HELLO, DATA, BEAT, FAIL, STOP, BYE } Kind;

typedef struct Message {
    struct Message *next;
    size_t bytes;
    char data[]; // (bytes), and a '\0'
} Message;

typedef struct {
    int fd;           // from the connection to peers_close
    double heard;     // ms of now_ms, of the watching thread alone
    atomic_int step;  // steps done, by its last frame
    atomic_bool gone; // after its BYE; set with the lock held, so that `changed` can be waited for
    Message *first;   // under the lock: received and not yet taken, in order
} Peer;

struct Peers {
    RankEnv env;
    Peer *peer; // (world) of rank 0; of the others only [0]
    int n;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; // a message has come, or a peer is gone
    atomic_int step, said;
    atomic_bool closing;
};

// Sends a frame to a peer; false when the connection is broken. Frames are sent by the main thread
// and by the watching one.
bool peers_send_frame(Peers *peers, const Peer *peer, Kind kind, const void *data, size_t bytes);
// The connection is broken: whoever knows better, the peer's own message or the launcher, speaks
// first; then this rank ends.
_Noreturn void peers_broken(Peers *peers, const Peer *peer);

#endif
