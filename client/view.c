#include "client/view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/metrics.h"
#include "mesh/alloc.h"

#define PROBLEM_SIZE 160
#define PROBLEMS_MAX 1024 /* at most four of a node */

struct client_view {
    const mesh_conf *conf;
    size_t n_nodes, n_shards, n_problems, n_serious;
    bool others; /* some node runs with another config */
    client_node_view *nodes;
    client_shard_view *shards;
    uint64_t epoch; /* of the ring_teller */
    uint32_t map[MESH_SLOTS];
    char (*problems)[PROBLEM_SIZE];
};

/* ---- reading ---- */

static void read_node(client_node_view *n, const char *text, const char *sum)
{
    char config[16];
    const char *at = text;
    client_sample sample;
    n->up = text != NULL;
    if (client_metrics_next(&at, "parley_build_info", &sample)) {
        (void)client_metrics_label(&sample, "version", n->version, sizeof n->version);
        n->other = strcmp(client_metrics_label(&sample, "config", config, sizeof config), sum) != 0;
    }
    n->uptime_s = client_metrics_sum(text, "parley_uptime_seconds", NULL);
    n->started_ms = client_metrics_sum(text, "parley_start_time_ms", NULL);
    static const char *const epochs[MESH_ROLES] = { [MESH_EDGE] = "parley_edge_ring_epoch",
                                                    [MESH_ROUTER] = "parley_router_ring_epoch",
                                                    [MESH_STORE] = "parley_store_ring_epoch" };
    n->epoch = epochs[n->node->role] != NULL ? client_metrics_sum(text, epochs[n->node->role], NULL) : 0;
    if (n->node->role == MESH_STORE) {
        n->leader = client_metrics_sum(text, "parley_store_leader", NULL) != 0;
        n->open = client_metrics_sum(text, "parley_store_open", NULL) != 0;
        n->space_low = client_metrics_sum(text, "parley_store_space_low", NULL) != 0;
        n->term = client_metrics_sum(text, "parley_store_term", NULL);
        n->last = client_metrics_sum(text, "parley_store_last_index", NULL);
        n->commit = client_metrics_sum(text, "parley_store_commit_index", NULL);
        n->applied = client_metrics_sum(text, "parley_store_done_index", NULL);
    }
}

/* A replica that takes another's place is there twice for a while: what is better counts. */
static client_member_role role_named(const char *name)
{
    return strcmp(name, "voter") == 0 ? CLIENT_VOTER : strcmp(name, "standby") == 0 ? CLIENT_STANDBY : CLIENT_TAKEN_OUT;
}

/* A spare and no voter: taken out (store/group.h). */
static bool is_better(client_member_role role, client_member_role than)
{
    static const int rank[] = {
        [CLIENT_NO_MEMBER] = 0, [CLIENT_STANDBY] = 1, [CLIENT_TAKEN_OUT] = 2, [CLIENT_VOTER] = 3
    };
    return rank[role] > rank[than];
}

static void read_members(client_view *view, uint32_t shard, const char *text)
{
    client_sample sample;
    uint64_t last = view->nodes[view->shards[shard].leader].last;
    while (client_metrics_next(&text, "parley_store_member_index", &sample)) {
        char name[64], role[16];
        mesh_peer peer = mesh_conf_find(view->conf, client_metrics_label(&sample, "member", name, sizeof name));
        client_member_role is = role_named(client_metrics_label(&sample, "role", role, sizeof role));
        view->shards[shard].voters += is == CLIENT_VOTER;
        if (peer == MESH_NO_PEER || view->nodes[peer].node->role != MESH_STORE ||
            !is_better(is, view->nodes[peer].role)) {
            continue;
        }
        view->nodes[peer].role = is;
        view->nodes[peer].on_disk = sample.value;
        view->nodes[peer].lag = sample.value < last ? last - sample.value : 0;
    }
}

static void read_ring(client_view *view, const char *text)
{
    client_sample sample;
    const char *at = text;
    char name[64];
    while (client_metrics_next(&at, "parley_store_router_live", &sample)) {
        mesh_peer peer = mesh_conf_find(view->conf, client_metrics_label(&sample, "router", name, sizeof name));
        if (peer != MESH_NO_PEER) {
            view->nodes[peer].live = sample.value != 0;
            view->nodes[peer].listed = true;
        }
    }
    while (client_metrics_next(&text, "parley_store_slots", &sample)) {
        unsigned long shard = strtoul(client_metrics_label(&sample, "shard", name, sizeof name), NULL, 10);
        if (shard < view->n_shards) {
            view->shards[shard].slots = sample.value;
        }
    }
}

