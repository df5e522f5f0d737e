/* The small parts everything stands on: ids, bytes, random numbers, UTF-8, faults, statistics, log lines. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/buf.h"
#include "mesh/clock.h"
#include "mesh/err.h"
#include "mesh/fault.h"
#include "mesh/id.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "mesh/stats.h"
#include "mesh/utf8.h"
#include "tests/unit/capture.h"

/* ---- ids ---- */

static void ids_are_bounded_and_of_a_small_alphabet(void **state)
{
    (void)state;
    assert_true(mesh_id_valid("alice"));
    assert_true(mesh_id_valid("A.b_c:d-9"));
    assert_false(mesh_id_valid(""));
    assert_false(mesh_id_valid("a/b"));
    assert_false(mesh_id_valid("a b"));
    assert_false(mesh_id_valid("h\xc3\xa4"));
    assert_false(mesh_id_valid_n("a\0b", 3));
    char longest[MESH_ID_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[MESH_ID_MAX] = '\0';
    assert_true(mesh_id_valid(longest));
    longest[MESH_ID_MAX] = 'x';
    longest[MESH_ID_MAX + 1] = '\0';
    assert_false(mesh_id_valid(longest));
    assert_true(mesh_tenant_valid("acme-1"));
    assert_false(mesh_tenant_valid("Acme"));
    assert_false(mesh_tenant_valid(""));
}

static void qualified_ids_have_two_good_parts(void **state)
{
    (void)state;
    mesh_qid q;
    assert_int_equal(mesh_qid_make("default", "alice", &q), MESH_OK);
    assert_string_equal(q.s, "default/alice");
    assert_string_equal(mesh_qid_bare(q.s), "alice");
    assert_int_equal(mesh_qid_make("default", "a/b", &q), MESH_MALFORMED);
    assert_int_equal(mesh_qid_make("De", "a", &q), MESH_MALFORMED);
    assert_string_equal(q.s, "default/alice"); /* untouched */
    assert_true(mesh_qid_valid("t/x"));
    assert_false(mesh_qid_valid("t/"));
    assert_false(mesh_qid_valid("/x"));
    assert_false(mesh_qid_valid("tx"));
    assert_false(mesh_qid_valid("t/x/y"));
    char full[MESH_QID_MAX + 1];
    memset(full, 'a', sizeof full);
    full[MESH_TENANT_MAX] = '/';
    full[MESH_QID_MAX] = '\0';
    assert_true(mesh_qid_valid(full));
}

static void a_pair_meets_in_one_chat(void **state)
{
    (void)state;
    mesh_qid ab;
    mesh_qid ba;
    mesh_qid ac;
    mesh_qid other;
    mesh_id_direct("default/ann", "default/bob", &ab);
    mesh_id_direct("default/bob", "default/ann", &ba);
    mesh_id_direct("default/ann", "default/cleo", &ac);
    mesh_id_direct("other/ann", "other/bob", &other);
    assert_string_equal(ab.s, ba.s);
    assert_string_not_equal(ab.s, ac.s);
    assert_string_not_equal(mesh_qid_bare(ab.s), mesh_qid_bare(other.s));
    assert_int_equal(strlen(mesh_qid_bare(ab.s)), 2 + 32);
    assert_true(mesh_qid_valid(ab.s));
    assert_true(mesh_id_is_direct(ab.s));
    /* written on disk for ever: BLAKE2b-160("default\0default/ann\0default/bob") */
    assert_string_equal(ab.s, "default/d:ob6qwldiznta7oenrrlqm532jdebxlue");
}

static void a_group_id_repeats_for_the_same_request(void **state)
{
    (void)state;
    mesh_qid one;
    mesh_qid again;
    mesh_qid two;
    mesh_id_group("default/ann", "c1", &one);
    mesh_id_group("default/ann", "c1", &again);
    mesh_id_group("default/ann", "c2", &two);
    assert_string_equal(one.s, again.s);
    assert_string_not_equal(one.s, two.s);
    assert_false(mesh_id_is_direct(one.s));
    assert_true(mesh_qid_valid(one.s));
    mesh_id_group(one.s, "c1", &one); /* from itself */
    assert_true(mesh_qid_valid(one.s));
}

static void slots_are_the_top_bits_of_siphash(void **state)
{
    (void)state;
    /* the reference vector of SipHash-2-4: key 00..0f, message 00..0e has a NUL, so the empty message is used */
    mesh_hash_key key;
    for (unsigned i = 0; i < sizeof key.bytes; i++) {
        key.bytes[i] = (uint8_t)i;
    }
    assert_true(mesh_id_hash(&key, "") == UINT64_C(0x726fdb47dd0e0e31));
    assert_int_equal(mesh_id_slot(&key, ""), 0x726);
    unsigned used[16] = { 0 };
    for (unsigned i = 0; i < 1600; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "default/u%u", i);
        used[mesh_id_slot(&key, id) / (MESH_SLOTS / 16)]++;
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_in_range(used[i], 50, 150);
    }
}

