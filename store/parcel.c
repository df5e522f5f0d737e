#include "store/parcel.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

typedef struct address {
    const char *user;
    size_t size; /* with its NUL */
    uint64_t prev, inbox_seq, era;
    size_t bin; /* of shard and router */
} address;

typedef struct bin {
    size_t n, bytes;
} bin;

struct store_splitter {
    const mesh_ring *ring;
    size_t n_peers;
    const uint64_t *eras;
    size_t shards; /* that there are bins for */
    bin *bins;     /* by shard, and in it by router: peer + 1, 0 for nobody */
    address *addresses;
    size_t n, cap;
    bool sorted; /* the addresses, by user */
    size_t only;
};

store_splitter *store_splitter_new(const mesh_ring *ring, size_t n_peers, const uint64_t *eras)
{
    store_splitter *splitter = mesh_alloc(sizeof *splitter);
    splitter->ring = ring;
    splitter->n_peers = n_peers;
    splitter->eras = eras;
    return splitter;
}

void store_splitter_destroy(store_splitter **splitter_p)
{
    store_splitter *splitter = *splitter_p;
    if (splitter != NULL) {
        free(splitter->bins);
        free(splitter->addresses);
        free(splitter);
        *splitter_p = NULL;
    }
}

void store_splitter_begin(store_splitter *splitter, size_t only)
{
    splitter->n = 0;
    splitter->sorted = true;
    splitter->only = only;
}

size_t store_splitter_lane(const store_splitter *splitter, mesh_peer router, uint32_t shard)
{
    return shard * (splitter->n_peers + 1) + (router == MESH_NO_PEER ? 0 : (size_t)router + 1);
}

static bool is_wanted(const store_splitter *splitter, size_t lane)
{
    size_t width = splitter->n_peers + 1;
    size_t only = splitter->only;
    return only == STORE_PARCEL_ALL || only == lane || (only % width == 0 && only / width == lane / width);
}

static void make_bins(store_splitter *splitter, size_t shard)
{
    size_t width = splitter->n_peers + 1;
    if (shard >= splitter->shards) {
        splitter->bins = mesh_realloc(splitter->bins, (shard + 1) * width * sizeof *splitter->bins);
        memset(splitter->bins + splitter->shards * width, 0,
               (shard + 1 - splitter->shards) * width * sizeof *splitter->bins);
        splitter->shards = shard + 1;
    }
}

void store_splitter_add(store_splitter *splitter, const char *user, uint64_t prev, uint64_t inbox_seq)
{
    mesh_slot slot = mesh_ring_slot(splitter->ring, user);
    uint32_t shard = mesh_ring_shard(splitter->ring, slot);
    size_t lane = store_splitter_lane(splitter, mesh_ring_router(splitter->ring, slot), shard);
    if (!is_wanted(splitter, lane)) {
        return;
    }
    make_bins(splitter, shard);
    if (splitter->n == splitter->cap) {
        splitter->cap = splitter->cap == 0 ? 64 : 2 * splitter->cap;
        splitter->addresses = mesh_realloc(splitter->addresses, splitter->cap * sizeof *splitter->addresses);
    }
    splitter->sorted =
        splitter->sorted && (splitter->n == 0 || strcmp(splitter->addresses[splitter->n - 1].user, user) < 0);
    splitter->addresses[splitter->n++] = (address){
        .user = user,
        .size = strlen(user) + 1,
        .prev = prev,
        .inbox_seq = inbox_seq,
        .era = inbox_seq != 0 && splitter->eras != NULL ? splitter->eras[slot] : 0,
        .bin = lane,
    };
}

/* One block: parcel, recipients, list, strings. */
static store_parcel *parcel_new(const store_splitter *splitter, size_t which, uint32_t number, mesh_ms backoff)
{
    size_t n = splitter->bins[which].n;
    store_parcel *p = mesh_alloc(sizeof *p + n * (sizeof *p->users + sizeof *p->list) + splitter->bins[which].bytes);
    *p = (store_parcel){ .number = number, .due = MESH_NEVER, .backoff = backoff };
    p->lane = which;
    size_t router = which % (splitter->n_peers + 1);
    p->peer = router == 0 ? MESH_NO_PEER : (mesh_peer)(router - 1);
    p->shard = (uint32_t)(which / (splitter->n_peers + 1));
    p->users = (Mesh__Recipient *)(p + 1);
    p->list = (Mesh__Recipient **)(p->users + n);
    char *text = (char *)(p->list + n);
    for (size_t i = 0; i < splitter->n; i++) {
        const address *a = &splitter->addresses[i];
        if (a->bin == which) {
            Mesh__Recipient *r = &p->users[p->n];
            mesh__recipient__init(r);
            r->user = memcpy(text, a->user, a->size);
            r->prev = a->prev;
            r->inbox_seq = a->inbox_seq;
            r->era = a->era;
            p->list[p->n++] = r;
            text += a->size;
        }
    }
    return p;
}

static int compare_users(const void *a, const void *b)
{
    return strcmp(((const address *)a)->user, ((const address *)b)->user);
}

store_parcel **store_splitter_end(store_splitter *splitter, mesh_ms backoff, uint32_t *last, size_t *n_p)
{
    size_t n = 0;
    if (!splitter->sorted) { /* a chat's members are, the rests of several parcels are not */
        qsort(splitter->addresses, splitter->n, sizeof *splitter->addresses, compare_users);
    }
    for (size_t i = 0; i < splitter->n; i++) {
        bin *b = &splitter->bins[splitter->addresses[i].bin];
        n += b->n++ == 0 ? 1 : 0;
        b->bytes += splitter->addresses[i].size;
    }
    store_parcel **parcels = mesh_alloc((n + 1) * sizeof *parcels);
    size_t made = 0;
    for (size_t i = 0; made < n; i++) {
        size_t which = splitter->addresses[i].bin;
        if (splitter->bins[which].n > 0) {
            parcels[made++] = parcel_new(splitter, which, ++*last, backoff);
            splitter->bins[which] = (bin){ 0 };
        }
    }
    *n_p = n;
    return parcels;
}
