/* mesh/log.h: structured log lines on stderr: time, level, node, event, then key=value pairs (logfmt). Values are
 * escaped, so nothing a client sends can forge a line; secrets are never logged. At most LOG_RATE lines a second per
 * event, and what is left out is counted; debug lines are never left out: whoever turns them on follows one request. */
#ifndef MESH_LOG_H
#define MESH_LOG_H

#include <stdatomic.h>
#include <stdbool.h>

typedef enum mesh_level { MESH_DEBUG, MESH_INFO, MESH_WARN, MESH_ERROR } mesh_level;

void mesh_log_setup(const char *node, mesh_level level); /* node is per thread; level per process */
void mesh_log_level(mesh_level level);
mesh_level mesh_log_level_of(const char *name); /* debug, info, warn, error; anything else is info */
/* The name in this thread's lines. A thread that serves a node without being it takes the name over with set. */
const char *mesh_log_node(void);
void mesh_log_node_set(const char *node);

extern atomic_int mesh_log_threshold;
static inline bool mesh_log_wants(mesh_level level)
{
    return (int)level >= atomic_load_explicit(&mesh_log_threshold, memory_order_relaxed);
}

/* mesh_log(level, event, format, ...): format is "key=%s other=%d"; each value that is a string is quoted and escaped
 * when it needs it. A line of a level that is off costs one comparison: its arguments are not evaluated. */
#define mesh_log(level, ...)                                                                                           \
    do {                                                                                                               \
        if (mesh_log_wants(level)) {                                                                                   \
            mesh_log_write((level), __VA_ARGS__);                                                                      \
        }                                                                                                              \
    } while (0)
void mesh_log_write(mesh_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
