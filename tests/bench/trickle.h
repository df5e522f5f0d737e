/* tests/bench/trickle.h: clients that keep the rules while nodes die: client 2i writes to client 2i + 1, one message at
 * a time; it waits for the ack, and sends the same client_msg_id again after an error that allows it, or when no answer
 * came for TRICKLE_ANSWER_MS. Every message must be acked and arrive once, in order; the run ends when one is lost or
 * doubled. */
#ifndef TESTS_BENCH_TRICKLE_H
#define TESTS_BENCH_TRICKLE_H

#include "tests/bench/bench.h"

#define TRICKLE_ANSWER_MS 6000

typedef struct trickle trickle;

/* Each sender waits pause_ms between an ack and its next message. The driver is borrowed, its clients are live. */
trickle *trickle_new(driver *d, unsigned pairs, unsigned pause_ms);
void trickle_destroy(trickle **t_p);
void trickle_run(trickle *t, double seconds);

/* From now on count what is sent. */
void trickle_mark(trickle *t);
/* Run until a message that was first sent after the mark is acked, or until one of every sender is acked and has
 * arrived. Returns when that was (mesh_clock_us); exits when it takes 30 s. */
uint64_t trickle_until_acked(trickle *t);
uint64_t trickle_until_all(trickle *t);
/* From now on, of every message, from when it was first sent until it arrived. */
void trickle_take_latency(trickle *t);
double trickle_latency(trickle *t, unsigned percent); /* ms; exits when nothing has arrived */
/* Send nothing new until everything sent is acked and has arrived. Exits when it does not. Returns how many there were;
 * *retries_p: tries beyond the first. */
uint64_t trickle_settle(trickle *t, uint64_t *retries_p);

#endif
