/* mesh/err.h: the one error type.
 *
 * Three kinds of wrong are never mixed: the world failed (disk, network, limit) -> an error from this table;
 * a peer or client sent nonsense -> MESH_MALFORMED, counted and dropped; we are wrong -> assert, kept on in release.
 * Out of memory is fatal in mesh/alloc.c: allocation never returns NULL. */
#ifndef MESH_ERR_H
#define MESH_ERR_H

#define MESH_MUST __attribute__((warn_unused_result))

typedef enum mesh_err {
    MESH_OK = 0,
    MESH_AGAIN,       /* nothing now; ask again when told */
    MESH_FULL,        /* a named limit is reached; nothing changed */
    MESH_STALE,       /* older than what is known; nothing changed */
    MESH_MALFORMED,   /* the other side sent nonsense */
    MESH_NOT_FOUND,   /* not there, or not yours: the two are never told apart */
    MESH_DENIED,      /* there, but this role may not */
    MESH_CONFLICT,    /* the same key with another content */
    MESH_TOO_BIG,     /* larger than a written limit */
    MESH_IO,          /* the disk or the network failed */
    MESH_CORRUPT,     /* data on disk is not what was written */
    MESH_NO_SPACE,    /* the disk is full or below the watermark */
    MESH_CLOSED,      /* the object was closed or its other side is gone */
    MESH_UNSUPPORTED, /* another version or a feature that is not here */
    MESH_ERRS
} mesh_err;

/* Lower-case name of err, never NULL. */
const char *mesh_err_name(mesh_err err);

#endif
