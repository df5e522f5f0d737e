/* tests/sim/judge.c: what may never be, watched from outside while it happens.
 *
 * Leaders: whoever sends what only a leader sends names his term; for a shard and a term there is one.
 *
 * What is applied: every batch that moves a replica's applied index is looked at. The log entries it has moved over are
 * committed, so their rows must be what whichever replica came there first had: on every replica, after every restart,
 * copy and change of members. And as applying is deterministic, the sum of all rows that are not Raft's own must be
 * what it was for the first replica at this index. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store.pb-c.h"
#include "store/key.h"

typedef struct reign {
    uint64_t term, raft_id; /* raft_id 0: not known yet */
    const sim_node *leader;
} reign;

typedef struct seen { /* of an index; 0: nothing yet */
    uint64_t entry, digest;
    const sim_node *entry_by, *digest_by;
} seen;

typedef struct shard_judge {
    reign *reigns;
    size_t n_reigns, reigns_cap;
    seen *seen; /* by index */
    size_t n_seen;
} shard_judge;

struct sim_judge {
    shard_judge *shards;
    uint64_t *looked; /* by node: index up to which its log was looked at */
    mesh_arena *arena;
    bool complained; /* one change makes everything after it another one */
};

void sim_judge_init(sim *s)
{
    s->judge = mesh_alloc(sizeof *s->judge);
    s->judge->shards = mesh_alloc(s->conf.shards * sizeof *s->judge->shards);
    s->judge->looked = mesh_alloc(s->n_nodes * sizeof *s->judge->looked);
    s->judge->arena = mesh_arena_new();
}

void sim_judge_fini(sim *s)
{
    for (uint32_t i = 0; i < s->conf.shards; i++) {
        free(s->judge->shards[i].reigns);
        free(s->judge->shards[i].seen);
    }
    mesh_arena_destroy(&s->judge->arena);
    free(s->judge->shards);
    free(s->judge->looked);
    free(s->judge);
}

/* ---- leaders ---- */

static void claim(sim *s, const sim_node *leader, uint64_t term, uint64_t raft_id)
{
    shard_judge *j = &s->judge->shards[leader->shard];
    for (size_t i = j->n_reigns; i-- > 0;) {
        reign *r = &j->reigns[i];
        if (r->term != term) {
            continue;
        }
        if (r->leader != leader || (r->raft_id && raft_id && r->raft_id != raft_id)) {
            sim_complain(s, "shard %u has two leaders in term %" PRIu64 ": %s and %s", leader->shard, term,
                         r->leader->name, leader->name);
        }
        r->raft_id = r->raft_id ? r->raft_id : raft_id;
        return;
    }
    if (j->n_reigns == j->reigns_cap) {
        j->reigns_cap = j->reigns_cap ? j->reigns_cap * 2 : 16;
        j->reigns = mesh_realloc(j->reigns, j->reigns_cap * sizeof *j->reigns);
    }
    j->reigns[j->n_reigns++] = (reign){ term, raft_id, leader };
}

void sim_judge_message(sim_node *to, mesh_peer from, const Mesh__Msg *msg)
{
    sim *s = to->s;
    const sim_node *by = &s->nodes[from];
    if (msg->body_case == MESH__MSG__BODY_LEADING && by->role == MESH_STORE) {
        claim(s, by, msg->leading->term, 0);
    } else if (msg->body_case == MESH__MSG__BODY_RAFT &&
               (msg->raft->kind == MESH__RAFT_KIND__RAFT_APPEND || msg->raft->kind == MESH__RAFT_KIND__RAFT_INSTALL ||
                msg->raft->kind == MESH__RAFT_KIND__RAFT_ELECT_NOW)) {
        claim(s, by, msg->raft->term, msg->raft->from);
    }
}

/* ---- what is applied ---- */

static seen *seen_at(shard_judge *j, uint64_t index)
{
    if (index >= j->n_seen) {
        size_t n = j->n_seen ? j->n_seen : 256;
        while (n <= index) {
            n *= 2;
        }
        j->seen = mesh_realloc(j->seen, n * sizeof *j->seen);
        memset(j->seen + j->n_seen, 0, (n - j->n_seen) * sizeof *j->seen);
        j->n_seen = n;
    }
    return &j->seen[index];
}

static void log_key(uint64_t index, uint8_t key[10])
{
    key[0] = 0;
    key[1] = 'L';
    for (int i = 0; i < 8; i++) {
        key[2 + i] = (uint8_t)(index >> (56 - 8 * i));
    }
}

/* Trimmed ones are not there any more. */
static void judge_entry(sim_node *n, uint64_t index)
{
    uint8_t key[10];
    log_key(index, key);
    uint64_t hash = sim_disk_row_hash(n->disk, (mesh_slice){ key, sizeof key });
    seen *was = seen_at(&n->s->judge->shards[n->shard], index);
    if (hash && was->entry && was->entry != hash && !n->s->judge->complained) {
        n->s->judge->complained = true;
        sim_complain(n->s, "committed entry %" PRIu64 " of shard %u is another one for %s than it was for %s", index,
                     n->shard, n->name, was->entry_by->name);
    }
    if (hash && !was->entry) {
        was->entry = hash;
        was->entry_by = n;
    }
}

static void judge_rows(sim_node *n, uint64_t index)
{
    uint64_t digest = sim_disk_digest(n->disk);
    seen *was = seen_at(&n->s->judge->shards[n->shard], index);
    if (was->digest && was->digest != digest && !n->s->judge->complained) {
        n->s->judge->complained = true;
        sim_complain(n->s, "%s has other rows than %s had when it had applied entry %" PRIu64 " of shard %u", n->name,
                     was->digest_by->name, index, n->shard);
    }
    if (!was->digest) {
        was->digest = digest;
        was->digest_by = n;
    }
}

static void applied(void *arg, mesh_slice value)
{
    sim_node *n = arg;
    struct sim_judge *judge = n->s->judge;
    ProtobufCMessage *row;
    mesh_arena_reset(judge->arena);
    mesh_err err = mesh_wire_unpack(&store__applied_row__descriptor, value, judge->arena, &row);
    assert(!err);
    uint64_t index = ((const Store__AppliedRow *)row)->index;
    uint64_t from = judge->looked[n->self] < index ? judge->looked[n->self] + 1 : index;
    for (uint64_t i = from; i <= index; i++) {
        judge_entry(n, i);
    }
    judge->looked[n->self] = index;
    judge_rows(n, index);
}

void sim_judge_disk(sim_node *n)
{
    store_key key;
    store_key_applied(&key);
    n->s->judge->looked[n->self] = 0;
    sim_disk_watch(n->disk, store_key_slice(&key), applied, n);
}
