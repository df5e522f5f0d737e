/* client/view_print.c: a view as a screen for people, and as JSON for programs. */
#include <inttypes.h>
#include <stdio.h>

#include "client/view.h"

/* ---- for people ---- */

static const char *role_name(client_member_role role)
{
    static const char *const names[] = { "no member", "taken out", "standby", "voter" };
    return names[role];
}

static const char *uptime(uint64_t s, char out[32])
{
    if (s >= 86400) {
        snprintf(out, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
    } else if (s >= 3600) {
        snprintf(out, 32, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
    } else {
        snprintf(out, 32, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    }
    return out;
}

static void text_node(const client_node_view *n, mesh_buf *out)
{
    char up[32], shard[16] = "-";
    if (n->node->role == MESH_STORE) {
        snprintf(shard, sizeof shard, "%u", n->node->shard);
    }
    mesh_buf_printf(out, "%-12s %-7s %-5s %-5s %-8s %-8s", n->node->name, mesh_role_name(n->node->role), shard,
                    n->up ? "up" : "down", n->up ? n->version : "-", n->up ? uptime(n->uptime_s, up) : "-");
    if (n->up) {
        mesh_buf_printf(out, " epoch %" PRIu64, n->epoch);
        mesh_buf_puts(out, n->live ? ", in the ring" : n->leader ? ", leader" : "");
    }
    mesh_buf_puts(out, "\n");
}

static void text_shard(const client_view *view, uint32_t shard, mesh_buf *out)
{
    const client_shard_view *s = client_view_shard(view, shard);
    if (s->leader == MESH_NO_PEER) {
        mesh_buf_printf(out, "shard %u: no leader\n", shard);
    } else {
        mesh_buf_printf(out, "shard %u: leader %s, term %" PRIu64 ", %u of %u voters, %" PRIu64 " slots\n", shard,
                        client_view_node(view, s->leader)->node->name, s->term, s->voters, s->stores, s->slots);
    }
    for (size_t i = 0; i < client_view_nodes(view); i++) {
        const client_node_view *n = client_view_node(view, (mesh_peer)i);
        if (n->node->role != MESH_STORE || n->node->shard != shard) {
            continue;
        }
        mesh_buf_printf(out, "  %-12s %-9s", n->node->name, s->leader != MESH_NO_PEER ? role_name(n->role) : "-");
        if (n->up) {
            mesh_buf_printf(out, " last %" PRIu64 "  commit %" PRIu64 "  applied %" PRIu64, n->last, n->commit,
                            n->applied);
        }
        if (n->role == CLIENT_VOTER || n->role == CLIENT_STANDBY) {
            mesh_buf_printf(out, "  lag %" PRIu64, n->lag);
        }
        mesh_buf_puts(out, "\n");
    }
}

void client_view_text(const client_view *view, mesh_buf *out)
{
    mesh_buf_printf(out, "%-12s %-7s %-5s %-5s %-8s %-8s\n", "NODE", "ROLE", "SHARD", "STATE", "VERSION", "UPTIME");
    for (size_t i = 0; i < client_view_nodes(view); i++) {
        const client_node_view *n = client_view_node(view, (mesh_peer)i);
        if (n->node->role != MESH_OPERATOR) {
            text_node(n, out);
        }
    }
    for (size_t i = 0; i < client_view_shards(view); i++) {
        text_shard(view, (uint32_t)i, out);
    }
    mesh_buf_printf(out, "ring: epoch %" PRIu64 "\n", client_view_epoch(view));
    for (size_t i = 0; i < client_view_problems(view); i++) {
        mesh_buf_printf(out, "! %s\n", client_view_problem(view, i));
    }
    mesh_buf_puts(out, client_view_problems(view) == 0 ? "green\n" : "");
}

/* ---- for programs: names and problems hold nothing that JSON would want escaped ---- */

static void json_node(const client_node_view *n, mesh_buf *out)
{
    mesh_buf_printf(out,
                    "{\"name\":\"%s\",\"role\":\"%s\",\"up\":%s,\"version\":\"%s\",\"uptime_s\":%" PRIu64
                    ",\"started_ms\":%" PRIu64 ",\"epoch\":%" PRIu64,
                    n->node->name, mesh_role_name(n->node->role), n->up ? "true" : "false", n->version, n->uptime_s,
                    n->started_ms, n->epoch);
    if (n->node->role == MESH_ROUTER) {
        mesh_buf_printf(out, ",\"live\":%s", n->live ? "true" : "false");
    }
    mesh_buf_puts(out, "}");
}

static void json_shard(const client_view *view, uint32_t shard, mesh_buf *out)
{
    const client_shard_view *s = client_view_shard(view, shard);
    const char *comma = "";
    mesh_buf_printf(out,
                    "{\"shard\":%u,\"leader\":\"%s\",\"term\":%" PRIu64
                    ",\"stores\":%u,\"voters\":%u,\"slots\":%" PRIu64 ",\"members\":[",
                    shard, s->leader != MESH_NO_PEER ? client_view_node(view, s->leader)->node->name : "", s->term,
                    s->stores, s->voters, s->slots);
    for (size_t i = 0; i < client_view_nodes(view); i++) {
        const client_node_view *n = client_view_node(view, (mesh_peer)i);
        if (n->node->role == MESH_STORE && n->node->shard == shard) {
            mesh_buf_printf(out,
                            "%s{\"node\":\"%s\",\"role\":\"%s\",\"last\":%" PRIu64 ",\"commit\":%" PRIu64
                            ",\"applied\":%" PRIu64 ",\"lag\":%" PRIu64 "}",
                            comma, n->node->name, role_name(n->role), n->last, n->commit, n->applied, n->lag);
            comma = ",";
        }
    }
    mesh_buf_puts(out, "]}");
}

void client_view_json(const client_view *view, mesh_buf *out)
{
    const char *comma = "";
    mesh_buf_printf(out, "{\"green\":%s,\"epoch\":%" PRIu64 ",\"nodes\":[",
                    client_view_problems(view) == 0 ? "true" : "false", client_view_epoch(view));
    for (size_t i = 0; i < client_view_nodes(view); i++) {
        const client_node_view *n = client_view_node(view, (mesh_peer)i);
        if (n->node->role != MESH_OPERATOR) {
            mesh_buf_puts(out, comma);
            json_node(n, out);
            comma = ",";
        }
    }
    mesh_buf_puts(out, "],\"shards\":[");
    for (size_t i = 0; i < client_view_shards(view); i++) {
        mesh_buf_puts(out, i > 0 ? "," : "");
        json_shard(view, (uint32_t)i, out);
    }
    mesh_buf_puts(out, "],\"problems\":[");
    for (size_t i = 0; i < client_view_problems(view); i++) {
        mesh_buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", client_view_problem(view, i));
    }
    mesh_buf_puts(out, "]}\n");
}
