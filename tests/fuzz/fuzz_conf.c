/* A cluster's config file. */
#include <stdio.h>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[256];
    mesh_conf *conf = mesh_conf_new();
    if (mesh_conf_load(conf, fuzz_file((mesh_slice){ data, size }), why, sizeof why) == MESH_OK) {
        mesh_conf_dump(conf, stdout);
    }
    mesh_conf_destroy(&conf);
    return 0;
}
