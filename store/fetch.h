/* store/fetch.h: a shard's rows, got from another replica into <path>.incoming (store/kv.h) while the live database is
 * served on or left alone: the receiving side of store/transfer.h.
 *
 * One chunk is in flight: it is checked, put on disk together with a note of how far the copying is, and the next one
 * is asked for. So a receiver that is started again goes on where it was, if the session it had is still alive.
 *
 * What goes wrong: no answer -> the same ask again after STORE_FETCH_ASK_MS, and after STORE_FETCH_TRIES another peer;
 * the peer refuses, or its rows stand for less than what is wanted -> another peer; it does not know the session (it
 * was restarted) -> from the beginning, with the same peer; a chunk's checksum, the digest or the rows are wrong ->
 * counted, from the beginning, with another peer. When all peers have had their turn it rests for STORE_FETCH_REST_MS.
 * It never gives up by itself, but for its own disk: store_fetch_state then says which error. */
#ifndef STORE_FETCH_H
#define STORE_FETCH_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "store/kv.h"

#define STORE_FETCH_ASK_MS 2000
#define STORE_FETCH_TRIES 5
#define STORE_FETCH_REST_MS 1000
#define STORE_FETCH_PEERS 16

typedef struct store_fetch store_fetch;

typedef struct store_fetch_conf {
    const mesh_conf *conf;    /* borrowed for the object's life */
    mesh_peer self;           /* a store of the shard, or an operator */
    const char *path;         /* of the live database; copied */
    store_kv_options options; /* of the incoming one */
    uint64_t seed;            /* of correlation ids: another one in each process */
} store_fetch_conf;

typedef struct store_fetch_counts {
    uint64_t chunks, bytes, rows_bad; /* put on disk; of rows; chunks that were wrong */
    uint64_t asks, begun, resumed;    /* sent; times from the beginning; gone on after a start: 0 or 1 */
} store_fetch_counts;

/* Begin, or go on, with rows that stand for index `wanted` at least (> 0), from one of peers[0..n), other stores of the
 * shard, best first (1 to STORE_FETCH_PEERS; copied). What an earlier process left behind is deleted when it cannot be
 * gone on with. Never fails: see store_fetch_state. */
store_fetch *store_fetch_new(const store_fetch_conf *conf, const mesh_peer *peers, size_t n, uint64_t wanted,
                             mesh_time now);
/* This one came up, and may be asked too. One that is known changes nothing. */
void store_fetch_offer(store_fetch *fetch, mesh_peer peer);
/* What has come so far stays for another store_fetch_new: if there will be none, store_kv_incoming_discard it. */
void store_fetch_destroy(store_fetch **fetch_p);

/* Is it for store_fetch_message? StateChunk, and a Fault that answers what this one asked. */
bool store_fetch_takes(const store_fetch *fetch, const Mesh__Msg *msg);
/* One such message from peer; late and doubled ones are ignored. Puts to disk with a sync: takes as long as that. */
void store_fetch_message(store_fetch *fetch, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
/* What is due by time. Returns the next deadline, MESH_NEVER once it has ended. */
mesh_ms store_fetch_turn(store_fetch *fetch, mesh_time now, mesh_out *out);

/* MESH_AGAIN: under way. MESH_OK: everything is there and checked, call store_fetch_finish. Otherwise it has failed:
 * MESH_NO_SPACE, MESH_IO, MESH_CORRUPT: destroy it, discard what came, and begin again when the disk is well. */
mesh_err store_fetch_state(const store_fetch *fetch);
uint64_t store_fetch_index(const store_fetch *fetch); /* what the rows stand for; 0 until a chunk has come */
/* After MESH_OK: add extra (consensus's own rows; cleared for reuse) and mark all as finished. Once, and nothing but
 * destroy after it. Then: close the live database, store_kv_switch, open. What is written to the live one from here on
 * is not in the new one. Errors: as store_kv_incoming_finish. */
MESH_MUST mesh_err store_fetch_finish(store_fetch *fetch, store_kv_batch *extra);
store_fetch_counts store_fetch_counted(const store_fetch *fetch);

#endif
