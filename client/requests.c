#include "client/requests.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

enum request_state { REQUEST_QUEUED, REQUEST_SENT, REQUEST_DELAYED };

struct client_request {
    client_request *next;
    uint64_t id;
    mesh_ms at; /* sent: when; delayed: when it is due */
    enum request_state state;
    bool ordered;
    size_t size;
    uint8_t bytes[];
};

void client_requests_fini(client_requests *q)
{
    while (q->head) {
        client_request *next = q->head->next;
        free(q->head);
        q->head = next;
    }
    *q = (client_requests){ 0 };
}

void client_requests_add(client_requests *q, uint64_t id, bool ordered, mesh_slice frame)
{
    client_request *r = mesh_alloc(sizeof *r + frame.size);
    r->id = id;
    r->ordered = ordered;
    r->size = frame.size;
    memcpy(r->bytes, frame.data, frame.size);
    if (q->tail) {
        q->tail->next = r;
    } else {
        q->head = r;
    }
    q->tail = r;
    q->count++;
}

static void leave_wire(client_requests *q, client_request *r, enum request_state state)
{
    if (r->state == REQUEST_SENT) {
        q->sent--;
    }
    r->state = state;
}

bool client_requests_remove(client_requests *q, uint64_t id)
{
    client_request *before = NULL;
    for (client_request *r = q->head; r; before = r, r = r->next) {
        if (r->id != id) {
            continue;
        }
        leave_wire(q, r, REQUEST_QUEUED);
        if (before) {
            before->next = r->next;
        } else {
            q->head = r->next;
        }
        if (q->tail == r) {
            q->tail = before;
        }
        q->count--;
        free(r);
        return true;
    }
    return false;
}

bool client_requests_delay(client_requests *q, uint64_t id, mesh_ms due)
{
    for (client_request *r = q->head; r; r = r->next) {
        if (r->id == id) {
            leave_wire(q, r, REQUEST_DELAYED);
            r->at = due;
            return true;
        }
    }
    return false;
}

size_t client_requests_rewind(client_requests *q)
{
    size_t n = q->sent;
    for (client_request *r = q->head; r; r = r->next) {
        /* a delayed one keeps its time: the server asked for it */
        if (r->state == REQUEST_SENT) {
            leave_wire(q, r, REQUEST_QUEUED);
        }
    }
    return n;
}

client_pumped client_requests_pump(client_requests *q, bool in_order, size_t window, mesh_ms now, mesh_buf *out)
{
    client_pumped pumped = { .next = MESH_NEVER, .oldest = MESH_NEVER };
    bool blocked = false; /* an ordered one before this has no answer yet */
    size_t passed = 0;    /* of those on their way */
    for (client_request *r = q->head; r; r = r->next) {
        if (q->sent >= window && passed >= q->sent) {
            break;
        }
        bool due = r->state == REQUEST_QUEUED || (r->state == REQUEST_DELAYED && r->at <= now);
        if (due && q->sent < window && !(r->ordered && blocked)) {
            mesh_buf_put(out, r->bytes, r->size);
            r->state = REQUEST_SENT;
            r->at = now;
            q->sent++;
            pumped.put++;
        } else if (r->state == REQUEST_DELAYED && r->at > now && r->at < pumped.next) {
            pumped.next = r->at;
        }
        if (r->state == REQUEST_SENT) {
            passed++;
            pumped.oldest = r->at < pumped.oldest ? r->at : pumped.oldest;
        }
        blocked = blocked || (in_order && r->ordered);
    }
    return pumped;
}
