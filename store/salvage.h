/* store/salvage.h: what is wrong with a database's files, and what a damaged copy still holds.
 *
 * LevelDB's log files and manifests are sequences of records in blocks of 32 KiB; each record has a checksum. A crash
 * can leave the last record of the newest log file torn: that is the end of the file, nothing acked was in it. A bad
 * record with good ones behind it is something else: acked rows are gone. The database is then refused, and so is it
 * here.
 *
 * Source: leveldb doc/log_format.md, doc/impl.md. */
#ifndef STORE_SALVAGE_H
#define STORE_SALVAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mesh/conf.h"
#include "mesh/err.h"
#include "store/kv.h"

typedef struct store_salvage_found {
    uint64_t size;       /* of the file */
    uint64_t records;    /* whole logical records before the first bad place */
    uint64_t good_end;   /* offset behind the last of them */
    bool bad;            /* something is wrong; the rest says what and where */
    uint64_t bad_offset; /* of the physical record that is wrong */
    const char *reason;  /* static text */
    bool cut;            /* the file ends inside of a record, which LevelDB takes for its end; all else it refuses */
    bool valid_after;    /* a whole record or the beginning of one follows the bad place, with a right checksum */
} store_salvage_found;

/* Read a log file or manifest. Errors: MESH_IO it cannot be read. */
MESH_MUST mesh_err store_salvage_scan(const char *file, store_salvage_found *found);

/* Log files below first are left over and no longer needed; newest is the last that is not empty: a crash while opening
 * leaves an empty one behind it. Only newest may have a torn end. 0 = unknown, none. */
typedef struct store_salvage_log_range {
    uint64_t first, newest;
} store_salvage_log_range;
void store_salvage_logs(const char *path, store_salvage_log_range *logs);
uint64_t store_salvage_log_of(const char *name); /* "000012.log" -> 12; 0: no log file */

/* The first log file or manifest of the database in path with something wrong into why: file, offset, reason.
 * False: all of them are good. */
bool store_salvage_find_bad(const char *path, char *why, size_t why_size);

/* What LevelDB lets pass even with paranoid_checks: a log file that is missing (it opens as if that had been empty), a
 * record in a log's last block whose length is wrong (taken for the torn end, whatever follows), a torn end of an older
 * log file. And everything it would refuse in a log file: it moves files of its own before it looks at these.
 * Errors: MESH_CORRUPT (why names file and offset). A manifest that cannot be read is left to LevelDB. */
MESH_MUST mesh_err store_salvage_check_files(const char *path, char *why, size_t why_size);

/* Bring the rows up to the log's end, if the caller can: open the store on the copy, let it replay, close it. */
typedef mesh_err store_salvage_replay(void *arg, const char *path, char *why, size_t why_size);
/* One replica whose copy is to be brought up to its log's end. */
typedef struct store_salvage_replica {
    const mesh_conf *conf; /* of the cluster the copy is from; borrowed */
    const char *node;      /* the store it is from; NULL: as the copy itself says, or else `from` */
    const char *from;      /* a path whose last part begins with the store's name; NULL: no help */
    bool cut;              /* entries that may or may not have been committed: drop them, instead of applying them */
    FILE *report;          /* a line for what was found and done; NULL: nobody asks */
} store_salvage_replica;

/* A store_salvage_replay. arg: a store_salvage_replica. A copy that voted alone applies its log. A copy of one of
 * several replicas cannot know how far its log is committed: it applies all up to the last row or configuration that
 * proves it, and the rest, too, unless cut. Then either becomes the database of a new group of one voter, without a log
 * and with a new raft id; other replicas of the shard can only join it empty, and get its rows. In the end a core leads
 * on the copy, and its fences, and the epoch of shard 0's ring, are raised (store_salvage_raise_epoch).
 * Errors: as store_core_new; MESH_MALFORMED the config has no such store, or it cannot be told which one it is;
 * MESH_CONFLICT node is of another shard than the copy; MESH_CORRUPT a hole, an entry that cannot be applied, or
 * nothing there at all; MESH_IO the log could not be applied. */
MESH_MUST mesh_err store_salvage_replay_replica(void *arg, const char *path, char *why, size_t why_size);
/* The same. arg: only the const mesh_conf *. */
MESH_MUST mesh_err store_salvage_replay_core(void *arg, const char *path, char *why, size_t why_size);

/* Copy the database from `from` (never touched, must not be open) to `to` (must not exist), cut a torn last record off
 * the copy's newest log file, open it with all checks, replay (may be NULL), and check that what was acked is there:
 * the Raft log and every chat and inbox without holes, nothing referring to a seq that is not there; and, if acks is
 * not NULL, each of its lines "chat seq" (recorded outside; chat without tenant means default/chat). Writes to report a
 * line "missing chat=… seq=…" (or "missing user=… inbox_seq=…") for each thing it cannot find, and last "salvaged: N
 * rows, M missing". The copy has a new era. Errors: MESH_CORRUPT damage that is not a torn end, with file and offset in
 * the report; nothing is cut (the copy stays); MESH_CONFLICT `to` exists; MESH_MALFORMED a line of acks; MESH_IO;
 * MESH_NO_SPACE. */
MESH_MUST mesh_err store_salvage_run(const char *from, const char *to, store_salvage_replay *replay, void *arg,
                                     FILE *acks, FILE *report);

/* More rings than a copy can lack: each change of the routers and each slot that moves is one. */
#define STORE_SALVAGE_EPOCHS 1000000

/* For a copy that takes the original's place in a cluster whose routers, edges and other shards go on: no two rings are
 * to share an epoch, and no router that acts on a ring from before is to decide anything here. In shard 0 the ring's
 * epoch rises by STORE_SALVAGE_EPOCHS, above all that any of the others can have heard of or written into a fence.
 * Unless the copy is whole (its log was the only one, and all of it is applied) the ring has no routers: the first that
 * renews its lease begins the next one, and every session attaches again. The ring of another shard is shard 0's and
 * stays: it hears the one in force when it starts. All fences rise to the highest epoch that the copy knows then.
 * epoch_p: that one, 0: the shard never had a ring. Errors: MESH_CORRUPT, what ended the kv. */
MESH_MUST mesh_err store_salvage_raise_epoch(store_kv *kv, uint32_t shard, bool whole, uint64_t *epoch_p);

/* Give the stopped database in path a new era: for a copy that takes the original's place, because clients may hold
 * cursors beyond what it has. Each of them is then told to resync. A salvaged copy has got one already.
 * Errors: MESH_NOT_FOUND there is no store's database; as store_kv_open. why says more. */
MESH_MUST mesh_err store_salvage_new_era(const char *path, uint64_t *era_p, char *why, size_t why_size);
/* The same, of an open one. Errors: MESH_NOT_FOUND, MESH_CORRUPT, what ended the kv. */
MESH_MUST mesh_err store_salvage_put_era(store_kv *kv, uint64_t era);
/* The rows that say so, into batch, for a database made of the rows of kv. cluster: the name it is for, NULL: as it is.
 * Errors: MESH_NOT_FOUND kv is no store's; MESH_CORRUPT. */
MESH_MUST mesh_err store_salvage_era_row(store_kv *kv, uint64_t era, const char *cluster, store_kv_batch *batch);

#endif
