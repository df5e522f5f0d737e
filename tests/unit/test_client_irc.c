/* IRC logs: line forms, ids, who is who. And text made fit for a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/irc.h"
#include "client/term.h"

static mesh_slice slice(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static void parsed(const char *text, client_irc_kind kind, const char *nick, const char *rest)
{
    client_irc_line line;
    assert_int_equal(client_irc_parse(slice(text), &line), MESH_OK);
    assert_int_equal(line.kind, kind);
    if (nick) {
        assert_int_equal(line.nick.size, strlen(nick));
        assert_memory_equal(line.nick.data, nick, line.nick.size);
        assert_int_equal(line.text.size, strlen(rest));
        assert_memory_equal(line.text.data, rest, line.text.size);
    }
}

static void line_forms(void **state)
{
    (void)state;
    parsed("[09:14] <ann> hi there ", CLIENT_IRC_TEXT, "ann", "hi there ");
    parsed("[09:14] <ann>  two blanks", CLIENT_IRC_TEXT, "ann", " two blanks");
    parsed("[09:14] <a|b[c]> > quoted <x>", CLIENT_IRC_TEXT, "a|b[c]", "> quoted <x>");
    parsed("[00:25]  * Shawn|i7 facepalms", CLIENT_IRC_ACTION, "Shawn|i7", "facepalms");
    parsed("[00:25] * ann waves", CLIENT_IRC_ACTION, "ann", "waves");
    parsed("=== ann is now known as bob", CLIENT_IRC_RENAME, "ann", "bob");
    parsed("=== ann is now known as [x] y", CLIENT_IRC_RENAME, "ann", "[x] y");
    parsed("=== ann [~a@host]  has joined #ubuntu", CLIENT_IRC_SKIP, NULL, NULL);
    parsed("=== ann says x is now known as y", CLIENT_IRC_SKIP, NULL, NULL);
    parsed("[07:54] <ann>", CLIENT_IRC_SKIP, NULL, NULL);
    parsed("[07:54] <ann> ", CLIENT_IRC_SKIP, NULL, NULL);
    parsed("[11:27]  * TheHawk", CLIENT_IRC_SKIP, NULL, NULL);
    static const char *const bad[] = { "",
                                       "hello",
                                       "[9:14] <a> b",
                                       "[09:14]<a> b",
                                       "[09:14] <a",
                                       "[09:14] <> b",
                                       "[09:14] a: b",
                                       "[ab:cd] <a> b",
                                       "[09:14] <a>b",
                                       "[09:14] *a b" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        client_irc_line line;
        assert_int_equal(client_irc_parse(slice(bad[i]), &line), MESH_MALFORMED);
    }
}

static void ids_are_reversible(void **state)
{
    (void)state;
    static const struct {
        const char *nick, *id;
    } rows[] = { { "ann_B-9", "ann_B-9" },
                 { "|QuaD-", ".7cQuaD-" },
                 { "a.b", "a.2eb" },
                 { "`x'", ".60x.27" },
                 { "[a]", ".5ba.5d" },
                 { "\xc3\xa9t\xc3\xa9", ".c3.a9t.c3.a9" },
                 { "[MUPPETS] G", ".5bMUPPETS.5d.20G" } };
    char out[MESH_ID_MAX + 1];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(client_irc_id(slice(rows[i].nick), out), MESH_OK);
        assert_string_equal(out, rows[i].id);
        assert_true(mesh_id_valid(out));
        assert_int_equal(client_irc_nick(rows[i].id, out), MESH_OK);
        assert_string_equal(out, rows[i].nick);
    }
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    assert_int_equal(client_irc_id(slice(longest), out), MESH_TOO_BIG);
    longest[64] = '\0';
    assert_int_equal(client_irc_id(slice(longest), out), MESH_OK);
    longest[63] = '|';
    assert_int_equal(client_irc_id(slice(longest), out), MESH_TOO_BIG);
    assert_int_equal(client_irc_id(slice(""), out), MESH_MALFORMED);
    static const char *const bad[] = { "", "a.7", "a.7C", "a.zz", ".61", "a b" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(client_irc_nick(bad[i], out), MESH_MALFORMED);
    }
}

static void read_ok(const char *text, client_irc_log *log)
{
    char why[200];
    assert_int_equal(client_irc_read(slice(text), log, why, sizeof why), MESH_OK);
}

static void one_person_keeps_one_id(void **state)
{
    (void)state;
    client_irc_log log;
    read_ok("[09:00] <ann> 1\n=== ann is now known as ann_away\n[09:01] <ann_away> 2\n=== x has joined\n"
            "[09:02] <bob> 3\n[09:03]  * bob waves\n",
            &log);
    assert_int_equal(log.n_users, 2);
    assert_string_equal(log.users[0].id, "ann");
    assert_string_equal(log.users[1].id, "bob");
    assert_int_equal(log.lines, 4);
    assert_int_equal(log.renames, 1);
    assert_int_equal(log.skipped, 1);
    assert_int_equal(log.n_entries, 5);
    assert_int_equal(log.entries[1].kind, CLIENT_IRC_RENAME);
    assert_string_equal(log.entries[1].nick, "ann_away");
    assert_int_equal(log.entries[2].user, 0);
    assert_string_equal(log.entries[2].nick, "ann_away");
    assert_string_equal(log.entries[4].text, "waves");
    client_irc_fini(&log);
}

static void nicks_move_with_people(void **state)
{
    (void)state;
    client_irc_log log;
    /* bob takes over the nick ann has; who speaks as ann afterwards is bob, and bob again is the person first called so
     */
    read_ok("[09:00] <ann> 1\n[09:00] <bob> 2\n=== bob is now known as ann\n[09:01] <ann> 3\n[09:02] <bob> 4\n", &log);
    assert_int_equal(log.n_users, 2);
    assert_int_equal(log.entries[3].user, 1);
    assert_string_equal(log.entries[3].nick, "ann");
    assert_int_equal(log.entries[4].user, 1);
    client_irc_fini(&log);
    /* a rename of somebody never heard of makes that person */
    read_ok("=== new is now known as newer\n[09:01] <newer> 1\n", &log);
    assert_int_equal(log.n_users, 1);
    assert_string_equal(log.users[0].id, "new");
    assert_int_equal(log.entries[1].user, 0);
    client_irc_fini(&log);
}

