#include "router/requests.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "router/core.h"
#include "router/share.h"

struct router_requests {
    mesh_table *by_corr;
    uint64_t last_corr;
    router_share *places, *bytes;
    router_request *oldest, *newest;
    router_request *first[ROUTER_REQUEST_LISTS], *last[ROUTER_REQUEST_LISTS];
};

router_requests *router_requests_new(const mesh_conf *conf, uint64_t boot)
{
    router_requests *requests = mesh_alloc(sizeof *requests);
    requests->by_corr = mesh_table_new(mesh_conf_hash_key(conf));
    requests->places = router_share_new(conf, ROUTER_INFLIGHT_MAX);
    requests->bytes = router_share_new(conf, ROUTER_HELD_BYTES_MAX);
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
        router_share_destroy(&requests->places);
        router_share_destroy(&requests->bytes);
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

router_request *router_requests_add(router_requests *requests, router_request_kind kind, uint32_t shard,
                                    mesh_ms deadline, size_t kept_size)
{
    if (!router_share_take(requests->places, shard, 1)) {
        return NULL;
    }
    if (!router_share_take(requests->bytes, shard, kept_size)) {
        router_share_give(requests->places, shard, 1);
        return NULL;
    }
    router_request *req = mesh_realloc(NULL, sizeof *req + kept_size); /* the rest is written over anyway */
    memset(req, 0, sizeof *req);
    req->corr = next_corr(requests);
    req->kind = kind;
    req->charged = req->shard = shard;
    req->deadline = deadline;
    req->to = MESH_NO_PEER;
    req->from = MESH_NO_PEER;
    req->kept_size = kept_size;
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
    router_share_give(requests->places, req->charged, 1);
    router_share_give(requests->bytes, req->charged, req->kept_size);
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
