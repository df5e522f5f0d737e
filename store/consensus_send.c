/* store/consensus_send.c: messages of the core, as the others read them.
 *
 * The core wants its entries sent in one message. They leave as several that each make sense alone: closed at
 * STORE_APPEND_SOFT_MAX, and before a configuration, which is always the first of its message, because a receiving core
 * counts the index of a configuration from the first entry. What goes beyond STORE_APPEND_BURST is not sent: the
 * receiver then refuses what follows, and the core sends it from there again. */
#include <string.h>

#include "store/consensus_priv.h"

static void send_one(const store_consensus *cons, const struct raft_message *m, const Mesh__Raft *msg)
{
    cons->send(cons->arg, m->server_id, m->server_address, msg);
}

/* Fill msg with entries from its index on, at most n. Returns how many; *bytes_p: their payloads. */
static size_t gather(store_consensus *cons, Mesh__Raft *msg, uint64_t n, size_t *bytes_p)
{
    mesh_buf row = { 0 };
    size_t bytes = 0, k = 0;
    mesh_arena_reset(cons->arena);
    msg->entries = mesh_arena_alloc(cons->arena, STORE_APPEND_ENTRIES * sizeof *msg->entries);
    while (k < n && k < STORE_APPEND_ENTRIES) {
        consensus_entry entry;
        if (consensus_entry_get(cons, msg->index + 1 + k, &row, &entry) != MESH_OK) {
            break; /* just trimmed: the core finds out */
        }
        if (k > 0 && (entry.type == RAFT_CHANGE || bytes + entry.payload.size > STORE_APPEND_SOFT_MAX)) {
            break;
        }
        Mesh__RaftEntry *e = mesh_arena_alloc(cons->arena, sizeof *e);
        mesh__raft_entry__init(e);
        e->term = entry.term;
        e->type = entry.type;
        e->payload.len = entry.payload.size;
        e->payload.data = (uint8_t *)(uintptr_t)entry.payload.data;
        if (row.size > 0) {
            e->payload.data = mesh_arena_grab(cons->arena, entry.payload.size + 1);
            memcpy(e->payload.data, entry.payload.data, entry.payload.size);
            mesh_buf_clear(&row);
        }
        msg->entries[k++] = e;
        bytes += entry.payload.size;
    }
    mesh_buf_fini(&row);
    msg->n_entries = k;
    *bytes_p = bytes;
    return k;
}

static void send_append(store_consensus *cons, const struct raft_message *m, Mesh__Raft *msg)
{
    const struct raft_append_entries *a = &m->append_entries;
    uint64_t left = a->n_entries;
    size_t burst = 0, bytes = 0;
    msg->kind = MESH__RAFT_KIND__RAFT_APPEND;
    msg->term = a->term;
    msg->index = a->prev_log_index;
    msg->index_term = a->prev_log_term;
    msg->commit = a->leader_commit;
    do {
        size_t k = left > 0 ? gather(cons, msg, left, &bytes) : 0;
        send_one(cons, m, msg);
        if (k == 0) {
            return;
        }
        msg->index += k;
        msg->index_term = msg->entries[k - 1]->term;
        left -= k;
        burst += bytes;
    } while (left > 0 && burst < STORE_APPEND_BURST);
}

static void send_install(store_consensus *cons, const struct raft_message *m, Mesh__Raft *msg)
{
    const struct raft_install_snapshot *i = &m->install_snapshot;
    if (i->last_index != cons->snapshot.index) {
        return; /* a newer one is being written; the core asks again when it knows that one */
    }
    msg->kind = MESH__RAFT_KIND__RAFT_INSTALL;
    msg->term = i->term;
    msg->index = i->last_index;
    msg->index_term = i->last_term;
    msg->conf_index = cons->snapshot.conf_index;
    msg->conf.data = cons->snapshot.conf.data;
    msg->conf.len = cons->snapshot.conf.size;
    send_one(cons, m, msg);
}

static void send_vote(store_consensus *cons, const struct raft_message *m, Mesh__Raft *msg)
{
    const struct raft_request_vote *v = &m->request_vote;
    msg->kind = MESH__RAFT_KIND__RAFT_VOTE;
    msg->term = v->term;
    msg->index = v->last_log_index;
    msg->index_term = v->last_log_term;
    msg->pre_vote = v->pre_vote;
    msg->disrupt = v->disrupt_leader;
    send_one(cons, m, msg);
}

/* The core answers a pre-vote in the term that was asked for. A refusal must name a later one if there is one: the
 * asker may be the only one that can be elected, and nobody else tells it. */
static uint64_t voted_term(const store_consensus *cons, const struct raft_request_vote_result *v)
{
    uint64_t term = raft_current_term(&cons->raft);
    return v->pre_vote && !v->vote_granted && v->term < term ? term : v->term;
}

static void send_message(store_consensus *cons, const struct raft_message *m)
{
    Mesh__Raft msg = MESH__RAFT__INIT;
    msg.shard = cons->shard;
    msg.from = cons->raft.id;
    msg.to = m->server_id;
    msg.from_address = cons->raft.address;
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        send_vote(cons, m, &msg);
        return;
    case RAFT_APPEND_ENTRIES:
        send_append(cons, m, &msg);
        return;
    case RAFT_INSTALL_SNAPSHOT:
        send_install(cons, m, &msg);
        return;
    case RAFT_REQUEST_VOTE_RESULT:
        msg.kind = MESH__RAFT_KIND__RAFT_VOTED;
        msg.term = voted_term(cons, &m->request_vote_result);
        msg.granted = m->request_vote_result.vote_granted;
        msg.pre_vote = m->request_vote_result.pre_vote;
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        msg.kind = MESH__RAFT_KIND__RAFT_APPENDED;
        msg.term = m->append_entries_result.term;
        msg.index = m->append_entries_result.last_log_index;
        msg.rejected = m->append_entries_result.rejected;
        break;
    case RAFT_TIMEOUT_NOW:
        msg.kind = MESH__RAFT_KIND__RAFT_ELECT_NOW;
        msg.term = m->timeout_now.term;
        msg.index = m->timeout_now.last_log_index;
        msg.index_term = m->timeout_now.last_log_term;
        break;
    }
    send_one(cons, m, &msg);
}

void consensus_send_messages(store_consensus *cons)
{
    for (unsigned i = 0; cons->send != NULL && i < cons->update.messages.n; i++) {
        send_message(cons, &cons->update.messages.batch[i]);
    }
}
