/* Three replicas of a shard: who leads, what a leader of yesterday may say, and how a replica comes back. */
#include "story.h"

#include "store/core.h"

#define FAILOVER_MS 3000

static sim *three(unsigned routers, uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 2,
                               .routers = routers,
                               .replicas = 3,
                               .seed = seed,
                               .echo = getenv("ECHO") != NULL,
                               .trace = getenv("ECHO") != NULL });
}

/* A replica that follows, the `nth` of them. */
static void follower_of(sim *s, unsigned nth, char name[40])
{
    char leader[40];
    story_leader(s, 0, leader);
    for (unsigned i = 1; i <= sim_stores(s); i++) {
        snprintf(name, 40, "store%u", i);
        if (strcmp(name, leader) != 0 && nth-- == 0) {
            return;
        }
    }
    fail_msg("no such follower");
}

STORY(two_of_three_dead_is_a_stop_and_no_loss)
{
    (void)state;
    char leader[40], follower[40];
    sim *s = three(1, 1040);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    story_acked(s, sim_send(ann, "bob", "one"), 1000);
    follower_of(s, 0, follower);
    story_leader(s, 0, leader);
    sim_kill(s, follower);
    sim_kill(s, leader);
    sim_op *op = sim_send(ann, "bob", "two");
    sim_run(s, 20000);
    assert_null(sim_sent(op));
    sim_start(s, follower);
    story_acked(s, op, 15000);
    sim_start(s, leader);
    story_end(&s);
}

STORY(a_leader_that_stops_hands_over)
{
    (void)state;
    char leader[40];
    sim *s = three(1, 1050);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    story_acked(s, sim_send(ann, "bob", "one"), 1000);
    story_leader(s, 0, leader);
    store_core_leave(sim_store_at(s, leader));
    WITHIN(s, 1000, sim_leader(s, 0) != NULL && strcmp(sim_leader(s, 0), leader) != 0);
    assert_true(store_core_quiet(sim_store_at(s, leader)));
    story_acked(s, sim_send(ann, "bob", "two"), 500);
    story_end(&s);
}

/* What the store `name` answers to a history request, asked as router1 asks, before it knows what time it is. */
static const Mesh__Msg *ask_history(sim *s, const char *name, const char *chat, mesh_arena *arena)
{
    mesh_out *out = mesh_out_new(8);
    mesh_buf packed = { 0 };
    Mesh__History history = MESH__HISTORY__INIT;
    char qid[100];
    snprintf(qid, sizeof qid, "default/%s", chat);
    history.user = mesh_arena_strdup(arena, "default/ann");
    history.chat = qid;
    history.limit = 10;
    MESH_MSG(msg, HISTORY, history, &history);
    msg.corr = 77;
    msg.key = qid;
    mesh_wire_pack(&msg, &packed);
    mesh_time now = { sim_now(s), SIM_WALL_MS };
    store_core_message(sim_store_at(s, name), 2, &msg, mesh_buf_slice(&packed), now, out); /* after two edges */
    mesh_buf_fini(&packed);
    const Mesh__Msg *answer = NULL;
    mesh_peer peer;
    mesh_buf frame = { 0 };
    while (mesh_out_take(out, &peer, &frame)) {
        mesh_frame_reader reader;
        Mesh__Msg *said;
        uint8_t *copy = mesh_arena_alloc(arena, frame.size);
        memcpy(copy, frame.data, frame.size);
        assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ copy, frame.size }), MESH_OK);
        while (mesh_frame_next(&reader, arena, &said, NULL) == MESH_OK) {
            answer = said->corr == 77 ? said : answer;
        }
        mesh_buf_fini(&frame);
    }
    mesh_out_destroy(&out);
    return answer;
}

/* The leader stood still for a second, and there is another one by now. It wakes, still thinks that it leads, and the
 * first thing it finds is a request to read. */
