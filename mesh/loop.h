/* mesh/loop.h: one libuv loop per role and thread, driven so that every turn ends with one flush.
 *
 * A turn: libuv polls -> callbacks feed the core -> `turn` is called (the role drains its links, steps its core,
 * flushes what the core wants sent) -> the next timeout is what `turn` returned. ZMQ_FD is edge-triggered, so links are
 * looked at in every turn, never only when their fd fires. `turn` is the last thing before the poll: what timers and
 * fds caused in between, in any library on the same loop, is flushed before the loop blocks. */
#ifndef MESH_LOOP_H
#define MESH_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "mesh/clock.h"

typedef struct mesh_loop mesh_loop;
/* Do one turn's work. Returns the time (mono) at which it must be called again at the latest, MESH_NEVER for none; a
 * time not in the future means: again right after polling what is ready. */
typedef mesh_ms mesh_loop_turn(void *arg, mesh_time now);

mesh_loop *mesh_loop_new(mesh_loop_turn *turn, void *arg);
void mesh_loop_destroy(mesh_loop **loop_p);
uv_loop_t *mesh_loop_uv(mesh_loop *loop);           /* for libwebsockets; borrowed */
void mesh_loop_watch_fd(mesh_loop *loop, int fd);   /* wake when fd is readable; what to do is turn's business */
void mesh_loop_unwatch_fd(mesh_loop *loop, int fd); /* before fd is closed */
/* Asked after every turn, just before the loop would block: true means work is there that no fd will announce, so look
 * again at once. At most MESH_LOOP_READY of them; known by arg. */
typedef bool mesh_loop_ready(void *arg);
#define MESH_LOOP_READY 4
void mesh_loop_watch_ready(mesh_loop *loop, mesh_loop_ready *ready, void *arg);
void mesh_loop_unwatch_ready(mesh_loop *loop, void *arg);
void mesh_loop_run(mesh_loop *loop);  /* until mesh_loop_stop */
void mesh_loop_stop(mesh_loop *loop); /* from the loop's own thread */
void mesh_loop_wake(mesh_loop *loop); /* from any thread */

/* SIGTERM and SIGINT set one flag and wake every loop; SIGPIPE is ignored. Call once, before threads start. */
void mesh_loop_signals(void);
bool mesh_loop_stopping(void);
void mesh_loop_stop_all(void); /* as if SIGTERM had come */

#endif