/* ---- bytes ---- */

static void a_buffer_grows_and_shrinks(void **state)
{
    (void)state;
    mesh_buf b = { 0 };
    for (int i = 0; i < 1000; i++) {
        mesh_buf_puts(&b, "abc");
    }
    assert_int_equal(b.size, 3000);
    mesh_buf_shift(&b, 2999);
    assert_int_equal(b.size, 1);
    assert_int_equal(b.data[0], 'c');
    mesh_buf_clear(&b);
    mesh_buf_printf(&b, "%d-%s", 7, "x");
    mesh_buf_put(&b, NULL, 0);
    assert_memory_equal(b.data, "7-x", 3);
    mesh_buf_printf(&b, "%0600d", 1);
    assert_int_equal(b.size, 603);
    assert_int_equal(b.data[602], '1');
    mesh_slice s = mesh_buf_slice(&b);
    assert_int_equal(s.size, 603);
    mesh_buf_fini(&b);
    assert_null(b.data);
}

static void numbers_keep_their_order_as_bytes(void **state)
{
    (void)state;
    uint8_t a[8];
    uint8_t b[8];
    mesh_put_u64be(a, 255);
    mesh_put_u64be(b, 256);
    assert_true(memcmp(a, b, 8) < 0);
    assert_true(mesh_get_u64be(b) == 256);
    mesh_put_u64be(a, UINT64_MAX - 1);
    assert_true(mesh_get_u64be(a) == UINT64_MAX - 1);
    mesh_put_u32le(a, 0x01020304);
    assert_int_equal(a[0], 4);
    assert_true(mesh_get_u32le(a) == 0x01020304);
}

static void random_numbers_repeat_from_a_seed(void **state)
{
    (void)state;
    mesh_rand r = { 0 }; /* the first three of splitmix64 with seed 0 */
    assert_true(mesh_rand_next(&r) == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(mesh_rand_next(&r) == UINT64_C(0x6e789e6aa1b965f4));
    assert_true(mesh_rand_next(&r) == UINT64_C(0x06c45d188009454f));
    unsigned seen[6] = { 0 };
    for (int i = 0; i < 6000; i++) {
        seen[mesh_rand_below(&r, 6)]++;
    }
    for (int i = 0; i < 6; i++) {
        assert_in_range(seen[i], 850, 1150);
    }
    assert_true(mesh_rand_below(&r, 1) == 0);
    assert_true(mesh_rand_seed() != mesh_rand_seed());
}

static void the_clock_does_not_go_back(void **state)
{
    (void)state;
    mesh_time a = mesh_clock_now();
    uint64_t us = mesh_clock_us();
    mesh_time b = mesh_clock_now();
    assert_true(b.mono >= a.mono);
    assert_true(us / 1000 >= (uint64_t)a.mono && us / 1000 <= (uint64_t)b.mono);
    assert_true(a.wall > INT64_C(1577836800000)); /* 2020 */
}

static void copies_are_copies(void **state)
{
    (void)state;
    char *zeroed = mesh_alloc(100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(zeroed[i], 0);
    }
    char *s = mesh_strdup("text");
    void *nothing = mesh_memdup(NULL, 0);
    assert_string_equal(s, "text");
    assert_non_null(nothing);
    free(zeroed);
    free(s);
    free(nothing);
}

/* ---- UTF-8 ---- */

static bool utf8(const char *s, size_t *points)
{
    return mesh_utf8_valid((const uint8_t *)s, strlen(s), points);
}

static void utf8_counts_code_points(void **state)
{
    (void)state;
    size_t n = 99;
    assert_true(mesh_utf8_valid((const uint8_t *)"", 0, &n));
    assert_int_equal(n, 0);
    assert_true(utf8("plain ascii, longer than one word", &n));
    assert_int_equal(n, 33);
    assert_true(utf8("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 and more", &n)); /* 2, 3 and 4 bytes */
    assert_int_equal(n, 12);
    assert_true(
        utf8("\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", &n));
    assert_int_equal(n, 8);
    assert_true(mesh_utf8_valid((const uint8_t *)"a\0b", 3, NULL));
}

static void utf8_refuses_what_is_not(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc3",
        "\xc3(",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xe2\x82",
        "\xe2(\xa1",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf0\x9f\x98",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "12345678\xc3",
        "\xfe\xfe",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t n = 77;
        if (utf8(wrong[i], &n)) {
            fail_msg("row %zu is not UTF-8", i);
        }
        assert_int_equal(n, 77); /* untouched */
    }
}

