/* How much the client takes: an event, a log of IRC and its nicks, what it shows of a reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/frame.h"
#include "client/irc.h"
#include "client/session.h"
#include "mesh/alloc.h"
#include "mesh/fault.h"

/* ---- frames ---- */

/* A frame with an event of exactly size bytes: an error nobody waits for, with a long text. */
static void put_frame(mesh_buf *out, size_t size)
{
    char *body = mesh_alloc(size + 1);
    memset(body, 'x', size);
    Client__Error error = CLIENT__ERROR__INIT;
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = 999;
    e.body_case = CLIENT__EVENT__BODY_ERROR;
    e.error = &error;
    error.code = FAULT_BUSY;
    error.message = body;
    size_t head = mesh_wire_size(&e) - size;
    body[size - head] = '\0';
    assert_int_equal(mesh_wire_size(&e), size);
    for (size_t rest = size;; rest >>= 7) {
        uint8_t byte = (uint8_t)(rest < 0x80 ? rest : rest | 0x80);
        mesh_buf_put(out, &byte, 1);
        if (rest < 0x80) {
            break;
        }
    }
    mesh_wire_pack(&e, out);
    free(body);
}

static void an_event_is_bounded(void **state)
{
    (void)state;
    mesh_arena *arena = mesh_arena_new();
    mesh_buf bytes = { 0 };
    Client__Event *event;
    put_frame(&bytes, CLIENT_FRAME_MAX);
    mesh_slice rest = mesh_buf_slice(&bytes);
    assert_int_equal(client_frame_next(&rest, arena, &event), MESH_OK);
    assert_int_equal(mesh_wire_size(event), CLIENT_FRAME_MAX);
    assert_int_equal(client_frame_next(&rest, arena, &event), MESH_AGAIN);
    mesh_buf_clear(&bytes);
    put_frame(&bytes, CLIENT_FRAME_MAX + 1);
    rest = mesh_buf_slice(&bytes);
    assert_int_equal(client_frame_next(&rest, arena, &event), MESH_MALFORMED);
    assert_int_equal(rest.size, bytes.size); /* nothing was taken */
    mesh_buf_fini(&bytes);
    mesh_arena_destroy(&arena);
}

static void welcome(client_session *s, mesh_arena *arena, mesh_ms now)
{
    mesh_buf bytes = { 0 };
    Client__Request *hello;
    assert_true(client_session_take(s, &bytes, now));
    mesh_slice frame = { bytes.data + 1, bytes.size - 1 };
    assert_int_equal(mesh_wire_unpack(&client__request__descriptor, frame, arena, (ProtobufCMessage **)&hello),
                     MESH_OK);
    Client__Welcome w = CLIENT__WELCOME__INIT;
    Client__Event e = CLIENT__EVENT__INIT;
    w.heartbeat_ms = 30000;
    e.id = hello->id;
    e.body_case = CLIENT__EVENT__BODY_WELCOME;
    e.welcome = &w;
    mesh_buf_clear(&bytes);
    uint8_t size = (uint8_t)mesh_wire_size(&e);
    assert_true(size < 0x80);
    mesh_buf_put(&bytes, &size, 1);
    mesh_wire_pack(&e, &bytes);
    client_session_input(s, mesh_buf_slice(&bytes), arena, now);
    mesh_buf_fini(&bytes);
}

static void a_longer_event_ends_the_connection(void **state)
{
    (void)state;
    static const client_handler nobody = { 0 };
    client_session_conf conf = { .token = "t", .device = "d", .seed = 5 };
    mesh_ms now = 1000;
    mesh_arena *arena = mesh_arena_new();
    mesh_buf bytes = { 0 };
    client_session *s = client_session_new(&conf, &nobody, NULL, now);
    client_session_connecting(s, now);
    client_session_opened(s, now);
    welcome(s, arena, now);
    assert_int_equal(client_session_state(s), CLIENT_READY);
    put_frame(&bytes, CLIENT_FRAME_MAX);
    client_session_input(s, mesh_buf_slice(&bytes), arena, now);
    assert_int_equal(client_session_counts(s)->malformed, 0);
    assert_int_equal(client_session_state(s), CLIENT_READY);
    mesh_buf_clear(&bytes);
    put_frame(&bytes, CLIENT_FRAME_MAX + 1);
    client_session_input(s, mesh_buf_slice(&bytes), arena, now);
    assert_int_equal(client_session_counts(s)->malformed, 1);
    assert_int_equal(client_session_want(s, now), CLIENT_WANT_CLOSE);
    client_session_closed(s, 0, now); /* and it comes again */
    now += CLIENT_BACKOFF_CAP_MS;
    client_session_turn(s, now);
    assert_int_equal(client_session_want(s, now), CLIENT_WANT_CONNECT);
    client_session_destroy(&s);
    mesh_buf_fini(&bytes);
    mesh_arena_destroy(&arena);
}

