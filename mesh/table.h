/* mesh/table.h: czmq's zhashx set up for keys that live inside the item: nothing is copied, nothing freed. */
#ifndef MESH_TABLE_H
#define MESH_TABLE_H

#include <czmq.h>

zhashx_t *mesh_table_u64(void); /* keys: const uint64_t *, spread by a fixed mix, so that runs repeat */
zhashx_t *mesh_table_str(void); /* keys: const char * */

#endif
