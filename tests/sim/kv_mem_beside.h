/* tests/sim/kv_mem_beside.h: the last part of kv_mem.c, which alone includes it: views, and the database that is filled
 * beside the live one. */
#ifndef SIM_KV_MEM_BESIDE_H
#define SIM_KV_MEM_BESIDE_H

/* ---- views ---- */

struct store_kv_view {
    store_kv *kv;
    store_omap *rows; /* copies */
};

store_kv_view *store_kv_view_new(store_kv *kv)
{
    store_kv_view *view = mesh_alloc(sizeof *view);
    view->kv = kv;
    kv->views++;
    view->rows = kv->disk != NULL ? durable_rows(kv->disk) : store_omap_new(1);
    return view;
}

void store_kv_view_destroy(store_kv_view **view_p)
{
    store_kv_view *view = *view_p;
    if (view != NULL) {
        view->kv->views--;
        map_destroy(&view->rows);
        free(view);
        *view_p = NULL;
    }
}

static mesh_err view_error(const store_kv_view *view)
{
    if (view->kv->disk == NULL) {
        return MESH_IO;
    }
    return view->kv->disk->fail == MESH_CORRUPT ? MESH_CORRUPT : MESH_OK;
}

mesh_err store_kv_view_get(store_kv_view *view, mesh_slice key, mesh_buf *out)
{
    mesh_buf_clear(out);
    mesh_err err = view_error(view);
    const store_omap_node *node = store_omap_get(view->rows, key);
    if (err == MESH_OK && node != NULL && is_flipped(view->kv->disk, key)) {
        return MESH_CORRUPT;
    }
    if (err == MESH_OK && node != NULL) {
        mesh_buf_put(out, node->value.data, node->value.size);
    }
    return err == MESH_OK && node == NULL ? MESH_NOT_FOUND : err;
}

mesh_err store_kv_view_read(store_kv_view *view, mesh_slice after, size_t max_bytes, mesh_buf *rows, bool *end_p)
{
    mesh_err err = view_error(view);
    if (err != MESH_OK) {
        return err;
    }
    size_t before = rows->size;
    const store_omap_node *n = store_omap_lower_bound(view->rows, after);
    if (n != NULL && after.size > 0 && store_omap_compare(n->key, after) == 0) {
        n = store_omap_next(n);
    }
    while (n != NULL && (rows->size == before ||
                         rows->size - before + STORE_KV_ROW_HEAD + n->key.size + n->value.size <= max_bytes)) {
        if (is_flipped(view->kv->disk, n->key)) {
            rows->size = before;
            return MESH_CORRUPT;
        }
        store_kv_rows_put(rows, n->key, n->value);
        n = store_omap_next(n);
    }
    *end_p = n == NULL;
    return MESH_OK;
}

/* ---- the incoming database ---- */

struct store_kv_incoming {
    sim_disk *disk; /* NULL: dead */
    mesh_buf last_key;
};

static void kill_incoming(sim_disk *disk)
{
    if (disk->incoming.open != NULL) {
        disk->incoming.open->disk = NULL;
        disk->incoming.open = NULL;
    }
}

mesh_err store_kv_incoming_open(const char *path, const store_kv_options *options, store_kv_incoming **in_p, char *why,
                                size_t why_size)
{
    (void)options;
    sim_disk *disk = find_disk(path);
    mesh_err err = disk == NULL || disk->incoming.open != NULL ? MESH_IO
                   : disk->incoming.finished                   ? MESH_CONFLICT
                                                               : disk->fail;
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s.incoming: %s", path, mesh_err_name(err));
        return err;
    }
    store_kv_incoming *in = mesh_alloc(sizeof *in);
    in->disk = disk;
    if (disk->incoming.rows == NULL) {
        disk->incoming.rows = store_omap_new(2);
    }
    const store_omap_node *last = store_omap_last(disk->incoming.rows);
    if (last != NULL) {
        mesh_buf_put(&in->last_key, last->key.data, last->key.size);
    }
    disk->incoming.open = in;
    *in_p = in;
    return MESH_OK;
}

void store_kv_incoming_close(store_kv_incoming **in_p)
{
    store_kv_incoming *in = *in_p;
    if (in != NULL) {
        if (in->disk != NULL) {
            in->disk->incoming.open = NULL;
        }
        mesh_buf_fini(&in->last_key);
        free(in);
        *in_p = NULL;
    }
}

static mesh_err incoming_error(const store_kv_incoming *in)
{
    return in->disk != NULL ? in->disk->fail : MESH_IO;
}

