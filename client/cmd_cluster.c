/* client/cmd_cluster.c: `parley cluster`: looks at a running cluster and changes it. */
#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "client/cluster.h"
#include "client/cmd.h"

typedef struct given { /* on the command line */
    const char *dir, *json, *shard, *endpoint, *exec, *wait, *to, *count, *slots;
    const char *words[3];
    int n; /* words after the name of the command */
} given;

static int no_node(const char *name, const char *what)
{
    client_args_fail("the config has no %s '%s'", what, name);
    return 1;
}

static int status(client_cluster *c, const given *g)
{
    return client_cluster_status(c, g->json != NULL);
}

static int drain(client_cluster *c, const given *g)
{
    mesh_peer peer = client_cluster_node(c, g->words[1], MESH_ROLES);
    return peer != MESH_NO_PEER ? client_cluster_drain(c, peer) : no_node(g->words[1], "node");
}

static int transfer_leader(client_cluster *c, const given *g)
{
    int64_t shard;
    size_t shards = mesh_conf_shards(c->conf);
    const char *to = g->n > 1 ? g->words[2] : "";
    if (!client_args_number("transfer-leader SHARD", g->words[1], 0, (int64_t)(shards > 0 ? shards - 1 : 0), &shard)) {
        return CLIENT_EXIT_USAGE;
    }
    mesh_peer peer = client_cluster_node(c, to, MESH_STORE);
    if (to[0] != '\0' && (peer == MESH_NO_PEER || mesh_conf_node(c->conf, peer)->shard != shard)) {
        return no_node(to, "store of this shard");
    }
    return client_cluster_transfer(c, (uint32_t)shard, to);
}

static int remove_store(client_cluster *c, const given *g)
{
    mesh_peer peer = client_cluster_node(c, g->words[1], MESH_STORE);
    return peer != MESH_NO_PEER ? client_cluster_remove_store(c, peer) : no_node(g->words[1], "store");
}

static int add_store(client_cluster *c, const given *g)
{
    mesh_peer peer = client_cluster_node(c, g->words[1], MESH_STORE);
    if (peer == MESH_NO_PEER) {
        client_args_fail("the config has no store '%s': --shard and --endpoint put it there", g->words[1]);
        return 1;
    }
    return client_cluster_add_store(c, peer);
}

static int roll(client_cluster *c, const given *g)
{
    int64_t seconds;
    if (!client_args_int("wait", g->wait, CLIENT_CLUSTER_GREEN_S, 1, 86400, &seconds)) {
        return CLIENT_EXIT_USAGE;
    }
    return client_cluster_roll(c, g->exec, seconds * 1000);
}

static int move_slots(client_cluster *c, const given *g)
{
    int64_t shard, count;
    client_slots slots = { 0, MESH_SLOTS - 1, 0 };
    size_t shards = mesh_conf_shards(c->conf);
    unsigned first, last;
    char end;
    if (g->to == NULL || (g->count == NULL) == (g->slots == NULL)) {
        return client_args_fail("move-slots wants --to SHARD, and --count N or --slots A-B");
    }
    if (!client_args_int("to", g->to, 0, 0, (int64_t)(shards > 0 ? shards - 1 : 0), &shard) ||
        !client_args_int("count", g->count, 0, 1, MESH_SLOTS, &count)) {
        return CLIENT_EXIT_USAGE;
    }
    if (g->slots != NULL) {
        if (sscanf(g->slots, "%4u-%4u%c", &first, &last, &end) != 2 || first > last || last >= MESH_SLOTS) {
            return client_args_fail("--slots wants A-B, with 0 <= A <= B < %d, not '%s'", MESH_SLOTS, g->slots);
        }
        slots.first = (mesh_slot)first;
        slots.last = (mesh_slot)last;
    }
    slots.count = (unsigned)count;
    return client_cluster_move(c, (uint32_t)shard, slots);
}

