/* tests/sim/noise.c: single messages that are lost, come twice or late, on links that are up. mesh/link.h promises that
 * this does not happen within a span; what the parts promise each other is more than they need, and this is how that is
 * known. What each kind bears, and why not the rest, stands in the table. */
#include "tests/sim/impl.h"

#include <stdlib.h>

#define CHANCES 10000

enum {
    LOST = 1,
    TWICE = 2, /* two, one right behind the other */
    AGAIN = 4, /* the second one may come later: others are in between */
    LATE = 8,  /* others overtake it */
    ALL = LOST | TWICE | AGAIN | LATE
};

typedef struct rule {
    mesh_role from, to;
    Mesh__Msg__BodyCase kind;
    unsigned bears;
} rule;

#define RULE(from, to, kind, bears)                                                                                    \
    {                                                                                                                  \
        MESH_##from, MESH_##to, MESH__MSG__BODY_##kind, bears                                                          \
    }

/* What bears less than all, and why:
 *
 *   send, chat_create, chat_edit, profile   one person's own requests take effect in the order they were made in. Nor
 *                                           do they come again later: the first copy may have been refused, and the
 *                                           answer was believed. Between edge and router not even twice, because each
 *                                           copy is a request of its own there, and the second may wait where the first
 *                                           was answered
 *   attach     each one the store takes may raise the device's generation, and only the answer to the last one says
 *              which it holds (router/tries.c). A second one at the router begins the attaching anew for a session
 *              that the edge takes for attached. Lost ones are asked again
 *   replica    says how long a log is, and is compared with what was confirmed (store/group.h): no Raft message that
 *              was sent later may be there first
 *   ring       from a router to an edge: said once, when it changes or the link comes up, so it may not be lost. A
 *              store that acts on an old one is told again. Old ones are known by their epoch
 *
 * Hellos and pings are the link's own and not here at all. */
static const rule rules[] = {
    RULE(STORE, STORE, RAFT, ALL),
    RULE(STORE, STORE, REPLICA, LOST | TWICE),
    RULE(STORE, STORE, STATE_ASK, ALL),
    RULE(STORE, STORE, STATE_CHUNK, ALL),
    RULE(STORE, STORE, STATE_DONE, ALL),
    RULE(STORE, STORE, FAULT, ALL),

    RULE(ROUTER, STORE, LEASE, ALL),
    RULE(ROUTER, STORE, RING, ALL),
    RULE(ROUTER, STORE, SEND, LOST | TWICE),
    RULE(ROUTER, STORE, CHAT_CREATE, LOST | TWICE),
    RULE(ROUTER, STORE, CHAT_EDIT, LOST | TWICE),
    RULE(ROUTER, STORE, READ, ALL),
    RULE(ROUTER, STORE, HISTORY, ALL),
    RULE(ROUTER, STORE, MEMBERS, ALL),
    RULE(ROUTER, STORE, HEADS, ALL),
    RULE(ROUTER, STORE, ATTACH, LOST),
    RULE(ROUTER, STORE, INBOX_ACK, ALL),
    RULE(ROUTER, STORE, USER_CHATS, ALL),
    RULE(ROUTER, STORE, INBOX_READ, ALL),
    RULE(ROUTER, STORE, APPEND, ALL),
    RULE(ROUTER, STORE, PROFILE, LOST | TWICE),
    RULE(ROUTER, STORE, DELIVERED, ALL),
    RULE(ROUTER, STORE, SLOT_ROWS, ALL),
    RULE(ROUTER, STORE, SLOT_TAKEN, ALL),
    RULE(ROUTER, STORE, MAP_SET, ALL),
    RULE(ROUTER, STORE, DONE, ALL),
    RULE(ROUTER, STORE, FAULT, ALL),

    RULE(STORE, ROUTER, RING, ALL),
    RULE(STORE, ROUTER, LEADING, ALL),
    RULE(STORE, ROUTER, SENT, ALL),
    RULE(STORE, ROUTER, DONE, ALL),
    RULE(STORE, ROUTER, FAULT, ALL),
    RULE(STORE, ROUTER, PAGE, ALL),
    RULE(STORE, ROUTER, MEMBER_LIST, ALL),
    RULE(STORE, ROUTER, CHAT_LIST, ALL),
    RULE(STORE, ROUTER, ATTACHED, ALL),
    RULE(STORE, ROUTER, USER_CHAT_PAGE, ALL),
    RULE(STORE, ROUTER, INBOX_PAGE, ALL),
    RULE(STORE, ROUTER, APPENDED, ALL),
    RULE(STORE, ROUTER, DELIVER, ALL),
    RULE(STORE, ROUTER, SLOT_ROWS, ALL),
    RULE(STORE, ROUTER, MAP_SET, ALL),

    RULE(EDGE, ROUTER, SEND, LOST),
    RULE(EDGE, ROUTER, CHAT_CREATE, LOST),
    RULE(EDGE, ROUTER, CHAT_EDIT, LOST),
    RULE(EDGE, ROUTER, READ, ALL),
    RULE(EDGE, ROUTER, HISTORY, ALL),
    RULE(EDGE, ROUTER, MEMBERS, ALL),
    RULE(EDGE, ROUTER, CHATS, ALL),
    RULE(EDGE, ROUTER, PROFILE, LOST),
    RULE(EDGE, ROUTER, INBOX_ACK, ALL),
    RULE(EDGE, ROUTER, ATTACH, LOST),
    RULE(EDGE, ROUTER, DETACH, ALL),

    RULE(ROUTER, EDGE, SENT, ALL),
    RULE(ROUTER, EDGE, DONE, ALL),
    RULE(ROUTER, EDGE, PAGE, ALL),
    RULE(ROUTER, EDGE, MEMBER_LIST, ALL),
    RULE(ROUTER, EDGE, CHAT_LIST, ALL),
    RULE(ROUTER, EDGE, LIVE, ALL),
    RULE(ROUTER, EDGE, SESSION_HEADS, ALL),
    RULE(ROUTER, EDGE, RING, TWICE | AGAIN | LATE),
    RULE(ROUTER, EDGE, ATTACHED, ALL),
    RULE(ROUTER, EDGE, FAULT, ALL),
    RULE(ROUTER, EDGE, REPLACED, ALL),

    RULE(OPERATOR, STORE, OPERATE, ALL),
    RULE(STORE, OPERATOR, DONE, ALL),
    RULE(STORE, OPERATOR, FAULT, ALL),
};