static void bad_logs_are_refused(void **state)
{
    (void)state;
    char why[200];
    client_irc_log log;
    assert_int_equal(client_irc_read(slice("[09:00] <a> x\nnonsense\n"), &log, why, sizeof why), MESH_MALFORMED);
    assert_string_equal(why, "line 2 has no form of an IRC log");
    assert_int_equal(client_irc_read(slice("[09:00] <a> \xff\n"), &log, why, sizeof why), MESH_MALFORMED);
    assert_string_equal(why, "line 1 is not valid UTF-8");
    assert_int_equal(client_irc_read((mesh_slice){ (const uint8_t *)"[09:00] <a> \0\n", 14 }, &log, why, sizeof why),
                     MESH_MALFORMED);
    assert_int_equal(client_irc_load("/nonexistent", &log, why, sizeof why), MESH_IO);
}

static void cleaned(const char *text, const char *indent, const char *want)
{
    mesh_buf out = { 0 };
    client_term_clean(text, indent, &out);
    mesh_buf_put(&out, "", 1);
    assert_string_equal((const char *)out.data, want);
    mesh_buf_fini(&out);
}

static void terminal_text_is_harmless(void **state)
{
    (void)state;
    cleaned("plain \xc3\xa9 \xf0\x9f\x98\x80", NULL, "plain \xc3\xa9 \xf0\x9f\x98\x80");
    cleaned("\x1b[2Jx\x07\r\x7f", NULL, "\xc2\xb7[2Jx\xc2\xb7\xc2\xb7\xc2\xb7");
    cleaned("a\nb\tc", "  ", "a\n  b    c");
    cleaned("a\nb\tc", NULL,
            "a\xc2\xb7"
            "b\xc2\xb7"
            "c");
    cleaned("\xc2\x9b"
            "31m",
            NULL,
            "\xc2\xb7"
            "31m"); /* a C1 control: CSI in one character */
    cleaned("\xe2\x80\xae"
            "abc",
            NULL,
            "\xc2\xb7"
            "abc");                                                                    /* right-to-left override */
    cleaned("\xff\xc0\xaf\xe2\x80", NULL, "\xc2\xb7\xc2\xb7\xc2\xb7\xc2\xb7\xc2\xb7"); /* broken and overlong */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_forms),
        cmocka_unit_test(ids_are_reversible),
        cmocka_unit_test(one_person_keeps_one_id),
        cmocka_unit_test(nicks_move_with_people),
        cmocka_unit_test(bad_logs_are_refused),
        cmocka_unit_test(terminal_text_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
