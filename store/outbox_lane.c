/* A lane is the way by one router to one shard. One that gets no further for STORE_OUTBOX_SICK_MS is sick: the oldest
 * STORE_OUTBOX_PROBES of its parcels stay in the window and are sent again as ever, all others are put aside, and so is
 * what comes later. Of a parcel put aside only the item's id is kept. The first answer that gets any further ends that:
 * the oldest come back, read from their rows, one more at a time for each that is confirmed, and what is new stays
 * behind them until none is left.
 *
 * What goes wrong: the lane falls sick again -> all but the probes is aside again; the router's link comes up -> it has
 * the benefit of the doubt; users get another router -> what was aside in their lane goes to that of nobody, from where
 * it comes back for all users of the shard, while some lane to that shard is well; users get another shard -> it is a
 * stray and comes back for all of its recipients. Who has it already answers DUP. A newer entry that came first is
 * answered by a gap, which the outbox fills. This store dies -> the row is not done before what was aside is. */
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "store/core.h"
#include "store/outbox_state.h"

#define BACK_ITEMS 256 /* brought back in one turn */

typedef store_outbox_item item;
typedef store_outbox_lane lane;
typedef store_outbox_debt debt;

static size_t width(const store_outbox *ob)
{
    return ob->n_routers + 1;
}

static bool goes_by_nobody(const store_outbox *ob, size_t which)
{
    return which == STORE_OUTBOX_STRAYS || which % width(ob) == 0;
}

static mesh_peer router_of(const store_outbox *ob, size_t which)
{
    return (mesh_peer)(goes_by_nobody(ob, which) ? MESH_NO_PEER : which % width(ob) - 1);
}

/* Borrowed until another lane is asked for. */
static lane *lane_at(store_outbox *ob, size_t which)
{
    if (which == STORE_OUTBOX_STRAYS) {
        return &ob->strays;
    }
    if (which >= ob->n_lanes) {
        size_t n = (which / width(ob) + 1) * width(ob);
        ob->lanes = mesh_realloc(ob->lanes, n * sizeof *ob->lanes);
        memset(ob->lanes + ob->n_lanes, 0, (n - ob->n_lanes) * sizeof *ob->lanes);
        ob->n_lanes = n;
    }
    return &ob->lanes[which];
}

static void look_at(store_outbox *ob, mesh_ms when)
{
    ob->next_look = when < ob->next_look ? when : ob->next_look;
}

/* ---- what is aside ---- */

