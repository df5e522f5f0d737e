/* A hello that is told to the store twice, because its answer was lost or late: one generation. */
#include "store/core_state.h"
#include "tests/unit/store_rig.h"

static Mesh__Msg *hello(rig *r, uint64_t session, uint64_t attempt)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.session = session;
    attach.attempt = attempt;
    attach.fresh = true;
    return rig_attach(r, &attach, "bob", "phone");
}

static Mesh__Msg *again(rig *r, uint64_t session, uint64_t generation)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.session = session;
    attach.generation = generation;
    return rig_attach(r, &attach, "bob", "phone");
}

#define ASSERT_GENERATION(answer, number)                                                                              \
    do {                                                                                                               \
        const Mesh__Msg *attached_ = (answer);                                                                         \
        ASSERT_KIND(attached_, ATTACHED);                                                                              \
        assert_int_equal(attached_->attached->generation, (number));                                                   \
    } while (0)

static void a_hello_that_is_repeated_keeps_its_generation(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_GENERATION(hello(r, 11, 0), 1);
    ASSERT_GENERATION(hello(r, 11, 0), 1);
    (void)rig_say(r, "ann", "bob", "hi");
    ASSERT_KIND(rig_ack(r, "bob", "phone", 1), DONE);
    rig_close(r);
    rig_open(r);
    rig_with_router(r);
    rig_sleep(r, 100);
    ASSERT_GENERATION(hello(r, 11, 0), 1); /* the row has it */
    ASSERT_GENERATION(hello(r, 12, 0), 2);
    ASSERT_FAULT(again(r, 11, 1), FAULT_REPLACED);
    ASSERT_GENERATION(again(r, 12, 2), 2);
    ASSERT_GENERATION(hello(r, 12, 0), 2);
    ASSERT_GENERATION(hello(r, 11, 0), 3); /* no attempts to tell by: whoever comes later */
    rig_destroy(r);
}

static void two_of_one_entry(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t corr[2];
    for (int i = 0; i < 2; i++) {
        Mesh__Attach attach = MESH__ATTACH__INIT;
        attach.user = rig_q(r, "bob");
        attach.device = (char[]){ "phone" };
        attach.session = 11;
        attach.fresh = true;
        MESH_MSG(msg, ATTACH, attach, &attach);
        msg.key = attach.user;
        corr[i] = rig_post(r, RIG_R1, &msg);
    }
    rig_run(r);
    ASSERT_GENERATION(rig_answer(r, corr[0]), 1);
    ASSERT_GENERATION(rig_answer(r, corr[1]), 1);
    rig_destroy(r);
}

static void the_later_hello_wins(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_GENERATION(hello(r, 11, 5), 1);
    ASSERT_GENERATION(hello(r, 12, 6), 2);
    ASSERT_FAULT(hello(r, 11, 5), FAULT_REPLACED);
    ASSERT_GENERATION(hello(r, 12, 6), 2);
    rig_sleep(r, 61000);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    ASSERT_GENERATION(hello(r, 11, 5), 3); /* nobody was heard of for a minute */
    ASSERT_GENERATION(hello(r, 12, 6), 4); /* it does not hold the row any more */
    rig_destroy(r);
}

static void on_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)at;
    (void)msg;
    uint64_t *generation = arg;
    *generation = answer->attached->generation;
}

/* An attach as it stands in older logs, and what it answers. */
static uint64_t apply(rig *r, uint64_t session, bool once)
{
    static const uint8_t stamp[STORE_STAMP_SIZE] = { 0, 0, 0, 0, 1 };
    store_fsm *fsm = r->core->fsm;
    mesh_buf payload = { 0 }, frame = { 0 };
    uint64_t generation = 0;
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.user = rig_q(r, "bob");
    attach.device = (char[]){ "phone" };
    attach.session = session;
    attach.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &attach);
    MESH_MSG(msg_once, ATTACH_ONCE, attach_once, &attach);
    msg.key = msg_once.key = attach.user;
    msg.epoch = msg_once.epoch = r->epoch;
    mesh_frame_put(&frame, once ? &msg_once : &msg);
    mesh_buf_put(&payload, stamp, sizeof stamp);
    mesh_buf_put(&payload, frame.data, frame.size);
    assert_int_equal(store_fsm_apply(fsm, fsm->applied + 1, 1, mesh_buf_slice(&payload), on_answer, &generation),
                     MESH_OK);
    mesh_buf_fini(&payload);
    mesh_buf_fini(&frame);
    return generation;
}

