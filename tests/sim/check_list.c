/* tests/sim/check_list.c: the list of chats says of each what the chat itself says. */
#include "tests/sim/check.h"

#include <inttypes.h>
#include <string.h>

bool sim_check_named(const Client__Message *m, const char *user)
{
    for (size_t i = 0; i < m->n_users; i++) {
        if (strcmp(m->users[i], user) == 0) {
            return true;
        }
    }
    return false;
}

/* Countable entries this user has not seen: after the read marker, their own last word, and the last time they came in.
 */
static uint64_t unread(const check *k, const check_chat *chat, size_t u, uint64_t read_seq)
{
    const char *user = k->users[u];
    uint64_t seen = read_seq ? chat->entries[read_seq - 1]->count : 0, last = 0;
    for (size_t i = 0; i < chat->n; i++) {
        const Client__Message *m = chat->entries[i];
        if (!chat->entitled[u][i]) {
            continue;
        }
        bool came = m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_ADDED && sim_check_named(m, user);
        if (m->count > seen && (came || strcmp(m->sender, user) == 0)) {
            seen = m->count;
        }
        last = m->count;
    }
    return last > seen ? last - seen : 0;
}

static void check_summary(check *k, size_t u, const Client__Summary *sum)
{
    const check_chat *chat = sim_check_chat(k, sum->chat);
    const char *name = "";
    size_t last = 0, members = 0;
    if (!chat) {
        sim_complain(k->s, "%s lists %s, has nothing of it", k->users[u], sum->chat);
        return;
    }
    for (size_t i = 0; i < chat->n; i++) {
        last = chat->entitled[u][i] ? i + 1 : last;
    }
    for (size_t i = 0; i < last; i++) {
        const Client__Message *m = chat->entries[i];
        bool names =
            m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_CREATED || m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_RENAMED;
        name = names ? m->name : name;
    }
    for (size_t i = 0; i < k->n_users; i++) {
        members += chat->member[i];
    }
    bool in = sum->role != CLIENT__ROLE__ROLE_NONE;
    if (!sum->last || sum->last->seq != last || in != chat->member[u] || strcmp(sum->name, name) != 0 ||
        sum->member_count != (in ? members : 0) || sum->read_seq > last) {
        sim_complain(k->s, "%s lists %s '%s' with %u members, last %" PRIu64 "; it is '%s', %zu, %zu", k->users[u],
                     chat->id, sum->name, sum->member_count, sum->last ? sum->last->seq : 0, name, members, last);
    } else if (sum->unread != unread(k, chat, u, sum->read_seq)) {
        sim_complain(k->s, "%s has %" PRIu64 " unread in %s, not %" PRIu64, k->users[u], sum->unread, chat->id,
                     unread(k, chat, u, sum->read_seq));
    }
}

void sim_check_list(check *k, size_t u)
{
    size_t listed = 0, known = 0;
    for (uint64_t before = 0;;) {
        sim_op *op = sim_chats(k->reader[u], before);
        if (!SIM_WAIT(k->s, 10000, op->state != OP_WAITING) || op->state != OP_DONE) {
            sim_complain(k->s, "%s cannot list chats: %u", k->users[u], op->code);
            return;
        }
        const Client__ChatList *list = op->answer->chats;
        for (size_t i = 0; i < list->n_chats; i++) {
            uint64_t at = list->chats[i]->inbox_seq;
            if (before && at >= before) {
                sim_complain(k->s, "%s lists chats out of order", k->users[u]);
            }
            before = at;
            check_summary(k, u, list->chats[i]);
            listed++;
        }
        if (!list->has_more || !list->n_chats) {
            break;
        }
    }
    for (size_t i = 0; i < k->n_chats; i++) {
        bool any = false;
        for (size_t e = 0; e < k->chats[i].n; e++) {
            any = any || k->chats[i].entitled[u][e];
        }
        known += any;
    }
    if (listed != known) {
        sim_complain(k->s, "%s lists %zu chats of %zu", k->users[u], listed, known);
    }
}
