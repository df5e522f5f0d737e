/* store/parcel.h: the recipients of an outbox item, split by the routers that own their slots and the shards
 * that store them: the router makes one append of a parcel. */
#ifndef STORE_PARCEL_H
#define STORE_PARCEL_H

#include <stddef.h>
#include <stdint.h>

#include "mesh/clock.h"
#include "mesh/ring.h"

typedef struct store_parcel { /* one block: free() */
    uint32_t number;          /* unique within the item: an answer to an older split fits none */
    mesh_peer peer;           /* MESH_NO_PEER: nobody owns these users now */
    uint32_t shard;           /* that stores them */
    size_t lane;              /* that is of both: store_splitter_lane */
    bool sent;
    bool gap;          /* the last answer was that its users lack something before it */
    size_t flight;     /* bytes sent and not answered */
    mesh_ms due;       /* MESH_NEVER while it cannot be sent */
    mesh_ms backoff;   /* time for an answer */
    mesh_ms retry;     /* the last wait after an answer that was not a yes; 0: none */
    uint64_t expected; /* the lowest such gap began behind this seq */
    size_t n;
    Mesh__Recipient *users; /* by id; their strings lie behind them */
    Mesh__Recipient **list; /* pointers to users, for a message */
} store_parcel;

typedef struct store_splitter store_splitter;

/* Both are borrowed. eras: of inboxes, by slot; 0: the shard's own; NULL: all are. */
store_splitter *store_splitter_new(const mesh_ring *ring, size_t n_peers, const uint64_t *eras);
void store_splitter_destroy(store_splitter **splitter_p);

/* The number of the lane that goes by this router, or nobody, to this shard. They are dense: 0 to lanes of one shard,
 * of the next one, and so on. */
size_t store_splitter_lane(const store_splitter *splitter, mesh_peer router, uint32_t shard);

#define STORE_PARCEL_ALL SIZE_MAX
/* only: users of other lanes are left out; a lane that goes by nobody stands for all of its shard, STORE_PARCEL_ALL for
 * every lane. */
void store_splitter_begin(store_splitter *splitter, size_t only);
/* user: borrowed until end. inbox_seq: where the entry is in this user's inbox already, 0 = not yet. */
void store_splitter_add(store_splitter *splitter, const char *user, uint64_t prev, uint64_t inbox_seq);
/* A parcel, due never, for each (router, shard) among the users, in the order they come up; numbered from *last + 1 on.
 * The array and its *n_p parcels are yours. */
store_parcel **store_splitter_end(store_splitter *splitter, mesh_ms backoff, uint32_t *last, size_t *n_p);

#endif