mesh_err store_kv_incoming_put(store_kv_incoming *in, mesh_slice rows, mesh_slice note)
{
    mesh_slice last, key, value, rest = rows;
    if (store_kv_rows_check(rows, mesh_buf_slice(&in->last_key), &last) != MESH_OK) {
        return MESH_MALFORMED;
    }
    while (store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
        if (key.size == 2 && memcmp(key.data, "\0I", 2) == 0) { /* where LevelDB's keeps its note */
            return MESH_MALFORMED;
        }
    }
    if (incoming_error(in) != MESH_OK) {
        return incoming_error(in);
    }
    incoming_rows *incoming = &in->disk->incoming;
    rest = rows;
    while (store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
        row *r = row_new(key, value);
        free(map_set(incoming->rows, row_key(r), r));
    }
    if (rows.size > 0) {
        mesh_buf_clear(&in->last_key);
        mesh_buf_put(&in->last_key, last.data, last.size);
    }
    mesh_buf_clear(&incoming->note);
    if (note.size > 0) {
        mesh_buf_put(&incoming->note, note.data, note.size);
    }
    return MESH_OK;
}

mesh_slice store_kv_incoming_note(const store_kv_incoming *in)
{
    return in->disk != NULL ? mesh_buf_slice(&in->disk->incoming.note) : (mesh_slice){ NULL, 0 };
}

mesh_slice store_kv_incoming_last_key(const store_kv_incoming *in)
{
    return mesh_buf_slice(&in->last_key);
}

mesh_err store_kv_incoming_finish(store_kv_incoming **in_p, store_kv_batch *extra)
{
    mesh_err err = incoming_error(*in_p);
    size_t at = 0;
    store_kv_row r;
    while (err == MESH_OK && store_kv_batch_next(&extra->rows, &at, &r)) {
        row *put = r.deleted ? NULL : row_new(r.key, r.value);
        free(map_set((*in_p)->disk->incoming.rows, r.key, put));
    }
    mesh_buf_clear(&extra->rows);
    extra->count = 0;
    if (err == MESH_OK) {
        mesh_buf_clear(&(*in_p)->disk->incoming.note);
        (*in_p)->disk->incoming.finished = true;
    }
    store_kv_incoming_close(in_p);
    return err;
}

mesh_err store_kv_incoming_discard(const char *path)
{
    sim_disk *disk = find_disk(path);
    if (disk == NULL) {
        return MESH_IO;
    }
    drop_incoming(disk);
    return MESH_OK;
}

/* ---- the switch ---- */

void sim_disk_kill_switch(sim_disk *disk, unsigned n)
{
    disk->switch_steps = n;
}

static void bring_in(sim_disk *disk, store_omap **rows_p)
{
    assert(store_omap_count(disk->rows) == 0 && disk->oldest == NULL);
    map_destroy(&disk->rows);
    disk->rows = *rows_p;
    disk->there = true;
    *rows_p = NULL;
    sum_up(disk);
}

/* What stands where decides, as with directories; at most disk->switch_steps are taken. */
static mesh_err settle(sim_disk *disk)
{
    for (;;) {
        kv_places places = { disk->there, disk->old != NULL, disk->incoming.rows != NULL, disk->incoming.finished };
        kv_step step = store_kv_plan_next(&places);
        if (step == KV_SETTLED) {
            disk->switch_steps = SWITCH_STEPS;
            return MESH_OK;
        }
        if (disk->switch_steps == 0) {
            disk->switch_steps = SWITCH_STEPS;
            return MESH_IO;
        }
        disk->switch_steps--;
        if (step == KV_DROP_OLD) {
            map_destroy(&disk->old);
        } else if (step == KV_DROP_INCOMING) {
            drop_incoming(disk);
        } else if (step == KV_MOVE_IN) {
            bring_in(disk, &disk->incoming.rows);
            drop_incoming(disk);
        } else {
            bring_in(disk, &disk->old);
        }
    }
}

mesh_err store_kv_switch(const char *path, char *why, size_t why_size)
{
    sim_disk *disk = find_disk(path);
    assert(disk != NULL && disk->open == NULL && disk->incoming.open == NULL);
    if (disk->incoming.rows == NULL || !disk->incoming.finished) {
        snprintf(why, why_size, "%s.incoming is not there, or not finished", path);
        return MESH_NOT_FOUND;
    }
    mesh_err err = MESH_OK;
    if (disk->switch_steps == 0) {
        disk->switch_steps = SWITCH_STEPS;
        err = MESH_IO;
    } else if (disk->there) {
        disk->switch_steps--;
        map_destroy(&disk->old);
        disk->old = disk->rows;
        disk->rows = store_omap_new(disk->rand.state);
        disk->digest = 0;
        mesh_buf_clear(&disk->flipped);
        disk->there = false;
    }
    err = err == MESH_OK ? settle(disk) : err;
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s: killed", path);
    }
    return err;
}

#endif
