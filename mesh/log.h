/* mesh/log.h: structured log lines on stderr: time, level, node, event, then key=value pairs (logfmt). Values are
 * escaped, so nothing a client sends can forge a line; secrets are never logged. At most LOG_RATE lines a second per
 * event; what is left out is counted. */
#ifndef MESH_LOG_H
#define MESH_LOG_H

typedef enum mesh_level { MESH_DEBUG, MESH_INFO, MESH_WARN, MESH_ERROR } mesh_level;

void mesh_log_setup(const char *node, mesh_level level); /* node is per thread; level per process */
void mesh_log_level(mesh_level level);
mesh_level mesh_log_level_of(const char *name); /* debug, info, warn, error; anything else is info */
/* format is "key=%s other=%d": each value that is a string is quoted and escaped when it needs it. */
void mesh_log(mesh_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
