/* store/gather.h: writes on their way into the log: entries that gather, entries submitted and not yet committed, and
 * who waits for which answer, known by position in the entry. */
#ifndef STORE_GATHER_H
#define STORE_GATHER_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/wire.h"

typedef struct store_gather store_gather;

typedef struct store_waiter {
    mesh_peer from; /* MESH_NO_PEER: nobody, or gone */
    uint64_t corr;
} store_waiter;

typedef struct store_gathered {
    mesh_buf payload; /* stamp, then a frame */
    size_t n, cap;
    store_waiter *waiters; /* by position in the frame */
} store_gathered;

store_gather *store_gather_new(void);
void store_gather_destroy(store_gather **gather_p);

/* Add a packed message to the entry that gathers; a full one is closed and the next begun. */
void store_gather_put(store_gather *gather, mesh_peer from, uint64_t corr, mesh_slice packed);
size_t store_gather_bytes(const store_gather *gather); /* of messages not yet submitted */
bool store_gather_waits(const store_gather *gather);   /* something is not yet submitted */
bool store_gather_empty(const store_gather *gather);   /* nothing is, and nothing is on its way */

/* The oldest entry that gathers is submitted now: its payload with the stamp, borrowed until it is committed. */
mesh_slice store_gather_submit(store_gather *gather, mesh_ms wall);
/* It was not taken after all: the first to gather again. */
void store_gather_recall(store_gather *gather);
/* The oldest entry that gathers, out of it, never to be submitted. Yours until store_gather_done; NULL: none. */
store_gathered *store_gather_drop(store_gather *gather);
/* The oldest submitted entry is committed. Yours until store_gather_done; NULL when there is none. */
store_gathered *store_gather_committed(store_gather *gather);
void store_gather_done(store_gather *gather, store_gathered *entry);
void store_gather_forget(store_gather *gather, mesh_peer peer); /* it waits for nothing any more */

#endif
