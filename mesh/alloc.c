#include "mesh/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *p, size_t size)
{
    if (p == NULL) {
        /* no log line: that would allocate */
        (void)fprintf(stderr, "parley: out of memory asking for %zu bytes\n", size);
        abort();
    }
    return p;
}

void *mesh_alloc(size_t size)
{
    return check(calloc(1, size > 0 ? size : 1), size);
}

void *mesh_realloc(void *old, size_t size)
{
    return check(realloc(old, size > 0 ? size : 1), size);
}

char *mesh_strdup(const char *s)
{
    return mesh_memdup(s, strlen(s) + 1);
}

void *mesh_memdup(const void *p, size_t n)
{
    void *copy = check(malloc(n > 0 ? n : 1), n);
    if (n > 0) {
        memcpy(copy, p, n);
    }
    return copy;
}
