/* tests/unit/group_rig.h: a Raft group in one process: consensus instances on fake disks, with a fake network and
 * clock, all from a seed, and what must hold whatever happens:
 *
 *   - one leader in each term
 *   - an index has one entry, the same on every replica and at every time; each submission is at one index at most
 *   - an entry is handed over in order, as the submitter's own exactly when it never stopped leading since
 *   - what was committed as somebody's own is on every member once all is healed */
#ifndef TESTS_GROUP_RIG_H
#define TESTS_GROUP_RIG_H

#include <stdlib.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"
#include "store/consensus.h"
#include "store/consensus_priv.h"
#include "tests/sim/kv_mem.c" /* instead of the archive's */

#define REPLICAS 7
#define ENTRIES 20000 /* of one run */
#define TERMS 5000
#define SHARD 3

typedef struct group group;

typedef struct replica {
    group *g;
    size_t self;
    uint64_t id;
    char name[16], path[32];
    unsigned paths, boot;
    sim_disk *disk;
    store_kv *kv; /* NULL: dead */
    store_consensus *cons;
    store_kv_batch *batch;
    uint64_t applied, handed, own, raft_id_given;
    uint64_t reign; /* as last looked at */
    bool led, joiner;
    mesh_ms flush_at, fetch_at;
} replica;

typedef struct packet {
    mesh_ms due;
    size_t from, to;
    mesh_buf bytes;
} packet;

typedef struct entry_seen {
    uint64_t term, sub;
    size_t size;
} entry_seen;

typedef struct submission {
    size_t by;
    unsigned boot;
    uint64_t reign, index, committed; /* index as told to the submitter; committed: where it is */
    bool acked;
} submission;

struct group {
    mesh_rand rand;
    mesh_time now;
    replica r[REPLICAS];
    size_t n; /* replicas that exist */
    store_replica first[REPLICAS];
    size_t n_first;
    packet *packets;
    size_t n_packets, cap_packets;
    bool cut[REPLICAS][REPLICAS];
    unsigned drop, twice; /* in 1000 */
    mesh_ms delay, disk;  /* at most: of a packet, of a write */
    uint64_t trail;
    entry_seen seen[ENTRIES];
    uint64_t last_seen;
    submission subs[ENTRIES];
    uint64_t n_subs;
    uint64_t leader_of[TERMS];
    uint64_t installs, malformed, stale, conflicts, taken;
    bool (*lose)(const packet *p, const Mesh__Raft *msg); /* true: this one is lost */
    bool (*change)(group *g, size_t to, Mesh__Raft *msg); /* before it is received; false: lost */
    bool lies;                                            /* somebody lies: no promise holds, but nobody falls */
    mesh_arena *arena;
};

static inline uint64_t below(group *g, uint64_t limit)
{
    return mesh_rand_below(&g->rand, limit);
}

/* ---- the owner ---- */

static inline mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static inline mesh_slice row_key_of(char out[24], uint64_t index)
{
    return (mesh_slice){ (uint8_t *)out, (size_t)snprintf(out, 24, "m%020llu", (unsigned long long)index) };
}

static inline void check_entry(group *g, const replica *r, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    assert_true(index < ENTRIES && payload.size >= 8);
    uint64_t sub = mesh_get_u64be(payload.data);
    entry_seen *seen = &g->seen[index];
    submission *s = &g->subs[sub];
    assert_true(sub > 0 && sub <= g->n_subs);
    if (seen->term == 0) {
        *seen = (entry_seen){ term, sub, payload.size };
        assert_int_equal(s->committed, 0);
        s->committed = index;
        g->last_seen = index > g->last_seen ? index : g->last_seen;
    }
    assert_int_equal(seen->term, term);
    assert_int_equal(seen->sub, sub);
    assert_int_equal(seen->size, payload.size);
    bool still =
        s->by == r->self && s->boot == r->boot && r->cons != NULL && s->reign == store_consensus_reign(r->cons);
    assert_int_equal(own, still);
    if (own) {
        assert_int_equal(s->index, index);
        s->acked = true;
    }
}

