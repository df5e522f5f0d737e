/* tests/bench/driver.h: many clients in one thread, with as little work per message as possible, because they share the
 * cores with what is measured: plain sockets under epoll, WebSocket frames by hand, protobuf. They keep the client's
 * rules: every inbox entry is cursor + 1, acks are cumulative (one per 32 entries or 50 ms), a ping within every
 * heartbeat. */
#ifndef TESTS_BENCH_DRIVER_H
#define TESTS_BENCH_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "mesh/wire.h"

#define DRIVER_ACK_ENTRIES 32
#define DRIVER_ACK_US 50000
#define DRIVER_CONNECTING 512 /* handshakes under way at once */

typedef struct driver driver;

typedef enum driver_state {
    DRIVER_IDLE,
    DRIVER_CONNECTING_TCP,
    DRIVER_UPGRADING,
    DRIVER_HELLO,
    DRIVER_LIVE
} driver_state;

typedef struct driver_conn {
    int fd;
    driver_state state;
    unsigned index;
    char *token;
    char user[24];
    mesh_buf in, out;
    bool dirty; /* has something to be written */
    uint64_t cursor, acked, era, next_id;
    uint64_t waiting_us; /* since when an entry waits for its ack; 0: none */
} driver_conn;

typedef struct driver_handler { /* each may be NULL */
    void (*live)(void *arg, driver_conn *c);
    void (*sent)(void *arg, driver_conn *c, uint64_t id, const Client__Sent *sent);
    void (*message)(void *arg, driver_conn *c, const Client__Message *message, uint64_t now_us);
    /* a request was answered by an error; without this it is printed, and the 21st ends the run */
    void (*fault)(void *arg, driver_conn *c, uint64_t id, const Client__Error *error);
    bool (*turn)(void *arg, uint64_t now_us); /* after each round of events; false: stop running */
} driver_handler;

typedef struct driver_counts {
    uint64_t messages, sent, acks, errors, live;
} driver_counts;

/* n clients named <prefix>0.. of 127.0.0.1:port; none is connected. key signs their tokens. */
driver *driver_new(uint16_t port, mesh_slice key, const char *prefix, unsigned n);
void driver_destroy(driver **d_p);
driver_conn *driver_get(driver *d, unsigned i);
const driver_counts *driver_counted(const driver *d);

/* Connect clients from..to-1 and wait until all are live. Returns the seconds it took; exits when it takes a minute. */
double driver_connect(driver *d, unsigned from, unsigned to);
/* Serve until until_us (mesh_clock_us) or until handler->turn says no. tick_us: also wake this often; 0: no. */
void driver_run(driver *d, const driver_handler *handler, void *arg, uint64_t until_us, unsigned tick_us);
/* Keep up heartbeats only, without any other work. */
void driver_rest(driver *d, double seconds, unsigned heartbeat_ms);

/* Queue a request; it leaves at the end of the round. Returns its id. */
uint64_t driver_request(driver *d, driver_conn *c, Client__Request *request);
uint64_t driver_send(driver *d, driver_conn *c, const char *chat, const char *to, const char *body);
/* To one user, by a client_msg_id of the caller's. */
uint64_t driver_send_as(driver *d, driver_conn *c, const char *client_msg_id, const char *to, const char *body);

#endif
