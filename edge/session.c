#include "edge/session.h"

#include <assert.h>
#include <string.h>

#define TO(state) (1u << (state))

static const struct {
    const char *name;
    uint32_t next;
} states[EDGE_STATES] = {
    [EDGE_HELLO] = { "hello", TO(EDGE_ATTACHING) | TO(EDGE_CLOSED) },
    [EDGE_ATTACHING] = { "attaching", TO(EDGE_REPLAYING) | TO(EDGE_DRAINING) | TO(EDGE_CLOSED) },
    [EDGE_REPLAYING] = { "replaying", TO(EDGE_LIVE) | TO(EDGE_DRAINING) | TO(EDGE_CLOSED) },
    [EDGE_LIVE] = { "live", TO(EDGE_REPLAYING) | TO(EDGE_DRAINING) | TO(EDGE_CLOSED) },
    [EDGE_DRAINING] = { "draining", TO(EDGE_CLOSED) },
    [EDGE_CLOSED] = { "closed", 0 },
};

const char *edge_state_name(edge_state state)
{
    return states[state].name;
}

void edge_session_move(edge_session *s, edge_state to)
{
    assert((states[s->state].next & TO(to)) != 0);
    s->state = to;
}

size_t edge_session_queued(const edge_session *s)
{
    return s->queue.size - s->queue_start;
}

/* Size of the frame at the start of bytes, which are our own frames. */
static size_t frame_size(edge_codec_kind codec, mesh_slice bytes)
{
    if (codec == EDGE_JSON) {
        const uint8_t *end = memchr(bytes.data, '\n', bytes.size);
        assert(end != NULL);
        return (size_t)(end - bytes.data) + 1;
    }
    size_t size = 0;
    size_t at = 0;
    do {
        assert(at < bytes.size);
        size |= (size_t)(bytes.data[at] & 0x7f) << (7 * at);
    } while (bytes.data[at++] >= 0x80);
    assert(at + size <= bytes.size);
    return at + size;
}

mesh_slice edge_session_chunk(edge_session *s)
{
    mesh_slice rest = { s->queue.data + s->queue_start, edge_session_queued(s) };
    if (s->chunk == 0 && rest.size <= EDGE_CHUNK) {
        s->chunk = rest.size;
    } else if (s->chunk == 0) {
        size_t next = frame_size(s->codec, rest);
        do {
            s->chunk += next;
            next = s->chunk == rest.size
                       ? 0
                       : frame_size(s->codec, (mesh_slice){ rest.data + s->chunk, rest.size - s->chunk });
        } while (next > 0 && s->chunk + next <= EDGE_CHUNK);
    }
    return (mesh_slice){ rest.data, s->chunk };
}

void edge_session_taken(edge_session *s, size_t bytes)
{
    assert(bytes <= s->chunk);
    s->chunk -= bytes;
    s->queue_start += bytes;
    if (edge_session_queued(s) == 0) {
        edge_session_drop_queue(s);
    } else if (s->queue_start > s->queue.size / 2) {
        mesh_buf_shift(&s->queue, s->queue_start);
        s->queue_start = 0;
    }
}

void edge_session_drop_queue(edge_session *s)
{
    mesh_buf_fini(&s->queue);
    s->queue_start = 0;
    s->chunk = 0;
}
