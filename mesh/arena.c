#include <assert.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"

#define BLOCK_SIZE (64u * 1024)
#define KEEP_MAX (4u * 1024 * 1024) /* what a reset keeps; the rest of a rare huge message goes back */
#define ALIGN 16u

typedef struct block {
    struct block *next;
    size_t size;
    size_t used;
    _Alignas(ALIGN) uint8_t data[];
} block;

struct mesh_arena {
    block *first;
    block *current; /* blocks after it are empty */
};

static block *block_new(size_t size)
{
    block *b = mesh_realloc(NULL, sizeof *b + size);
    *b = (block){ .size = size };
    ASAN_POISON_MEMORY_REGION(b->data, size);
    return b;
}

static void block_free(block *b)
{
    ASAN_UNPOISON_MEMORY_REGION(b->data, b->size);
    free(b);
}

mesh_arena *mesh_arena_new(void)
{
    mesh_arena *arena = mesh_alloc(sizeof *arena);
    arena->first = block_new(BLOCK_SIZE);
    arena->current = arena->first;
    return arena;
}

void mesh_arena_destroy(mesh_arena **arena_p)
{
    mesh_arena *arena = *arena_p;
    if (arena == NULL) {
        return;
    }
    block *next;
    for (block *b = arena->first; b != NULL; b = next) {
        next = b->next;
        block_free(b);
    }
    free(arena);
    *arena_p = NULL;
}

void mesh_arena_reset(mesh_arena *arena)
{
    size_t kept = 0;
    block **link = &arena->first;
    while (*link != NULL) {
        block *b = *link;
        kept += b->size;
        if (kept > KEEP_MAX) {
            *link = b->next;
            block_free(b);
            continue;
        }
        b->used = 0;
        ASAN_POISON_MEMORY_REGION(b->data, b->size);
        link = &b->next;
    }
    arena->current = arena->first;
}

/* Make a block with room the current one: one of the empty ones behind, or a new one put between. */
static void make_room(mesh_arena *arena, size_t size)
{
    block *b = arena->current;
    while (b->next != NULL) {
        b = b->next;
        if (b->size >= size) {
            arena->current = b;
            return;
        }
    }
    block *added = block_new(size > BLOCK_SIZE ? size : BLOCK_SIZE);
    b->next = added;
    arena->current = added;
}

void *mesh_arena_grab(mesh_arena *arena, size_t size)
{
    assert(size <= SIZE_MAX / 2);
    size_t rounded = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    block *b = arena->current;
    if (b->size - b->used < rounded) {
        make_room(arena, rounded);
        b = arena->current;
    }
    void *p = b->data + b->used;
    b->used += rounded;
    ASAN_UNPOISON_MEMORY_REGION(p, size);
    return p;
}

void *mesh_arena_alloc(mesh_arena *arena, size_t size)
{
    return memset(mesh_arena_grab(arena, size), 0, size);
}

char *mesh_arena_strdup(mesh_arena *arena, const char *s)
{
    size_t size = strlen(s) + 1;
    return memcpy(mesh_arena_grab(arena, size), s, size);
}
