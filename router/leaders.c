#include "router/leaders.h"

#include <assert.h>
#include <stdlib.h>

#include "mesh/alloc.h"

typedef struct shard {
    uint32_t number;
    mesh_peer *stores;
    size_t n;
    size_t at;        /* the target; up, when any of them is */
    bool known;       /* to lead */
    mesh_peer leader; /* the last one that was known */
    uint64_t term;
    mesh_ms pause;
    mesh_ms ready_at;
} shard;

struct router_leaders {
    const mesh_conf *conf;
    bool *up; /* by peer */
    shard *shards;
    size_t n;
    uint64_t changes;
};

static shard *find(const router_leaders *leaders, uint32_t number)
{
    if (number < leaders->n && leaders->shards[number].number == number) {
        return &leaders->shards[number]; /* numbered from 0 without a hole, as they should be */
    }
    for (size_t i = 0; i < leaders->n; i++) {
        if (leaders->shards[i].number == number) {
            return &leaders->shards[i];
        }
    }
    return NULL;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = ((const shard *)a)->number;
    uint32_t y = ((const shard *)b)->number;
    return (x > y) - (x < y);
}

static void add_store(router_leaders *leaders, mesh_peer store, uint32_t number)
{
    shard *s = find(leaders, number);
    if (!s) {
        s = &leaders->shards[leaders->n++];
        s->number = number;
        s->leader = MESH_NO_PEER;
        s->stores = mesh_alloc(mesh_conf_nodes(leaders->conf) * sizeof *s->stores);
    }
    s->stores[s->n++] = store;
}

router_leaders *router_leaders_new(const mesh_conf *conf)
{
    size_t nodes = mesh_conf_nodes(conf);
    router_leaders *leaders = mesh_alloc(sizeof *leaders);
    leaders->conf = conf;
    leaders->up = mesh_alloc(nodes * sizeof *leaders->up);
    leaders->shards = mesh_alloc(nodes * sizeof *leaders->shards);
    for (mesh_peer i = 0; i < nodes; i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, i);
        if (node->role == MESH_STORE) {
            add_store(leaders, i, node->shard);
        }
    }
    qsort(leaders->shards, leaders->n, sizeof *leaders->shards, by_number);
    return leaders;
}

void router_leaders_destroy(router_leaders **leaders_p)
{
    router_leaders *leaders = *leaders_p;
    if (leaders) {
        for (size_t i = 0; i < leaders->n; i++) {
            free(leaders->shards[i].stores);
        }
        free(leaders->shards);
        free(leaders->up);
        free(leaders);
        *leaders_p = NULL;
    }
}

mesh_peer router_leaders_target(const router_leaders *leaders, uint32_t number)
{
    const shard *s = find(leaders, number);
    return s && leaders->up[s->stores[s->at]] ? s->stores[s->at] : MESH_NO_PEER;
}

mesh_ms router_leaders_ready_at(const router_leaders *leaders, uint32_t number)
{
    const shard *s = find(leaders, number);
    return s ? s->ready_at : 0;
}

bool router_leaders_known(const router_leaders *leaders, uint32_t number)
{
    const shard *s = find(leaders, number);
    return s && s->known;
}

uint64_t router_leaders_term(const router_leaders *leaders, uint32_t number)
{
    const shard *s = find(leaders, number);
    return s ? s->term : 0;
}

size_t router_leaders_stores(const router_leaders *leaders, uint32_t number)
{
    const shard *s = find(leaders, number);
    return s ? s->n : 0;
}

size_t router_leaders_count(const router_leaders *leaders)
{
    return leaders->n;
}

uint32_t router_leaders_shard(const router_leaders *leaders, size_t i)
{
    assert(i < leaders->n);
    return leaders->shards[i].number;
}

uint64_t router_leaders_changes(const router_leaders *leaders)
{
    return leaders->changes;
}

/* ---- what stores do ---- */

static shard *shard_of(const router_leaders *leaders, mesh_peer store)
{
    const mesh_node_conf *node = mesh_conf_node(leaders->conf, store);
    assert(node->role == MESH_STORE);
    return find(leaders, node->shard);
}

static bool is_target(const shard *s, mesh_peer store)
{
    return s->stores[s->at] == store;
}

static void take(shard *s, mesh_peer store)
{
    while (!is_target(s, store)) {
        s->at = (s->at + 1) % s->n;
    }
}

static void end_pause(shard *s)
{
    s->pause = 0;
    s->ready_at = 0;
}

/* The target is not, or not surely, the leader: to the hint, else to the next one up, which may be the same one. */
static void move(router_leaders *leaders, shard *s, mesh_peer hint, mesh_time now)
{
    size_t to = s->n;
    s->known = false;
    for (size_t i = 0; i < s->n && hint != MESH_NO_PEER; i++) {
        if (s->stores[i] == hint && leaders->up[hint] && i != s->at) {
            to = i;
        }
    }
    for (size_t i = 1; i <= s->n && to == s->n; i++) {
        size_t next = (s->at + i) % s->n;
        if (leaders->up[s->stores[next]]) {
            to = next;
        }
    }
    s->at = to == s->n ? s->at : to;
    s->pause = s->pause == 0 ? ROUTER_PAUSE_MIN_MS : s->pause * 2;
    s->pause = s->pause > ROUTER_PAUSE_MAX_MS ? ROUTER_PAUSE_MAX_MS : s->pause;
    s->ready_at = now.mono + s->pause;
}

static void set_known(router_leaders *leaders, shard *s)
{
    mesh_peer store = s->stores[s->at];
    end_pause(s);
    s->known = true;
    if (s->leader != store) {
        leaders->changes += s->leader != MESH_NO_PEER;
        s->leader = store;
    }
}

void router_leaders_up(router_leaders *leaders, mesh_peer store)
{
    shard *s = shard_of(leaders, store);
    bool alone = !leaders->up[s->stores[s->at]];
    leaders->up[store] = true;
    if (alone) { /* nobody was up: what was waited for is here */
        take(s, store);
        end_pause(s);
    }
}

void router_leaders_down(router_leaders *leaders, mesh_peer store, mesh_time now)
{
    shard *s = shard_of(leaders, store);
    leaders->up[store] = false;
    if (is_target(s, store)) {
        move(leaders, s, MESH_NO_PEER, now);
    }
}

void router_leaders_answered(router_leaders *leaders, mesh_peer store)
{
    shard *s = shard_of(leaders, store);
    if (is_target(s, store)) {
        set_known(leaders, s);
    }
}

void router_leaders_refused(router_leaders *leaders, mesh_peer store, mesh_peer hint, mesh_time now)
{
    shard *s = shard_of(leaders, store);
    if (is_target(s, store)) {
        move(leaders, s, hint, now);
    }
}

void router_leaders_silent(router_leaders *leaders, mesh_peer store, mesh_time now)
{
    shard *s = shard_of(leaders, store);
    if (is_target(s, store) && s->n > 1) {
        move(leaders, s, MESH_NO_PEER, now);
    }
}

mesh_err router_leaders_leading(router_leaders *leaders, mesh_peer store, uint64_t term)
{
    shard *s = shard_of(leaders, store);
    if (term < s->term || !leaders->up[store]) {
        return MESH_STALE;
    }
    s->term = term;
    take(s, store);
    set_known(leaders, s);
    return MESH_OK;
}
