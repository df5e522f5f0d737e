/* mesh/out.h: what a core wants sent. Messages are packed straight into one frame per peer, so batching costs nothing:
 * the shell sends each frame at the end of its loop turn. */
#ifndef MESH_OUT_H
#define MESH_OUT_H

#include <stddef.h>

#include "mesh/buf.h"
#include "mesh/conf.h"
#include "mesh/wire.h"

typedef struct mesh_out mesh_out;

mesh_out *mesh_out_new(size_t n_peers); /* peers 0..n_peers-1: node indexes of the config */
void mesh_out_destroy(mesh_out **out_p);

/* Queue msg for peer. Starts a new frame when the current one has reached MESH_FRAME_SOFT_MAX. */
void mesh_out_put(mesh_out *out, mesh_peer peer, const Mesh__Msg *msg);
/* The same for what a Msg without corr and ttl_ms was packed to. */
void mesh_out_put_kept(mesh_out *out, mesh_peer peer, uint64_t corr, uint32_t ttl_ms, mesh_slice kept);

/* The oldest unsent frame of any peer, in the order frames were started. False: nothing. The frame is moved out: yours.
 */
bool mesh_out_take(mesh_out *out, mesh_peer *peer_p, mesh_buf *frame_p);
size_t mesh_out_bytes(const mesh_out *out); /* waiting, over all peers */

#endif
