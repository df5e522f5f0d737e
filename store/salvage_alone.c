/* store/salvage_alone.c: entries are applied as a replica applies them when it hears that they are committed; nobody is
 * there to say so any more. The rows then stand for themselves: the log goes, and hard state and snapshot of a new
 * group come in the same batch, so that a copy is either the old replica's or the new group's. */
#include "store/salvage_alone.h"

#include <inttypes.h>

#include "mesh/rand.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/consensus_log.h"
#include "store/fsm.h"
#include "store/group.h"
#include "store/key.h"
#include "store/metrics.h"

#define ENTRY_COMMAND 1 /* as store/consensus_log.c: the only type with something to apply */

mesh_err store_salvage_left(store_kv *kv, store_left *left, char *why, size_t why_size)
{
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *row;
    store_key key;
    uint64_t applied = 0;
    store_key_applied(&key);
    mesh_err err = store_kv_get(kv, store_key_slice(&key), &value);
    if (err == MESH_OK) {
        bool reads = mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), arena, &row) == MESH_OK;
        applied = reads ? ((const Store__AppliedRow *)row)->index : 0;
        err = reads ? MESH_OK : MESH_CORRUPT;
    } else if (err == MESH_NOT_FOUND) {
        err = MESH_OK;
    }
    if (err != MESH_OK) {
        snprintf(why, why_size, "the applied index cannot be read");
    } else {
        err = store_consensus_left(kv, applied, left, why, why_size);
    }
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
    return err;
}

typedef struct replayed {
    uint64_t proven, unproven; /* entries with something to apply */
} replayed;

static void no_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)arg;
    (void)at;
    (void)msg;
    (void)answer;
}

/* Entry by entry, each waited for: what is queued stays small. */
static mesh_err apply(store_fsm *fsm, const store_left *left, bool cut, replayed *n, char *why, size_t why_size)
{
    mesh_buf row = { 0 };
    mesh_err err = MESH_OK;
    for (uint64_t index = fsm->applied + 1; index <= left->last && err == MESH_OK; index++) {
        consensus_entry entry;
        err = consensus_log_read(fsm->kv, index, &row, &entry);
        if (err == MESH_OK && entry.type == ENTRY_COMMAND) {
            bool proven = index <= left->proven;
            n->proven += proven;
            n->unproven += !proven;
            if (proven || !cut) {
                err = store_fsm_apply(fsm, index, entry.term, entry.payload, no_answer, NULL);
                err = err == MESH_OK ? store_kv_wait(fsm->kv, fsm->ticket) : err;
            }
        }
        if (err != MESH_OK) {
            snprintf(why, why_size, "entry %" PRIu64 " of the log, up to %" PRIu64 ", cannot be applied: %s", index,
                     left->last, mesh_err_name(err));
            err = err == MESH_NOT_FOUND ? MESH_CORRUPT : err;
        }
    }
    mesh_buf_fini(&row);
    return err;
}

/* The highest term it has heard of: an old replica that comes back is told by a leader of the new group that it is out
 * only if its own term is not higher. */
static mesh_err put_group(const mesh_conf *conf, const char *node, const store_left *left, store_fsm *fsm)
{
    char address[STORE_GROUP_ADDRESS];
    uint64_t index = fsm->applied > 0 ? fsm->applied : 1; /* nothing applied: the configuration was entry 1 */
    store_consensus_conf founder = { .raft_id = mesh_rand_seed() | 1, .cluster = mesh_conf_str(conf, "cluster.name") };
    founder.address = store_group_address(node, founder.raft_id, address);
    store_kv_batch *batch = store_kv_batch_new();
    Store__AppliedRow applied = STORE__APPLIED_ROW__INIT;
    mesh_buf value = { 0 };
    store_key key;
    applied.index = index;
    applied.term = left->term;
    applied.last_id = fsm->last_id;
    applied.level = fsm->level;
    store_key_applied(&key);
    mesh_wire_pack(&applied, &value);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    consensus_log_clear(fsm->kv, batch);
    consensus_ahead_put(batch, false);
    store_consensus_found_put(&founder, index, left->term, batch);
    mesh_err err = store_kv_wait(fsm->kv, store_kv_write(fsm->kv, batch, true));
    mesh_buf_fini(&value);
    store_kv_batch_destroy(&batch);
    return err;
}

static void report_all(const store_salvage_replica *r, const char *node, uint32_t shard, const store_left *left,
                       const replayed *n, uint64_t index)
{
    FILE *out = r->report;
    if (out == NULL) {
        return;
    }
    fprintf(out, "replica: %s, one of %u voters of shard %u; its log goes up to %" PRIu64 "\n", node, left->voters,
            shard, left->last);
    if (n->proven > 0) {
        fprintf(out, "applied: %" PRIu64 " committed entries of the log had no rows yet\n", n->proven);
    }
    fprintf(out, "unproven: %" PRIu64 " entries of the log that may or may not have been committed%s\n", n->unproven,
            n->unproven == 0 ? ""
            : r->cut         ? ": cut"
                             : ": applied");
    fprintf(out,
            "founded: the copy is a group of one voter, %s, at entry %" PRIu64
            ". Put it in the place of the data of %s; the other stores of shard %u must begin with empty directories\n",
            node, index, node, shard);
}

mesh_err store_salvage_alone(const store_salvage_replica *r, mesh_peer self, const store_left *left, store_kv *kv,
                             char *why, size_t why_size)
{
    const mesh_node_conf *node = mesh_conf_node(r->conf, self);
    mesh_stats *stats = store_metrics_new();
    store_fsm *fsm = NULL;
    replayed n = { 0 };
    if (left->last == 0) {
        snprintf(why, why_size, "this replica had just joined its group: it had got nothing yet");
        mesh_stats_destroy(&stats);
        return MESH_CORRUPT;
    }
    mesh_err err = store_fsm_new(r->conf, node->shard, kv, stats, &fsm, why, why_size);
    err = err == MESH_OK ? apply(fsm, left, r->cut, &n, why, why_size) : err;
    if (err == MESH_OK) {
        err = put_group(r->conf, node->name, left, fsm);
        if (err != MESH_OK) {
            snprintf(why, why_size, "the new group cannot be written: %s", mesh_err_name(err));
        } else if (!left->alone) {
            report_all(r, node->name, node->shard, left, &n, fsm->applied);
        }
    }
    if (fsm != NULL) {
        store_fsm_destroy(&fsm);
    }
    mesh_stats_destroy(&stats);
    return err;
}
