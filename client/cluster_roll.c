/* client/cluster_roll.c: one node after the other, and none before the cluster is whole again.
 *
 * Routers first: nobody notices more than a slower answer. Then stores, followers before the leader, so that each shard
 * changes its leader once at the end. Edges last: a client notices its edge going, so whoever stops half-way for a bad
 * sign has bothered nobody, and what clients are given anew has everything it needs behind it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/cluster.h"
#include "mesh/alloc.h"
#include "mesh/loop.h"

#define AGAIN_MS 300
#define BEGIN_MS 5000 /* what is just settling may settle */

char *client_cluster_fill(const char *command, const char *node)
{
    mesh_buf text = { 0 };
    for (const char *at; (at = strstr(command, "{node}")) != NULL; command = at + 6) {
        mesh_buf_put(&text, command, (size_t)(at - command));
        mesh_buf_puts(&text, node);
    }
    mesh_buf_puts(&text, command);
    mesh_buf_put(&text, "", 1);
    char *out = mesh_strdup((const char *)text.data);
    mesh_buf_fini(&text);
    return out;
}

/* all: not even a node that is new in the config, and that the others do not know before they have read it too. */
static bool is_green(client_cluster *c, mesh_ms ms, bool all)
{
    mesh_ms end = mesh_clock_now().mono + ms;
    for (;;) {
        client_cluster_look(c);
        if ((all ? client_view_problems(c->view) : client_view_serious(c->view)) == 0) {
            return true;
        }
        if (mesh_clock_now().mono >= end || mesh_loop_stopping()) {
            return false;
        }
        client_operator_sleep(c->op, AGAIN_MS);
    }
}

static int stop_here(const client_cluster *c, const char *when)
{
    for (size_t i = 0; i < client_view_problems(c->view); i++) {
        client_args_fail("%s", client_view_problem(c->view, i));
    }
    client_args_fail("roll: stopped: %s the cluster is not whole", when);
    return 1;
}

static bool start_again(const char *command, const char *node)
{
    char *filled = client_cluster_fill(command, node);
    int rc = system(filled); /* NOLINT(cert-env33-c): it is what the operator asked for */
    if (rc != 0) {
        client_args_fail("roll: stopped: '%s' ended with status %d", filled, rc);
    }
    free(filled);
    return rc == 0;
}

static int roll_one(client_cluster *c, mesh_peer peer, const char *command, mesh_ms green_ms)
{
    const char *name = mesh_conf_node(c->conf, peer)->name;
    char when[96];
    uint64_t before = client_view_node(c->view, peer)->started_ms;
    if (client_cluster_drain(c, peer) != 0) {
        return 1;
    }
    if (command != NULL && !start_again(command, name)) {
        return 1;
    }
    mesh_ms begin = mesh_clock_now().mono;
    bool green = is_green(c, green_ms, false);
    if (!green || client_view_node(c->view, peer)->started_ms == before) {
        snprintf(when, sizeof when, "%d s after %s was restarted", (int)(green_ms / 1000), name);
        return stop_here(c, when);
    }
    printf("%s is back, all is green after %.1f s\n", name, (double)(mesh_clock_now().mono - begin) / 1000);
    (void)fflush(stdout);
    return 0;
}

/* The next store: one that leads no shard if there is one left. */
static mesh_peer next_of(const client_cluster *c, mesh_role role, const bool *done)
{
    mesh_peer leader = MESH_NO_PEER;
    for (size_t i = 0; i < mesh_conf_nodes(c->conf); i++) {
        if (done[i] || mesh_conf_node(c->conf, (mesh_peer)i)->role != role ||
            client_view_node(c->view, (mesh_peer)i)->fresh) {
            continue; /* a fresh one has read the config that the others are to read */
        }
        if (!client_view_node(c->view, (mesh_peer)i)->leader) {
            return (mesh_peer)i;
        }
        leader = leader != MESH_NO_PEER ? leader : (mesh_peer)i;
    }
    return leader;
}

int client_cluster_roll(client_cluster *c, const char *command, mesh_ms green_ms)
{
    static const mesh_role order[] = { MESH_ROUTER, MESH_STORE, MESH_EDGE };
    bool *done = mesh_alloc(mesh_conf_nodes(c->conf) * sizeof *done + 1);
    size_t n = 0;
    int code = is_green(c, BEGIN_MS, false) ? 0 : stop_here(c, "before it began");
    for (size_t i = 0; i < sizeof order / sizeof *order && code == 0; i++) {
        mesh_peer peer;
        while (code == 0 && (peer = next_of(c, order[i], done)) != MESH_NO_PEER) {
            done[peer] = true;
            code = roll_one(c, peer, command, green_ms);
            n++;
        }
    }
    if (code == 0 && !is_green(c, green_ms, true)) {
        code = stop_here(c, "all nodes were restarted, but");
    }
    if (code == 0) {
        printf("rolled: %zu nodes\n", n);
    }
    free(done);
    return code;
}
