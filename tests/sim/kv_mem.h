/* tests/sim/kv_mem.h: store/kv.h in memory, on a fake disk that outlives the handle.
 *
 * store_kv_open(path) finds the disk that was made for this path. A write is seen by reads at once and is durable when
 * the simulator says so (sim_disk_flush). A crash keeps everything durable and a random prefix of what was queued after
 * it, in order, all of a batch or nothing. No threads, no clock, no fd. */
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
/* The next flush fails with err, and so does every one until sim_disk_fail(disk, MESH_OK) and a new open. */
void sim_disk_fail(sim_disk *disk, mesh_err err);
/* The next opens fail with err until MESH_OK is set. */
void sim_disk_refuse(sim_disk *disk, mesh_err err);
void sim_disk_set_free(sim_disk *disk, uint64_t bytes); /* what store_kv_free_bytes says; a terabyte until set */
bool sim_disk_is_open(const sim_disk *disk);
size_t sim_disk_rows(const sim_disk *disk);
uint64_t sim_disk_hash(const sim_disk *disk); /* of all rows in order: equal rows, equal hash */

#endif
