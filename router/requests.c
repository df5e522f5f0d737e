#include "router/requests.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "router/core.h"

struct router_requests {
    mesh_table *by_corr;
    uint64_t last_corr;
    size_t kept_bytes;
    router_request *oldest, *newest;
    router_request *first[ROUTER_REQUEST_LISTS], *last[ROUTER_REQUEST_LISTS];
};

router_requests *router_requests_new(const mesh_hash_key *key, uint64_t boot)
{
    router_requests *requests = mesh_alloc(sizeof *requests);
    requests->by_corr = mesh_table_new(key);
    requests->last_corr = boot << 24;
    return requests;
}

void router_requests_destroy(router_requests **requests_p)
{
    router_requests *requests = *requests_p;
    if (requests) {
        while (requests->oldest) {
            router_requests_remove(requests, requests->oldest);
        }
        mesh_table_destroy(&requests->by_corr);
        free(requests);
        *requests_p = NULL;
    }
}

static void place(router_requests *requests, router_request *req)
{
    router_request *older = requests->newest;
    while (older && older->deadline > req->deadline) {
        older = older->older;
    }
    req->older = older;
    req->newer = older ? older->newer : requests->oldest;
    *(req->older ? &req->older->newer : &requests->oldest) = req;
    *(req->newer ? &req->newer->older : &requests->newest) = req;
}

/* ---- the lists ---- */

static void take_out(router_requests *requests, router_request *req)
{
    *(req->prev ? &req->prev->next : &requests->first[req->list]) = req->next;
    *(req->next ? &req->next->prev : &requests->last[req->list]) = req->prev;
}

static void put_in(router_requests *requests, router_request *req, router_request_list list, mesh_ms due)
{
    router_request *prev = requests->last[list];
    while (prev && prev->due > due) {
        prev = prev->prev;
    }
    req->list = list;
    req->due = due;
    req->prev = prev;
    req->next = prev ? prev->next : requests->first[list];
    *(req->prev ? &req->prev->next : &requests->first[list]) = req;
    *(req->next ? &req->next->prev : &requests->last[list]) = req;
}

void router_requests_move(router_requests *requests, router_request *req, router_request_list list, mesh_ms due)
{
    take_out(requests, req);
    put_in(requests, req, list, due);
}

router_request *router_requests_first(const router_requests *requests, router_request_list list)
{
    return requests->first[list];
}

/* ---- the table ---- */

static uint64_t next_corr(router_requests *requests)
{
    if (++requests->last_corr == 0) {
        requests->last_corr = 1; /* 0 means no answer expected */
    }
    return requests->last_corr;
}

router_request *router_requests_add(router_requests *requests, router_request_kind kind, mesh_ms deadline,
                                    size_t kept_size)
{
    if (mesh_table_size(requests->by_corr) >= ROUTER_INFLIGHT_MAX ||
        requests->kept_bytes + kept_size > ROUTER_HELD_BYTES_MAX) {
        return NULL;
    }
    router_request *req = mesh_realloc(NULL, sizeof *req + kept_size); /* the rest is written over anyway */
    memset(req, 0, sizeof *req);
    req->corr = next_corr(requests);
    req->kind = kind;
    req->deadline = deadline;
    req->to = MESH_NO_PEER;
    req->from = MESH_NO_PEER;
    req->kept_size = kept_size;
    requests->kept_bytes += kept_size;
    place(requests, req);
    put_in(requests, req, ROUTER_PARKED, MESH_NEVER);
    mesh_table_put(requests->by_corr, mesh_table_u64(&req->corr), req);
    return req;
}

void router_requests_rename(router_requests *requests, router_request *req)
{
    mesh_table_remove(requests->by_corr, mesh_table_u64(&req->corr));
    req->corr = next_corr(requests);
    mesh_table_put(requests->by_corr, mesh_table_u64(&req->corr), req);
}

router_request *router_requests_find(const router_requests *requests, uint64_t corr)
{
    return mesh_table_get(requests->by_corr, mesh_table_u64(&corr));
}

void router_requests_remove(router_requests *requests, router_request *req)
{
    *(req->older ? &req->older->newer : &requests->oldest) = req->newer;
    *(req->newer ? &req->newer->older : &requests->newest) = req->older;
    take_out(requests, req);
    requests->kept_bytes -= req->kept_size;
    mesh_table_remove(requests->by_corr, mesh_table_u64(&req->corr));
    free(req->held);
    free(req);
}

router_request *router_requests_oldest(const router_requests *requests)
{
    return requests->oldest;
}

size_t router_requests_count(const router_requests *requests)
{
    return mesh_table_size(requests->by_corr);
}
