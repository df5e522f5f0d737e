#include "mesh/table.h"

static size_t u64_hash(const void *key)
{
    uint64_t x = *(const uint64_t *)key;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    return (size_t)x;
}

static int u64_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static zhashx_t *table_new(void)
{
    zhashx_t *table = zhashx_new();
    assert(table);
    zhashx_set_key_duplicator(table, NULL);
    zhashx_set_key_destructor(table, NULL);
    return table;
}

zhashx_t *mesh_table_u64(void)
{
    zhashx_t *table = table_new();
    zhashx_set_key_hasher(table, u64_hash);
    zhashx_set_key_comparator(table, u64_compare);
    return table;
}

zhashx_t *mesh_table_str(void)
{
    return table_new();
}
