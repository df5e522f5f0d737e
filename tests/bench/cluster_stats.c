/* What the nodes of a cluster say about themselves: their metrics, asked for as `parley status` does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/data.h"
#include "client/metrics.h"
#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/rand.h"
#include "tests/bench/bench.h"

#define ASK_MS 500

typedef struct asked {
    const cluster *c;
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    mesh_peer peers[BENCH_NODES];
    mesh_ms until;
    char **texts;
    unsigned missing;
} asked;

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

uint64_t cluster_metric(const char *text, const char *name)
{
    return client_metrics_sum(text, name, NULL);
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    (void)now;
    asked *a = arg;
    for (unsigned i = 0; i < a->c->n && msg->body_case == MESH__MSG__BODY_STATS_TEXT; i++) {
        if (a->peers[i] == from && a->texts[i] == NULL) {
            a->texts[i] = mesh_strdup(msg->stats_text->text);
            a->missing--;
        }
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    asked *a = arg;
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    msg.corr = 1;
    mesh_out_put(a->out, peer, &msg);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)arg;
    (void)peer;
    (void)now;
}

static mesh_ms turn(void *arg, mesh_time now)
{
    asked *a = arg;
    bool more = mesh_link_receive(a->link, now);
    mesh_link_send(a->link, a->out, now);
    mesh_ms next = mesh_link_tick(a->link, now);
    if (a->missing == 0 || now.mono >= a->until) {
        mesh_loop_stop(a->loop);
    }
    return more ? now.mono : (next < a->until ? next : a->until);
}

static void ask(asked *a, const mesh_conf *conf, const char *role)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    a->out = mesh_out_new(mesh_conf_nodes(conf));
    a->loop = mesh_loop_new(turn, a);
    if (mesh_link_new(a->loop, conf, mesh_conf_find(conf, "operator"), mesh_rand_seed(), &handler, a, &a->link) !=
        MESH_OK) {
        die("cannot ask the nodes");
    }
    for (unsigned i = 0; i < a->c->n; i++) {
        a->peers[i] = MESH_NO_PEER;
        if (strcmp(a->c->nodes[i].role, role) == 0 && a->c->nodes[i].pid > 0) {
            a->peers[i] = mesh_conf_find(conf, a->c->nodes[i].name);
            a->missing++;
            mesh_link_dial(a->link, a->peers[i]);
        }
    }
    mesh_loop_run(a->loop);
    mesh_link_destroy(&a->link);
    mesh_loop_destroy(&a->loop);
    mesh_out_destroy(&a->out);
}

void cluster_ask(const cluster *c, const char *role, char *texts[BENCH_NODES])
{
    char path[128], keys[128];
    (void)snprintf(path, sizeof path, "%s/cluster.conf", c->dir);
    (void)snprintf(keys, sizeof keys, "%s/keys", c->dir);
    mesh_conf *conf = client_data_conf(path);
    if (conf == NULL || mesh_link_setup(conf, keys) != MESH_OK) {
        die("cannot ask the nodes");
    }
    memset(texts, 0, BENCH_NODES * sizeof *texts);
    asked a = { .c = c, .until = mesh_clock_now().mono + ASK_MS, .texts = texts };
    ask(&a, conf, role);
    mesh_link_teardown();
    mesh_conf_destroy(&conf);
}

void cluster_forget(char *texts[BENCH_NODES])
{
    for (unsigned i = 0; i < BENCH_NODES; i++) {
        free(texts[i]);
        texts[i] = NULL;
    }
}

static unsigned leader_of(const cluster *c, char *const texts[BENCH_NODES], unsigned shard)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (texts[i] != NULL && c->nodes[i].shard == shard && cluster_metric(texts[i], "parley_store_leader") == 1) {
            return i;
        }
    }
    return BENCH_NODES;
}

unsigned cluster_leader(const cluster *c, unsigned shard)
{
    char *texts[BENCH_NODES];
    cluster_ask(c, "store", texts);
    unsigned leader = leader_of(c, texts, shard);
    cluster_forget(texts);
    return leader;
}

/* ---- is it whole? ---- */

static bool stores_are_whole(const cluster *c, char *const texts[BENCH_NODES], cluster_progress *progress,
                             uint64_t *epoch_p)
{
    bool whole = true;
    cluster_progress seen = { 0 };
    for (unsigned s = 0; s < c->plan.shards; s++) {
        unsigned leader = leader_of(c, texts, s);
        const char *text = leader < BENCH_NODES ? texts[leader] : NULL;
        whole = whole && text != NULL && cluster_metric(text, "parley_store_ring_routers") == c->plan.routers &&
                cluster_metric(text, "parley_store_voters") == c->plan.replicas;
        seen.commit[s] = text != NULL ? cluster_metric(text, "parley_store_commit_index") : 0;
        *epoch_p = s == 0 && text != NULL ? cluster_metric(text, "parley_store_ring_epoch") : *epoch_p;
    }
    for (unsigned i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].role, "store") == 0) {
            uint64_t commit = progress->commit[c->nodes[i].shard];
            whole = whole && texts[i] != NULL && commit > 0 && cluster_metric(texts[i], "parley_store_votes") == 1 &&
                    cluster_metric(texts[i], "parley_store_applied_index") >= commit &&
                    cluster_metric(texts[i], "parley_store_ring_epoch") == *epoch_p;
        }
    }
    *progress = seen;
    return whole;
}

bool cluster_is_whole(const cluster *c, cluster_progress *progress)
{
    char *texts[BENCH_NODES];
    uint64_t epoch = 0;
    cluster_ask(c, "store", texts);
    bool whole = stores_are_whole(c, texts, progress, &epoch);
    cluster_forget(texts);
    if (!whole) {
        return false;
    }
    cluster_ask(c, "router", texts);
    for (unsigned i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].role, "router") == 0) {
            whole = whole && texts[i] != NULL && cluster_metric(texts[i], "parley_router_ring_epoch") == epoch;
        }
    }
    cluster_forget(texts);
    return whole;
}

/* ---- counts ---- */

static void add_counts(cluster_store_counts *sum, const char *text)
{
    sum->messages += cluster_metric(text, "parley_store_messages_total");
    sum->rows += cluster_metric(text, "parley_store_kv_rows_total");
    sum->row_bytes += cluster_metric(text, "parley_store_kv_bytes_total");
    sum->syncs += cluster_metric(text, "parley_store_kv_syncs_total");
    sum->entries += cluster_metric(text, "parley_store_entries_total");
    sum->appends += cluster_metric(text, "parley_store_appends_total");
    sum->acks += cluster_metric(text, "parley_store_acks_total");
    sum->trimmed += cluster_metric(text, "parley_store_trimmed_total");
    sum->resent += cluster_metric(text, "parley_store_parcels_resent_total");
}

static bool count_once(const cluster *c, cluster_store_counts *sum)
{
    char *texts[BENCH_NODES];
    bool ok = true;
    *sum = (cluster_store_counts){ 0 };
    cluster_ask(c, "store", texts);
    for (unsigned s = 0; s < c->plan.shards; s++) {
        unsigned leader = leader_of(c, texts, s);
        ok = ok && leader < BENCH_NODES;
        if (ok) {
            add_counts(sum, texts[leader]);
        }
    }
    cluster_forget(texts);
    return ok;
}

cluster_store_counts cluster_store_counted(const cluster *c)
{
    cluster_store_counts sum;
    for (int tries = 0; !count_once(c, &sum); tries++) {
        if (tries == 10) {
            die("a shard has no leader that answers");
        }
    }
    return sum;
}