/* ---- tables ---- */

static void every_error_has_a_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MESH_ERRS; i++) {
        assert_non_null(mesh_err_name((mesh_err)i));
        assert_string_not_equal(mesh_err_name((mesh_err)i), "unknown");
    }
    assert_string_equal(mesh_err_name((mesh_err)999), "unknown");
}

static void faults_are_distinct_and_complete(void **state)
{
    (void)state;
    static const unsigned sections[] = { 0, 108, 205, 303, 405, 502 }; /* one past the last code of each hundred */
    unsigned rows = 0;
    const mesh_fault_info *row;
    for (; (row = mesh_fault_at(rows)) != NULL; rows++) {
        assert_ptr_equal(mesh_fault_get((uint32_t)row->code), row);
        assert_true((unsigned)row->code < sections[(unsigned)row->code / 100]);
        assert_true(row->name[0] != '\0' && row->message[0] != '\0');
        assert_true((row->after_ms > 0) == (row->retry == MESH_RETRY_SAME || row->retry == MESH_RETRY_LATER));
        for (unsigned i = 0; i < rows; i++) {
            assert_string_not_equal(mesh_fault_at(i)->name, row->name);
        }
    }
    assert_int_equal(rows, 8 + 5 + 3 + 5 + 2);
    assert_int_equal(mesh_fault_get(12345)->code, FAULT_UNAVAILABLE);
}

static void statistics_print_as_prometheus_text(void **state)
{
    (void)state;
    static const mesh_stat_info infos[] = {
        { "parley_x_total", "Xs seen.", MESH_COUNTER, "kind=\"a\"" },
        { "parley_x_total", "Xs seen.", MESH_COUNTER, "kind=\"b\"" },
        { "parley_y", "Ys now.", MESH_GAUGE, NULL },
    };
    mesh_stats *stats = mesh_stats_new(infos, 3);
    mesh_stats_add(stats, 0, 2);
    mesh_stats_add(stats, 0, 3);
    mesh_stats_set(stats, 2, 9);
    mesh_stats_set(stats, 2, 8);
    assert_true(mesh_stats_get(stats, 0) == 5);
    mesh_buf out = { 0 };
    mesh_stats_print(stats, "edge1", &out);
    mesh_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data,
                        "# HELP parley_x_total Xs seen.\n# TYPE parley_x_total counter\n"
                        "parley_x_total{node=\"edge1\",kind=\"a\"} 5\n"
                        "parley_x_total{node=\"edge1\",kind=\"b\"} 0\n"
                        "# HELP parley_y Ys now.\n# TYPE parley_y gauge\nparley_y{node=\"edge1\"} 8\n");
    mesh_buf_fini(&out);
    mesh_stats_destroy(&stats);
    assert_null(stats);
}

/* ---- log ---- */