static void push(lane *l, debt d)
{
    if (l->n_aside == l->cap) {
        l->cap = l->cap == 0 ? 64 : 2 * l->cap;
        l->aside = mesh_realloc(l->aside, l->cap * sizeof *l->aside);
    }
    size_t i = l->n_aside++;
    while (i > 0 && l->aside[(i - 1) / 2].id > d.id) {
        l->aside[i] = l->aside[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    l->aside[i] = d;
}

static debt pop(lane *l)
{
    debt oldest = l->aside[0];
    debt d = l->aside[--l->n_aside];
    size_t i = 0;
    for (size_t child = 1; child < l->n_aside; child = 2 * i + 1) {
        child += child + 1 < l->n_aside && l->aside[child + 1].id < l->aside[child].id ? 1 : 0;
        if (l->aside[child].id >= d.id) {
            break;
        }
        l->aside[i] = l->aside[child];
        i = child;
    }
    l->aside[i] = d;
    if (l->n_aside == 0) {
        free(l->aside);
        l->aside = NULL;
        l->cap = 0;
    }
    return oldest;
}

static void put_aside(store_outbox *ob, const item *it, size_t which)
{
    push(lane_at(ob, which), (debt){ it->id, it->row });
    it->row->left++;
    ob->backlog++;
    ob->n_aside++;
}

static void forget(store_outbox *ob, debt d)
{
    ob->backlog--;
    store_outbox_settle(ob, d.row);
}

uint64_t store_outbox_oldest_aside(const store_outbox *ob)
{
    uint64_t oldest = ob->strays.n_aside > 0 ? ob->strays.aside[0].row->ts_ms : 0;
    for (size_t i = 0; i < ob->n_lanes; i++) {
        const lane *l = &ob->lanes[i];
        if (l->n_aside > 0 && (oldest == 0 || l->aside[0].row->ts_ms < oldest)) {
            oldest = l->aside[0].row->ts_ms;
        }
    }
    return oldest;
}

size_t store_outbox_most_aside(const store_outbox *ob)
{
    size_t most = ob->strays.n_aside;
    for (size_t i = 0; i < ob->n_lanes; i++) {
        most = ob->lanes[i].n_aside > most ? ob->lanes[i].n_aside : most;
    }
    return most;
}

/* ---- parcels in the window ---- */

/* What is aside goes first, and a sick lane has no more than its probes. */
static bool has_place(const lane *l)
{
    return l->n_aside == 0 && (!l->sick || l->open < STORE_OUTBOX_PROBES);
}

static void open_one(store_outbox *ob, lane *l, mesh_time now)
{
    if (l->open++ == 0) {
        l->since = now.mono;
        look_at(ob, now.mono + STORE_OUTBOX_SICK_MS);
    }
}

void store_outbox_attach(store_outbox *ob, item *it, store_parcel **parcels, size_t n, size_t from, mesh_time now)
{
    store_parcel **old = it->parcels;
    if (it->n_parcels > 0) {
        it->parcels = mesh_realloc(old, (it->n_parcels + n) * sizeof *old);
        old = parcels;
    } else {
        it->parcels = parcels;
    }
    for (size_t i = 0; i < n; i++) {
        store_parcel *p = parcels[i];
        lane *l = lane_at(ob, p->lane);
        if (p->lane == from || has_place(l)) {
            it->parcels[it->n_parcels++] = p;
            open_one(ob, l, now);
        } else {
            put_aside(ob, it, p->lane);
            free(p);
        }
    }
    free(old);
}

static void rest(lane *l)
{
    l->sick = l->sick && (l->open > 0 || l->n_aside > 0);
}

void store_outbox_detach(store_outbox *ob, const store_parcel *p)
{
    lane *l = lane_at(ob, p->lane);
    l->open--;
    rest(l);
}

/* ---- health ---- */

void store_outbox_progress(store_outbox *ob, const store_parcel *p, bool confirmed, mesh_time now)
{
    lane *l = lane_at(ob, p->lane);
    l->since = now.mono;
    if (l->sick) {
        l->sick = false;
        look_at(ob, now.mono + STORE_OUTBOX_SICK_MS);
    }
    l->most += confirmed ? 1 : 0; /* STORE_OUTBOX_LANE_BACK bounds what comes of it */
}

static void fall_sick(store_outbox *ob, size_t which)
{
    size_t kept = 0;
    size_t before = ob->n_aside;
    lane_at(ob, which)->sick = true;
    lane_at(ob, which)->most = STORE_OUTBOX_PROBES;
    for (item *it = ob->first; it != NULL;) {
        item *next = it->after;
        for (size_t i = it->n_parcels; i-- > 0;) {
            if (it->parcels[i]->lane == which && kept++ >= STORE_OUTBOX_PROBES) {
                put_aside(ob, it, which);
                store_outbox_remove(ob, it, i);
            }
        }
        if (it->n_parcels == 0) {
            store_outbox_finish(ob, it);
        }
        it = next;
    }
    if (ob->n_aside > before) {
        mesh_peer router = router_of(ob, which);
        mesh_log(MESH_WARN, "deliveries_aside", "router=%s shard=%zu deliveries=%zu",
                 router != MESH_NO_PEER ? mesh_conf_node(ob->fsm->conf, router)->name : "none", which / width(ob),
                 ob->n_aside - before);
    }
}

void store_outbox_look(store_outbox *ob, mesh_time now)
{
    bool full = !store_outbox_has_room(ob);
    if (now.mono < ob->next_look && !full) {
        return;
    }
    ob->next_look = MESH_NEVER;
    for (size_t i = 0; i < ob->n_lanes; i++) {
        const lane *l = &ob->lanes[i];
        if (l->open == 0 || l->sick) {
            continue;
        }
        mesh_ms end = l->since + (full ? STORE_OUTBOX_SICK_FULL_MS : STORE_OUTBOX_SICK_MS);
        if (now.mono >= end) {
            fall_sick(ob, i);
        } else {
            look_at(ob, end);
        }
    }
}

void store_outbox_lanes_up(store_outbox *ob, mesh_peer router, mesh_time now)
{
    for (size_t i = store_splitter_lane(ob->splitter, router, 0); i < ob->n_lanes; i += width(ob)) {
        lane *l = &ob->lanes[i];
        l->sick = false;
        l->since = now.mono;
        l->most = STORE_OUTBOX_BACK_MAX;
        look_at(ob, now.mono + STORE_OUTBOX_SICK_MS);
    }
}

/* ---- back again ---- */

static bool some_lane_is_well(const store_outbox *ob, size_t nobody)
{
    for (size_t r = 0; r < ob->n_routers; r++) {
        if (store_outbox_reachable(ob, (mesh_peer)r) && !ob->lanes[nobody + 1 + r].sick) {
            return true;
        }
    }
    return false;
}

static bool may_come_back(store_outbox *ob, size_t which)
{
    const lane *l = lane_at(ob, which);
    if (l->n_aside == 0 || !store_outbox_has_room(ob) || ob->fsm->error != MESH_OK) {
        return false;
    }
    bool room = ob->n_again < STORE_OUTBOX_BACK_MAX;
    if (which == STORE_OUTBOX_STRAYS) {
        return room;
    }
    if (goes_by_nobody(ob, which)) {
        return room && some_lane_is_well(ob, which);
    }
    mesh_peer router = router_of(ob, which);
    if (!store_outbox_reachable(ob, router) || ob->routers[router].holds) {
        return false;
    }
    return l->sick ? l->open < STORE_OUTBOX_PROBES : room && l->open < l->most && l->open < STORE_OUTBOX_LANE_BACK;
}

/* What is owed by it, from its row. The row last read is still at hand: what is aside mostly follows one another. */
static const Store__OutboxItem *read_owed(store_outbox *ob, debt d, uint64_t *index_p, const Store__OutboxRow **row_p)
{
    if (*row_p == NULL || *index_p != d.row->index) {
        store_key key;
        store_key_outbox(&key, d.row->index);
        *index_p = d.row->index;
        if (store_kv_get(ob->fsm->kv, store_key_slice(&key), &ob->value) != MESH_OK ||
            store_outbox_unpack(ob, mesh_buf_slice(&ob->value), row_p) != MESH_OK) {
            return NULL;
        }
    }
    size_t position = d.id & ((1u << STORE_OUTBOX_ROW_SHIFT) - 1);
    return position < (*row_p)->n_items ? (*row_p)->items[position] : NULL;
}

static void come_back(store_outbox *ob, size_t which, debt d, const Store__OutboxItem *owed, mesh_time now,
                      mesh_out *out)
{
    Mesh__Entry *entry = NULL;
    item *it = mesh_table_get(ob->items, mesh_table_u64(&d.id));
    if (it == NULL) {
        mesh_arena_reset(ob->arena);
        entry = store_outbox_entry(ob, owed->chat, owed->seq);
        if (entry == NULL) {
            forget(ob, d); /* it is not there, or rows are broken */
            return;
        }
        it = store_outbox_enter(ob, d.row, d.id, entry);
        it->again = true;
        ob->n_again++;
    } else {
        forget(ob, d);
    }
    store_outbox_split(ob, it, which, NULL, now);
    if (it->n_parcels > 0) {
        store_outbox_send(ob, it, entry, now, out);
    } else {
        store_outbox_finish(ob, it);
    }
}

/* The oldest of the lane; where ring changes brought it there more than once, all of it at once. */
static debt take_oldest(store_outbox *ob, lane *l)
{
    debt d = pop(l);
    ob->n_aside--;
    while (l->n_aside > 0 && l->aside[0].id == d.id) {
        forget(ob, pop(l));
        ob->n_aside--;
    }
    return d;
}

bool store_outbox_bring_back(store_outbox *ob, mesh_time now, mesh_out *out)
{
    size_t left = BACK_ITEMS;
    uint64_t index = 0;
    const Store__OutboxRow *row = NULL;
    size_t n = ob->n_lanes + 1;
    for (size_t k = 0; k < n && left > 0; k++) {
        ob->next_lane = (ob->next_lane + 1) % n;
        size_t which = ob->next_lane == ob->n_lanes ? STORE_OUTBOX_STRAYS : ob->next_lane;
        for (; left > 0 && may_come_back(ob, which); left--) {
            debt d = take_oldest(ob, lane_at(ob, which));
            const Store__OutboxItem *owed = read_owed(ob, d, &index, &row);
            if (owed == NULL) {
                ob->fsm->error = MESH_CORRUPT;
            } else if (store_outbox_is_ours(ob, owed->chat)) {
                come_back(ob, which, d, owed, now, out);
            } else {
                forget(ob, d); /* its slot left: another shard delivers it */
            }
            rest(lane_at(ob, which));
        }
    }
    store_chats_evict(ob->fsm->chats);
    return left == 0;
}

/* ---- the ring ---- */

void store_outbox_lanes_start(store_outbox *ob)
{
    ob->slot_router = mesh_realloc(ob->slot_router, MESH_SLOTS * sizeof *ob->slot_router);
    ob->slot_shard = mesh_realloc(ob->slot_shard, MESH_SLOTS * sizeof *ob->slot_shard);
    for (size_t slot = 0; slot < MESH_SLOTS; slot++) {
        ob->slot_router[slot] = mesh_ring_router(ob->fsm->ring, (mesh_slot)slot);
        ob->slot_shard[slot] = mesh_ring_shard(ob->fsm->ring, (mesh_slot)slot);
    }
}

static void move_aside(store_outbox *ob, size_t from, size_t to)
{
    if (from == to) {
        return;
    }
    lane *l = lane_at(ob, from);
    debt *moved = l->aside;
    size_t n = l->n_aside;
    l->aside = NULL;
    l->n_aside = l->cap = 0;
    rest(l);
    lane *target = lane_at(ob, to);
    for (size_t i = 0; i < n; i++) {
        push(target, moved[i]);
    }
    free(moved);
}

void store_outbox_lanes_ring(store_outbox *ob)
{
    if (!ob->started) {
        return;
    }
    size_t *targets = mesh_alloc((ob->n_lanes + 1) * sizeof *targets);
    for (size_t i = 0; i < ob->n_lanes; i++) {
        targets[i] = i;
    }
    for (size_t slot = 0; ob->n_aside > 0 && slot < MESH_SLOTS; slot++) {
        size_t was = store_splitter_lane(ob->splitter, ob->slot_router[slot], ob->slot_shard[slot]);
        if (was >= ob->n_lanes) {
            continue;
        }
        if (mesh_ring_shard(ob->fsm->ring, (mesh_slot)slot) != ob->slot_shard[slot]) {
            targets[was] = STORE_OUTBOX_STRAYS;
            targets[was - was % width(ob)] = STORE_OUTBOX_STRAYS;
        } else if (mesh_ring_router(ob->fsm->ring, (mesh_slot)slot) != ob->slot_router[slot] && targets[was] == was) {
            targets[was] = was - was % width(ob);
        }
    }
    size_t n = ob->n_lanes;
    for (size_t i = 0; i < n; i++) { /* nobody's own first, so that nothing is moved twice */
        move_aside(ob, i, targets[i]);
    }
    free(targets);
    store_outbox_lanes_start(ob);
}

void store_outbox_lanes_fini(store_outbox *ob)
{
    for (size_t i = 0; i < ob->n_lanes; i++) {
        free(ob->lanes[i].aside);
    }
    free(ob->lanes);
    free(ob->strays.aside);
    free(ob->slot_router);
    free(ob->slot_shard);
}
