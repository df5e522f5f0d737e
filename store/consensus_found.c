/* store/consensus_found.c: a group that begins with rows instead of an empty log, and what is left of another one. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/consensus_priv.h"

void store_consensus_found_put(const store_consensus_conf *conf, uint64_t index, uint64_t term, store_kv_batch *batch)
{
    assert(index > 0 && term > 0);
    store_replica self = { conf->raft_id, conf->address };
    store_consensus_conf alone = *conf;
    alone.group = &self;
    alone.n_group = 1;
    struct raft_buffer buf = consensus_conf_first(&alone);
    consensus_hard hard = { .term = term, .raft_id = conf->raft_id };
    consensus_snapshot snapshot = { .index = index, .term = term, .conf_index = index };
    mesh_buf_put(&snapshot.conf, buf.base, buf.len);
    raft_free(buf.base);
    consensus_hard_put(batch, &hard, conf->cluster);
    consensus_snapshot_put(batch, &snapshot);
    mesh_buf_fini(&snapshot.conf);
}

/* ---- what another group has left ---- */

static void read_members(const consensus_log *log, const consensus_snapshot *snapshot, store_left *left)
{
    const consensus_notes *changes = &log->changes;
    struct raft_configuration c;
    mesh_slice bytes = mesh_buf_slice(changes->n > 0 ? &changes->items[changes->n - 1].bytes : &snapshot->conf);
    if (!consensus_conf_check(bytes) || !consensus_conf_decode(bytes, &c)) {
        return;
    }
    bool votes = false;
    for (unsigned i = 0; i < c.n; i++) {
        bool self = c.servers[i].id == left->raft_id;
        left->voters += c.servers[i].role == RAFT_VOTER;
        votes = votes || (self && c.servers[i].role == RAFT_VOTER);
        if (self) {
            snprintf(left->address, sizeof left->address, "%s", c.servers[i].address);
        }
    }
    left->alone = votes && left->voters == 1;
    raft_configuration_close(&c);
}

/* A leader appends a configuration only once the one before is committed; the first entry is committed by its nature.
 */
static uint64_t proven_by_log(const consensus_log *log)
{
    const consensus_notes *changes = &log->changes;
    return changes->n > 1 ? changes->items[changes->n - 2].index : log->first == 1 && log->last > 0 ? 1 : 0;
}

static mesh_err read_log(store_kv *kv, uint64_t applied, store_left *left, char *why, size_t why_size)
{
    consensus_log log;
    consensus_snapshot snapshot = { 0 };
    bool ahead = false;
    consensus_log_init(&log, STORE_LOG_TRAIL);
    mesh_err err = consensus_log_load(kv, &log, &snapshot, why, why_size);
    if (err == MESH_OK) {
        snprintf(why, why_size, "the rows of consensus cannot be read");
        err = consensus_ahead_get(kv, &ahead);
    }
    if (err == MESH_OK && (applied < snapshot.index || (applied > log.last && !ahead))) {
        snprintf(why, why_size, "rows of entry %llu do not fit the log %llu..%llu with snapshot %llu",
                 (unsigned long long)applied, (unsigned long long)log.first, (unsigned long long)log.last,
                 (unsigned long long)snapshot.index);
        err = MESH_CORRUPT;
    }
    if (err == MESH_OK) {
        uint64_t proven = proven_by_log(&log);
        read_members(&log, &snapshot, left);
        left->last = applied > log.last ? applied : log.last;
        left->proven = left->alone ? left->last : applied > proven ? applied : proven;
    }
    consensus_log_fini(&log);
    mesh_buf_fini(&snapshot.conf);
    return err;
}

mesh_err store_consensus_left(store_kv *kv, uint64_t applied, store_left *left, char *why, size_t why_size)
{
    consensus_hard hard = { 0 };
    char *cluster = NULL;
    *left = (store_left){ 0 };
    mesh_err err = consensus_hard_get(kv, &hard, &cluster, why, why_size);
    free(cluster);
    if (err == MESH_NOT_FOUND) {
        snprintf(why, why_size, "no hard state: this is no store, or nothing of it is left");
        return MESH_CORRUPT;
    }
    left->raft_id = hard.raft_id;
    left->term = hard.term;
    return err == MESH_OK ? read_log(kv, applied, left, why, why_size) : err;
}
