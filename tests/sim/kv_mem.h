/* tests/sim/kv_mem.h: store/kv.h in memory, on a fake disk that outlives the handle.
 *
 * store_kv_open(path) finds the disk that was made for this path. A write is seen by reads at once and is durable when
 * the simulator says so (sim_disk_flush). A crash keeps everything durable and a random prefix of what was queued after
 * it, in order, all of a batch or nothing. No threads, no clock, no fd.
 *
 * What stands beside the database (store_kv_incoming_*, store_kv_switch) is on the same disk; what was put there is
 * durable when the call returns. */
#ifndef SIM_KV_MEM_H
#define SIM_KV_MEM_H

#include "mesh/rand.h"
#include "store/kv.h"

typedef struct sim_disk sim_disk;

/* An empty disk for path (not used by another disk); the seed only shapes trees and what a failed disk keeps. */
sim_disk *sim_disk_new(const char *path, uint64_t seed);
void sim_disk_destroy(sim_disk **disk_p); /* no open handle */

/* Write what is queued, up to and with the last batch that asked for sync; those are durable now. With sim_disk_fail
 * set nothing becomes durable and the handle is finished. Returns whether anything moved. */
bool sim_disk_flush(sim_disk *disk);
/* The same for everything queued, whether it asked for sync or not. */
bool sim_disk_flush_all(sim_disk *disk);
/* Whether a flush has something to do. */
bool sim_disk_has_pending(const sim_disk *disk);
/* Power cut: the open handle (if any) is dead, only store_kv_close may be called on it (its reads find nothing, its
 * writes go nowhere). */
void sim_disk_crash(sim_disk *disk, mesh_rand *rand);
/* The next flush fails with err, and so does every one until sim_disk_fail(disk, MESH_OK) and a new open. So do puts to
 * an incoming database, and with MESH_CORRUPT reads of a view. */
void sim_disk_fail(sim_disk *disk, mesh_err err);
/* The next store_kv_switch is killed when it has done n of its steps (out, in, delete): it says MESH_IO, and the next
 * open finds what it left. */
void sim_disk_kill_switch(sim_disk *disk, unsigned n);
/* A bit of some row that is on disk flips: at_open, the next open refuses the data; otherwise reads of the row give
 * MESH_CORRUPT and end the handle, also by scans that come to it. Over when the row is written anew or the disk is put
 * in quarantine. False: there is no row. */
bool sim_disk_flip(sim_disk *disk, mesh_rand *rand, bool at_open);
void sim_disk_flip_row(sim_disk *disk, mesh_slice key); /* this one, when it is read */
bool sim_disk_is_flipped(const sim_disk *disk);
/* Remember what is durable now; put that back in the place of what is there (no open handle). False: nothing was
 * remembered. */
void sim_disk_keep(sim_disk *disk);
bool sim_disk_put_back(sim_disk *disk);
unsigned sim_disk_quarantines(const sim_disk *disk); /* how often; none is kept, and there is no limit */
/* The next opens fail with err until MESH_OK is set. */
void sim_disk_refuse(sim_disk *disk, mesh_err err);
void sim_disk_set_free(sim_disk *disk, uint64_t bytes); /* what store_kv_free_bytes says; a terabyte until set */
bool sim_disk_is_open(const sim_disk *disk);
size_t sim_disk_rows(const sim_disk *disk);
uint64_t sim_disk_hash(const sim_disk *disk); /* of all rows in order: equal rows, equal hash */
/* The same of all rows whose keys do not begin with a zero byte, kept up to date with each write. */
uint64_t sim_disk_digest(const sim_disk *disk);
/* Hash of the row with this key, 0: there is none. */
uint64_t sim_disk_row_hash(const sim_disk *disk, mesh_slice key);
/* Call fn after each batch that wrote a row with this key (copied; "" ends it). It must not use the handle. */
typedef void sim_disk_wrote(void *arg, mesh_slice value);
void sim_disk_watch(sim_disk *disk, mesh_slice key, sim_disk_wrote *fn, void *arg);

#endif
