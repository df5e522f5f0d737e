#include "edge/state.h"

/* The session that from may feed: attached there and not ended. NULL: counted as a stray. */
static edge_session *fed_by(edge_core *core, mesh_peer from, uint64_t id, mesh_time now)
{
    edge_session *s = edge_core_find(core, id);
    if (s == NULL || s->attach_state != EDGE_ATTACH_DONE || s->router != from) {
        mesh_stats_add(core->stats, EDGE_STAT_STRAYS, 1);
        return NULL;
    }
    s->heard_at = now.mono;
    return s;
}

static void forward(edge_core *core, edge_session *s, uint64_t inbox_seq, mesh_time now)
{
    if (edge_session_queued(s) == 0) {
        s->progress_at = now.mono;
    }
    edge_codec_push_put(&core->push, s->codec, inbox_seq, &s->queue);
    s->forwarded = inbox_seq;
    s->head = s->head > inbox_seq ? s->head : inbox_seq;
    mesh_stats_add(core->stats, EDGE_STAT_PUSHED, 1);
    edge_core_ready(core, s);
    edge_attach_reached(core, s, now);
}

void edge_downlink_live(edge_core *core, mesh_peer from, const Mesh__Live *live, mesh_time now)
{
    if (live->entry == NULL) {
        mesh_stats_add(core->stats, EDGE_STAT_MESH_MALFORMED, 1);
        return;
    }
    Client__Message message;
    edge_event_message(core->arena, live->entry, &message);
    message.era = live->era;
    edge_codec_push_open(&core->push, &message);
    for (size_t i = 0; i < live->n_targets; i++) {
        uint64_t inbox_seq = live->targets[i]->inbox_seq;
        edge_session *s = fed_by(core, from, live->targets[i]->session, now);
        if (s == NULL) {
            continue;
        }
        if (s->era != live->era) {
            mesh_stats_add(core->stats, EDGE_STAT_STRAYS, 1);
        } else if (inbox_seq <= s->forwarded) {
            mesh_stats_add(core->stats, EDGE_STAT_DUPLICATES, 1);
        } else if (inbox_seq > s->forwarded + 1) {
            mesh_stats_add(core->stats, EDGE_STAT_GAPS, 1);
            edge_attach_want(core, s);
        } else if (edge_session_queued(s) > EDGE_SENDQ_MAX) {
            edge_attach_starve(core, s);
        } else {
            forward(core, s, inbox_seq, now);
        }
    }
}

void edge_downlink_heads(edge_core *core, mesh_peer from, const Mesh__SessionHeads *heads, mesh_time now)
{
    for (size_t i = 0; i < heads->n_heads; i++) {
        edge_session *s = fed_by(core, from, heads->heads[i]->session, now);
        if (s == NULL) {
            continue;
        }
        uint64_t head = heads->heads[i]->inbox_seq;
        s->head = s->head > head ? s->head : head;
        if (s->head <= s->forwarded || s->forwarded - s->acked >= EDGE_CREDIT) {
            s->stuck_at = 0;
        } else if (s->stuck_at != s->forwarded + 1) {
            s->stuck_at = s->forwarded + 1; /* the first time: what is missing may be on its way */
        } else {
            mesh_stats_add(core->stats, EDGE_STAT_STUCK, 1);
            edge_attach_want(core, s);
        }
    }
}

void edge_downlink_replaced(edge_core *core, mesh_peer from, const Mesh__Replaced *replaced, mesh_time now)
{
    edge_session *s = edge_core_find(core, replaced->session);
    if (s == NULL || s->router != from ||
        (s->attach_state != EDGE_ATTACH_DONE && s->attach_state != EDGE_ATTACH_SENT &&
         s->attach_state != EDGE_ATTACH_STARVED)) {
        mesh_stats_add(core->stats, EDGE_STAT_STRAYS, 1);
        return;
    }
    uint32_t code = replaced->code == FAULT_NONE ? FAULT_REPLACED : replaced->code;
    edge_attach_failed(core, s, code, now); /* anything but REPLACED: that router gave it up, attach again */
}

void edge_downlink_acks(edge_core *core, mesh_time now, mesh_out *out)
{
    (void)now;
    edge_session *s;
    while ((s = TAILQ_FIRST(&core->ack_queue)) != NULL) {
        TAILQ_REMOVE(&core->ack_queue, s, ack);
        s->ack_waits = false;
        if (s->router == MESH_NO_PEER ||
            (s->attach_state != EDGE_ATTACH_DONE && s->attach_state != EDGE_ATTACH_STARVED)) {
            continue; /* the attach carries it, and it is said again when that is done */
        }
        Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
        ack.user = s->user;
        ack.device = s->device;
        ack.session = s->id;
        ack.inbox_seq = s->acked;
        MESH_MSG(msg, INBOX_ACK, inbox_ack, &ack);
        edge_table_stamp(core, &msg, s->user);
        mesh_out_put(out, s->router, &msg);
        s->acked_sent = s->acked;
        mesh_stats_add(core->stats, EDGE_STAT_ACKS, 1);
    }
}
