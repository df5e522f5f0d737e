/* A store is taken out of its group and stays out, whoever leads and whatever id it comes with, until it is added
 * again. And: what a later version wrote is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mesh/log.h"
#include "store.pb-c.h"
#include "store/fsm.h"
#include "store/group.h"
#include "store/metrics.h"
#include "tests/unit/group_run.h"

static mesh_conf *conf_new(void)
{
    mesh_conf *conf = mesh_conf_new();
    for (unsigned i = 0; i < 3; i++) {
        mesh_node_conf node = { .role = MESH_STORE, .shard = SHARD };
        snprintf(node.name, sizeof node.name, "node%u", i);
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://node%u", i);
        assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
    }
    return conf;
}

static store_member_role role_of(const replica *lead, uint64_t id, bool *there)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = store_consensus_configuration(lead->cons, list, STORE_MEMBERS_MAX);
    *there = false;
    for (size_t i = 0; i < n; i++) {
        if (list[i].raft_id == id) {
            *there = true;
            return list[i].role;
        }
    }
    return STORE_SPARE;
}

/* Ask until the leader takes it. */
static void wish(group *g, mesh_err (*what)(store_consensus *, const char *, mesh_time), const char *node)
{
    mesh_err err = MESH_AGAIN;
    for (int i = 0; err != MESH_OK && i < 5000; i++) {
        tick(g);
        replica *lead = leader(g);
        err = lead != NULL ? what(lead->cons, node, g->now) : MESH_AGAIN;
    }
    assert_int_equal(err, MESH_OK);
    run(g, 300);
}

/* The leader's group hears that `who` is there under this id, and does what it does for a while. */
static void hear_and_lead(group *g, const mesh_conf *conf, size_t who, uint64_t id, Mesh__ReplicaState state)
{
    replica *lead = leader(g);
    store_group *stores = store_group_new(conf, (mesh_peer)lead->self, false);
    mesh_out *out = mesh_out_new(3);
    Mesh__Replica msg = MESH__REPLICA__INIT;
    msg.shard = SHARD;
    msg.raft_id = id;
    msg.state = state;
    msg.level = 1;
    store_group_up(stores, (mesh_peer)who);
    assert_int_equal(store_group_heard(stores, (mesh_peer)who, &msg), MESH_OK);
    for (int i = 0; i < 2000; i++) {
        tick(g);
        if (store_consensus_leader(lead->cons)) {
            store_group_lead(stores, lead->cons, g->now, out);
        }
    }
    store_group_destroy(&stores);
    mesh_out_destroy(&out);
}

static void a_store_taken_out_stays_out_until_it_is_added(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new();
    group *g = group_new(3, 5);
    bool there;
    (void)elect(g, 3000);
    put(g, 100);
    replica *out = not_leading(g);
    wish(g, store_group_remove, out->name);
    assert_true(store_group_removed(leader(g)->cons, out->name));
    assert_int_equal(store_consensus_voters(leader(g)->cons), 2);
    assert_int_equal(store_group_remove(leader(g)->cons, out->name, g->now), MESH_OK); /* it is so already */

    hear_and_lead(g, conf, out->self, out->id, MESH__REPLICA_STATE__REPLICA_MEMBER); /* it does not know it */
    hear_and_lead(g, conf, out->self, 4711, MESH__REPLICA_STATE__REPLICA_JOINING);   /* it lost its disk */
    (void)role_of(leader(g), 4711, &there);
    assert_false(there);

    replica *first = leader(g); /* the next leader knows it too */
    assert_int_equal(store_group_transfer(first->cons, "", g->now), MESH_OK);
    run(g, 1000);
    (void)elect(g, 3000);
    assert_ptr_not_equal(leader(g), first);
    hear_and_lead(g, conf, out->self, out->id, MESH__REPLICA_STATE__REPLICA_MEMBER);
    assert_true(store_group_removed(leader(g)->cons, out->name));
    for (int i = 0; i < 20; i++) {
        put(g, 100);
    }

    wish(g, store_group_add, out->name);
    assert_int_equal(role_of(leader(g), out->id, &there), STORE_STANDBY);
    hear_and_lead(g, conf, out->self, out->id, MESH__REPLICA_STATE__REPLICA_MEMBER);
    assert_int_equal(role_of(leader(g), out->id, &there), STORE_VOTER);
    assert_int_equal(store_consensus_voters(leader(g)->cons), 3);
    heal(g);
    group_destroy(g);
    mesh_conf_destroy(&conf);
}

