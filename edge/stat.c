#include "edge/state.h"

#define C(stat, name, help) [stat] = { "parley_edge_" name, help, MESH_COUNTER, NULL }
#define G(stat, name, help) [stat] = { "parley_edge_" name, help, MESH_GAUGE, NULL }
#define CLOSED(stat, why)                                                                                              \
    [stat] = { "parley_edge_closed_total", "Sockets this edge closed, by reason.", MESH_COUNTER, "reason=\"" why "\"" }

static const mesh_stat_info infos[EDGE_STATS] = {
    G(EDGE_STAT_SESSIONS, "sessions", "Open sockets."),
    C(EDGE_STAT_OPENED, "opened_total", "Sockets that were opened."),
    C(EDGE_STAT_HELLOS, "hellos_total", "Sessions with a good token."),
    C(EDGE_STAT_REFUSED_TOKENS, "refused_tokens_total", "Tokens that were not accepted."),
    C(EDGE_STAT_FRAMES, "frames_total", "Frames from clients."),
    C(EDGE_STAT_MALFORMED, "malformed_total", "Frames from clients that could not be read."),
    C(EDGE_STAT_ERRORS, "errors_total", "Error events sent to clients."),
    C(EDGE_STAT_LIMITED, "limited_total", "Frames over the rate limit."),
    C(EDGE_STAT_REQUESTS, "requests_total", "Client requests sent to routers."),
    G(EDGE_STAT_WAITING, "requests_waiting", "Client requests without an answer."),
    C(EDGE_STAT_EXPIRED, "requests_expired_total", "Client requests without an answer in time."),
    C(EDGE_STAT_LOST, "requests_lost_total", "Client requests whose router went away."),
    C(EDGE_STAT_LATE, "late_answers_total", "Answers to requests that are over."),
    C(EDGE_STAT_MESH_MALFORMED, "mesh_malformed_total", "Messages from routers that make no sense here."),
    C(EDGE_STAT_PUSHED, "pushed_total", "Inbox entries forwarded to clients."),
    C(EDGE_STAT_DUPLICATES, "duplicates_total", "Inbox entries that had been forwarded before."),
    C(EDGE_STAT_STRAYS, "strays_total", "Inbox entries for a session that is gone, attaching, starved or elsewhere."),
    C(EDGE_STAT_GAPS, "gaps_total", "Inbox entries that came too early: attached again."),
    C(EDGE_STAT_STUCK, "stuck_total", "Sessions whose last entry did not come: attached again."),
    C(EDGE_STAT_UNHEARD, "unheard_total", "Sessions that their router named no more: attached again."),
    C(EDGE_STAT_STARVED, "starved_total", "Sessions whose queue was full."),
    C(EDGE_STAT_ATTACHES, "attaches_total", "Attach requests sent."),
    C(EDGE_STAT_ATTACH_RETRIES, "attach_retries_total", "Attach requests refused or without an answer in time."),
    C(EDGE_STAT_RESYNCS, "resyncs_total", "Resync events sent."),
    C(EDGE_STAT_ACKS, "acks_total", "Inbox acks sent to routers."),
    G(EDGE_STAT_EPOCH, "ring_epoch", "Epoch of the ring in force."),
    CLOSED(EDGE_STAT_CLOSED_REPLACED, "replaced"),
    CLOSED(EDGE_STAT_CLOSED_HELLO, "hello_timeout"),
    CLOSED(EDGE_STAT_CLOSED_SILENT, "silent"),
    CLOSED(EDGE_STAT_CLOSED_SLOW, "slow"),
    CLOSED(EDGE_STAT_CLOSED_FLOOD, "flood"),
    CLOSED(EDGE_STAT_CLOSED_DRAINING, "draining"),
    CLOSED(EDGE_STAT_CLOSED_TOKEN, "token"),
    CLOSED(EDGE_STAT_CLOSED_OTHER, "other"),
};

mesh_stats *edge_stat_new(void)
{
    return mesh_stats_new(infos, EDGE_STATS);
}
