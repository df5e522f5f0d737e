#include "mesh/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

#define FIRST_CAP 256u

void mesh_buf_init(mesh_buf *b)
{
    *b = (mesh_buf){ 0 };
}

void mesh_buf_fini(mesh_buf *b)
{
    free(b->data);
    *b = (mesh_buf){ 0 };
}

void mesh_buf_clear(mesh_buf *b)
{
    b->size = 0;
}

uint8_t *mesh_buf_grow(mesh_buf *b, size_t n)
{
    assert(n <= SIZE_MAX / 4 && b->size <= SIZE_MAX / 4);
    size_t need = b->size + n;
    if (need > b->cap || b->data == NULL) {
        size_t cap = b->cap < FIRST_CAP ? FIRST_CAP : b->cap;
        while (cap < need) {
            cap *= 2;
        }
        b->data = mesh_realloc(b->data, cap);
        b->cap = cap;
    }
    uint8_t *start = b->data + b->size;
    b->size = need;
    return start;
}

void mesh_buf_put(mesh_buf *b, const void *p, size_t n)
{
    if (n > 0) {
        memcpy(mesh_buf_grow(b, n), p, n);
    }
}

void mesh_buf_puts(mesh_buf *b, const char *s)
{
    mesh_buf_put(b, s, strlen(s));
}

void mesh_buf_printf(mesh_buf *b, const char *format, ...)
{
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    char small[256];
    int n = vsnprintf(small, sizeof small, format, args);
    assert(n >= 0);
    size_t size = (size_t)n;
    if (size < sizeof small) {
        mesh_buf_put(b, small, size);
    } else {
        /* room for the NUL, which is then dropped */
        char *to = (char *)mesh_buf_grow(b, size + 1);
        (void)vsnprintf(to, size + 1, format, again);
        b->size--;
    }
    va_end(again);
    va_end(args);
}

void mesh_buf_shift(mesh_buf *b, size_t n)
{
    assert(n <= b->size);
    if (n > 0) {
        memmove(b->data, b->data + n, b->size - n);
        b->size -= n;
    }
}

mesh_slice mesh_buf_slice(const mesh_buf *b)
{
    return (mesh_slice){ b->data, b->size };
}

void mesh_put_u32le(uint8_t out[4], uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        out[i] = (uint8_t)(v >> (8 * i));
    }
}

uint32_t mesh_get_u32le(const uint8_t in[4])
{
    uint32_t v = 0;
    for (unsigned i = 0; i < 4; i++) {
        v |= (uint32_t)in[i] << (8 * i);
    }
    return v;
}

void mesh_put_u64be(uint8_t out[8], uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = (uint8_t)(v >> (8 * (7 - i)));
    }
}

uint64_t mesh_get_u64be(const uint8_t in[8])
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) {
        v = v << 8 | in[i];
    }
    return v;
}
