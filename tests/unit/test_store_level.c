/* Three replicas, one of which says that it is of an older version: the leader writes no entry which that one does not
 * know. */
/* not all of what it offers */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/salvage_group.h"

#include <unistd.h>

#include "store.pb-c.h"
#include "store/core_state.h"
#include "store/key.h"

/* As if `from` had said so itself. */
static void say_level(trio *t, size_t from, uint32_t level)
{
    size_t leader = trio_leader(t);
    const store_consensus *cons = t->core[from]->cons;
    Mesh__Replica self = MESH__REPLICA__INIT;
    mesh_buf packed = { 0 };
    self.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    self.raft_id = store_consensus_id(cons);
    self.term = store_consensus_term(cons);
    self.last_index = store_consensus_last_index(cons);
    self.level = level;
    MESH_MSG(msg, REPLICA, replica, &self);
    mesh_wire_pack(&msg, &packed);
    store_core_message(t->core[leader], (mesh_peer)from, &msg, mesh_buf_slice(&packed), t->now, t->out[leader]);
    mesh_buf_fini(&packed);
}

/* Attach bob's phone; the session that his row names then. */
static uint64_t attach(trio *t, uint64_t session)
{
    size_t leader = trio_leader(t);
    Mesh__Attach body = MESH__ATTACH__INIT;
    mesh_buf packed = { 0 }, value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *row;
    store_key key;
    body.user = (char[]){ "default/bob" };
    body.device = (char[]){ "phone" };
    body.session = session;
    body.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &body);
    msg.key = body.user;
    mesh_wire_pack(&msg, &packed);
    store_core_message(t->core[leader], TRIO_ROUTER, &msg, mesh_buf_slice(&packed), t->now, t->out[leader]);
    trio_settle(t);
    store_key_device(&key, mesh_id_slot(mesh_conf_hash_key(t->conf), body.user), body.user, body.device);
    assert_int_equal(store_kv_get(t->kv[leader], store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&store__device_row__descriptor, mesh_buf_slice(&value), arena, &row), MESH_OK);
    uint64_t named = ((const Store__DeviceRow *)row)->session;
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&packed);
    mesh_buf_fini(&value);
    return named;
}

static void nobody_writes_what_a_voter_does_not_know(void **state)
{
    (void)state;
    char root[64] = "/tmp/parley-level.XXXXXX", command[96];
    assert_non_null(mkdtemp(root));
    trio *t = trio_new(root);
    for (size_t i = 0; i < TRIO; i++) {
        trio_start(t, i);
    }
    trio_settle(t);
    size_t follower = (trio_leader(t) + 1) % TRIO;
    assert_int_equal(attach(t, 11), 11);
    say_level(t, follower, STORE_GROUP_LEVEL_ATTACH_ONCE - 1);
    assert_int_equal(attach(t, 12), 0);
    say_level(t, follower, STORE_GROUP_LEVEL);
    assert_int_equal(attach(t, 13), 13);
    trio_destroy(t);
    snprintf(command, sizeof command, "rm -rf %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(nobody_writes_what_a_voter_does_not_know) };
    return cmocka_run_group_tests_name("store level", tests, NULL, NULL);
}
