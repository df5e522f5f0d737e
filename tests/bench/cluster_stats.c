/* What the nodes of a cluster say about themselves: their metrics, asked for as `parley cluster status` does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/metrics.h"
#include "client/operator.h"
#include "client/view.h"
#include "tests/bench/bench.h"

typedef struct look {
    client_operator *op;
    const mesh_conf *conf;
    const char *const *texts; /* by node of the config */
    client_view *view;
} look;

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static look look_at(const cluster *c)
{
    look l = { .op = client_operator_open(c->dir) };
    if (l.op == NULL) {
        die("cannot ask the nodes");
    }
    l.conf = client_operator_conf(l.op);
    l.texts = client_operator_look(l.op);
    l.view = client_view_new(l.conf, l.texts);
    return l;
}

static void look_away(look *l)
{
    client_view_destroy(&l->view);
    client_operator_close(&l->op);
}

unsigned cluster_leader(const cluster *c, unsigned shard)
{
    look l = look_at(c);
    mesh_peer leader = client_view_shard(l.view, shard)->leader;
    unsigned found = BENCH_NODES;
    for (unsigned i = 0; i < c->n && leader != MESH_NO_PEER; i++) {
        found = strcmp(c->nodes[i].name, mesh_conf_node(l.conf, leader)->name) == 0 ? i : found;
    }
    look_away(&l);
    return found;
}

/* ---- is it whole? ---- */

bool cluster_is_whole(const cluster *c, cluster_progress *progress)
{
    look l = look_at(c);
    bool whole = client_view_problems(l.view) == 0;
    for (size_t i = 0; i < mesh_conf_nodes(l.conf); i++) {
        const client_node_view *n = client_view_node(l.view, (mesh_peer)i);
        if (n->node->role == MESH_STORE) {
            uint64_t commit = progress->commit[n->node->shard];
            whole = whole && commit > 0 && n->applied >= commit && n->epoch == client_view_epoch(l.view);
        }
    }
    for (unsigned s = 0; s < c->plan.shards; s++) {
        mesh_peer leader = client_view_shard(l.view, s)->leader;
        progress->commit[s] = leader != MESH_NO_PEER ? client_view_node(l.view, leader)->commit : 0;
    }
    look_away(&l);
    return whole;
}

/* ---- counts ---- */

static void add_counts(cluster_store_counts *sum, const char *text)
{
    sum->messages += client_metrics_sum(text, "parley_store_messages_total", NULL);
    sum->rows += client_metrics_sum(text, "parley_store_kv_rows_total", NULL);
    sum->row_bytes += client_metrics_sum(text, "parley_store_kv_bytes_total", NULL);
    sum->syncs += client_metrics_sum(text, "parley_store_kv_syncs_total", NULL);
    sum->entries += client_metrics_sum(text, "parley_store_entries_total", NULL);
    sum->appends += client_metrics_sum(text, "parley_store_appends_total", NULL);
    sum->acks += client_metrics_sum(text, "parley_store_acks_total", NULL);
    sum->trimmed += client_metrics_sum(text, "parley_store_trimmed_total", NULL);
    sum->resent += client_metrics_sum(text, "parley_store_parcels_resent_total", NULL);
}

static bool count_once(const cluster *c, cluster_store_counts *sum)
{
    look l = look_at(c);
    bool ok = true;
    *sum = (cluster_store_counts){ 0 };
    for (unsigned s = 0; s < c->plan.shards && ok; s++) {
        mesh_peer leader = client_view_shard(l.view, s)->leader;
        ok = leader != MESH_NO_PEER;
        if (ok) {
            add_counts(sum, l.texts[leader]);
        }
    }
    look_away(&l);
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

void cluster_print_stores(const cluster *c)
{
    look l = look_at(c);
    for (size_t i = 0; i < mesh_conf_nodes(l.conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(l.conf, (mesh_peer)i);
        if (node->role == MESH_STORE && l.texts[i] != NULL) {
            printf("    %s: %llu log entries, %llu batches, %llu syncs\n", node->name,
                   (unsigned long long)client_metrics_sum(l.texts[i], "parley_store_entries_total", NULL),
                   (unsigned long long)client_metrics_sum(l.texts[i], "parley_store_kv_batches_total", NULL),
                   (unsigned long long)client_metrics_sum(l.texts[i], "parley_store_kv_syncs_total", NULL));
        }
    }
    look_away(&l);
}
