#include "mesh/out.h"

#include <assert.h>
#include <stdlib.h>

#include "mesh/alloc.h"

typedef struct frame {
    struct frame *next; /* in the order frames were started, over all peers */
    mesh_peer peer;
    mesh_buf bytes;
} frame;

struct mesh_out {
    size_t n_peers;
    frame **open; /* per peer the frame that still grows, or NULL */
    frame *first;
    frame **last_link;
    size_t waiting;
};

mesh_out *mesh_out_new(size_t n_peers)
{
    assert(n_peers < MESH_NO_PEER);
    mesh_out *out = mesh_alloc(sizeof *out);
    out->n_peers = n_peers;
    out->open = mesh_alloc((n_peers + 1) * sizeof(frame *));
    out->last_link = &out->first;
    return out;
}

void mesh_out_destroy(mesh_out **out_p)
{
    mesh_out *out = *out_p;
    if (out == NULL) {
        return;
    }
    frame *next;
    for (frame *f = out->first; f != NULL; f = next) {
        next = f->next;
        mesh_buf_fini(&f->bytes);
        free(f);
    }
    free((void *)out->open);
    free(out);
    *out_p = NULL;
}

static frame *start_frame(mesh_out *out, mesh_peer peer)
{
    frame *f = mesh_alloc(sizeof *f);
    f->peer = peer;
    *out->last_link = f;
    out->last_link = &f->next;
    return f;
}

static frame *open_frame(mesh_out *out, mesh_peer peer)
{
    assert(peer < out->n_peers);
    return out->open[peer] != NULL ? out->open[peer] : start_frame(out, peer);
}

static void grown(mesh_out *out, frame *f, size_t before)
{
    out->waiting += f->bytes.size - before;
    out->open[f->peer] = f->bytes.size < MESH_FRAME_SOFT_MAX ? f : NULL;
}

void mesh_out_put(mesh_out *out, mesh_peer peer, const Mesh__Msg *msg)
{
    frame *f = open_frame(out, peer);
    size_t before = f->bytes.size;
    mesh_frame_put(&f->bytes, msg);
    grown(out, f, before);
}

void mesh_out_put_kept(mesh_out *out, mesh_peer peer, uint64_t corr, uint32_t ttl_ms, mesh_slice kept)
{
    frame *f = open_frame(out, peer);
    size_t before = f->bytes.size;
    mesh_frame_put_kept(&f->bytes, corr, ttl_ms, kept);
    grown(out, f, before);
}

bool mesh_out_take(mesh_out *out, mesh_peer *peer_p, mesh_buf *frame_p)
{
    frame *f = out->first;
    if (f == NULL) {
        return false;
    }
    out->first = f->next;
    if (out->first == NULL) {
        out->last_link = &out->first;
    }
    if (out->open[f->peer] == f) {
        out->open[f->peer] = NULL;
    }
    out->waiting -= f->bytes.size;
    *peer_p = f->peer;
    *frame_p = f->bytes;
    free(f);
    return true;
}

size_t mesh_out_bytes(const mesh_out *out)
{
    return out->waiting;
}
