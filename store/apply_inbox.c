/* append, attach, inbox_ack, profile: what happens to a user's inbox. */
#include <string.h>

#include "store/core.h"
#include "store/fsm.h"
#include "store/group.h"
#include "store/metrics.h"

#define TRIM_EVERY 128    /* a cursor or head that passes a multiple of this trims */
#define TRIM_ROWS 512     /* rows deleted at once by an ack */
#define TRIM_ROWS_OLD 256 /* and by an append, which may be one to a thousand users whose heads are equal */
#define ATTEMPT_MS 60000  /* since the device was heard of: as long as an edge keeps a silent socket */

/* The user and, with devices, their devices. NULL: answered. */
static store_user *find_user(store_fsm *fsm, const char *id, bool devices, Mesh__Msg *answer)
{
    store_user *user;
    mesh_err err = store_users_get(fsm->users, id, &user);
    if (err == MESH_OK && devices) {
        err = store_users_load_devices(fsm->users, user);
    }
    if (err != MESH_OK) {
        store_fsm_broken(fsm, fsm->arena, answer);
        return NULL;
    }
    return user;
}

/* ---- trimming ---- */

/* Is the row older than the time inboxes are kept? A row that was written by this very entry is not. */
static bool row_expired(store_fsm *fsm, const store_user *user, uint64_t inbox_seq, uint64_t before)
{
    store_key key;
    mesh_slice value;
    ProtobufCMessage *message;
    store_key_inbox(&key, user->slot, user->id, inbox_seq);
    mesh_err err = store_rows_get(fsm->rows, &key, false, &value);
    if (err == MESH_NOT_FOUND) {
        return false;
    }
    if (err != MESH_OK || mesh_wire_unpack(&mesh__entry__descriptor, value, fsm->arena, &message) != MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return false;
    }
    return ((const Mesh__Entry *)message)->ts_ms < before;
}

/* Rows up to acked, and those that are too old, go, at most `rows` at once; the last one stays: it is the head. */
static void trim(store_fsm *fsm, store_user *user, uint64_t acked, uint64_t rows)
{
    uint64_t last = user->trimmed + rows;
    if (user->head == 0) {
        return;
    }
    last = last < user->head - 1 ? last : user->head - 1;
    uint64_t upto = acked < last ? acked : last;
    upto = upto > user->trimmed ? upto : user->trimmed;
    uint64_t keep = (uint64_t)STORE_INBOX_KEEP_MS;
    uint64_t before = fsm->stamp > keep ? fsm->stamp - keep : 0;
    while (upto < last && row_expired(fsm, user, upto + 1, before)) {
        upto++;
    }
    if (upto == user->trimmed) {
        return;
    }
    mesh_stats_add(fsm->stats, STORE_M_TRIMMED, upto - user->trimmed);
    for (uint64_t seq = user->trimmed + 1; seq <= upto; seq++) {
        store_key key;
        store_key_inbox(&key, user->slot, user->id, seq);
        store_rows_delete(fsm->rows, &key);
    }
    user->trimmed = upto;
    store_user_save(user, fsm->rows);
}

/* Everything up to here is on each device. */
static uint64_t acked_by_all(const store_user *user)
{
    uint64_t acked = UINT64_MAX;
    for (size_t i = 0; i < user->n_devices; i++) {
        acked = user->devices[i].cursor < acked ? user->devices[i].cursor : acked;
    }
    return acked;
}

/* ---- append ---- */

/* Is the entry stored by this shard? */
static bool is_here(store_fsm *fsm, const Mesh__Entry *entry)
{
    store_key key;
    mesh_slice value;
    mesh_slot slot = mesh_id_slot(fsm->hash_key, entry->chat);
    store_key_entry(&key, slot, entry->chat, entry->seq);
    mesh_err err = store_fsm_owns(fsm, slot) ? store_rows_get(fsm->rows, &key, false, &value) : MESH_NOT_FOUND;
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        fsm->error = MESH_CORRUPT; /* to take it for absent would be to write another row than the other replicas */
    }
    return err == MESH_OK;
}

/* An inbox row: the entry, or when it is long and can be read from the chat, only where it is. */
static void pack_inbox_row(store_fsm *fsm, const Mesh__Entry *entry, mesh_buf *out)
{
    Mesh__Entry row = *entry;
    if ((mesh_wire_size(&row) > 2 * STORE_INBOX_INLINE || row.body.len > STORE_INBOX_INLINE) && is_here(fsm, entry)) {
        row.body = (ProtobufCBinaryData){ 0 };
        row.n_attachments = 0;
        row.n_users = 0;
        row.body_elsewhere = true;
    }
    mesh_buf_clear(out);
    mesh_wire_pack(&row, out);
}

