#include "store/hold.h"

#include <stdlib.h>

#include "mesh/alloc.h"
#include "store/transfer.h"

typedef struct word {
    uint64_t index; /* 0: none */
    mesh_ms until;
} word;

struct store_hold {
    const mesh_conf *conf;
    mesh_peer self;
    size_t n;
    mesh_peer peers[MESH_REPLICAS_MAX]; /* of the shard, this one among them */
    word words[MESH_REPLICAS_MAX];
    /* what this one says itself */
    uint64_t said; /* 0: nothing, or that nothing is needed */
    bool said_copies;
    mesh_ms next;
};

store_hold *store_hold_new(const mesh_conf *conf, mesh_peer self)
{
    store_hold *hold = mesh_alloc(sizeof *hold);
    hold->conf = conf;
    hold->self = self;
    hold->n = mesh_conf_stores(conf, mesh_conf_node(conf, self)->shard, hold->peers);
    return hold;
}

void store_hold_destroy(store_hold **hold_p)
{
    free(*hold_p);
    *hold_p = NULL;
}

mesh_ms store_hold_say(store_hold *hold, uint64_t index, bool copies, const uint64_t *up, mesh_time now, mesh_out *out)
{
    bool another = (index == 0) != (hold->said == 0) || (index != 0 && copies != hold->said_copies);
    if (another || (index != 0 && now.mono >= hold->next)) {
        Mesh__StateHold body = MESH__STATE_HOLD__INIT;
        body.shard = mesh_conf_node(hold->conf, hold->self)->shard;
        body.index = index;
        MESH_MSG(msg, STATE_HOLD, state_hold, &body);
        for (size_t i = 0; i < hold->n; i++) {
            if (hold->peers[i] != hold->self && up[hold->peers[i]] != 0) {
                mesh_out_put(out, hold->peers[i], &msg);
            }
        }
        hold->said = index;
        hold->said_copies = copies;
        hold->next = now.mono + STORE_HOLD_SAY_MS;
    }
    return index != 0 && hold->n > 1 ? hold->next : MESH_NEVER;
}

mesh_err store_hold_heard(store_hold *hold, mesh_peer peer, const Mesh__StateHold *msg, uint64_t first, mesh_time now)
{
    if (!store_transfer_is_replica(hold->conf, hold->self, peer) || msg->index >= STORE_HOLD_NONE ||
        msg->shard != mesh_conf_node(hold->conf, hold->self)->shard) {
        return MESH_MALFORMED;
    }
    for (size_t i = 0; i < hold->n; i++) {
        if (hold->peers[i] == peer && (msg->index == 0 || msg->index >= first)) {
            hold->words[i] = (word){ msg->index, now.mono + STORE_TRANSFER_GRACE_MS };
        }
    }
    return MESH_OK;
}

bool store_hold_fits(uint64_t bytes, uint64_t entries, uint64_t limit)
{
    return bytes <= limit && entries <= STORE_HOLD_ENTRIES;
}

size_t store_hold_words(const store_hold *hold, uint64_t first, mesh_time now, uint64_t words[MESH_REPLICAS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < hold->n; i++) {
        const word *w = &hold->words[i];
        if (w->index != 0 && now.mono < w->until && w->index >= first) {
            words[n++] = w->index;
        }
    }
    return n;
}
