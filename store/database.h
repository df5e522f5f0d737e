/* store/database.h: the database of one store process, and the core on it: opened, watched, put aside, opened again.
 *
 *   OPEN --no space--> CLOSED --every STORE_REOPEN_MS--> OPEN; any other failure of the disk ends the process: what the
 * kernel did with pages it could not write is not known, only a new start reads what is there.
 *
 * Data that cannot be trusted (MESH_CORRUPT, or another replica says that it is out of date): a lone store touches
 * nothing and ends. One of several puts it aside (store_kv_quarantine) and begins without: the others bring it all
 * back. What the core wanted sent in the turn in which it failed is dropped. */
#ifndef STORE_DATABASE_H
#define STORE_DATABASE_H

#include "mesh/loop.h"
#include "store/core.h"

#define STORE_REOPEN_MS 2000 /* a database closed for lack of space is tried again this often */
#define STORE_SPACE_MS 1000  /* free space is looked at this often */

typedef struct store_database store_database;

/* Of node self, in <store.path>/<node name>; store.path is made when it is not there. All arguments are borrowed for
 * the database's life. Errors: MESH_IO there can be no such directory (logged). */
MESH_MUST mesh_err store_database_new(const mesh_conf *conf, mesh_peer self, mesh_loop *loop,
                                      store_database **database_p);
void store_database_destroy(store_database **database_p);

/* The first time. Full is no failure: it is waited for, closed, like a disk that fills up later. Returns an exit
 * status, see store_serve_run; 0: go on. */
MESH_MUST int store_database_open(store_database *database, mesh_time now);

/* The core's turn, and before or after it what the disk and the core's verdict ask for. Returns the next deadline. When
 * nothing can go on, the loop is told to stop. */
mesh_ms store_database_turn(store_database *database, mesh_time now);
int store_database_status(const store_database *database); /* 0, or the exit status of what cannot go on */

store_core *store_database_core(const store_database *database); /* borrowed until the next turn; NULL: closed */
/* Where the core puts what it wants sent; borrowed until the next turn. */
mesh_out *store_database_out(const store_database *database);
const char *store_database_path(const store_database *database);

/* What the link says, for the core. A core that comes later hears of the links that are up. While it is closed every
 * request is refused, reads too: a lone store says FAULT_DISK_FULL, one of several FAULT_NOT_LEADER, so that the others
 * are asked. */
void store_database_message(store_database *database, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed,
                            mesh_time now);
void store_database_up(store_database *database, mesh_peer peer, uint64_t boot, mesh_time now);
void store_database_down(store_database *database, mesh_peer peer, mesh_time now);
void store_database_print_stats(const store_database *database, mesh_buf *out); /* and the core's */

#endif