STORY(a_leader_of_yesterday_reads_nothing_out)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5; seed++) {
        char old[40];
        mesh_arena *arena = mesh_arena_new();
        sim *s = three(1, 1060 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        const char *chat = story_acked(s, sim_send(ann, "bob", "one"), 1000)->chat;
        story_leader(s, 0, old);
        sim_pause(s, old, 1900); /* shorter than its links need to be given up */
        story_acked(s, sim_send(ann, "bob", "two"), 1850);
        assert_int_equal(story_store_metric(s, old, "parley_store_leader"), 1); /* as far as it knows */
        const Mesh__Msg *answer = ask_history(s, old, chat, arena);
        assert_true(answer == NULL || answer->body_case == MESH__MSG__BODY_FAULT);
        sim_run(s, 2000);
        assert_int_equal(story_store_metric(s, old, "parley_store_leader"), 0);
        mesh_arena_destroy(&arena);
        story_end(&s);
    }
}

STORY(reads_that_wait_for_proof_are_bounded)
{
    (void)state;
    char old[40];
    mesh_arena *arena = mesh_arena_new();
    sim *s = three(1, 1068);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    const char *chat = story_acked(s, sim_send(ann, "bob", "one"), 1000)->chat;
    story_leader(s, 0, old);
    sim_pause(s, old, 1900); /* it can prove nothing */
    const Mesh__Msg *answer = NULL;
    unsigned waiting = 0;
    while (answer == NULL && waiting < STORE_READS_MAX) {
        mesh_arena_reset(arena);
        answer = ask_history(s, old, chat, arena);
        waiting += answer == NULL ? 1 : 0;
    }
    assert_non_null(answer);
    assert_int_equal(answer->body_case, MESH__MSG__BODY_FAULT);
    assert_int_equal(answer->fault->code, FAULT_BUSY);
    assert_in_range(waiting, STORE_READS_MAX / 200, STORE_READS_MAX / 50);
    sim_run(s, 3000);
    story_acked(s, sim_send(ann, "bob", "two"), 1000);
    mesh_arena_destroy(&arena);
    story_end(&s);
}

STORY(a_replica_that_lost_its_disk_comes_back_as_another)
{
    (void)state;
    char follower[40], leader[40];
    sim *s = three(1, 1070);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    for (int i = 0; i < 20; i++) {
        story_acked(s, sim_send(ann, "bob", "before"), 1000);
    }
    follower_of(s, 0, follower);
    sim_kill(s, follower);
    sim_disk_wipe_at(s, follower);
    story_acked(s, sim_send(ann, "bob", "meanwhile"), 1000);
    sim_start(s, follower);
    story_leader(s, 0, leader);
    WITHIN(s, 10000,
           story_store_metric(s, follower, "parley_store_votes") == 1 &&
               story_store_metric(s, leader, "parley_store_voters") == 3);
    sim_run(s, 500); /* the others know it too */
    /* It counts: with it and one other alive there is a majority. */
    sim_kill(s, leader);
    story_acked(s, sim_send(ann, "bob", "after"), FAILOVER_MS);
    sim_start(s, leader);
    story_end(&s);
}

STORY(a_replica_that_was_away_for_long_gets_a_copy)
{
    (void)state;
    static char text[2000];
    memset(text, 'x', sizeof text - 1);
    for (uint64_t seed = 0; seed < 4; seed++) {
        char follower[40], leader[40];
        sim *s = sim_new((sim_conf){
            .edges = 1, .routers = 1, .replicas = 3, .seed = 1080 + seed, .log_trail_kib = 16, .trace = true });
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        follower_of(s, seed % 2, follower);
        sim_kill(s, follower);
        for (int i = 0; i < 200; i++) {
            story_acked(s, sim_send(ann, "bob", text), 1000);
        }
        sim_start(s, follower);
        story_leader(s, 0, leader);
        WITHIN(s, 20000,
               story_store_metric(s, follower, "parley_store_applied_index") + 5 >
                   story_store_metric(s, leader, "parley_store_applied_index"));
        assert_non_null(strstr(sim_trace_text(s), "switched to a copy"));
        story_acked(s, sim_send(ann, "bob", "after"), 1000);
        sim_kill(s, leader);
        story_acked(s, sim_send(ann, "bob", "after"), FAILOVER_MS);
        sim_start(s, leader);
        story_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_of_three_dead_is_a_stop_and_no_loss),
        cmocka_unit_test(a_leader_that_stops_hands_over),
        cmocka_unit_test(a_leader_of_yesterday_reads_nothing_out),
        cmocka_unit_test(reads_that_wait_for_proof_are_bounded),
        cmocka_unit_test(a_replica_that_lost_its_disk_comes_back_as_another),
        cmocka_unit_test(a_replica_that_was_away_for_long_gets_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
