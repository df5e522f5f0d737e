/* How much may be owed when a slot begins to leave: all of it is read in one step. */
#include <time.h>

#include "store/slot.h"
#include "tests/unit/store_rig.h"

typedef struct owing {
    rig *r;
    char *chat;
    mesh_slot slot; /* its own */
} owing;

/* n items of the chat's first entry, in rows of log entries that are far ahead. */
static void seed(owing *o, size_t n, size_t row_items)
{
    rig *r = o->r;
    Store__OutboxItem item = STORE__OUTBOX_ITEM__INIT;
    Store__OutboxItem **list = mesh_arena_alloc(r->arena, row_items * sizeof *list);
    mesh_buf value = { 0 };
    store_kv_batch *batch = store_kv_batch_new();
    item.chat = o->chat;
    item.seq = 1;
    for (size_t i = 0; i < row_items; i++) {
        list[i] = &item;
    }
    for (uint64_t index = 1u << 20; n > 0; index++) {
        Store__OutboxRow owes = STORE__OUTBOX_ROW__INIT;
        owes.items = list;
        owes.n_items = n < row_items ? n : row_items;
        n -= owes.n_items;
        store_key key;
        store_key_outbox(&key, index);
        mesh_buf_clear(&value);
        mesh_wire_pack(&owes, &value);
        store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    }
    store_kv_write(r->kv, batch, true);
    sim_disk_flush(r->disk);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
}

/* Shard 0 of two, with n items owed, one of them its own; no router is up. */
static owing *owing_new(size_t n, size_t row_items)
{
    owing *o = mesh_alloc(sizeof *o);
    rig *r = rig_new();
    mesh_node_conf other = { .role = MESH_STORE, .shard = 1 };
    snprintf(other.name, sizeof other.name, "store2");
    snprintf(other.endpoint, sizeof other.endpoint, "inproc://store2");
    rig_close(r);
    assert_int_equal(mesh_conf_add_node(r->conf, &other), MESH_OK);
    mesh_out_destroy(&r->out);
    r->out = mesh_out_new(mesh_conf_nodes(r->conf));
    rig_open(r);
    rig_with_router(r);
    o->r = r;
    o->slot = MESH_SLOTS;
    for (unsigned i = 0; o->slot >= MESH_SLOTS / 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        o->chat = rig_direct(r, name, name);
        o->slot = mesh_id_slot(mesh_conf_hash_key(r->conf), o->chat);
        if (o->slot < MESH_SLOTS / 2) {
            rig_say(r, name, name, "hi");
        }
    }
    rig_close(r);
    rig_open(r);
    seed(o, n - 1, row_items);
    rig_run(r);
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_ITEMS), n);
    return o;
}

static void owing_destroy(owing *o)
{
    rig_destroy(o->r);
    free(o);
}

static Mesh__Msg *ask_move(owing *o)
{
    Mesh__SlotMove move = MESH__SLOT_MOVE__INIT;
    move.slot = o->slot;
    move.shard = 1;
    MESH_MSG(msg, SLOT_MOVE, slot_move, &move);
    return rig_ask(o->r, &msg);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_slot_waits_while_too_much_is_owed(void **state)
{
    (void)state;
    owing *o = owing_new(STORE_SLOT_MOVE_OWED_MAX, 100);
    ASSERT_FAULT(ask_move(o), FAULT_BUSY);
    assert_int_equal(rig_rows(o->r, "w"), 0);
    owing_destroy(o);
}

static void a_slot_takes_along_what_is_owed(void **state)
{
    (void)state;
    static const size_t row_items[] = { 1, 100 }; /* of a quiet store and of a busy one */
    for (size_t i = 0; i < sizeof row_items / sizeof *row_items; i++) {
        owing *o = owing_new(STORE_SLOT_MOVE_OWED_MAX - 1, row_items[i]);
        double begun = seconds();
        ASSERT_KIND(ask_move(o), DONE);
        print_message("%d items in rows of %zu: %.1f ms\n", STORE_SLOT_MOVE_OWED_MAX - 1, row_items[i],
                      1000 * (seconds() - begun));
        assert_int_equal(rig_rows(o->r, "w"), (STORE_SLOT_MOVE_OWED_MAX - 2) / STORE_SLOT_OWED + 1);
        owing_destroy(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_waits_while_too_much_is_owed),
        cmocka_unit_test(a_slot_takes_along_what_is_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
