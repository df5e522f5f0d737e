/* mesh/utf8.h: is it UTF-8? By RFC 3629: shortest form only, no surrogates, nothing above U+10FFFF. NUL is valid here;
 * where it is not wanted the caller looks for it. */
#ifndef MESH_UTF8_H
#define MESH_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* code_points (may be NULL) is set only when the answer is true. */
bool mesh_utf8_valid(const uint8_t *bytes, size_t n, size_t *code_points);

#endif
