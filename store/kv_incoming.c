/* store/kv_incoming.c: a database of its own beside the live one, written by one batch after the other, each synced, on
 * the caller's thread. So what is there after a crash is a prefix of what was put, with the note that belongs to it. */
#include <stdio.h>
#include <stdlib.h>

#include "mesh/alloc.h"
#include "store/kv_leveldb.h"
#include "store/kv_rows.h"

struct store_kv_incoming {
    char *path; /* the live one's */
    kv_database base;
    leveldb_writebatch_t *group;
    mesh_buf note, last_key;
};

static const uint8_t note_key[2] = { 0, 'I' }; /* no row that is put may have it */

static bool is_note(mesh_slice key)
{
    return store_omap_compare(key, (mesh_slice){ note_key, sizeof note_key }) == 0;
}

static void keep(mesh_buf *buf, mesh_slice bytes)
{
    mesh_buf_clear(buf);
    if (bytes.size > 0) {
        mesh_buf_put(buf, bytes.data, bytes.size);
    }
}

/* Where an earlier process came to. */
static mesh_err load(store_kv_incoming *in)
{
    char *message = NULL;
    leveldb_iterator_t *it = leveldb_create_iterator(in->base.db, in->base.read);
    for (leveldb_iter_seek_to_last(it); leveldb_iter_valid(it); leveldb_iter_prev(it)) {
        size_t size;
        const char *key = leveldb_iter_key(it, &size);
        mesh_slice k = { (const uint8_t *)key, size };
        if (!is_note(k)) {
            keep(&in->last_key, k);
            break;
        }
    }
    leveldb_iter_get_error(it, &message);
    leveldb_iter_destroy(it);
    size_t size = 0;
    char *note = message == NULL
                     ? leveldb_get(in->base.db, in->base.read, (const char *)note_key, sizeof note_key, &size, &message)
                     : NULL;
    if (note != NULL) {
        keep(&in->note, (mesh_slice){ (const uint8_t *)note, size });
        leveldb_free(note);
    }
    return store_kv_leveldb_take(message);
}

mesh_err store_kv_incoming_open(const char *path, const store_kv_options *options, store_kv_incoming **in_p, char *why,
                                size_t why_size)
{
    char beside[STORE_KV_PATH];
    store_kv_path_beside(beside, path, ".incoming");
    if (store_kv_is_finished(path)) {
        snprintf(why, why_size, "%s is finished", beside);
        return MESH_CONFLICT;
    }
    store_kv_incoming *in = mesh_alloc(sizeof *in);
    in->path = mesh_strdup(path);
    in->group = leveldb_writebatch_create();
    mesh_err err = store_kv_database_open(&in->base, beside, options, why, why_size);
    if (err == MESH_OK) {
        err = load(in);
        snprintf(why, why_size, "%s cannot be read", beside);
    }
    if (err != MESH_OK) {
        store_kv_incoming_close(&in);
        return err;
    }
    *in_p = in;
    return MESH_OK;
}

void store_kv_incoming_close(store_kv_incoming **in_p)
{
    store_kv_incoming *in = *in_p;
    if (in == NULL) {
        return;
    }
    store_kv_database_close(&in->base);
    leveldb_writebatch_destroy(in->group);
    mesh_buf_fini(&in->note);
    mesh_buf_fini(&in->last_key);
    free(in->path);
    free(in);
    *in_p = NULL;
}

static mesh_err write_group(store_kv_incoming *in)
{
    char *message = NULL;
    leveldb_write(in->base.db, in->base.write, in->group, &message);
    return store_kv_leveldb_take(message);
}

mesh_err store_kv_incoming_put(store_kv_incoming *in, mesh_slice rows, mesh_slice note)
{
    mesh_slice last, key, value, rest = rows;
    if (store_kv_rows_check(rows, mesh_buf_slice(&in->last_key), &last) != MESH_OK) {
        return MESH_MALFORMED;
    }
    leveldb_writebatch_clear(in->group);
    while (store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
        if (is_note(key)) {
            return MESH_MALFORMED;
        }
        leveldb_writebatch_put(in->group, (const char *)key.data, key.size, (const char *)value.data, value.size);
    }
    leveldb_writebatch_put(in->group, (const char *)note_key, sizeof note_key, (const char *)note.data, note.size);
    mesh_err err = write_group(in);
    if (err == MESH_OK) {
        keep(&in->note, note);
        if (rows.size > 0) {
            keep(&in->last_key, last);
        }
    }
    return err;
}

mesh_slice store_kv_incoming_note(const store_kv_incoming *in)
{
    return mesh_buf_slice(&in->note);
}

mesh_slice store_kv_incoming_last_key(const store_kv_incoming *in)
{
    return mesh_buf_slice(&in->last_key);
}

mesh_err store_kv_incoming_finish(store_kv_incoming **in_p, store_kv_batch *extra)
{
    store_kv_incoming *in = *in_p;
    size_t at = 0;
    store_kv_row row;
    leveldb_writebatch_clear(in->group);
    leveldb_writebatch_delete(in->group, (const char *)note_key, sizeof note_key);
    while (store_kv_batch_next(&extra->rows, &at, &row)) {
        if (row.deleted) {
            leveldb_writebatch_delete(in->group, (const char *)row.key.data, row.key.size);
        } else {
            leveldb_writebatch_put(in->group, (const char *)row.key.data, row.key.size, (const char *)row.value.data,
                                   row.value.size);
        }
    }
    mesh_buf_clear(&extra->rows);
    extra->count = 0;
    mesh_err err = write_group(in);
    char *path = mesh_strdup(in->path);
    store_kv_incoming_close(in_p);
    if (err == MESH_OK) {
        err = store_kv_mark_finished(path);
    }
    free(path);
    return err;
}
