/* client/cluster_slots.c: one slot after the other, and none before the map says that the last one is there. Whoever
 * stops it in between stops nothing: a slot that was begun arrives, and the same command goes on with the rest. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "client/cluster.h"
#include "mesh/fault.h"
#include "mesh/loop.h"

#define AGAIN_MS 50
#define SHOW_MS 1000

/* The last slot of the shard that has most, of two the lower one. */
static unsigned of_the_fullest(const client_view *view, uint32_t shard)
{
    unsigned slots[MESH_NODES_MAX] = { 0 };
    unsigned last[MESH_NODES_MAX];
    unsigned best = MESH_SLOTS, most = 0;
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        uint32_t at = client_view_shard_of(view, (mesh_slot)slot);
        if (at < MESH_NODES_MAX && at != shard) {
            slots[at]++;
            last[at] = slot;
        }
    }
    for (unsigned i = 0; i < MESH_NODES_MAX; i++) {
        if (slots[i] > most) {
            most = slots[i];
            best = last[i];
        }
    }
    return best;
}

unsigned client_cluster_next_slot(const client_view *view, uint32_t shard, client_slots slots)
{
    if (slots.count > 0) {
        return of_the_fullest(view, shard);
    }
    for (unsigned slot = slots.first; slot <= slots.last; slot++) {
        if (client_view_shard_of(view, (mesh_slot)slot) != shard) {
            return slot;
        }
    }
    return MESH_SLOTS;
}

static bool is_final(const client_answer *answer)
{
    return answer->answered && !answer->done &&
           (answer->code == FAULT_INVALID || answer->code == FAULT_DENIED || answer->code == FAULT_MALFORMED ||
            answer->code == FAULT_UNKNOWN_TYPE);
}

/* Until the map says so. */
static bool move_one(client_cluster *c, mesh_slot slot, uint32_t shard, client_answer *answer)
{
    mesh_ms end = mesh_clock_now().mono + CLIENT_CLUSTER_SLOT_MS;
    for (bool told = false; mesh_clock_now().mono < end && !mesh_loop_stopping();) {
        client_cluster_look(c);
        uint32_t at = client_view_shard_of(c->view, slot);
        if (at == shard) {
            return true;
        }
        mesh_peer leader = at != CLIENT_VIEW_NO_SHARD ? client_view_shard(c->view, at)->leader : MESH_NO_PEER;
        if (!told && leader != MESH_NO_PEER) {
            *answer = client_operator_move(c->op, leader, slot, shard);
            told = answer->done;
        }
        if (is_final(answer)) {
            return false;
        }
        client_operator_sleep(c->op, AGAIN_MS);
    }
    return false;
}

int client_cluster_move(client_cluster *c, uint32_t shard, client_slots slots)
{
    unsigned moved = 0, slot = MESH_SLOTS;
    mesh_ms shown = mesh_clock_now().mono;
    client_answer answer = { 0 };
    client_cluster_look(c);
    if (client_view_shard_of(c->view, 0) == CLIENT_VIEW_NO_SHARD) {
        client_args_fail("move-slots: shard 0 has no leader, and it keeps the map");
        return 1;
    }
    while ((slots.count == 0 || moved < slots.count) &&
           (slot = client_cluster_next_slot(c->view, shard, slots)) < MESH_SLOTS) {
        if (!move_one(c, (mesh_slot)slot, shard, &answer)) {
            const char *why = answer.done ? "it is on its way, and the map does not say so in time"
                                          : mesh_fault_get(answer.code)->message;
            client_args_fail("move-slots: slot %u: %s; %u moved", slot, answer.answered ? why : answer.detail, moved);
            return 1;
        }
        moved++;
        if (mesh_clock_now().mono - shown >= SHOW_MS) {
            shown = mesh_clock_now().mono;
            printf("%u slots moved, the last was %u\n", moved, slot);
            (void)fflush(stdout);
        }
    }
    printf("%u slots moved; shard %" PRIu32 " has %" PRIu64 "\n", moved, shard,
           client_view_shard(c->view, shard)->slots);
    return 0;
}
