#include "mesh/table.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>

#include "mesh/alloc.h"
#include "mesh/rand.h"

typedef struct place { /* of one item; linked by number, because places move when the table grows */
    uint64_t hash;
    const uint8_t *key;
    void *item;
    uint32_t key_size;
    uint32_t chained;      /* the next in its slot, or the next free place */
    uint32_t older, newer; /* in order */
} place;

static_assert(sizeof(place) + sizeof(uint32_t) == MESH_TABLE_BYTES, "a place and a slot");

struct mesh_table {
    mesh_hash_key hash_key;
    place *places;   /* n_slots and one: number 0 is nobody's, it stands before the oldest and after the newest */
    uint32_t *slots; /* the first place of each chain, 0: none */
    size_t n_slots;  /* a power of two */
    size_t count;
    uint32_t used;   /* places up to this one were given out */
    uint32_t free;   /* of them, those that came back */
    uint32_t cursor; /* what next gives, 0: nothing */
};

mesh_table *mesh_table_new(const mesh_hash_key *key)
{
    mesh_table *table = mesh_alloc(sizeof *table);
    if (key != NULL) {
        table->hash_key = *key;
    } else {
        randombytes_buf(table->hash_key.bytes, sizeof table->hash_key.bytes);
    }
    table->n_slots = MESH_TABLE_FIRST;
    table->slots = mesh_alloc(table->n_slots * sizeof *table->slots);
    table->places = mesh_alloc((table->n_slots + 1) * sizeof *table->places);
    return table;
}

mesh_table *mesh_table_new_seeded(uint64_t seed)
{
    mesh_rand rand = { seed };
    mesh_hash_key key;
    for (size_t i = 0; i < sizeof key.bytes; i++) {
        key.bytes[i] = (uint8_t)(mesh_rand_next(&rand) >> 56);
    }
    return mesh_table_new(&key);
}

void mesh_table_destroy(mesh_table **table_p)
{
    mesh_table *table = *table_p;
    if (table != NULL) {
        free(table->places);
        free(table->slots);
        free(table);
        *table_p = NULL;
    }
}

/* ---- chains ---- */

static uint64_t hash_of(const mesh_table *table, mesh_slice key)
{
    unsigned char bytes[crypto_shorthash_siphash24_BYTES];
    uint64_t hash;
    static_assert(sizeof bytes == sizeof hash, "one number");
    crypto_shorthash_siphash24(bytes, key.data, key.size, table->hash_key.bytes);
    memcpy(&hash, bytes, sizeof hash);
    return hash;
}

static uint32_t *slot_of(const mesh_table *table, uint64_t hash)
{
    return &table->slots[hash & (table->n_slots - 1)];
}

/* Where the number of key's place stands, or the end of its chain. */
static uint32_t *link_of(const mesh_table *table, mesh_slice key, uint64_t hash)
{
    uint32_t *link = slot_of(table, hash);
    while (*link != 0) {
        place *p = &table->places[*link];
        if (p->hash == hash && p->key_size == key.size && memcmp(p->key, key.data, key.size) == 0) {
            break;
        }
        link = &p->chained;
    }
    return link;
}

static void chain(mesh_table *table, uint32_t number)
{
    uint32_t *slot = slot_of(table, table->places[number].hash);
    table->places[number].chained = *slot;
    *slot = number;
}

static void grow(mesh_table *table)
{
    assert(table->n_slots < MESH_TABLE_MAX);
    table->n_slots *= MESH_TABLE_GROWTH;
    table->places = mesh_realloc(table->places, (table->n_slots + 1) * sizeof *table->places);
    free(table->slots);
    table->slots = mesh_alloc(table->n_slots * sizeof *table->slots);
    for (uint32_t i = table->places[0].newer; i != 0; i = table->places[i].newer) {
        chain(table, i);
    }
}

/* ---- order ---- */

static void leave_order(mesh_table *table, uint32_t number)
{
    const place *p = &table->places[number];
    table->places[p->older].newer = p->newer;
    table->places[p->newer].older = p->older;
    if (table->cursor == number) {
        table->cursor = p->newer;
    }
}

static void join_order(mesh_table *table, uint32_t number)
{
    place *p = &table->places[number];
    p->older = table->places[0].older;
    p->newer = 0;
    table->places[p->older].newer = number;
    table->places[0].older = number;
}

/* ---- items ---- */

void *mesh_table_get(const mesh_table *table, mesh_slice key)
{
    return table->places[*link_of(table, key, hash_of(table, key))].item;
}

void *mesh_table_touch(mesh_table *table, mesh_slice key)
{
    uint32_t number = *link_of(table, key, hash_of(table, key));
    if (number != 0) {
        leave_order(table, number);
        join_order(table, number);
    }
    return table->places[number].item;
}

void mesh_table_put(mesh_table *table, mesh_slice key, void *item)
{
    assert(item != NULL && key.size <= UINT32_MAX);
    uint64_t hash = hash_of(table, key);
    assert(*link_of(table, key, hash) == 0);
    if (table->count == table->n_slots) {
        grow(table);
    }
    uint32_t number = table->free;
    if (number != 0) {
        table->free = table->places[number].chained;
    } else {
        number = ++table->used;
    }
    table->places[number] = (place){ .hash = hash, .key = key.data, .key_size = (uint32_t)key.size, .item = item };
    chain(table, number);
    join_order(table, number);
    table->count++;
}

static void *take_out(mesh_table *table, uint32_t *link)
{
    uint32_t number = *link;
    place *p = &table->places[number];
    void *item = p->item;
    leave_order(table, number);
    *link = p->chained;
    *p = (place){ .chained = table->free };
    table->free = number;
    table->count--;
    return item;
}

void *mesh_table_remove(mesh_table *table, mesh_slice key)
{
    uint32_t *link = link_of(table, key, hash_of(table, key));
    return *link != 0 ? take_out(table, link) : NULL;
}

size_t mesh_table_size(const mesh_table *table)
{
    return table->count;
}

size_t mesh_table_room(const mesh_table *table)
{
    return table->n_slots;
}

void *mesh_table_first(mesh_table *table)
{
    table->cursor = table->places[0].newer;
    return mesh_table_next(table);
}

void *mesh_table_next(mesh_table *table)
{
    const place *p = &table->places[table->cursor];
    if (table->cursor != 0) {
        table->cursor = p->newer;
    }
    return p->item;
}

void *mesh_table_oldest(const mesh_table *table)
{
    return table->places[table->places[0].newer].item;
}

void *mesh_table_take(mesh_table *table)
{
    uint32_t number = table->places[0].newer;
    if (number == 0) {
        return NULL;
    }
    uint32_t *link = slot_of(table, table->places[number].hash);
    while (*link != number) {
        link = &table->places[*link].chained;
    }
    return take_out(table, link);
}
