/* store/outbox_state.h: what the outbox keeps in memory, for store/outbox*.c only: outbox.c takes items in and out of
 * the window, outbox_send.c sends their parcels and takes the answers, outbox_lane.c puts aside what a lane cannot take
 * now and brings it back. */
#ifndef STORE_OUTBOX_STATE_H
#define STORE_OUTBOX_STATE_H

#include "mesh/table.h"
#include "store/outbox.h"
#include "store/parcel.h"

typedef struct store_outbox_row {
    struct store_outbox_row *before, *after; /* of those in memory, in no order */
    uint64_t index;
    uint64_t ts_ms; /* of its first item that was looked at */
    size_t next;    /* of its items, when the window had no room for more */
    size_t left;    /* items not looked at or in the window, and parcels put aside */
} store_outbox_row;

typedef struct store_outbox_item store_outbox_item;
struct store_outbox_item {
    uint64_t id;
    store_outbox_row *row;
    uint64_t seq, ts_ms;
    uint64_t trace;                    /* 0 when it was read from its row */
    bool again;                        /* it was put aside before */
    store_outbox_item *before, *after; /* in the window */
    store_outbox_item *older, *newer;  /* the neighbours of the same chat in the window */
    size_t n_parcels;
    store_parcel **parcels;
    char chat[];
};

typedef struct store_outbox_router {
    bool up;
    bool holds;    /* a parcel waits for room, so all later ones do: order is kept */
    size_t flight; /* bytes sent and not answered */
} store_outbox_router;

/* A parcel that was put aside. Its users are found anew: those of the item who are of the lane then. */
typedef struct store_outbox_debt {
    uint64_t id; /* the item's */
    store_outbox_row *row;
} store_outbox_debt;

/* A way: by one router to the inboxes of one shard. The one that goes by nobody is where a ring change puts what was
 * aside in lanes whose users have other routers now. */
typedef struct store_outbox_lane {
    size_t open;   /* parcels in the window */
    size_t most;   /* of them while something is aside */
    mesh_ms since; /* something is open, and no answer has got any further */
    bool sick;
    size_t n_aside, cap;
    store_outbox_debt *aside; /* a heap, the lowest id first */
} store_outbox_lane;

#define STORE_OUTBOX_STRAYS STORE_PARCEL_ALL /* number of the lane of what may be anybody's: users changed shard */

struct store_outbox {
    store_fsm *fsm;
    bool started;
    mesh_table *items;               /* the window by id */
    mesh_table *chats;               /* the newest item of each chat in the window */
    store_outbox_item *first, *last; /* the window by id */
    size_t n_window, n_again;
    store_outbox_row *rows;
    size_t n_routers;
    store_outbox_router *routers; /* by peer */
    size_t n_lanes;
    store_outbox_lane *lanes, strays;
    size_t n_aside;         /* in all lanes: what goes by several ways, several times */
    size_t most_aside;      /* in one, at the last turn */
    size_t next_lane;       /* where bringing back goes on */
    mesh_ms next_look;      /* at lanes that may be sick */
    mesh_peer *slot_router; /* by slot, as the lanes know them */
    uint32_t *slot_shard;
    uint32_t last_parcel;
    uint64_t backlog;       /* items owed, in memory or not, and parcels put aside */
    uint64_t waiting;       /* rows that are not in memory, or not wholly */
    store_outbox_row *part; /* the first of them, when it is begun */
    uint64_t next_load;
    mesh_ms next_due;
    uint64_t *done;
    size_t n_done, cap_done;
    store_splitter *splitter;
    mesh_buf value;
    mesh_arena *arena;     /* of entries read back */
    mesh_arena *row_arena; /* of a row read back */
};

/* ---- outbox.c ---- */

bool store_outbox_has_room(const store_outbox *ob);
bool store_outbox_is_ours(const store_outbox *ob, const char *chat);
/* Errors: MESH_CORRUPT. It borrows from the arena of rows. */
MESH_MUST mesh_err store_outbox_unpack(store_outbox *ob, mesh_slice value, const Store__OutboxRow **row_p);
/* A new item of the window, without parcels. */
store_outbox_item *store_outbox_enter(store_outbox *ob, store_outbox_row *row, uint64_t id, const Mesh__Entry *entry);
/* It gets parcels for its recipients of these lanes (store_splitter_begin). inbox_seqs: NULL, or by position in the
 * chat's members. fsm->error says if rows are broken. */
void store_outbox_split(store_outbox *ob, store_outbox_item *it, size_t only, const uint64_t *inbox_seqs,
                        mesh_time now);
/* One less is owed of the row. */
void store_outbox_settle(store_outbox *ob, store_outbox_row *row);
/* Nothing of it is on its way or to be sent: out of the window with it. */
void store_outbox_finish(store_outbox *ob, store_outbox_item *it);

/* ---- outbox_send.c ---- */

/* Send every parcel of the item that is due and has room. entry: NULL = read it when needed. */
void store_outbox_send(store_outbox *ob, store_outbox_item *it, Mesh__Entry *entry, mesh_time now, mesh_out *out);
/* The same for the whole window, oldest first, if something is due or room came. */
void store_outbox_send_due(store_outbox *ob, mesh_time now, mesh_out *out);
/* The item's entry, from its row, in the arena. NULL: rows are broken, and fsm->error says so; or it is not there. */
Mesh__Entry *store_outbox_entry(store_outbox *ob, const char *chat, uint64_t seq);
bool store_outbox_reachable(const store_outbox *ob, mesh_peer router);
/* It is on its way no more, whatever became of it. */
void store_outbox_land(store_outbox *ob, store_parcel *p);
/* It counts no more, and is freed; the item goes on without it. */
void store_outbox_remove(store_outbox *ob, store_outbox_item *it, size_t i);
void store_outbox_drop(store_outbox *ob, store_outbox_item *it);

/* ---- outbox_lane.c ---- */

/* The item gets these parcels as well, or they are put aside where their lane has no place for them now; from: a lane
 * that has. The array is taken. */
void store_outbox_attach(store_outbox *ob, store_outbox_item *it, store_parcel **parcels, size_t n, size_t from,
                         mesh_time now);
void store_outbox_detach(store_outbox *ob, const store_parcel *p); /* it leaves the window */
void store_outbox_progress(store_outbox *ob, const store_parcel *p, bool confirmed, mesh_time now);
/* Put aside what sick lanes have in the window, but for their probes. */
void store_outbox_look(store_outbox *ob, mesh_time now);
/* Bring back what lanes have a place for. True: there is more. */
bool store_outbox_bring_back(store_outbox *ob, mesh_time now, mesh_out *out);
void store_outbox_lanes_up(store_outbox *ob, mesh_peer router, mesh_time now);
void store_outbox_lanes_start(store_outbox *ob);            /* the ring is as it is */
void store_outbox_lanes_ring(store_outbox *ob);             /* it has changed */
uint64_t store_outbox_oldest_aside(const store_outbox *ob); /* ts_ms; 0: nothing is aside */
size_t store_outbox_most_aside(const store_outbox *ob);     /* in one lane */
void store_outbox_lanes_fini(store_outbox *ob);

#endif