static unsigned number_of(const client_sample *sample, const char *label)
{
    char text[16];
    return (unsigned)strtoul(client_metrics_label(sample, label, text, sizeof text), NULL, 10);
}

static void read_map(client_view *view, const char *text)
{
    client_sample sample;
    while (client_metrics_next(&text, "parley_store_map", &sample)) {
        unsigned last = number_of(&sample, "last");
        for (unsigned slot = number_of(&sample, "first"); slot <= last && slot < MESH_SLOTS; slot++) {
            view->map[slot] = number_of(&sample, "shard");
        }
    }
}

uint32_t client_view_shard_of(const client_view *view, mesh_slot slot)
{
    return view->map[slot];
}

static void find_leader(client_view *view, uint32_t shard)
{
    client_shard_view *s = &view->shards[shard];
    s->leader = MESH_NO_PEER;
    for (size_t i = 0; i < view->n_nodes; i++) {
        const client_node_view *n = &view->nodes[i];
        if (n->node->role != MESH_STORE || n->node->shard != shard) {
            continue;
        }
        s->stores++;
        if (n->leader && (s->leader == MESH_NO_PEER || n->term > s->term)) {
            s->leader = (mesh_peer)i;
            s->term = n->term;
        }
    }
}

/* ---- judging ---- */