static mesh_err load_position(store_fsm *fsm, const store_key *key, Store__UserChatRow *position)
{
    mesh_slice value;
    ProtobufCMessage *row;
    store__user_chat_row__init(position);
    mesh_err err = store_rows_get(fsm->rows, key, true, &value);
    if (err == MESH_NOT_FOUND) {
        return MESH_OK;
    }
    if (err != MESH_OK || mesh_wire_unpack(&store__user_chat_row__descriptor, value, fsm->arena, &row) != MESH_OK) {
        return MESH_CORRUPT;
    }
    *position = *(const Store__UserChatRow *)row;
    return MESH_OK;
}

/* Order and exactly-once rest on this check alone: prev against the last seq of this chat in this inbox. */
static mesh_err append_one(store_fsm *fsm, const Mesh__Entry *entry, store_user *user, uint64_t prev, mesh_slice packed,
                           Mesh__AppendResult *result)
{
    Store__UserChatRow position;
    store_key key;
    store_key_user_chat(&key, user->slot, user->id, entry->chat);
    mesh_err err = load_position(fsm, &key, &position);
    if (err != MESH_OK) {
        return err;
    }
    if (position.last_seq >= entry->seq) {
        result->state = MESH__APPEND_STATE__APPEND_DUP;
        result->inbox_seq = user->head;
        mesh_stats_add(fsm->stats, STORE_M_APPEND_DUPS, 1);
        return MESH_OK;
    }
    if (position.last_seq != prev) {
        result->state = MESH__APPEND_STATE__APPEND_GAP;
        result->expected = position.last_seq;
        return MESH_OK;
    }
    if (position.last_seq == 0) {
        user->chats++;
        store_user_save(user, fsm->rows);
    }
    position.last_seq = entry->seq;
    position.inbox_seq = ++user->head;
    if (strcmp(entry->sender, user->id) == 0) {
        position.own_count = entry->count;
    }
    store_rows_pack(fsm->rows, &key, &position, STORE_ROW_HOT);
    store_key_inbox(&key, user->slot, user->id, user->head);
    store_rows_put(fsm->rows, &key, packed, STORE_ROW_ONLY);
    result->state = MESH__APPEND_STATE__APPEND_DONE;
    result->inbox_seq = user->head;
    mesh_stats_add(fsm->stats, STORE_M_APPENDS, 1);
    if (user->head % TRIM_EVERY == 0) {
        trim(fsm, user, 0, TRIM_ROWS_OLD); /* a user who never acks has no other occasion */
    }
    return fsm->error;
}

static mesh_err append_unless_fenced(store_fsm *fsm, const Mesh__Entry *entry, const Mesh__Recipient *to,
                                     uint64_t epoch, mesh_slice packed, Mesh__AppendResult *result)
{
    store_user *user;
    mesh_err err = store_users_get(fsm->users, to->user, &user);
    if (err != MESH_OK) {
        return err;
    }
    result->era = fsm->eras[user->slot];
    if (!store_fsm_owns(fsm, user->slot)) { /* the sender's map is of another time: it splits again by the next one */
        result->state = MESH__APPEND_STATE__APPEND_REFUSED;
        mesh_stats_add(fsm->stats, STORE_M_APPEND_REFUSED, 1);
        return MESH_OK;
    }
    if (fsm->fences[user->slot] > epoch) {
        result->state = MESH__APPEND_STATE__APPEND_REFUSED;
        result->expected = fsm->fences[user->slot];
        mesh_stats_add(fsm->stats, STORE_M_APPEND_REFUSED, 1);
        return MESH_OK;
    }
    err = append_one(fsm, entry, user, to->prev, packed, result);
    mesh_stats_add(fsm->stats, STORE_M_APPEND_GAPS, result->state == MESH__APPEND_STATE__APPEND_GAP ? 1 : 0);
    return err;
}

void store_apply_append(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Append *append = msg->append;
    pack_inbox_row(fsm, append->entry, &fsm->scratch);
    mesh_slice packed = mesh_buf_slice(&fsm->scratch);
    Mesh__Appended *appended = mesh_arena_alloc(fsm->arena, sizeof *appended);
    Mesh__AppendResult *results = mesh_arena_alloc(fsm->arena, append->n_users * sizeof *results);
    mesh__appended__init(appended);
    appended->era = fsm->era;
    appended->n_results = append->n_users;
    appended->results = mesh_arena_alloc(fsm->arena, append->n_users * sizeof *appended->results);
    for (size_t i = 0; i < append->n_users; i++) {
        mesh__append_result__init(&results[i]);
        appended->results[i] = &results[i];
        if (append_unless_fenced(fsm, append->entry, append->users[i], msg->epoch, packed, &results[i]) != MESH_OK) {
            store_fsm_broken(fsm, fsm->arena, answer);
            return;
        }
    }
    answer->body_case = MESH__MSG__BODY_APPENDED;
    answer->appended = appended;
}