/* A node that the config does not have yet; nobody is asked. */
static int extend(const given *g, mesh_role role)
{
    mesh_node_conf node = { .role = role };
    const char *name = g->words[1];
    const char *endpoint = role == MESH_EDGE ? "" : g->endpoint; /* an edge's port is a setting */
    int64_t shard;
    if (!client_args_int("shard", g->shard, 0, 0, MESH_NODES_MAX - 1, &shard)) {
        return CLIENT_EXIT_USAGE;
    }
    if (endpoint == NULL || (role == MESH_STORE && g->shard == NULL)) {
        return client_args_fail("%s: a new node wants %s", name,
                                role == MESH_STORE ? "--shard N and --endpoint tcp://HOST:PORT"
                                                   : "--endpoint tcp://HOST:PORT");
    }
    if (strlen(name) > MESH_NODE_NAME_MAX || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0') {
        return client_args_fail("'%s' is no name: 1 to %d of [a-z0-9-]", name, MESH_NODE_NAME_MAX);
    }
    if (strlen(endpoint) >= sizeof node.endpoint || (role != MESH_EDGE && strncmp(endpoint, "tcp://", 6) != 0)) {
        return client_args_fail("'%s' is no endpoint: tcp://HOST:PORT", endpoint);
    }
    snprintf(node.name, sizeof node.name, "%s", name);
    snprintf(node.endpoint, sizeof node.endpoint, "%s", endpoint);
    node.shard = (uint32_t)shard;
    return client_cluster_extend(g->dir, &node);
}

static const struct {
    const char *name;
    int min, max; /* words after it */
    int (*run)(client_cluster *c, const given *g);
} commands[] = {
    { "status", 0, 0, status },
    { "drain", 1, 1, drain },
    { "transfer-leader", 1, 2, transfer_leader },
    { "remove-store", 1, 1, remove_store },
    { "add-store", 1, 1, add_store },
    { "add-router", 1, 1, NULL },
    { "add-edge", 1, 1, NULL },
    { "move-slots", 0, 0, move_slots },
    { "roll", 0, 0, roll },
};
#define COMMANDS (sizeof commands / sizeof *commands)

static int run(size_t i, const given *g)
{
    client_cluster c;
    if (commands[i].run == NULL) {
        return extend(g, strcmp(commands[i].name, "add-edge") == 0 ? MESH_EDGE : MESH_ROUTER);
    }
    if (commands[i].run == add_store && (g->shard != NULL || g->endpoint != NULL)) {
        return extend(g, MESH_STORE);
    }
    if (!client_cluster_open(&c, g->dir)) {
        return 1;
    }
    int code = commands[i].run(&c, g);
    client_cluster_close(&c);
    return code;
}

int client_cmd_cluster(int argc, char **argv)
{
    given g = { .dir = "data" };
    const client_option options[] = {
        { "data", "DIR", "the cluster's directory (data)", &g.dir },
        { "json", NULL, "status: as one JSON object", &g.json },
        { "shard", "N", "add-store: the shard of a store that the config does not have yet", &g.shard },
        { "endpoint", "TCP", "add-store, add-router: where a new node listens, tcp://HOST:PORT", &g.endpoint },
        { "to", "SHARD", "move-slots: where they go", &g.to },
        { "count", "N", "move-slots: so many, from the fullest shards", &g.count },
        { "slots", "A-B", "move-slots: these", &g.slots },
        { "exec", "CMD", "roll: starts a drained node; {node} is its name. Without: systemd or the like does",
          &g.exec },
        { "wait", "S", "roll: the cluster is whole again so long after a node (120)", &g.wait },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = {
        "parley cluster status | drain NODE | transfer-leader SHARD [NODE] | remove-store NODE | add-store NODE | "
        "add-router NODE | add-edge NODE | move-slots | roll [options]",
        "status: every node, every shard, and what is not as the config says (then exit status 1)\n"
        "drain: as SIGTERM: the node hands over what it does and ends\n"
        "transfer-leader: another store leads the shard, NODE or whoever is furthest\n"
        "remove-store: out of its shard's group, until add-store says otherwise\n"
        "add-store: may be in its group again; with --shard and --endpoint a new node in the config\n"
        "add-router, add-edge: a new node in the config\n"
        "move-slots: of users and chats to another shard, one after the other, under load\n"
        "roll: drains every node in turn, waits for it and for the whole cluster before the next",
        options,
        g.words,
        1,
        3
    };
    int code;
    int n = client_args_parse(&args, argc, argv, &code);
    if (n < 0) {
        return code;
    }
    g.n = n - 1;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, g.words[0]) == 0) {
            return g.n >= commands[i].min && g.n <= commands[i].max ? run(i, &g)
                                                                    : client_args_fail("usage: %s", args.usage);
        }
    }
    return client_args_fail("unknown command 'cluster %s' (usage: %s)", g.words[0], args.usage);
}