static inline void on_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    replica *r = arg;
    assert_true(index > r->applied);
    if (!r->g->lies) {
        check_entry(r->g, r, index, term, payload, own);
    }
    r->applied = index;
    r->handed++;
    r->own += own;
    char key[24];
    uint8_t number[8];
    mesh_put_u64be(number, index);
    store_kv_batch_put(r->batch, row_key_of(key, index),
                       (mesh_slice){ payload.data, payload.size < 8 ? payload.size : 8 });
    store_kv_batch_put(r->batch, text("A"), (mesh_slice){ number, 8 });
    (void)store_kv_write(r->kv, r->batch, false);
}

/* ---- the network ---- */

static inline void put_packet(group *g, size_t from, size_t to, const Mesh__Raft *msg)
{
    if (g->n_packets == g->cap_packets) {
        g->cap_packets = g->cap_packets > 0 ? 2 * g->cap_packets : 64;
        g->packets = mesh_realloc(g->packets, g->cap_packets * sizeof *g->packets);
    }
    packet *p = &g->packets[g->n_packets++];
    *p = (packet){ .due = g->now.mono + 1, .from = from, .to = to };
    if (g->delay > 1) {
        p->due += (mesh_ms)below(g, (uint64_t)g->delay);
    }
    mesh_wire_pack(msg, &p->bytes);
    assert_true(p->bytes.size < MESH_MSG_MAX - 64);
}

static inline void on_send(void *arg, uint64_t to, const char *to_address, const Mesh__Raft *msg)
{
    replica *r = arg;
    group *g = r->g;
    assert_int_equal(msg->from, r->id);
    assert_int_equal(msg->to, to);
    for (size_t i = 0; i < g->n; i++) {
        packet p = { .from = r->self, .to = i };
        if (strcmp(g->r[i].name, to_address) != 0 || g->cut[r->self][i] || below(g, 1000) < g->drop ||
            (g->lose != NULL && g->lose(&p, msg))) {
            continue;
        }
        put_packet(g, r->self, i, msg);
        if (below(g, 1000) < g->twice) {
            put_packet(g, r->self, i, msg);
        }
    }
}

static inline mesh_err receive(replica *r, const Mesh__Raft *msg)
{
    mesh_err err = store_consensus_receive(r->cons, msg, r->g->now);
    r->g->malformed += err == MESH_MALFORMED;
    r->g->stale += err == MESH_STALE;
    r->g->taken += err == MESH_OK;
    return err;
}

static inline void deliver_packets(group *g)
{
    for (size_t i = 0; i < g->n_packets;) {
        if (g->packets[i].due > g->now.mono) {
            i++;
            continue;
        }
        packet p = g->packets[i];
        g->packets[i] = g->packets[--g->n_packets]; /* order goes: what is due later may come first */
        replica *r = &g->r[p.to];
        ProtobufCMessage *message;
        mesh_arena_reset(g->arena);
        assert_int_equal(mesh_wire_unpack(&mesh__raft__descriptor, mesh_buf_slice(&p.bytes), g->arena, &message),
                         MESH_OK);
        Mesh__Raft *msg = (Mesh__Raft *)message;
        if (r->cons != NULL && !g->cut[p.from][p.to] && (g->change == NULL || g->change(g, p.to, msg))) {
            (void)receive(r, msg);
        }
        mesh_buf_fini(&p.bytes);
    }
}

/* ---- replicas ---- */

static inline mesh_err replica_try_open(replica *r, char why[256])
{
    group *g = r->g;
    mesh_buf value = { 0 };
    assert_int_equal(store_kv_open(r->path, NULL, &r->kv, why, 256), MESH_OK);
    r->batch = store_kv_batch_new();
    r->applied = store_kv_get(r->kv, text("A"), &value) == MESH_OK ? mesh_get_u64be(value.data) : 0;
    mesh_buf_fini(&value);
    r->boot++;
    r->handed = r->own = r->reign = 0;
    r->led = false;
    r->flush_at = 0;
    r->fetch_at = 0;
    store_consensus_conf conf = { .raft_id = r->id,
                                  .cluster = "c1",
                                  .address = r->name,
                                  .seed = mesh_rand_next(&g->rand),
                                  .trail = g->trail,
                                  .group = r->joiner ? NULL : g->first,
                                  .n_group = r->joiner ? 0 : g->n_first,
                                  .shard = SHARD,
                                  .send = on_send };
    return store_consensus_open(&conf, r->kv, r->applied, g->now, on_committed, r, &r->cons, why, 256);
}