/* ---- append, of what this log entry made ---- */

/* No fence here: nobody but this shard's own log decides it. What does not fit (an older entry of the chat is still on
 * its way to this inbox) is left to the outbox, which brings them in order; and so is the rest of the chat then, whose
 * members most likely are no further. */
static mesh_err append_own(store_fsm *fsm, store_owed *owed, const store_chat *chat)
{
    pack_inbox_row(fsm, owed->entry, &fsm->scratch);
    mesh_slice packed = mesh_buf_slice(&fsm->scratch);
    owed->inbox_seqs = mesh_arena_alloc(fsm->arena, chat->n_members * sizeof *owed->inbox_seqs);
    memset(owed->inbox_seqs, 0, chat->n_members * sizeof *owed->inbox_seqs);
    for (size_t i = 0; i < chat->n_members; i++) {
        const store_member *member = chat->members[i];
        store_user *user;
        Mesh__AppendResult result = MESH__APPEND_RESULT__INIT;
        if (!store_member_entitled(member, owed->entry->seq)) {
            continue;
        }
        mesh_err err = store_users_get(fsm->users, member->user, &user);
        if (err == MESH_OK && store_fsm_owns(fsm, user->slot) && mesh_ring_shard(fsm->ring, user->slot) == fsm->shard) {
            err = append_one(fsm, owed->entry, user, store_member_prev(member, owed->entry->seq), packed, &result);
        }
        if (err != MESH_OK) {
            return err;
        }
        if (result.state == MESH__APPEND_STATE__APPEND_GAP) {
            mesh_stats_add(fsm->stats, STORE_M_LEFT, 1);
            break;
        }
        owed->inbox_seqs[i] = result.state == MESH__APPEND_STATE__APPEND_DONE ? result.inbox_seq : 0;
    }
    return MESH_OK;
}

void store_apply_inboxes(store_fsm *fsm)
{
    size_t room = STORE_ENTRY_APPENDS_MAX;
    for (size_t i = 0; i < fsm->n_owed && fsm->error == MESH_OK; i++) {
        store_chat *chat;
        mesh_err err = store_chats_get(fsm->chats, fsm->owed[i].entry->chat, &chat);
        if (err == MESH_OK && chat->n_members <= room) {
            room -= chat->n_members;
            err = append_own(fsm, &fsm->owed[i], chat);
        } else {
            mesh_stats_add(fsm->stats, STORE_M_LEFT, 1);
        }
        if (err != MESH_OK) {
            fsm->error = MESH_CORRUPT;
        }
    }
}

/* ---- attach ---- */

static bool raise_fence(store_fsm *fsm, mesh_slot slot, uint64_t epoch, Mesh__Msg *answer)
{
    if (fsm->fences[slot] > epoch) {
        store_fsm_fault(fsm->arena, answer, FAULT_NOT_OWNER);
        answer->fault->expected = fsm->fences[slot];
        return false;
    }
    if (fsm->fences[slot] < epoch) {
        uint8_t value[8];
        store_key key;
        fsm->fences[slot] = epoch;
        fsm->fence_max = epoch > fsm->fence_max ? epoch : fsm->fence_max;
        mesh_put_u64be(value, epoch);
        store_key_fence(&key, slot);
        store_rows_put(fsm->rows, &key, (mesh_slice){ value, sizeof value }, STORE_ROW_ONLY);
    }
    return true;
}

/* Is this the hello of a socket that the device let go of before it said the one that holds the row? Only asked for a
 * while after the device was heard of: one whose clock was set back, and which kept nothing else to count by, is let in
 * after that. */
static bool is_outdated(const store_fsm *fsm, const store_device *device, const Mesh__Attach *attach)
{
    bool recent = fsm->stamp < device->used_ms + ATTEMPT_MS && device->used_ms < fsm->stamp + ATTEMPT_MS;
    return recent && attach->attempt > 0 && attach->attempt < device->attempt;
}

/* The device's row with its generation settled. NULL: a newer session holds it. once: a hello that is said again by the
 * session which holds the row gets the generation it has. */
