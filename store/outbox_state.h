/* store/outbox_state.h: the outbox's window, for store/outbox*.c only: outbox.c takes items in and out of it,
 * outbox_send.c sends their parcels and takes the answers. */
#ifndef STORE_OUTBOX_STATE_H
#define STORE_OUTBOX_STATE_H

#include <czmq.h>

#include "mesh/table.h"
#include "store/outbox.h"
#include "store/parcel.h"

typedef struct store_outbox_row {
    uint64_t index;
    size_t left; /* items not finished */
} store_outbox_row;

typedef struct store_outbox_item store_outbox_item;
struct store_outbox_item {
    uint64_t id;
    store_outbox_row *row;
    uint64_t seq, ts_ms;
    uint64_t trace;                   /* 0 when it was read from its row */
    void *handle;                     /* in order */
    store_outbox_item *older, *newer; /* the neighbours of the same chat in the window */
    uint32_t last_parcel;
    size_t n_parcels;
    store_parcel **parcels;
    char chat[];
};

typedef struct store_outbox_router {
    bool up;
    bool holds;    /* a parcel waits for room, so all later ones do: order is kept */
    size_t flight; /* bytes sent and not answered */
} store_outbox_router;

struct store_outbox {
    store_fsm *fsm;
    bool started;
    mesh_table *items; /* by id */
    mesh_table *chats; /* the newest item of each chat in the window */
    zlistx_t *order;   /* the window, oldest first */
    size_t n_routers;
    store_outbox_router *routers; /* by peer */
    uint64_t backlog;             /* items owed, in memory or not */
    uint64_t waiting;             /* rows that are not in memory */
    uint64_t next_load;
    mesh_ms next_due;
    uint64_t *done;
    size_t n_done, cap_done;
    store_splitter *splitter;
    mesh_arena *arena; /* of entries read back */
};

/* Send every parcel of the item that is due and has room. entry: NULL = read it when needed. */
void store_outbox_send(store_outbox *ob, store_outbox_item *it, Mesh__Entry *entry, mesh_time now, mesh_out *out);
/* The same for the whole window, oldest first, if something is due or room came. */
void store_outbox_send_due(store_outbox *ob, mesh_time now, mesh_out *out);
/* The item's entry, from its row, in the arena. NULL: rows are broken, and fsm->error says so; or it is not there. */
Mesh__Entry *store_outbox_entry(store_outbox *ob, const char *chat, uint64_t seq);
/* It is on its way no more, whatever became of it. */
void store_outbox_drop(store_outbox *ob, store_outbox_item *it);
/* Nothing is owed of it any more: out of the window with it. */
void store_outbox_finish(store_outbox *ob, store_outbox_item *it);

#endif
