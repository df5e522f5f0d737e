/* store/kv_rows.h: rows of a database as one run of bytes, to be sent or put elsewhere: per row u32le key size, u32le
 * value size, key, value; keys are not empty. */
#ifndef STORE_KV_ROWS_H
#define STORE_KV_ROWS_H

#include "mesh/buf.h"
#include "mesh/err.h"

#define STORE_KV_ROW_HEAD 8 /* bytes of a row besides its key and value */

void store_kv_rows_put(mesh_buf *rows, mesh_slice key, mesh_slice value); /* append */
/* The first row of *rest, which moves behind it; key and value borrow from it.
 * Errors: MESH_AGAIN nothing is left; MESH_MALFORMED: *rest is as it was. */
MESH_MUST mesh_err store_kv_rows_next(mesh_slice *rest, mesh_slice *key, mesh_slice *value);
/* All of rows are well formed, and their keys ascend, the first being above `after`; *last_p (may be NULL) is the last
 * key, or `after` when there are no rows. Errors: MESH_MALFORMED. */
MESH_MUST mesh_err store_kv_rows_check(mesh_slice rows, mesh_slice after, mesh_slice *last_p);

#endif
