/* tests/bench/load.h: pairs of clients: 2i writes to 2i + 1, as fast as a window of messages on their way allows, or at
 * a rate. The body holds the message's number and when it was sent; each must arrive once, in order. The driver ends
 * the run when that is not so. */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "mesh/rand.h"
#include "tests/bench/bench.h"

#define LOAD_BODY 64        /* bytes of a text, if nothing else is said */
#define LOAD_BODY_MAX 15000 /* a request of the driver's must be below 16 KiB */

typedef struct pair {
    uint64_t sent, arrived, answered;
    bool marked;
} pair;

typedef struct load {
    driver *d;
    unsigned n, window; /* window 0: paced */
    unsigned body;      /* bytes of a text */
    pair *pairs;
    unsigned *marked, n_marked;
    bool by_answer; /* the next message waits for the answer only, not for the arrival */
    uint64_t arrived, last_us, longest_us;
    mesh_rand rand;
    /* paced */
    uint64_t begin_us, paced;
    double per_s;
    uint32_t *latency_us;
    size_t n_latency, max_latency;
    /* ends the run when it says so; may be NULL */
    bool (*done)(void *arg);
    void *done_arg;
} load;

void load_init(load *l, driver *d, unsigned pairs, unsigned window); /* the driver is borrowed */
void load_fini(load *l);
driver *load_driver(const cluster *c, const char *prefix, unsigned pairs); /* all connected */
void load_run(load *l, double seconds);
double load_rate(load *l, double seconds); /* run, and return the messages that arrived per second */
void load_settle(load *l);                 /* wait until all has arrived and was answered; exits when it does not */
/* Direct chats are made by their first message: one each, then all is as it will be. */
void load_warm_up(load *l, double seconds);

void load_take_latency(load *l, size_t most);   /* from now on, of the next so many messages */
double load_latency(load *l, unsigned percent); /* ms */

#endif
