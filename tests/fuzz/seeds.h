/* tests/fuzz/seeds.h: how seeds are written (seeds.c), and those of stores (seeds_store.c). */
#ifndef TESTS_FUZZ_SEEDS_H
#define TESTS_FUZZ_SEEDS_H

#include "mesh/wire.h"

/* The next inputs are DIR/NAME/00, 01, ... Anything that fails ends the program. */
void seeds_begin(const char *dir, const char *name);
void seeds_skip_to(unsigned n);
void seeds_put(const void *bytes, size_t n);
void seeds_put_buf(mesh_buf *b); /* and empties it */

/* Add a chunk as fuzz_chunk reads it: the byte at head, if it is not NULL, and then these. */
void seeds_chunk(mesh_buf *out, const char *head, const void *bytes, size_t n);
void seeds_chunk_msg(mesh_buf *out, const char *head, const Mesh__Msg *msg);

void seeds_empty_stores(mesh_buf *out); /* chunks: both others have no data, this one begins */
void seeds_replicas(mesh_buf *out);     /* inputs, as all that follows */
void seeds_followers(mesh_buf *out);
void seeds_confirmed(const char *dir, mesh_buf *out);
void seeds_states(const char *dir, mesh_buf *out);

#endif
