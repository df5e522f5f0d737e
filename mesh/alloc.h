/* mesh/alloc.h: allocation that cannot fail. Out of memory ends the process here and nowhere else, so sizes that come
 * from the wire are bounded before they are asked for. Free with free(). */
#ifndef MESH_ALLOC_H
#define MESH_ALLOC_H

#include <stddef.h>

void *mesh_alloc(size_t size);              /* zeroed; yours */
void *mesh_realloc(void *old, size_t size); /* not zeroed */
char *mesh_strdup(const char *s);           /* yours */
void *mesh_memdup(const void *p, size_t n); /* yours; n may be 0 */

#endif