static void a_leader_and_the_last_voter_are_not_taken_out(void **state)
{
    (void)state;
    group *g = group_new(3, 6);
    (void)elect(g, 3000);
    put(g, 10);
    assert_int_equal(store_group_remove(leader(g)->cons, leader(g)->name, g->now), MESH_DENIED);
    assert_int_equal(store_group_remove(leader(g)->cons, "node9", g->now), MESH_NOT_FOUND);
    for (size_t i = 0; i < 3; i++) {
        if (&g->r[i] != leader(g)) {
            wish(g, store_group_remove, g->r[i].name);
        }
    }
    assert_int_equal(store_consensus_voters(leader(g)->cons), 1);
    assert_int_equal(store_group_remove(leader(g)->cons, leader(g)->name, g->now), MESH_DENIED);
    assert_int_equal(store_group_transfer(leader(g)->cons, "", g->now), MESH_NOT_FOUND);
    put(g, 10);
    group_destroy(g);
}

/* A new replica that had begun to join when its node was taken out goes too. */
static void what_was_joining_goes_too(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new();
    group *g = group_new(3, 7);
    bool there;
    (void)elect(g, 3000);
    put(g, 10);
    replica *lead = leader(g), *out = not_leading(g);
    store_replica_role list[STORE_MEMBERS_MAX + 1];
    char address[STORE_GROUP_ADDRESS];
    size_t n = store_consensus_configuration(lead->cons, list, STORE_MEMBERS_MAX);
    list[n] = (store_replica_role){ 4711, store_group_address(out->name, 4711, address), STORE_STANDBY };
    assert_int_equal(store_consensus_change(lead->cons, list, n + 1, g->now), MESH_OK);
    run(g, 300);
    wish(g, store_group_remove, out->name);
    assert_true(store_group_removed(leader(g)->cons, out->name));
    hear_and_lead(g, conf, out->self, 4711, MESH__REPLICA_STATE__REPLICA_MEMBER);
    (void)role_of(leader(g), 4711, &there);
    assert_false(there);
    assert_true(store_group_removed(leader(g)->cons, out->name));
    group_destroy(g);
    mesh_conf_destroy(&conf);
}

static void the_level_is_the_lowest_of_the_voters(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new();
    group *g = group_new(3, 8);
    (void)elect(g, 3000);
    put(g, 10);
    replica *lead = leader(g);
    store_group *stores = store_group_new(conf, (mesh_peer)lead->self, false);
    Mesh__Replica msg = MESH__REPLICA__INIT;
    msg.shard = SHARD;
    msg.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    assert_int_equal(store_group_level(stores, lead->cons), 0); /* nobody was heard */
    for (size_t i = 0; i < 3; i++) {
        msg.raft_id = g->r[i].id;
        msg.level = STORE_GROUP_LEVEL + (uint32_t)i; /* one of a later version does not raise it */
        if (i != lead->self) {
            store_group_up(stores, (mesh_peer)i);
            assert_int_equal(store_group_heard(stores, (mesh_peer)i, &msg), MESH_OK);
        }
    }
    assert_int_equal(store_group_level(stores, lead->cons), STORE_GROUP_LEVEL);
    msg.level = 0;
    msg.raft_id = not_leading(g)->id;
    assert_int_equal(store_group_heard(stores, (mesh_peer)not_leading(g)->self, &msg), MESH_OK);
    assert_int_equal(store_group_level(stores, lead->cons), 0);
    store_group_destroy(&stores);
    group_destroy(g);
    mesh_conf_destroy(&conf);
}