void sim_noise_set(sim *s, sim_noise noise)
{
    s->noise = noise;
    sim_trace(s, "of %d messages %u are lost, %u come twice, %u late", CHANCES, noise.lost, noise.twice, noise.late);
}

sim_noise_counts sim_noise_counted(const sim *s)
{
    return s->noise_counts;
}

static unsigned bears(mesh_role from, mesh_role to, Mesh__Msg__BodyCase kind)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].kind == kind && rules[i].from == from && rules[i].to == to) {
            return rules[i].bears;
        }
    }
    return 0;
}

static void free_late(sim_late *late)
{
    *late->at = late->next;
    if (late->next) {
        late->next->at = late->at;
    }
    mesh_buf_fini(&late->frame);
    free(late);
}

static void arrive(sim *s, void *arg, uint64_t tag)
{
    (void)tag;
    sim_late *late = arg;
    sim_node *n = late->to;
    if (n && n->alive && n->boot == late->boot) {
        sim_trace(s, "%s: now comes what is late", n->name);
        sim_input *in = sim_node_input(n, IN_FRAME);
        in->peer = late->from;
        in->bytes = late->frame;
        late->frame = (mesh_buf){ 0 };
    }
    free_late(late);
}

/* Mostly a little, so that it is a question of order; now and then long after everybody gave it up. */
static sim_us lateness(sim *s)
{
    mesh_ms most = s->noise.late_ms > 1 ? s->noise.late_ms : 1;
    mesh_ms some = most < 30 ? most : 30;
    return sim_between(s, 100, (sim_random(s, 4) ? some : most) * 1000);
}

static void put_off(sim_node *to, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    sim *s = to->s;
    sim_late *late = mesh_alloc(sizeof *late);
    late->to = to;
    late->from = from;
    late->any_span = msg->body_case == MESH__MSG__BODY_RAFT;
    late->boot = to->boot;
    mesh_frame_put_packed(&late->frame, packed);
    late->next = s->lates;
    late->at = &s->lates;
    if (late->next) {
        late->next->at = &late->next;
    }
    s->lates = late;
    sim_at(s, s->now + lateness(s), arrive, late, 0);
}

unsigned sim_noise_times(sim_node *to, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    sim *s = to->s;
    const sim_noise *noise = &s->noise;
    unsigned any = noise->lost + noise->twice + noise->late;
    uint64_t chance = any ? sim_random(s, CHANCES) : CHANCES;
    if (chance >= any) {
        return 1;
    }
    unsigned may = bears(s->nodes[from].role, to->role, msg->body_case);
    if (chance < noise->lost) {
        if (may & LOST) {
            sim_trace(s, "%s: that was lost", to->name);
            s->noise_counts.lost++;
            return 0;
        }
    } else if (chance < noise->lost + noise->twice) {
        if ((may & AGAIN) && sim_random(s, 2)) {
            sim_trace(s, "%s: that comes once more", to->name);
            s->noise_counts.twice++;
            put_off(to, from, msg, packed);
        } else if (may & TWICE) {
            sim_trace(s, "%s: that came twice", to->name);
            s->noise_counts.twice++;
            return 2;
        }
    } else if (may & LATE) {
        sim_trace(s, "%s: that is late", to->name);
        s->noise_counts.late++;
        put_off(to, from, msg, packed);
        return 0;
    }
    return 1;
}

/* The events that would bring them stay; they find nobody to bring them to. */
void sim_noise_down(sim_node *to, mesh_peer from)
{
    for (sim_late *late = to->s->lates; late; late = late->next) {
        if (late->to == to && late->from == from && !late->any_span) {
            late->to = NULL;
        }
    }
}

void sim_noise_fini(sim *s)
{
    while (s->lates) {
        free_late(s->lates);
    }
}
