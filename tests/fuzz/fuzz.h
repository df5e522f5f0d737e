/* tests/fuzz/fuzz.h: what the fuzz targets share. One target per decoder; each feeds the bytes it is given to it and
 * then uses what came out, so that a wrong length or a missing NUL is seen by the sanitizers. Inputs:
 * tests/fuzz/corpus/. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "mesh/conf.h"
#include "mesh/out.h"
#include "mesh/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Is what was decoded usable? Packs it again and unpacks that; aborts when the second reading differs in size. */
void fuzz_round_trip(const ProtobufCMessage *message, mesh_arena *arena);
/* bytes in a file that can be opened by the returned path until the next call. */
const char *fuzz_file(mesh_slice bytes);
/* Two edges, a router, a store: peers 0..3. Made once. */
const mesh_conf *fuzz_conf_nodes(void);
enum { FUZZ_EDGE, FUZZ_EDGE_2, FUZZ_ROUTER, FUZZ_STORE };
/* Take all frames a core wants sent, and read them as their receiver would. */
void fuzz_drain(mesh_out *out, mesh_arena *arena);
/* The next chunk of an input that is u16le length, bytes, ...; the last may be short. False: none left. */
int fuzz_chunk(mesh_slice *rest, mesh_slice *chunk);

#endif
