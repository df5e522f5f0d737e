/* tests/sim/operator.c: who changes the members of groups and moves leaders, as `parley cluster` does it: a look at
 * what the stores say of themselves, an order to whoever leads, and the same again every AGAIN_MS until it is so. The
 * orders are messages on links like any others, so they are cut off, lost, doubled and late; the looks are not. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_MS 200
#define TRANSFER_MS 5000
#define CHANGE_MS 10000

typedef enum job_state { IDLE, HAND_OVER, TAKE_OUT, OUT, BRING_IN } job_state;

typedef struct job { /* of a shard */
    job_state state;
    sim_node *store;  /* NULL when leadership goes to whoever is furthest */
    sim_node *before; /* who led */
    mesh_ms until;    /* of this state */
    uint64_t change;  /* the leader's last entry when the store was first seen out: it counts when that is committed */
    mesh_ms stay_out;
    bool wipe;
} job;

struct sim_operator {
    sim_node *node;
    job *jobs; /* by shard */
    uint64_t corr;
    bool ticking;
};

void sim_operator_init(sim *s)
{
    struct sim_operator *op = mesh_alloc(sizeof *op);
    op->node = sim_node_find(s, "operator1");
    op->jobs = mesh_alloc(s->conf.shards * sizeof *op->jobs);
    s->op = op;
}

void sim_operator_fini(sim *s)
{
    if (s->op) {
        free(s->op->jobs);
        free(s->op);
    }
}

void sim_operator_message(sim_node *n, mesh_peer from, const Mesh__Msg *msg)
{
    (void)n;
    (void)from; /* whether an order came to be is seen with the next look */
    if (msg->body_case != MESH__MSG__BODY_DONE && msg->body_case != MESH__MSG__BODY_FAULT) {
        sim_complain(n->s, "the operator was told %s", mesh_msg_kind_name(msg));
    }
}

/* ---- looks ---- */

typedef struct roles { /* that a store has in its group, for the leader: its old replica may still be there, too */
    bool voter, standby, spare;
} roles;

static roles roles_of(sim_node *leader, const char *store)
{
    char what[96];
    roles r = { 0 };
    mesh_buf text = { 0 };
    store_core_print_group(leader->store, &text);
    *mesh_buf_grow(&text, 1) = 0;
    const char *names[] = { "voter", "standby", "spare" };
    bool *has[] = { &r.voter, &r.standby, &r.spare };
    for (int i = 0; i < 3; i++) {
        snprintf(what, sizeof what, "member=\"%s\",role=\"%s\"", store, names[i]);
        *has[i] = strstr((const char *)text.data, what) != NULL;
    }
    mesh_buf_fini(&text);
    return r;
}

static bool is_out(roles r)
{
    return !r.voter && (r.spare || !r.standby);
}

static bool is_in(roles r)
{
    return r.voter && !r.standby && !r.spare;
}

static sim_node *leader_of(sim *s, uint32_t shard)
{
    const char *name = sim_leader(s, shard);
    return name ? sim_node_find(s, name) : NULL;
}

bool sim_whole(sim *s, uint32_t shard)
{
    sim_node *leader = leader_of(s, shard);
    for (size_t i = 0; leader && i < s->n_nodes; i++) {
        const sim_node *n = &s->nodes[i];
        if (n->role == MESH_STORE && n->shard == shard && !is_in(roles_of(leader, n->name))) {
            return false;
        }
    }
    return leader != NULL;
}

bool sim_operated(sim *s, uint32_t shard)
{
    return s->op && s->op->jobs[shard].state != IDLE;
}

/* ---- orders ---- */

static void order(sim *s, sim_node *to, Mesh__OperateOp what, const char *store)
{
    struct sim_operator *op = s->op;
    Mesh__Operate operate = MESH__OPERATE__INIT;
    operate.op = what;
    operate.node = (char *)(uintptr_t)store;
    MESH_MSG(msg, OPERATE, operate, &operate);
    msg.corr = ++op->corr;
    mesh_out_put(op->node->out, to->self, &msg);
    sim_node_wake(op->node, s->now);
}

static void hand_over(sim *s, job *j, sim_node *leader)
{
    j->before = j->before ? j->before : leader;
    if (sim_now(s) >= j->until || (leader && leader != j->before)) {
        j->state = IDLE;
    } else if (leader) {
        order(s, leader, MESH__OPERATE_OP__OPERATE_TRANSFER, j->store ? j->store->name : "");
    }
}

/* Is what this leader has in its log committed by now? */
static bool is_committed(sim *s, job *j, sim_node *leader)
{
    mesh_stats *stats = store_core_stats(leader->store);
    j->change = j->change ? j->change : sim_metric(s, stats, leader->name, "parley_store_last_index");
    return sim_metric(s, stats, leader->name, "parley_store_commit_index") >= j->change;
}

