/* edge/core_out.c: what a session is told, from the event to the bytes that the shell writes. */
#include "edge/state.h"

/* ---- what the shell writes ---- */

void edge_core_unready(edge_core *core, edge_session *s)
{
    if (s->ready_state == EDGE_READY) {
        TAILQ_REMOVE(&core->ready, s, ready);
    }
    s->ready_state = EDGE_IDLE;
}

void edge_core_ready(edge_core *core, edge_session *s)
{
    if (s->ready_state == EDGE_IDLE) {
        s->ready_state = EDGE_READY;
        TAILQ_INSERT_TAIL(&core->ready, s, ready);
    }
}

bool edge_core_next_ready(edge_core *core, edge_session_id *session_p)
{
    edge_session *s = TAILQ_FIRST(&core->ready);
    if (s == NULL) {
        return false;
    }
    TAILQ_REMOVE(&core->ready, s, ready);
    s->ready_state = EDGE_TAKEN;
    *session_p = s->id;
    return true;
}

mesh_slice edge_core_pending(edge_core *core, edge_session_id session, uint16_t *close_code, const char **close_reason)
{
    *close_code = 0;
    *close_reason = "";
    edge_session *s = edge_core_find(core, session);
    if (s == NULL) {
        return (mesh_slice){ NULL, 0 };
    }
    mesh_slice chunk = edge_session_chunk(s);
    if (s->state == EDGE_CLOSED && chunk.size == edge_session_queued(s)) {
        *close_code = s->close_code;
        *close_reason = edge_close_get(s->close_code)->reason;
        s->close_shown = true;
    } else if (chunk.size == 0) {
        edge_core_unready(core, s); /* nothing after all: what comes next is announced again */
    }
    return chunk;
}

void edge_core_wrote(edge_core *core, edge_session_id session, size_t bytes, mesh_time now, mesh_out *out)
{
    edge_session *s = edge_core_find(core, session);
    if (s == NULL) {
        return;
    }
    if (bytes > 0) {
        s->progress_at = now.mono;
        edge_session_taken(s, bytes);
    }
    edge_core_unready(core, s);
    if (edge_session_queued(s) > 0 || (s->state == EDGE_CLOSED && !s->close_shown)) {
        edge_core_ready(core, s);
    }
    if (s->attach_state == EDGE_ATTACH_STARVED && edge_session_queued(s) < EDGE_SENDQ_MAX / 2) {
        edge_attach_send(core, s, now, out);
    }
}

/* ---- what it is told ---- */

void edge_core_put(edge_core *core, edge_session *s, const Client__Event *event, mesh_time now)
{
    if (s->state == EDGE_CLOSED) {
        return;
    }
    if (edge_session_queued(s) == 0) {
        s->progress_at = now.mono;
    }
    edge_codec_put_event(s->codec, event, &s->queue);
    if (edge_session_queued(s) > EDGE_ANSWERS_MAX) {
        edge_session_drop_queue(s);
        edge_core_close(core, s, EDGE_CLOSE_SLOW, now);
        return;
    }
    edge_core_ready(core, s);
}

void edge_core_error(edge_core *core, edge_session *s, uint64_t id, uint32_t fault, uint32_t after_ms,
                     const char *detail, mesh_time now)
{
    const mesh_fault_info *cause = mesh_fault_get(fault);
    const mesh_fault_info *shown = cause->code >= FAULT_NOT_OWNER ? mesh_fault_get(FAULT_UNAVAILABLE) : cause;
    Client__Error error = CLIENT__ERROR__INIT;
    error.code = (uint32_t)shown->code;
    error.name = (char *)(uintptr_t)shown->name;
    error.message = (char *)(uintptr_t)(detail == NULL || detail[0] == '\0' ? shown->message : detail);
    error.retry = (Client__Retry)shown->retry;
    error.after_ms = after_ms != 0 ? after_ms : cause->after_ms;
    Client__Event event = CLIENT__EVENT__INIT;
    event.id = id;
    event.body_case = CLIENT__EVENT__BODY_ERROR;
    event.error = &error;
    mesh_stats_add(core->stats, EDGE_STAT_ERRORS, 1);
    edge_core_put(core, s, &event, now);
}

void edge_core_done(edge_core *core, edge_session *s, uint64_t id, mesh_time now)
{
    if (id != 0) {
        Client__Done done = CLIENT__DONE__INIT;
        Client__Event event = CLIENT__EVENT__INIT;
        event.id = id;
        event.body_case = CLIENT__EVENT__BODY_DONE;
        event.done = &done;
        edge_core_put(core, s, &event, now);
    }
}
