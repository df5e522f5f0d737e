#include "mesh/err.h"

const char *mesh_err_name(mesh_err err)
{
    static const char *const names[MESH_ERRS] = {
        [MESH_OK] = "ok",
        [MESH_AGAIN] = "again",
        [MESH_FULL] = "full",
        [MESH_STALE] = "stale",
        [MESH_MALFORMED] = "malformed",
        [MESH_NOT_FOUND] = "not_found",
        [MESH_DENIED] = "denied",
        [MESH_CONFLICT] = "conflict",
        [MESH_TOO_BIG] = "too_big",
        [MESH_IO] = "io",
        [MESH_CORRUPT] = "corrupt",
        [MESH_NO_SPACE] = "no_space",
        [MESH_CLOSED] = "closed",
        [MESH_UNSUPPORTED] = "unsupported",
    };
    return (unsigned)err < MESH_ERRS ? names[err] : "unknown";
}
