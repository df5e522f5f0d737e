/* store/restore.h: the stores of a new cluster, made of a backup (store/backup.h).
 *
 * The first store of each shard gets the shard's rows in a form that founds a group of one voter; the other stores of
 * the shard begin empty and join it by themselves. Each shard gets a new era: no client's cursor is believed any more,
 * every device is told to resync.
 *
 * The shards of a backup are copied one after the other, so what one of them says of another may be older or newer than
 * that other. Rows of one shard fit each other always. Between two shards there is one thing to fit: how far a chat is
 * in the inbox of a member.
 *   - The inbox's shard was copied later: the inbox has entries that its chat has not. How far it is goes back to the
 *     last entry that the chat has and the member was entitled to; where there is none, the chat leaves the member's
 *     list. (The rows of such entries stay in the inbox: nothing reads what lies before a resync.) Otherwise the chat's
 *     next entries, which get the same numbers, would be taken for ones that are there already.
 *   - The chat's shard was copied later: the chat has entries that the inbox has not, and the outbox knows no more that
 *     they are owed. The last entry that such a member was entitled to is put into the outbox again; the check of prev
 *     finds the gap before it and has it closed.
 * The ring's epoch becomes the highest that any shard has heard of, its own or in a fence, and the ring has no routers:
 * the first that renews its lease begins the next one. */
#ifndef STORE_RESTORE_H
#define STORE_RESTORE_H

#include "store/backup.h"

typedef struct store_restore_counts {
    uint64_t rows; /* all shards */
    uint64_t back; /* inbox positions that went back */
    uint64_t left; /* of these: chats that left a list */
    uint64_t owed; /* entries that are owed again */
} store_restore_counts;

/* Do all shards in dir, which need no manifest yet, belong together? Errors: MESH_CONFLICT slots were moving between
 * shards (store/slot.h) while they were copied; MESH_CORRUPT, MESH_NOT_FOUND; as store_kv_open. */
MESH_MUST mesh_err store_restore_fits(const mesh_conf *conf, const char *dir, char *why, size_t why_size);

/* Make the stores' databases in conf's store.path from the backup in dir. Everything of it is read and checked first.
 * why says what is refused. Errors: as store_backup_load and store_backup_check; MESH_CONFLICT conf has another hash
 * key or number of shards, a shard is not in the backup, slots were moving, or a store of conf
 * has data already: nothing was changed; MESH_UNSUPPORTED its data is of another format; MESH_IO, MESH_NO_SPACE: what
 * is half made has no use and is deleted by the next try. */
MESH_MUST mesh_err store_restore_run(const mesh_conf *conf, const char *dir, store_restore_counts *counts, char *why,
                                     size_t why_size);

#endif
