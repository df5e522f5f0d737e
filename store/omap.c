#include "store/omap.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/rand.h"

#define SLAB_NODES 256

typedef struct slab {
    struct slab *next;
    store_omap_node nodes[SLAB_NODES];
} slab;

struct store_omap {
    store_omap_node *root;
    store_omap_node *free; /* linked through right */
    slab *slabs;
    size_t count;
    mesh_rand rand;
};

store_omap *store_omap_new(uint64_t seed)
{
    store_omap *map = mesh_alloc(sizeof *map);
    map->rand.state = seed;
    return map;
}

void store_omap_destroy(store_omap **map_p)
{
    store_omap *map = *map_p;
    if (map == NULL) {
        return;
    }
    while (map->slabs != NULL) {
        slab *s = map->slabs;
        map->slabs = s->next;
        free(s);
    }
    free(map);
    *map_p = NULL;
}

size_t store_omap_count(const store_omap *map)
{
    return map->count;
}

int store_omap_compare(mesh_slice a, mesh_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;
    if (c != 0) {
        return c;
    }
    return a.size < b.size ? -1 : a.size > b.size;
}

static store_omap_node *node_new(store_omap *map)
{
    if (map->free == NULL) {
        slab *s = mesh_alloc(sizeof *s);
        s->next = map->slabs;
        map->slabs = s;
        for (size_t i = 0; i < SLAB_NODES; i++) {
            s->nodes[i].right = map->free;
            map->free = &s->nodes[i];
        }
    }
    store_omap_node *node = map->free;
    map->free = node->right;
    *node = (store_omap_node){ .priority = mesh_rand_next(&map->rand) };
    return node;
}

store_omap_node *store_omap_get(const store_omap *map, mesh_slice key)
{
    store_omap_node *n = map->root;
    while (n != NULL) {
        int c = store_omap_compare(key, n->key);
        if (c == 0) {
            return n;
        }
        n = c < 0 ? n->left : n->right;
    }
    return NULL;
}

store_omap_node *store_omap_lower_bound(const store_omap *map, mesh_slice key)
{
    store_omap_node *n = map->root;
    store_omap_node *best = NULL;
    while (n != NULL) {
        if (store_omap_compare(n->key, key) >= 0) {
            best = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

store_omap_node *store_omap_last_le(const store_omap *map, mesh_slice key)
{
    store_omap_node *n = map->root;
    store_omap_node *best = NULL;
    while (n != NULL) {
        if (store_omap_compare(n->key, key) <= 0) {
            best = n;
            n = n->right;
        } else {
            n = n->left;
        }
    }
    return best;
}

static store_omap_node *leftmost(store_omap_node *n)
{
    while (n != NULL && n->left != NULL) {
        n = n->left;
    }
    return n;
}

static store_omap_node *rightmost(store_omap_node *n)
{
    while (n != NULL && n->right != NULL) {
        n = n->right;
    }
    return n;
}

store_omap_node *store_omap_first(const store_omap *map)
{
    return leftmost(map->root);
}

store_omap_node *store_omap_last(const store_omap *map)
{
    return rightmost(map->root);
}

store_omap_node *store_omap_next(const store_omap_node *node)
{
    if (node->right != NULL) {
        return leftmost(node->right);
    }
    while (node->parent != NULL && node->parent->right == node) {
        node = node->parent;
    }
    return node->parent;
}

store_omap_node *store_omap_prev(const store_omap_node *node)
{
    if (node->left != NULL) {
        return rightmost(node->left);
    }
    while (node->parent != NULL && node->parent->left == node) {
        node = node->parent;
    }
    return node->parent;
}

/* Hang `with` where node hangs. */
static void replace_child(store_omap *map, store_omap_node *node, store_omap_node *with)
{
    if (node->parent == NULL) {
        map->root = with;
    } else if (node->parent->left == node) {
        node->parent->left = with;
    } else {
        node->parent->right = with;
    }
    if (with != NULL) {
        with->parent = node->parent;
    }
}

/* Lift child above its parent; the order of keys stays. */
static void rotate_up(store_omap *map, store_omap_node *child)
{
    store_omap_node *parent = child->parent;
    replace_child(map, parent, child);
    if (parent->left == child) {
        parent->left = child->right;
        if (child->right != NULL) {
            child->right->parent = parent;
        }
        child->right = parent;
    } else {
        parent->right = child->left;
        if (child->left != NULL) {
            child->left->parent = parent;
        }
        child->left = parent;
    }
    parent->parent = child;
}

store_omap_node *store_omap_put(store_omap *map, mesh_slice key, bool *added_p)
{
    store_omap_node *parent = NULL;
    store_omap_node **link = &map->root;
    while (*link != NULL) {
        parent = *link;
        int c = store_omap_compare(key, parent->key);
        if (c == 0) {
            parent->key = key;
            *added_p = false;
            return parent;
        }
        link = c < 0 ? &parent->left : &parent->right;
    }
    store_omap_node *node = node_new(map);
    node->key = key;
    node->parent = parent;
    *link = node;
    while (node->parent != NULL && node->parent->priority < node->priority) {
        rotate_up(map, node);
    }
    map->count++;
    *added_p = true;
    return node;
}

void store_omap_delete(store_omap *map, store_omap_node *node)
{
    assert(map->count > 0);
    while (node->left != NULL && node->right != NULL) {
        rotate_up(map, node->left->priority > node->right->priority ? node->left : node->right);
    }
    replace_child(map, node, node->left != NULL ? node->left : node->right);
    *node = (store_omap_node){ .right = map->free };
    map->free = node;
    map->count--;
}
