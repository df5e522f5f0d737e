#include "edge/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"

struct edge_address {
    char name[INET6_ADDRSTRLEN];
    bool loopback;
    size_t sockets;
};

struct edge_address_table {
    mesh_table *by_name;
    size_t max_per_address;
};

edge_address_table *edge_address_new(size_t max_per_address)
{
    edge_address_table *table = mesh_alloc(sizeof *table);
    table->by_name = mesh_table_new(NULL);
    table->max_per_address = max_per_address;
    return table;
}

void edge_address_destroy(edge_address_table **table_p)
{
    edge_address_table *table = *table_p;
    if (table) {
        assert(mesh_table_size(table->by_name) == 0);
        mesh_table_destroy(&table->by_name);
        free(table);
        *table_p = NULL;
    }
}

static void describe(const struct sockaddr *peer, edge_address *out)
{
    struct in6_addr a6;
    if (peer->sa_family == AF_INET6) {
        a6 = ((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
        if (!IN6_IS_ADDR_V4MAPPED(&a6)) {
            out->loopback = IN6_IS_ADDR_LOOPBACK(&a6);
            if (!out->loopback) {
                memset(a6.s6_addr + 8, 0, 8);
            }
            inet_ntop(AF_INET6, &a6, out->name, sizeof out->name);
            return;
        }
    }
    struct in_addr a4;
    if (peer->sa_family == AF_INET6) {
        memcpy(&a4, a6.s6_addr + 12, sizeof a4);
    } else {
        a4 = ((const struct sockaddr_in *)(const void *)peer)->sin_addr;
    }
    out->loopback = ntohl(a4.s_addr) >> 24 == 127;
    inet_ntop(AF_INET, &a4, out->name, sizeof out->name);
}

mesh_err edge_address_hold(edge_address_table *table, const struct sockaddr *peer, edge_address **address_p)
{
    edge_address wanted = { .sockets = 0 };
    describe(peer, &wanted);
    edge_address *address = mesh_table_get(table->by_name, mesh_table_str(wanted.name));
    if (address && address->sockets >= table->max_per_address) {
        return MESH_FULL;
    }
    if (!address) {
        address = mesh_memdup(&wanted, sizeof wanted);
        mesh_table_put(table->by_name, mesh_table_str(address->name), address);
    }
    address->sockets++;
    *address_p = address;
    return MESH_OK;
}

void edge_address_drop(edge_address_table *table, edge_address *address)
{
    assert(address->sockets > 0);
    if (--address->sockets == 0) {
        mesh_table_remove(table->by_name, mesh_table_str(address->name));
        free(address);
    }
}

bool edge_address_loopback(const edge_address *address)
{
    return address->loopback;
}

size_t edge_address_count(const edge_address_table *table)
{
    return mesh_table_size(table->by_name);
}
