/* What the server sends, as the clients' library reads it: chunks are WebSocket messages to one session. */
#include "client/session.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    const client_session_conf conf = { .token = "token", .device = "device", .software = "fuzz", .seed = 1 };
    const client_handler handler = { 0 };
    client_session *s = client_session_new(&conf, &handler, NULL, 0);
    mesh_slice rest = { data, size }, message;
    mesh_buf out = { 0 };
    mesh_ms now = 0;
    while (fuzz_chunk(&rest, &message)) {
        now += 10;
        if (client_session_want(s, now) == CLIENT_WANT_CONNECT) {
            client_session_connecting(s, now);
            client_session_opened(s, now);
        }
        client_session_input(s, message, arena, now);
        while (client_session_take(s, &out, now)) {
            mesh_buf_clear(&out);
        }
        if (client_session_want(s, now) == CLIENT_WANT_CLOSE) {
            client_session_closed(s, 0, now);
            now += CLIENT_BACKOFF_CAP_MS;
        }
        (void)client_session_turn(s, now);
    }
    client_session_destroy(&s);
    mesh_buf_fini(&out);
    return 0;
}
