#include "router/requests.h"

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "router/core.h"

struct router_requests {
    zhashx_t *by_corr;
    uint64_t last_corr;
    router_request *oldest, *newest;
};

router_requests *router_requests_new(uint64_t boot)
{
    router_requests *requests = mesh_alloc(sizeof *requests);
    requests->by_corr = mesh_table_u64();
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
        zhashx_destroy(&requests->by_corr);
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

router_request *router_requests_add(router_requests *requests, router_request_kind kind, mesh_ms deadline)
{
    if (zhashx_size(requests->by_corr) >= ROUTER_INFLIGHT_MAX) {
        return NULL;
    }
    router_request *req = mesh_alloc(sizeof *req);
    if (++requests->last_corr == 0) {
        requests->last_corr = 1; /* 0 means no answer expected */
    }
    req->corr = requests->last_corr;
    req->kind = kind;
    req->deadline = deadline;
    req->from = MESH_NO_PEER;
    place(requests, req);
    zhashx_insert(requests->by_corr, &req->corr, req);
    return req;
}

router_request *router_requests_find(const router_requests *requests, uint64_t corr)
{
    return zhashx_lookup(requests->by_corr, &corr);
}

void router_requests_remove(router_requests *requests, router_request *req)
{
    *(req->older ? &req->older->newer : &requests->oldest) = req->newer;
    *(req->newer ? &req->newer->older : &requests->newest) = req->older;
    zhashx_delete(requests->by_corr, &req->corr);
    free(req->held);
    free(req);
}

router_request *router_requests_oldest(const router_requests *requests)
{
    return requests->oldest;
}

size_t router_requests_count(const router_requests *requests)
{
    return zhashx_size(requests->by_corr);
}