static uint64_t session_in_row(rig *r)
{
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *stored;
    const char *bob = rig_q(r, "bob");
    store_key_device(&key, mesh_id_slot(mesh_conf_hash_key(r->conf), bob), bob, "phone");
    assert_int_equal(store_kv_get(r->kv, store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&store__device_row__descriptor, mesh_buf_slice(&value), r->arena, &stored),
                     MESH_OK);
    mesh_buf_fini(&value);
    return ((const Store__DeviceRow *)stored)->session;
}

static void an_attach_of_an_older_log_means_what_it_meant(void **state)
{
    (void)state;
    rig *r = rig_ready();
    assert_int_equal(apply(r, 11, false), 1);
    assert_int_equal(session_in_row(r), 0);
    assert_int_equal(apply(r, 11, false), 2);
    assert_int_equal(apply(r, 11, true), 3); /* the row does not say who has it */
    assert_int_equal(session_in_row(r), 11);
    assert_int_equal(apply(r, 11, true), 3);
    assert_int_equal(apply(r, 11, false), 4);
    assert_int_equal(session_in_row(r), 0);
    rig_destroy(r);
}

static Store__AppliedRow applied_row(rig *r)
{
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *stored;
    store_key_applied(&key);
    assert_int_equal(store_kv_get(r->kv, store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), r->arena, &stored),
                     MESH_OK);
    mesh_buf_fini(&value);
    return *(const Store__AppliedRow *)stored;
}

static mesh_err open_at_level(rig *r, uint32_t level, char *why, size_t why_size)
{
    Store__AppliedRow applied = applied_row(r);
    mesh_buf value = { 0 };
    store_kv_batch *batch = store_kv_batch_new();
    store_fsm *fsm = NULL;
    store_key key;
    applied.level = level;
    store_key_applied(&key);
    mesh_wire_pack(&applied, &value);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    assert_int_equal(store_kv_wait(r->kv, store_kv_write(r->kv, batch, true)), MESH_OK);
    mesh_err err = store_fsm_new(r->conf, 0, r->kv, r->core->stats, &fsm, why, why_size);
    store_fsm_destroy(&fsm);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
    return err;
}

static void the_rows_say_which_version_can_read_them(void **state)
{
    (void)state;
    char why[256] = "";
    rig *r = rig_ready();
    (void)apply(r, 11, false);
    assert_int_equal(applied_row(r).level, 0);
    (void)apply(r, 11, true);
    assert_int_equal(applied_row(r).level, STORE_GROUP_LEVEL_ATTACH_ONCE);
    (void)apply(r, 11, false);
    assert_int_equal(applied_row(r).level, STORE_GROUP_LEVEL_ATTACH_ONCE);
    assert_int_equal(open_at_level(r, STORE_GROUP_LEVEL, why, sizeof why), MESH_OK);
    assert_int_equal(open_at_level(r, STORE_GROUP_LEVEL + 1, why, sizeof why), MESH_UNSUPPORTED);
    assert_non_null(strstr(why, "a later version"));
    rig_destroy(r);
}

/* A slot may bring a row with a session to a shard that has a voter of the version before, which drops the field. */
static void below_the_level_a_session_is_not_kept(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_GENERATION(hello(r, 11, 0), 1);
    (void)rig_say(r, "ann", "bob", "hi");
    (void)rig_say(r, "ann", "bob", "and");
    ASSERT_KIND(rig_ack(r, "bob", "phone", 1), DONE);
    assert_int_equal(session_in_row(r), 11);
    r->core->fsm->level = 0;
    ASSERT_KIND(rig_ack(r, "bob", "phone", 2), DONE);
    assert_int_equal(session_in_row(r), 0);
    rig_destroy(r);
}

static void from_outside_it_is_nothing(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Attach attach = MESH__ATTACH__INIT;
    MESH_MSG(msg, ATTACH_ONCE, attach_once, &attach);
    attach.user = rig_q(r, "bob");
    attach.device = (char[]){ "phone" };
    msg.key = attach.user;
    ASSERT_FAULT(rig_ask(r, &msg), FAULT_MALFORMED);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_that_is_repeated_keeps_its_generation),
        cmocka_unit_test(two_of_one_entry),
        cmocka_unit_test(the_later_hello_wins),
        cmocka_unit_test(an_attach_of_an_older_log_means_what_it_meant),
        cmocka_unit_test(the_rows_say_which_version_can_read_them),
        cmocka_unit_test(below_the_level_a_session_is_not_kept),
        cmocka_unit_test(from_outside_it_is_nothing),
    };
    return cmocka_run_group_tests_name("store attach", tests, NULL, NULL);
}