/* ---- versions on disk ---- */

static void nobody_asked(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *reply)
{
    (void)arg;
    (void)at;
    (void)msg;
    (void)reply;
}

static void an_entry_of_an_unknown_kind_ends_it(void **state)
{
    (void)state;
    char why[256] = "";
    mesh_conf *conf = conf_new();
    sim_disk *disk = sim_disk_new("/operate", 1);
    mesh_stats *stats = store_metrics_new();
    store_kv *kv;
    store_fsm *fsm;
    assert_int_equal(mesh_conf_set(conf, "cluster.hash_key", "00112233445566778899aabbccddeeff"), MESH_OK);
    assert_int_equal(store_kv_open("/operate", NULL, &kv, why, sizeof why), MESH_OK);
    assert_int_equal(store_fsm_new(conf, 0, kv, stats, &fsm, why, sizeof why), MESH_OK);
    mesh_buf entry = { 0 }, frame = { 0 };
    Mesh__Msg later = MESH__MSG__INIT; /* a body that this version does not know reads as none */
    mesh_frame_put(&frame, &later);
    mesh_buf_put(&entry, "\1\0\0\0\0\0\0\0", STORE_STAMP_SIZE);
    mesh_buf_put(&entry, frame.data, frame.size);
    assert_int_equal(store_fsm_apply(fsm, 1, 1, mesh_buf_slice(&entry), nobody_asked, NULL), MESH_UNSUPPORTED);
    assert_int_equal(fsm->applied, 0);
    assert_int_equal(store_fsm_apply(fsm, 2, 1, mesh_buf_slice(&entry), nobody_asked, NULL), MESH_UNSUPPORTED);
    mesh_buf_fini(&entry);
    mesh_buf_fini(&frame);
    store_fsm_destroy(&fsm);
    store_kv_close(&kv);
    mesh_stats_destroy(&stats);
    sim_disk_destroy(&disk);
    mesh_conf_destroy(&conf);
}

static void data_of_a_later_format_is_refused(void **state)
{
    (void)state;
    char why[256] = "";
    group *g = group_new(1, 9);
    (void)elect(g, 2000);
    put(g, 10);
    replica *r = &g->r[0];
    mesh_slice key = { (const uint8_t *)"\0H", 2 };
    mesh_buf value = { 0 };
    ProtobufCMessage *message;
    assert_int_equal(store_kv_get(r->kv, key, &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&store__hard_row__descriptor, mesh_buf_slice(&value), g->arena, &message),
                     MESH_OK);
    Store__HardRow *hard = (Store__HardRow *)message;
    assert_int_equal(hard->format, STORE_FORMAT);
    hard->format++;
    mesh_buf_clear(&value);
    mesh_wire_pack(message, &value);
    store_kv_batch_put(r->batch, key, mesh_buf_slice(&value));
    (void)store_kv_write(r->kv, r->batch, true);
    (void)sim_disk_flush(r->disk);
    mesh_buf_fini(&value);
    replica_close(r);
    assert_int_equal(replica_try_open(r, why), MESH_UNSUPPORTED);
    assert_non_null(strstr(why, "written by a later version"));
    assert_non_null(strstr(why, "downgrade is not possible"));
    store_kv_batch_destroy(&r->batch);
    store_kv_close(&r->kv);
    group_destroy(g);
}

int main(void)
{
    mesh_log_level(MESH_ERROR + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_taken_out_stays_out_until_it_is_added),
        cmocka_unit_test(a_leader_and_the_last_voter_are_not_taken_out),
        cmocka_unit_test(what_was_joining_goes_too),
        cmocka_unit_test(the_level_is_the_lowest_of_the_voters),
        cmocka_unit_test(an_entry_of_an_unknown_kind_ends_it),
        cmocka_unit_test(data_of_a_later_format_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
