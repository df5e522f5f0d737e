/* edge/address.h: how many sockets each address holds. IPv4 addresses one by one, IPv6 by /64, because one subscriber
 * has at least that many. An entry exists while it holds a socket. */
#ifndef EDGE_ADDRESS_H
#define EDGE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "mesh/err.h"

typedef struct edge_address edge_address;
typedef struct edge_address_table edge_address_table;

edge_address_table *edge_address_new(size_t max_per_address);
void edge_address_destroy(edge_address_table **table_p);

/* Count one more socket from peer. Errors: MESH_FULL at max_per_address; nothing changed. */
MESH_MUST mesh_err edge_address_hold(edge_address_table *table, const struct sockaddr *peer, edge_address **address_p);
void edge_address_drop(edge_address_table *table, edge_address *address); /* one less; the last one ends the entry */
bool edge_address_loopback(const edge_address *address);
size_t edge_address_count(const edge_address_table *table);

#endif