static void a_log_line_cannot_be_forged(void **state)
{
    (void)state;
    capture c;
    char text[16384];
    char *huge = mesh_alloc(8001);
    memset(huge, 'h', 8000);
    mesh_log_setup("edge1", MESH_INFO);
    capture_start(&c);
    mesh_log(MESH_WARN, "test_forge", "user=%s n=%d u=%" PRIu64 " z=%zu f=%.1f pct=100%%",
             "eve\nts=1 level=error \"x\\\x1b[2J", -5, UINT64_MAX, (size_t)3, 2.5);
    mesh_log(MESH_INFO, "test_plain", "user=%s part=%.*s none=%s bad=%s nel=%s", "alice", 2, "abcdef", "", "\xff\xc3",
             "\xc2\x85\xe2\x80\xa8\xc3\xa4");
    mesh_log(MESH_DEBUG, "test_hidden", "a=%d", 1);
    mesh_log(MESH_ERROR, "test_long", "huge=%s", huge);
    mesh_log(MESH_INFO, "test_bare", "%s", "x");
    size_t n = capture_stop(&c, text, sizeof text);
    free(huge);
    unsigned lines = 0;
    for (size_t i = 0; i < n; i++) {
        lines += text[i] == '\n';
        assert_true((unsigned char)text[i] >= ' ' || text[i] == '\n');
    }
    assert_int_equal(lines, 4);
    assert_non_null(
        strstr(text, " level=warn node=edge1 event=test_forge user=\"eve\\nts=1 level=error \\\"x\\\\\\x1b[2J\" n=-5 "
                     "u=18446744073709551615 z=3 f=2.5 pct=100%\n"));
    assert_non_null(strstr(text, "event=test_plain user=alice part=ab none=\"\" bad=\"\\xff\\xc3\" "
                                 "nel=\"\\xc2\\x85\\xe2\\x80\\xa8\xc3\xa4\"\n"));
    assert_null(strstr(text, "test_hidden"));
    assert_memory_equal(text, "ts=20", 5);
    assert_int_equal(text[26], 'Z');
}

static void a_flood_of_one_event_is_cut(void **state)
{
    (void)state;
    capture c;
    static char text[60000];
    mesh_log_setup("n", MESH_INFO);
    capture_start(&c);
    for (int i = 0; i < 1000; i++) { /* a second may end in between: at most two of them in this loop */
        mesh_log(MESH_INFO, "test_flood", "i=%d", i);
    }
    mesh_log(MESH_INFO, "test_other", "i=%d", 1);
    (void)capture_stop(&c, text, sizeof text);
    unsigned lines = 0;
    for (char *p = text; (p = strstr(p, "test_flood")) != NULL; p++) {
        lines++;
    }
    assert_in_range(lines, 200, 400);
    assert_non_null(strstr(text, "event=test_other i=1\n"));
    assert_int_equal(mesh_log_level_of("warn"), MESH_WARN);
    assert_int_equal(mesh_log_level_of("loud"), MESH_INFO);
}

static int evaluated(int *times)
{
    return ++*times;
}

static void a_level_that_is_off_costs_nothing(void **state)
{
    (void)state;
    capture c;
    static char text[60000];
    int times = 0;
    mesh_log_setup("n", MESH_INFO);
    mesh_log(MESH_DEBUG, "test_off", "i=%d", evaluated(&times));
    assert_int_equal(times, 0);
    assert_false(mesh_log_wants(MESH_DEBUG));
    mesh_log_level(MESH_DEBUG);
    mesh_log_node_set("other");
    assert_string_equal(mesh_log_node(), "other");
    capture_start(&c);
    for (int i = 0; i < 450; i++) { /* whoever follows a trace must not miss a line of it */
        mesh_log(MESH_DEBUG, "test_trace", "i=%d", evaluated(&times));
    }
    (void)capture_stop(&c, text, sizeof text);
    assert_int_equal(times, 450);
    unsigned lines = 0;
    for (char *p = text; (p = strstr(p, "level=debug node=other event=test_trace")) != NULL; p++) {
        lines++;
    }
    assert_int_equal(lines, 450);
    mesh_log_setup("n", MESH_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_bounded_and_of_a_small_alphabet),
        cmocka_unit_test(qualified_ids_have_two_good_parts),
        cmocka_unit_test(a_pair_meets_in_one_chat),
        cmocka_unit_test(a_group_id_repeats_for_the_same_request),
        cmocka_unit_test(slots_are_the_top_bits_of_siphash),
        cmocka_unit_test(a_buffer_grows_and_shrinks),
        cmocka_unit_test(numbers_keep_their_order_as_bytes),
        cmocka_unit_test(random_numbers_repeat_from_a_seed),
        cmocka_unit_test(the_clock_does_not_go_back),
        cmocka_unit_test(copies_are_copies),
        cmocka_unit_test(utf8_counts_code_points),
        cmocka_unit_test(utf8_refuses_what_is_not),
        cmocka_unit_test(every_error_has_a_name),
        cmocka_unit_test(faults_are_distinct_and_complete),
        cmocka_unit_test(statistics_print_as_prometheus_text),
        cmocka_unit_test(a_log_line_cannot_be_forged),
        cmocka_unit_test(a_flood_of_one_event_is_cut),
        cmocka_unit_test(a_level_that_is_off_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