static void take_out(sim *s, job *j, sim_node *leader)
{
    if (sim_now(s) >= j->until) {
        j->state = BRING_IN;
        j->change = 0;
        return;
    }
    if (!leader || leader == j->store) {
        j->change = 0;
        if (leader) {
            order(s, leader, MESH__OPERATE_OP__OPERATE_TRANSFER, "");
        }
        return;
    }
    if (!is_out(roles_of(leader, j->store->name))) {
        j->change = 0;
        order(s, leader, MESH__OPERATE_OP__OPERATE_REMOVE, j->store->name);
        return;
    }
    if (!is_committed(s, j, leader)) {
        return;
    }
    sim_trace(s, "operator: %s is out", j->store->name);
    j->state = OUT;
    j->change = 0;
    j->until = sim_now(s) + j->stay_out;
    if (j->wipe) {
        sim_node_die(j->store);
        sim_disk_wipe_at(s, j->store->name);
        sim_node_boot(j->store);
    }
}

static bool from_operator(const sim *s, const sim_node *n)
{
    for (const sim_input *in = n->inputs; in; in = in->next) {
        if (in->kind == IN_FRAME && in->peer == s->op->node->self) {
            return true;
        }
    }
    return false;
}

/* An order that somebody may yet obey, however late. */
static bool on_its_way(const sim *s)
{
    bool some = false;
    for (size_t i = 0; i < s->n_links; i++) {
        some = some || (s->links[i].end[0] == s->op->node && s->links[i].pipe[0].first);
    }
    for (const sim_late *late = s->lates; late; late = late->next) {
        some = some || late->from == s->op->node->self;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        some = some || from_operator(s, &s->nodes[i]);
    }
    return some;
}

static void bring_in(sim *s, job *j, sim_node *leader)
{
    roles r = leader ? roles_of(leader, j->store->name) : (roles){ 0 };
    if (leader && is_in(r)) {
        if (is_committed(s, j, leader) && !on_its_way(s)) {
            sim_trace(s, "operator: %s is in", j->store->name);
            j->state = IDLE;
        }
        return;
    }
    j->change = 0;
    if (leader && is_out(r)) {
        order(s, leader, MESH__OPERATE_OP__OPERATE_ADD, j->store->name);
    }
}

static void look(sim *s, void *arg, uint64_t tag)
{
    (void)arg;
    (void)tag;
    bool more = false;
    for (uint32_t shard = 0; shard < s->conf.shards; shard++) {
        job *j = &s->op->jobs[shard];
        sim_node *leader = j->state != IDLE ? leader_of(s, shard) : NULL;
        if (j->state == HAND_OVER) {
            hand_over(s, j, leader);
        } else if (j->state == TAKE_OUT) {
            take_out(s, j, leader);
        } else if (j->state == BRING_IN) {
            bring_in(s, j, leader);
        } else if (j->state == OUT && sim_now(s) >= j->until) {
            j->state = BRING_IN;
        }
        more = more || j->state != IDLE;
    }
    s->op->ticking = more;
    if (more) {
        sim_at(s, s->now + AGAIN_MS * 1000, look, NULL, 0);
    }
}

static bool begin(sim *s, uint32_t shard, job j)
{
    assert(s->op);
    job *of_shard = &s->op->jobs[shard];
    if (of_shard->state != IDLE) {
        return false;
    }
    *of_shard = j;
    if (!s->op->ticking) {
        s->op->ticking = true;
        sim_at(s, s->now, look, NULL, 0);
    }
    return true;
}

bool sim_transfer_leader(sim *s, uint32_t shard, const char *to)
{
    sim_trace(s, "operator: shard %u is to be led by %s", shard, *to ? to : "another one");
    return begin(
        s, shard,
        (job){ .state = HAND_OVER, .store = *to ? sim_node_find(s, to) : NULL, .until = sim_now(s) + TRANSFER_MS });
}

bool sim_remove_store(sim *s, const char *store, mesh_ms stay_out, bool wipe)
{
    sim_node *n = sim_node_find(s, store);
    if (!sim_whole(s, n->shard) || sim_disk_sound(s, store) < s->conf.replicas) {
        return false;
    }
    sim_trace(s, "operator: %s is to go%s", store, wipe ? " and lose its data" : "");
    return begin(
        s, n->shard,
        (job){ .state = TAKE_OUT, .store = n, .until = sim_now(s) + CHANGE_MS, .stay_out = stay_out, .wipe = wipe });
}

void sim_operator_settle(sim *s)
{
    for (uint32_t shard = 0; s->op && shard < s->conf.shards; shard++) {
        job *j = &s->op->jobs[shard];
        if (j->state == HAND_OVER) {
            j->state = IDLE;
        } else if (j->state != IDLE) {
            j->state = BRING_IN;
            j->change = 0;
        }
    }
}