/* ---- IRC ---- */

static mesh_err read_log(const char *format, const char *nick, char *why, size_t why_size)
{
    char text[400];
    client_irc_log log = { 0 };
    snprintf(text, sizeof text, format, nick);
    mesh_err err = client_irc_read((mesh_slice){ (const uint8_t *)text, strlen(text) }, &log, why, why_size);
    if (err == MESH_OK) {
        assert_string_equal(log.entries[log.n_entries - 1].nick, nick);
        client_irc_fini(&log);
    }
    return err;
}

static void nicks_are_bounded(void **state)
{
    (void)state;
    static const char *const forms[] = { "[09:00] <%s> hi\n", "[09:00]  * %s waves\n", "=== ann is now known as %s\n" };
    char nick[CLIENT_IRC_NICK_MAX + 2];
    char why[200];
    memset(nick, 'n', sizeof nick - 1);
    nick[sizeof nick - 1] = '\0';
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(read_log(forms[i], nick, why, sizeof why), MESH_MALFORMED);
        assert_string_equal(why, "line 1 has a nick that is too long for an id");
        assert_int_equal(read_log(forms[i], nick + 1, why, sizeof why), MESH_OK);
    }
    /* the id is longer than the nick when it has other signs: then the id's length decides, where one is made */
    nick[1] = '|';
    assert_int_equal(read_log(forms[0], nick + 1, why, sizeof why), MESH_MALFORMED);
    assert_string_equal(why, "line 1 has a nick that is too long for an id");
    assert_int_equal(read_log(forms[2], nick + 1, why, sizeof why), MESH_OK);
}

/* A log of size bytes: long lines of somebody's. */
static void write_log(FILE *file, size_t size)
{
    static const char head[] = "[09:00] <ann> ";
    enum { LINE = 1 << 20 };
    char *line = mesh_alloc(LINE);
    memset(line, 'x', LINE);
    memcpy(line, head, sizeof head - 1);
    line[LINE - 1] = '\n';
    rewind(file);
    for (size_t left = size; left > 0;) {
        size_t n = left < LINE ? left : LINE;
        assert_int_equal(fwrite(line, 1, n, file), n);
        left -= n;
    }
    assert_int_equal(fflush(file), 0);
    free(line);
}

static void a_log_is_bounded(void **state)
{
    (void)state;
    char path[] = "/dev/shm/parley-irc-XXXXXX";
    char elsewhere[] = "/tmp/parley-irc-XXXXXX";
    char *name = path;
    int fd = mkstemp(name);
    if (fd < 0) {
        name = elsewhere;
        fd = mkstemp(name);
    }
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    client_irc_log log = { 0 };
    char why[200] = "";
    write_log(file, CLIENT_IRC_FILE_MAX);
    assert_int_equal(client_irc_load(name, &log, why, sizeof why), MESH_OK);
    assert_int_equal(log.n_entries, CLIENT_IRC_FILE_MAX >> 20);
    client_irc_fini(&log);
    assert_int_equal(fwrite("\n", 1, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(client_irc_load(name, &log, why, sizeof why), MESH_TOO_BIG);
    assert_string_equal(why, "larger than 64 MiB");
    assert_int_equal(log.n_entries, 0);
    unlink(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_bounded),
        cmocka_unit_test(a_longer_event_ends_the_connection),
        cmocka_unit_test(nicks_are_bounded),
        cmocka_unit_test(a_log_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
