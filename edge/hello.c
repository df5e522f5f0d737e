#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edge/state.h"
#include "edge/token.h"
#include "mesh/alloc.h"
#include "mesh/log.h"

#define FEATURES_MAX 32
#define WORD_MAX 64 /* bytes of a feature and of the client's name */

/* Check token and give its user, qualified, and when it ends. Errors: MESH_DENIED, *fault is set. */
static mesh_err check_token(edge_core *core, const char *token, mesh_time now, edge_token_claims *claims,
                            mesh_qid *user, mesh_ms *until, uint32_t *fault)
{
    *fault = FAULT_UNAUTHORIZED;
    mesh_err err = MESH_DENIED;
    if (token != NULL && token[0] != '\0') {
        err = edge_token_check(core->token_key, token, now.wall / 1000, core->skew_s, claims, fault);
    }
    if (err == MESH_OK && (!mesh_conf_has_tenant(core->conf, claims->tenant) ||
                           mesh_qid_make(claims->tenant, claims->user, user) != MESH_OK)) {
        *fault = FAULT_UNAUTHORIZED;
        err = MESH_DENIED;
    }
    if (err != MESH_OK) {
        mesh_stats_add(core->stats, EDGE_STAT_REFUSED_TOKENS, 1);
        return err;
    }
    *until = now.mono + (claims->exp_s + core->skew_s) * 1000 - now.wall;
    return MESH_OK;
}

static const char *wrong_field(const Client__Hello *hello)
{
    if (!mesh_id_valid(hello->device)) {
        return "device: must be an id";
    }
    if (hello->n_features > FEATURES_MAX) {
        return "features: at most 32";
    }
    for (size_t i = 0; i < hello->n_features; i++) {
        if (strlen(hello->features[i]) > WORD_MAX) {
            return "features: at most 64 bytes each";
        }
    }
    if (strlen(hello->client) > WORD_MAX) {
        return "client: at most 64 bytes";
    }
    return NULL;
}

void edge_hello_take(edge_core *core, edge_session *s, uint64_t id, const Client__Hello *hello, mesh_time now,
                     mesh_out *out)
{
    if (s->state != EDGE_HELLO) {
        edge_core_error(core, s, id, FAULT_HELLO_TWICE, 0, NULL, now);
        return;
    }
    const char *wrong = wrong_field(hello);
    if (wrong != NULL) {
        edge_core_error(core, s, id, FAULT_INVALID, 0, wrong, now);
        return;
    }
    edge_token_claims claims;
    mesh_qid user;
    mesh_ms until;
    uint32_t fault;
    const char *token = hello->token[0] != '\0' ? hello->token : s->token;
    if (check_token(core, token, now, &claims, &user, &until, &fault) != MESH_OK) {
        edge_core_error(core, s, id, fault, 0, NULL, now);
        edge_core_close(core, s, edge_close_of_fault(fault), now);
        return;
    }
    free(s->token);
    s->token = NULL;
    s->user = mesh_strdup(user.s);
    s->device = mesh_strdup(hello->device);
    s->name = claims.name[0] == '\0' ? NULL : mesh_strdup(claims.name);
    s->hello_id = id;
    s->attempt = hello->attempt;
    s->token_until = until;
    if (hello->cursor != NULL) {
        s->has_cursor = true;
        s->era = hello->cursor->era;
        s->forwarded = s->acked = hello->cursor->inbox_seq;
    }
    mesh_stats_add(core->stats, EDGE_STAT_HELLOS, 1);
    mesh_log(MESH_INFO, "session_started", "session=%016" PRIx64 " user=%s device=%s client=%s cursor=%" PRIu64, s->id,
             s->user, s->device, hello->client, s->forwarded);
    edge_session_move(s, EDGE_ATTACHING);
    edge_attach_send(core, s, now, out);
    edge_timer_place(core, s, now);
}

/* A token that is no good changes nothing: the session goes on until the one it has ends. */
void edge_hello_refresh(edge_core *core, edge_session *s, uint64_t id, const Client__Refresh *refresh, mesh_time now)
{
    edge_token_claims claims;
    mesh_qid user;
    mesh_ms until;
    uint32_t fault;
    mesh_err err = check_token(core, refresh->token, now, &claims, &user, &until, &fault);
    if (err == MESH_OK && strcmp(user.s, s->user) != 0) {
        err = MESH_DENIED;
        fault = FAULT_UNAUTHORIZED;
    }
    if (err != MESH_OK) {
        edge_core_error(core, s, id, fault, 0, NULL, now);
        return;
    }
    s->token_until = until;
    edge_timer_place(core, s, now);
    edge_core_done(core, s, id, now);
}
