/* A full disk, a slow disk, and going away in good order. */
#include "story.h"

STORY(disk_full)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        sim *s = story_new(1, 1, 100 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        for (int i = 0; i < 10; i++) {
            story_acked(s, sim_send(ann, "bob", "before"), 500);
        }
        sim_disk_fill(s);
        sim_op *late[10];
        for (int i = 0; i < 10; i++) {
            late[i] = sim_send(ann, "bob", "while it is full");
            sim_run(s, 5);
        }
        sim_run(s, 7000);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(late[i]->state, OP_WAITING);
            assert_true(late[i]->code == FAULT_UNAVAILABLE || late[i]->code == FAULT_DISK_FULL);
        }
        sim_disk_free(s);
        for (int i = 0; i < 10; i++) {
            story_acked(s, late[i], 15000);
        }
        WITHIN(s, 10000, bob->n_got == 20);
        story_end(&s);
    }
}

STORY(watermark_refuses_writes_and_reads_go_on)
{
    (void)state;
    sim *s = story_new(1, 1, 110);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    const char *chat = story_acked(s, sim_send(ann, "bob", "before"), 500)->chat;
    sim_run(s, 200);
    sim_space(s, false);
    sim_op *send = sim_send(ann, "bob", "no room");
    sim_run(s, 300);
    assert_int_equal(send->state, OP_WAITING);
    assert_int_equal(send->code, FAULT_DISK_FULL);
    sim_op *history = sim_history(ann, chat, 0, 0, false, 10);
    WITHIN(s, 500, history->state == OP_DONE);
    assert_int_equal(history->answer->page->n_messages, 1);
    sim_space(s, true);
    assert_int_equal(story_acked(s, send, 8000)->seq, 2);
    story_end(&s);
}

STORY(slow_disk)
{
    (void)state;
    sim *s = story_new(1, 1, 111);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    sim_disk_slow(s, 300);
    for (int i = 0; i < 100; i++) {
        sim_send(ann, "bob", "one of many");
    }
    WITHIN(s, 20000, bob->n_got == 100 && ann->n_got == 100);
    story_end(&s);
}

STORY(disk_stands_still)
{
    (void)state;
    sim *s = story_new(2, 2, 114);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    sim_run(s, 1000);
    uint64_t epoch = sim_epoch(s, "edge1");
    sim_disk_hold(s, true);
    sim_op *ops[10];
    for (int i = 0; i < 10; i++) {
        ops[i] = sim_send(ann, "bob", "wait for it");
    }
    sim_run(s, 12000);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ops[i]->state, OP_WAITING);
    }
    assert_int_equal(bob->n_got, 0);
    sim_disk_hold(s, false);
    for (int i = 0; i < 10; i++) {
        story_acked(s, ops[i], 6000);
    }
    WITHIN(s, 10000, bob->n_got == 10 && ann->n_got == 10);
    assert_true(sim_epoch(s, "edge1") == epoch); /* nobody was declared dead for it */
    story_end(&s);
}

STORY(edge_drains)
{
    (void)state;
    sim *s = story_new(2, 2, 112);
    sim_client *c[12];
    for (unsigned i = 0; i < 12; i++) {
        char user[16];
        snprintf(user, sizeof user, "u%u", i);
        c[i] = story_person(s, user, "phone", "edge1");
    }
    sim_drain(s, "edge1");
    mesh_ms start = sim_now(s);
    mesh_ms first = 0, last = 0;
    sim_op *ops[60];
    unsigned n = 0;
    while (sim_alive(s, "edge1") && sim_now(s) < start + 30000) {
        sim_run(s, 100);
        unsigned gone = 0;
        for (unsigned i = 0; i < 12; i++) {
            gone += c[i]->reconnects > 0;
        }
        first = gone && !first ? sim_now(s) - start : first;
        last = gone == 12 && !last ? sim_now(s) - start : last;
        if (n < 60 && (sim_now(s) - start) % 300 == 0) {
            ops[n] = sim_send(c[n % 12], c[(n + 1) % 12]->user, "while they move");
            n++;
        }
    }
    assert_false(sim_alive(s, "edge1"));
    assert_true(last - first > 2000); /* spread, not a stampede */
    WITHIN(s, 5000, sim_live(c[0]) && sim_live(c[11]));
    for (unsigned i = 0; i < n; i++) {
        story_acked(s, ops[i], 5000);
    }
    story_end(&s);
}

STORY(router_drains)
{
    (void)state;
    sim *s = story_new(2, 2, 113);
    sim_client *c[8];
    for (unsigned i = 0; i < 8; i++) {
        char user[16];
        snprintf(user, sizeof user, "u%u", i);
        c[i] = story_person(s, user, "phone", i % 2 ? "edge1" : "edge2");
    }
    sim_drain(s, "router1");
    sim_op *ops[40];
    for (unsigned i = 0; i < 40; i++) {
        ops[i] = sim_send(c[i % 8], c[(i + 3) % 8]->user, "while it goes");
        sim_run(s, 20);
    }
    WITHIN(s, 2000, !sim_ring_has(s, "edge1", "router1") && !sim_ring_has(s, "edge2", "router1"));
    WITHIN(s, 30000, !sim_alive(s, "router1"));
    for (unsigned i = 0; i < 40; i++) {
        story_acked(s, ops[i], 8000);
    }
    for (unsigned i = 0; i < 8; i++) {
        WITHIN(s, 10000, c[i]->n_got == 10);
        assert_int_equal(c[i]->reconnects, 0);
    }
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_full),   cmocka_unit_test(watermark_refuses_writes_and_reads_go_on),
        cmocka_unit_test(slow_disk),   cmocka_unit_test(disk_stands_still),
        cmocka_unit_test(edge_drains), cmocka_unit_test(router_drains),
    };
    return cmocka_run_group_tests_name("story disk", tests, NULL, NULL);
}