static void say(client_view *view, bool serious, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void say(client_view *view, bool serious, const char *format, ...)
{
    va_list args;
    view->n_serious += serious;
    if (view->n_problems == PROBLEMS_MAX) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(view->problems[view->n_problems++], PROBLEM_SIZE, format, args);
    va_end(args);
}

/* Nobody is in it yet: nothing to lose. */
static bool is_new_shard(const client_view *view, uint32_t shard)
{
    return view->others && shard > 0 && view->shards[shard].slots == 0;
}

static bool is_fresh(const client_view *view, const client_node_view *n)
{
    if (n->other) {
        return false;
    }
    switch (n->node->role) {
    case MESH_STORE:
        return view->others && (is_new_shard(view, n->node->shard) ||
                                (view->shards[n->node->shard].leader != MESH_NO_PEER && n->role == CLIENT_NO_MEMBER));
    case MESH_ROUTER:
        return view->others && !n->listed;
    case MESH_EDGE:
        return view->others && (!n->up || n->epoch == 0);
    default:
        return false;
    }
}

static void judge_store(client_view *view, const client_node_view *n)
{
    const char *name = n->node->name;
    if (!n->open) {
        say(view, true, "%s has closed its database", name);
    }
    if (n->space_low) {
        say(view, true, "%s has little disk space and takes no writes", name);
    }
}

static void judge_member(client_view *view, const client_node_view *n)
{
    const char *name = n->node->name;
    uint32_t shard = n->node->shard;
    switch (n->role) {
    case CLIENT_NO_MEMBER:
        say(view, !n->fresh, "%s is no member of shard %u", name, shard);
        break;
    case CLIENT_TAKEN_OUT:
        say(view, true, "%s was taken out of shard %u (add-store %s brings it back)", name, shard, name);
        break;
    case CLIENT_STANDBY:
        say(view, true, "%s has no vote in shard %u yet: %" PRIu64 " entries behind", name, shard, n->lag);
        break;
    case CLIENT_VOTER:
    default:
        if (n->up && n->lag > CLIENT_VIEW_LAG_MAX) {
            say(view, true, "%s is %" PRIu64 " entries behind", name, n->lag);
        }
    }
}

static void judge_ring(client_view *view, const client_node_view *n)
{
    if (n->node->role == MESH_ROUTER && !n->live) {
        say(view, !n->fresh, "%s is not in the ring", n->node->name);
    } else if ((n->node->role != MESH_STORE || n->leader) && n->epoch != view->epoch) {
        say(view, !n->fresh, "%s has the ring of epoch %" PRIu64 ", not %" PRIu64, n->node->name, n->epoch,
            view->epoch);
    }
}

static void judge_node(client_view *view, client_node_view *n)
{
    n->fresh = is_fresh(view, n);
    if (!n->up) {
        say(view, !n->fresh, "%s is down", n->node->name);
    } else if (n->node->role == MESH_STORE) {
        judge_store(view, n);
    }
    if (n->other) {
        say(view, false, "%s runs with another config (parley cluster roll)", n->node->name);
    }
    if (n->node->role == MESH_STORE && view->shards[n->node->shard].leader != MESH_NO_PEER) {
        judge_member(view, n);
    }
    if (n->up && view->shards[0].leader != MESH_NO_PEER) {
        judge_ring(view, n);
    }
}

static void judge(client_view *view)
{
    for (size_t i = 0; i < view->n_nodes; i++) {
        view->others = view->others || view->nodes[i].other;
    }
    for (size_t i = 0; i < view->n_shards; i++) {
        const client_shard_view *s = &view->shards[i];
        if (s->leader == MESH_NO_PEER) {
            say(view, !is_new_shard(view, (uint32_t)i), "shard %zu has no leader", i);
        } else if (s->voters > s->stores) {
            say(view, true, "shard %zu has %u voters, and the config %u stores", i, s->voters, s->stores);
        }
    }
    for (size_t i = 0; i < view->n_nodes && view->n_shards > 0; i++) {
        if (view->nodes[i].node->role != MESH_OPERATOR) {
            judge_node(view, &view->nodes[i]);
        }
    }
}

/* ---- life ---- */

/* Who knows the ring: shard 0's leader, which makes it; without one, the store that heard the newest. */
static mesh_peer ring_teller(const client_view *view)
{
    mesh_peer best = MESH_NO_PEER;
    if (view->n_shards > 0 && view->shards[0].leader != MESH_NO_PEER) {
        return view->shards[0].leader;
    }
    for (size_t i = 0; i < view->n_nodes; i++) {
        const client_node_view *n = &view->nodes[i];
        if (n->node->role == MESH_STORE && n->up && (best == MESH_NO_PEER || n->epoch > view->nodes[best].epoch)) {
            best = (mesh_peer)i;
        }
    }
    return best;
}

client_view *client_view_new(const mesh_conf *conf, const char *const *texts)
{
    client_view *view = mesh_alloc(sizeof *view);
    char sum[16];
    snprintf(sum, sizeof sum, "%08" PRIx32, mesh_conf_sum(conf));
    view->conf = conf;
    view->n_nodes = mesh_conf_nodes(conf);
    memset(view->map, 0xff, sizeof view->map);
    view->nodes = mesh_alloc(view->n_nodes * sizeof *view->nodes + 1);
    view->problems = mesh_alloc(PROBLEMS_MAX * sizeof *view->problems);
    for (size_t i = 0; i < view->n_nodes; i++) {
        view->nodes[i].node = mesh_conf_node(conf, (mesh_peer)i);
        read_node(&view->nodes[i], texts[i], sum);
        if (view->nodes[i].node->role == MESH_STORE && view->nodes[i].node->shard >= view->n_shards) {
            view->n_shards = view->nodes[i].node->shard + 1;
        }
    }
    view->shards = mesh_alloc(view->n_shards * sizeof *view->shards + 1);
    for (size_t i = 0; i < view->n_shards; i++) {
        find_leader(view, (uint32_t)i);
        if (view->shards[i].leader != MESH_NO_PEER) {
            read_members(view, (uint32_t)i, texts[view->shards[i].leader]);
        }
    }
    mesh_peer teller = ring_teller(view);
    if (teller != MESH_NO_PEER) {
        view->epoch = view->nodes[teller].epoch;
        read_ring(view, texts[teller]);
        read_map(view, texts[teller]);
    }
    judge(view);
    return view;
}

void client_view_destroy(client_view **view_p)
{
    client_view *view = *view_p;
    if (view != NULL) {
        free(view->nodes);
        free(view->shards);
        free(view->problems);
        free(view);
        *view_p = NULL;
    }
}

size_t client_view_nodes(const client_view *view)
{
    return view->n_nodes;
}

const client_node_view *client_view_node(const client_view *view, mesh_peer peer)
{
    return &view->nodes[peer];
}

uint64_t client_view_epoch(const client_view *view)
{
    return view->epoch;
}

size_t client_view_shards(const client_view *view)
{
    return view->n_shards;
}

const client_shard_view *client_view_shard(const client_view *view, uint32_t shard)
{
    return &view->shards[shard];
}

size_t client_view_problems(const client_view *view)
{
    return view->n_problems;
}

size_t client_view_serious(const client_view *view)
{
    return view->n_serious;
}

const char *client_view_problem(const client_view *view, size_t i)
{
    return view->problems[i];
}
