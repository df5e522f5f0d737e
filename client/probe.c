#include "client/probe.h"

#include <stdio.h>
#include <string.h>

#include "mesh/id.h"
#include "mesh/loop.h"
#include "mesh/rand.h"

typedef struct probe {
    mesh_loop *loop;
    client_session *session;
    mesh_ms until;
    uint64_t send_id;
    char chat[MESH_ID_MAX + 1]; /* of the answer; empty: not yet */
    uint64_t sent_seq;
    char got_chat[MESH_ID_MAX + 1];
    uint64_t got_seq;
    char body[33];
} probe;

static bool through(const probe *p)
{
    return p->sent_seq > 0 && p->got_seq == p->sent_seq && strcmp(p->chat, p->got_chat) == 0;
}

static void on_live(void *arg, const Client__Live *live)
{
    (void)live;
    probe *p = arg;
    if (p->send_id == 0) {
        mesh_err err = client_session_send(p->session, NULL, CLIENT_PROBE_USER, NULL, p->body, &p->send_id);
        (void)err; /* an empty session is neither full nor stopped */
    }
}

static void on_answer(void *arg, uint64_t id, const Client__Event *event)
{
    probe *p = arg;
    if (id == p->send_id && event->body_case == CLIENT__EVENT__BODY_ACK) {
        snprintf(p->chat, sizeof p->chat, "%s", event->ack->chat);
        p->sent_seq = event->ack->seq;
    } else if (id == p->send_id) {
        p->send_id = 0; /* refused: try again when time allows */
    }
}

static void on_message(void *arg, const Client__Message *message)
{
    probe *p = arg;
    if (strcmp(message->body, p->body) == 0) {
        snprintf(p->got_chat, sizeof p->got_chat, "%s", message->chat);
        p->got_seq = message->seq;
    }
}

static mesh_ms turn(void *arg, mesh_time now)
{
    probe *p = arg;
    if (!p->session) {
        return MESH_NEVER; /* the loop only turns to let go of things */
    }
    bool stopped = client_session_state(p->session) == CLIENT_STOPPED;
    if (through(p) || stopped || now.mono >= p->until || mesh_loop_stopping()) {
        mesh_loop_stop(p->loop);
    }
    /* callbacks of the same turn may have finished it: look again soon */
    return now.mono + 20 < p->until ? now.mono + 20 : p->until;
}

static const client_handler handler = { .live = on_live, .answer = on_answer, .message = on_message };

mesh_err client_probe(const client_url *url, const char *token, mesh_ms limit_ms, char *why, size_t why_size)
{
    probe p = { .until = mesh_clock_now().mono + limit_ms };
    uint64_t seed = mesh_rand_seed();
    char device[33]; /* of its own: two probes must not replace each other */
    snprintf(device, sizeof device, "probe-%016llx", (unsigned long long)seed);
    snprintf(p.body, sizeof p.body, "%016llx", (unsigned long long)mesh_rand_seed());
    p.loop = mesh_loop_new(turn, &p);
    client_socket *cs;
    mesh_err err = client_socket_new(mesh_loop_uv(p.loop), 16, &cs);
    if (err == MESH_OK) {
        client_session_conf conf = { .token = token, .device = device, .software = "parley wait", .seed = seed };
        client_conn *conn = client_socket_open(cs, url, NULL, &conf, &handler, &p);
        p.session = client_conn_session(conn);
        mesh_loop_run(p.loop);
        if (!through(&p)) {
            const char *reason = client_session_why(p.session);
            snprintf(why, why_size, "%s (%s)", reason[0] ? reason : "no answer",
                     client_state_name(client_session_state(p.session)));
            err = client_session_state(p.session) == CLIENT_STOPPED ? MESH_DENIED : MESH_CLOSED;
        }
        p.session = NULL;
        client_conn_close(&conn);
        client_socket_destroy(&cs);
    } else {
        snprintf(why, why_size, "libwebsockets does not start");
    }
    mesh_loop_destroy(&p.loop);
    return err;
}