static inline void replica_open(replica *r)
{
    char why[256] = "";
    mesh_err err = replica_try_open(r, why);
    if (err != MESH_OK) {
        fail_msg("%s: %s: %s", r->name, mesh_err_name(err), why);
    }
}

static inline void replica_close(replica *r)
{
    store_consensus_close(&r->cons);
    store_kv_batch_destroy(&r->batch);
    store_kv_close(&r->kv);
}

static inline void replica_crash(replica *r)
{
    sim_disk_crash(r->disk, &r->g->rand);
    replica_close(r);
}

static inline void next_disk(replica *r)
{
    snprintf(r->path, sizeof r->path, "disk%zu.%u", r->self, ++r->paths);
    r->disk = sim_disk_new(r->path, mesh_rand_next(&r->g->rand));
}

static inline replica *replica_new(group *g, bool joiner)
{
    replica *r = &g->r[g->n];
    *r = (replica){ .g = g, .self = g->n, .id = 1000 - 7 * g->n, .joiner = joiner };
    snprintf(r->name, sizeof r->name, "node%zu", g->n);
    next_disk(r);
    g->n++;
    return r;
}

static inline group *group_new(size_t n, uint64_t seed)
{
    group *g = mesh_alloc(sizeof *g);
    g->rand.state = seed;
    g->now = (mesh_time){ 1000, 0 };
    g->arena = mesh_arena_new();
    g->delay = 3;
    g->disk = 4;
    for (size_t i = 0; i < n; i++) {
        replica *r = replica_new(g, false);
        g->first[(i * 2 + 1) % n] = (store_replica){ r->id, r->name }; /* in any order */
    }
    g->n_first = n;
    for (size_t i = 0; i < n; i++) {
        replica_open(&g->r[i]);
    }
    return g;
}

static inline void group_destroy(group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        if (g->r[i].kv != NULL) {
            replica_close(&g->r[i]);
        }
        sim_disk_destroy(&g->r[i].disk);
    }
    for (size_t i = 0; i < g->n_packets; i++) {
        mesh_buf_fini(&g->packets[i].bytes);
    }
    free(g->packets);
    mesh_arena_destroy(&g->arena);
    free(g);
}

/* All rows of `from` but consensus's own, and what makes them r's. */
static inline void copy_rows(replica *r, const replica *from, store_kv *into)
{
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_iter *it = store_kv_iter_new(from->kv, (mesh_slice){ (const uint8_t *)"", 0 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        if (store_kv_iter_key(it).data[0] != 0) {
            store_kv_batch_put(batch, store_kv_iter_key(it), store_kv_iter_value(it));
        }
    }
    store_kv_iter_destroy(&it);
    store_consensus_install_put(r->cons, NULL, batch);
    (void)store_kv_write(into, batch, true);
    store_kv_batch_destroy(&batch);
}

/* What the owner does when a copy is wanted. False: there is nobody to copy from. */
static inline bool fetch_state(replica *r)
{
    group *g = r->g;
    store_manifest manifest;
    const char *leader;
    assert_true(store_consensus_wants_state(r->cons, &manifest, &leader));
    assert_int_equal(store_consensus_role(r->cons), STORE_WANTS_STATE);
    if (r->applied >= manifest.index) {
        store_consensus_install_put(r->cons, r->kv, r->batch);
        (void)store_kv_write(r->kv, r->batch, true);
        replica_close(r);
        replica_open(r);
        g->installs++;
        return true;
    }
    replica *from = NULL;
    for (size_t i = 0; i < g->n; i++) {
        if (i != r->self && g->r[i].kv != NULL && g->r[i].applied >= manifest.index) {
            from = &g->r[i];
        }
    }
    if (from == NULL) {
        return false;
    }
    char old_path[32], why[256];
    memcpy(old_path, r->path, sizeof old_path);
    sim_disk *old = r->disk;
    store_kv *into = NULL;
    next_disk(r);
    assert_int_equal(store_kv_open(r->path, NULL, &into, why, sizeof why), MESH_OK);
    copy_rows(r, from, into);
    store_kv_close(&into);
    replica_close(r);
    sim_disk_destroy(&old);
    replica_open(r);
    g->installs++;
    return true;
}

#endif
