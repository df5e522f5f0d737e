/* Heads of HTTP requests. */
#include <assert.h>
#include <string.h>

#include "edge/head.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    edge_head head;
    size_t n = 0;
    if (edge_head_parse((mesh_slice){ data, size }, &head, &n) == MESH_OK) {
        assert(n <= size && n <= EDGE_HEAD_MAX);
        unsigned status = edge_head_judge(&head, "https://example.org");
        if (status == 101) {
            edge_head again;
            mesh_buf out = { 0 };
            edge_head_put_upgrade(&head, &out);
            assert(edge_head_parse(mesh_buf_slice(&out), &again, &n) == MESH_OK && n == out.size);
            assert(again.upgrade);
            mesh_buf_fini(&out);
        }
    }
    return 0;
}
