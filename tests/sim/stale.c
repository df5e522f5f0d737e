/* tests/sim/stale.c: a disk that somebody puts back. What store/group.h promises: the store is found out as soon as it
 * hears one that knows that it had more. */
#include "store/core_state.h"
#include "tests/sim/impl.h"

#define FOUND_MS 10000

void sim_disk_keep_at(sim *s, const char *store)
{
    sim_node *n = sim_node_find(s, store);
    bool runs = n->store && n->store->cons;
    sim_disk_keep(n->disk);
    n->kept_id = runs ? store_consensus_id(n->store->cons) : 0;
    n->kept_last = runs ? store_consensus_last_index(n->store->cons) : 0; /* and some of it may not be on disk */
}

/* Everybody else of the shard runs and knows that it has had more than what was kept. */
static bool all_know(const sim *s, const sim_node *old)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        const sim_node *n = &s->nodes[i];
        if (n == old || n->role != MESH_STORE || n->shard != old->shard) {
            continue;
        }
        if (!n->store || !n->store->cons || n->paused_until > s->now ||
            store_consensus_confirmed(n->store->cons, old->kept_id) <= old->kept_last) {
            return false;
        }
    }
    return old->kept_id != 0;
}

bool sim_disk_old_at(sim *s, const char *store)
{
    sim_node *n = sim_node_find(s, store);
    bool known = all_know(s, n);
    if (!known && !sim_replicas_even(s, store)) {
        return false;
    }
    sim_kill(s, store);
    sim_disk_free_at(s, store);
    bool done = sim_disk_stale_at(s, store);
    unsigned before = sim_disk_quarantines_at(s, store);
    if (known) {
        sim_heal_all(s);
    }
    sim_start(s, store);
    if (known && done && !SIM_WAIT(s, FOUND_MS, sim_disk_quarantines_at(s, store) > before)) {
        sim_complain(s, "%s runs on an old disk, and nobody has found it", store);
    }
    return done;
}
