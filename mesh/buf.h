/* mesh/buf.h: a growable run of bytes, and a borrowed one. */
#ifndef MESH_BUF_H
#define MESH_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct mesh_slice { /* borrowed bytes */
    const uint8_t *data;
    size_t size;
} mesh_slice;

typedef struct mesh_buf { /* zero-initialise or mesh_buf_init; free with mesh_buf_fini */
    uint8_t *data;
    size_t size;
    size_t cap;
} mesh_buf;

void mesh_buf_init(mesh_buf *b);
void mesh_buf_fini(mesh_buf *b);
void mesh_buf_clear(mesh_buf *b);                        /* size 0, memory kept */
uint8_t *mesh_buf_grow(mesh_buf *b, size_t n);           /* append n uninitialised bytes, return their start */
void mesh_buf_put(mesh_buf *b, const void *p, size_t n); /* append */
void mesh_buf_puts(mesh_buf *b, const char *s);          /* append without the NUL */
void mesh_buf_printf(mesh_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mesh_buf_shift(mesh_buf *b, size_t n);   /* drop the first n bytes */
mesh_slice mesh_buf_slice(const mesh_buf *b); /* borrowed until b changes */

void mesh_put_u32le(uint8_t out[4], uint32_t v);
uint32_t mesh_get_u32le(const uint8_t in[4]);
void mesh_put_u64be(uint8_t out[8], uint64_t v); /* sorts like the number */
uint64_t mesh_get_u64be(const uint8_t in[8]);

#endif
