#include "client/partial.h"

mesh_err client_partial_put(mesh_buf *in, mesh_slice piece, bool last, mesh_slice *whole_p)
{
    if (piece.size > CLIENT_MESSAGE_MAX - in->size) {
        return MESH_TOO_BIG;
    }
    if (last && in->size == 0) {
        *whole_p = piece;
        return MESH_OK;
    }
    mesh_buf_put(in, piece.data, piece.size);
    if (!last) {
        return MESH_AGAIN;
    }
    *whole_p = mesh_buf_slice(in);
    return MESH_OK;
}

void client_partial_clear(mesh_buf *in)
{
    if (in->cap > CLIENT_PARTIAL_KEEP) {
        mesh_buf_fini(in);
    }
    mesh_buf_clear(in);
}