static store_device *claim_device(store_fsm *fsm, store_user *user, const Mesh__Attach *attach, bool once)
{
    store_device *device = store_user_device(user, attach->device);
    if (device == NULL) {
        device = store_user_add_device(user, attach->device, fsm->rows);
    }
    if (is_outdated(fsm, device, attach)) {
        return NULL;
    }
    if (attach->fresh) {
        bool again = once && attach->session != 0 && attach->session == device->session;
        device->generation += again ? 0 : 1;
    } else if (attach->attempt > device->attempt && device->attempt > 0) {
        /* an older hello came later, at a router that did not know of this session, and is not to keep the row */
        device->generation = attach->generation > device->generation ? attach->generation : device->generation + 1;
    } else if (attach->generation < device->generation) {
        return NULL;
    } else {
        device->generation = attach->generation;
    }
    device->attempt = attach->attempt;
    device->session = once ? attach->session : 0;
    return device;
}

static void apply_attach(store_fsm *fsm, const Mesh__Attach *attach, uint64_t epoch, bool once, Mesh__Msg *answer)
{
    store_user *user = find_user(fsm, attach->user, true, answer);
    if (user == NULL || !raise_fence(fsm, user->slot, epoch, answer)) {
        return;
    }
    store_device *device = claim_device(fsm, user, attach, once);
    if (device == NULL) {
        store_fsm_fault(fsm->arena, answer, FAULT_REPLACED);
        return;
    }
    bool resync = !attach->has_cursor || attach->era != store_fsm_era(fsm, user->slot) || attach->after > user->head ||
                  attach->after < user->trimmed;
    /* What a running session was sent is not yet what its device keeps; a hello's cursor is. */
    uint64_t kept = attach->fresh || attach->acked > attach->after ? attach->after : attach->acked;
    uint64_t cursor = resync ? user->head : kept;
    device->cursor = cursor > device->cursor ? cursor : device->cursor;
    device->used_ms = fsm->stamp;
    store_user_save_device(user, device, fsm->rows);

    Mesh__Attached *attached = mesh_arena_alloc(fsm->arena, sizeof *attached);
    mesh__attached__init(attached);
    attached->session = attach->session;
    attached->era = store_fsm_era(fsm, user->slot);
    attached->head = user->head;
    attached->resync = resync;
    attached->generation = device->generation;
    attached->name = mesh_arena_strdup(fsm->arena, user->name);
    attached->after = resync ? user->head : attach->after;
    answer->body_case = MESH__MSG__BODY_ATTACHED;
    answer->attached = attached;
    mesh_stats_add(fsm->stats, STORE_M_ATTACHES, 1);
}

/* As every version did it: the row names no session. It is in logs, and leaders write it while a replica of an older
 * version votes. */
void store_apply_attach(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    apply_attach(fsm, msg->attach, msg->epoch, false, answer);
}

void store_apply_attach_once(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    apply_attach(fsm, msg->attach_once, msg->epoch, true, answer);
}

/* ---- inbox_ack ---- */

void store_apply_inbox_ack(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__InboxAck *ack = msg->inbox_ack;
    store_user *user = find_user(fsm, ack->user, true, answer);
    if (user == NULL) {
        return;
    }
    store_device *device = store_user_device(user, ack->device);
    if (ack->inbox_seq > user->head) {
        store_fsm_fault(fsm->arena, answer, FAULT_ACK_BEYOND);
        return;
    }
    if (device == NULL) {
        store_fsm_fault(fsm->arena, answer, FAULT_NOT_FOUND);
        return;
    }
    if (ack->inbox_seq > device->cursor) {
        uint64_t before = device->cursor;
        device->cursor = ack->inbox_seq;
        device->used_ms = fsm->stamp;
        if (fsm->level < STORE_GROUP_LEVEL_ATTACH_ONCE) {
            device->session = 0; /* it came with a slot, and a voter of the version before would not write it back */
        }
        store_user_save_device(user, device, fsm->rows);
        mesh_stats_add(fsm->stats, STORE_M_ACKS, 1);
        if (before / TRIM_EVERY != ack->inbox_seq / TRIM_EVERY) {
            trim(fsm, user, acked_by_all(user), TRIM_ROWS);
        }
    }
    store_fsm_done(fsm->arena, answer);
}

void store_apply_profile(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Profile *profile = msg->profile;
    store_user *user = find_user(fsm, profile->user, false, answer);
    if (user == NULL) {
        return;
    }
    if (strcmp(user->name, profile->name) != 0) {
        store_user_rename(user, profile->name);
        store_user_save(user, fsm->rows);
    }
    store_fsm_done(fsm->arena, answer);
}
