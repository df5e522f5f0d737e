#include "edge/state.h"

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

/* The next time something about s has to be looked at. */
static mesh_ms due(const edge_core *core, const edge_session *s)
{
    switch (s->state) {
    case EDGE_CLOSED:
        return s->closed_at + EDGE_CLOSE_MS;
    case EDGE_DRAINING:
        return s->closed_at;
    case EDGE_HELLO:
        return s->opened + EDGE_HELLO_MS;
    default:
        break;
    }
    mesh_ms at = earlier(s->seen + 2 * core->heartbeat_ms, s->token_until);
    at = earlier(at, s->drain_at);
    if (s->attach_state == EDGE_ATTACH_WAIT) {
        at = earlier(at, s->attach_at);
    } else if (s->attach_state == EDGE_ATTACH_DONE) {
        at = earlier(at, s->heard_at + EDGE_UNHEARD_MS);
    }
    if (edge_session_queued(s) > 0) {
        at = earlier(at, s->progress_at + 2 * core->heartbeat_ms);
    }
    return at;
}

void edge_timer_remove(edge_core *core, edge_session *s)
{
    TAILQ_REMOVE(&core->wheel[s->slot], s, wheel);
}

static void put(edge_core *core, edge_session *s, mesh_time now)
{
    mesh_ms at = earlier(due(core, s), now.mono + (EDGE_WHEEL - 8) * EDGE_TICK_MS);
    int64_t tick = (at + EDGE_TICK_MS - 1) / EDGE_TICK_MS;
    tick = tick > core->tick ? tick : core->tick + 1;
    s->slot = (uint16_t)(tick % EDGE_WHEEL);
    TAILQ_INSERT_TAIL(&core->wheel[s->slot], s, wheel);
}

void edge_timer_place(edge_core *core, edge_session *s, mesh_time now)
{
    edge_timer_remove(core, s);
    put(core, s, now);
}

static void say_reconnect(edge_core *core, edge_session *s, mesh_time now)
{
    Client__Reconnect reconnect = CLIENT__RECONNECT__INIT;
    reconnect.jitter_ms = EDGE_DRAIN_JITTER_MS;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_RECONNECT;
    event.reconnect = &reconnect;
    edge_core_put(core, s, &event, now);
    if (s->state != EDGE_CLOSED) {
        edge_session_move(s, EDGE_DRAINING);
        s->closed_at = now.mono + EDGE_LINGER_MS;
    }
}

static void look_open(edge_core *core, edge_session *s, mesh_time now)
{
    if (now.mono >= s->token_until) {
        edge_core_error(core, s, 0, FAULT_TOKEN_EXPIRED, 0, NULL, now);
        edge_core_close(core, s, EDGE_CLOSE_TOKEN_EXPIRED, now);
    } else if (now.mono >= s->seen + 2 * core->heartbeat_ms) {
        edge_core_close(core, s, EDGE_CLOSE_SILENT, now);
    } else if (edge_session_queued(s) > 0 && now.mono >= s->progress_at + 2 * core->heartbeat_ms) {
        edge_session_drop_queue(s);
        edge_core_close(core, s, EDGE_CLOSE_SLOW, now);
    } else if (now.mono >= s->drain_at) {
        say_reconnect(core, s, now);
    } else if (s->attach_state == EDGE_ATTACH_WAIT && now.mono >= s->attach_at) {
        edge_attach_want(core, s);
    } else if (s->attach_state == EDGE_ATTACH_DONE && now.mono >= s->heard_at + EDGE_UNHEARD_MS) {
        mesh_stats_add(core->stats, EDGE_STAT_UNHEARD, 1);
        edge_attach_want(core, s);
    }
}

static void look(edge_core *core, edge_session *s, mesh_time now)
{
    switch (s->state) {
    case EDGE_CLOSED:
        if (now.mono >= s->closed_at + EDGE_CLOSE_MS) {
            edge_session_drop_queue(s);
            edge_core_ready(core, s);
        }
        break;
    case EDGE_DRAINING:
        if (now.mono >= s->closed_at) {
            edge_core_close(core, s, EDGE_CLOSE_DRAINING, now);
        }
        break;
    case EDGE_HELLO:
        if (now.mono >= s->opened + EDGE_HELLO_MS) {
            edge_core_close(core, s, EDGE_CLOSE_HELLO_TIMEOUT, now);
        }
        break;
    default:
        look_open(core, s, now);
        break;
    }
}

void edge_timer_turn(edge_core *core, mesh_time now)
{
    int64_t last = now.mono / EDGE_TICK_MS;
    if (last - core->tick > EDGE_WHEEL) {
        core->tick = last - EDGE_WHEEL; /* one round looks at everything */
    }
    while (core->tick < last) {
        core->tick++;
        struct edge_session_list *bucket = &core->wheel[core->tick % EDGE_WHEEL];
        for (edge_session *s = TAILQ_FIRST(bucket), *next; s != NULL; s = next) {
            next = TAILQ_NEXT(s, wheel);
            look(core, s, now);
        }
        /* what look closed was moved by that; all others find their new place here */
        struct edge_session_list rest = TAILQ_HEAD_INITIALIZER(rest);
        TAILQ_CONCAT(&rest, bucket, wheel);
        for (edge_session *s = TAILQ_FIRST(&rest); s != NULL; s = TAILQ_FIRST(&rest)) {
            TAILQ_REMOVE(&rest, s, wheel);
            put(core, s, now);
        }
    }
}

mesh_ms edge_timer_next(const edge_core *core)
{
    if (TAILQ_EMPTY(&core->all)) {
        return MESH_NEVER;
    }
    int64_t tick = core->tick + 1;
    while (tick < core->tick + 50 && TAILQ_EMPTY(&core->wheel[tick % EDGE_WHEEL])) {
        tick++;
    }
    return tick * EDGE_TICK_MS;
}
