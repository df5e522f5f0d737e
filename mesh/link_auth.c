/* mesh/link_auth.c: the ZeroMQ context and its ZAP handler (ZeroMQ RFC 27): one thread that answers "who is this key?".
 *
 * libzmq lets every key in when nobody asks (no handler, no domain, no enforcement), so each listener goes through
 * mesh_link_auth_guard, and setup proves the whole chain once with a key made up on the spot: it must be refused, or
 * nothing starts. The answer's User-Id is the node name the key belongs to; mesh/link.c holds every frame against it.
 */
#include "mesh/link_auth.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/log.h"

#define RAW_KEY 32
#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_PARTS 7 /* version, request, domain, address, identity, mechanism, key */
#define MAX_SOCKETS 4096
#define SELF_TEST_MS 5000

typedef struct known_key {
    uint8_t key[RAW_KEY];
    char name[MESH_NODE_NAME_MAX + 1];
} known_key;

/* ZeroMQ allows one handler per context, and inproc needs one context per process. */
static struct {
    pthread_mutex_t lock;
    void *context;
    pthread_t thread;
    bool running;
    char keys_dir[PATH_MAX];
    char node[MESH_NODE_NAME_MAX + 1]; /* whose keys these are; written before the thread starts, as the next two */
    known_key *known;
    size_t n_known;
    atomic_uint_fast64_t refused;
    uint8_t stranger[RAW_KEY]; /* the self-test's: its refusal is wanted, and nobody's news */
    atomic_bool stranger_set;
} auth = { .lock = PTHREAD_MUTEX_INITIALIZER };

void *mesh_link_auth_context(void)
{
    pthread_mutex_lock(&auth.lock);
    if (auth.context == NULL) {
        auth.context = zmq_ctx_new();
        assert(auth.context != NULL);
        zmq_ctx_set(auth.context, ZMQ_MAX_SOCKETS, MAX_SOCKETS);
        zmq_ctx_set(auth.context, ZMQ_IO_THREADS, 1);
    }
    void *context = auth.context;
    pthread_mutex_unlock(&auth.lock);
    return context;
}

uint64_t mesh_link_auth_refused(void)
{
    return atomic_load(&auth.refused);
}

/* ---- the handler ---- */

static const char *name_of(const uint8_t *key)
{
    for (size_t i = 0; i < auth.n_known; i++) {
        if (memcmp(auth.known[i].key, key, RAW_KEY) == 0) {
            return auth.known[i].name;
        }
    }
    return NULL;
}

static bool is_stranger(const uint8_t *key)
{
    return atomic_load(&auth.stranger_set) && memcmp(auth.stranger, key, RAW_KEY) == 0;
}

static void zap_reply(void *socket, zmq_msg_t *request_id, const char *status, const char *text, const char *user)
{
    zmq_send(socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(socket, zmq_msg_data(request_id), zmq_msg_size(request_id), ZMQ_SNDMORE);
    zmq_send(socket, status, 3, ZMQ_SNDMORE);
    zmq_send(socket, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
}

static bool part_is(zmq_msg_t *part, const char *text)
{
    return zmq_msg_size(part) == strlen(text) && memcmp(zmq_msg_data(part), text, strlen(text)) == 0;
}

static void zap_answer(void *socket, zmq_msg_t parts[ZAP_PARTS], size_t n)
{
    const char *user = NULL;
    bool wanted = false;
    if (n == ZAP_PARTS && part_is(&parts[0], "1.0") && part_is(&parts[2], MESH_LINK_ZAP_DOMAIN) &&
        part_is(&parts[5], "CURVE") && zmq_msg_size(&parts[6]) == RAW_KEY) {
        user = name_of(zmq_msg_data(&parts[6]));
        wanted = is_stranger(zmq_msg_data(&parts[6]));
    }
    if (user != NULL) {
        zap_reply(socket, &parts[1], "200", "OK", user);
        return;
    }
    if (!wanted) {
        mesh_log(MESH_WARN, "link_key_refused", "address=%.*s", n > 3 ? (int)zmq_msg_size(&parts[3]) : 0,
                 n > 3 ? (const char *)zmq_msg_data(&parts[3]) : "");
        atomic_fetch_add(&auth.refused, 1); /* last: who sees it counted finds the line written */
    }
    zap_reply(socket, &parts[1], "400", "Unknown key", "");
}

/* False: the context is going away. */
static bool zap_receive(void *socket, zmq_msg_t parts[ZAP_PARTS], size_t *n_p)
{
    size_t n = 0;
    zmq_msg_t spill;
    zmq_msg_init(&spill);
    bool more = true;
    bool ok = true;
    while (more && ok) {
        zmq_msg_t *part = n < ZAP_PARTS ? &parts[n] : &spill;
        if (zmq_msg_recv(part, socket, 0) >= 0) {
            more = zmq_msg_more(part) != 0;
            n++;
        } else {
            ok = zmq_errno() == EINTR;
        }
    }
    zmq_msg_close(&spill);
    *n_p = n;
    return ok;
}

static void *zap_run(void *arg)
{
    void *socket = arg;
    bool running = true;
    mesh_log_node_set(auth.node);
    while (running) {
        zmq_msg_t parts[ZAP_PARTS];
        for (size_t i = 0; i < ZAP_PARTS; i++) {
            zmq_msg_init(&parts[i]);
        }
        size_t n;
        running = zap_receive(socket, parts, &n);
        if (running) {
            zap_answer(socket, parts, n);
        }
        for (size_t i = 0; i < ZAP_PARTS; i++) {
            zmq_msg_close(&parts[i]);
        }
    }
    zmq_close(socket);
    return NULL;
}

/* ---- guarding a listener, and proving that the guard works ---- */

void mesh_link_auth_guard(void *socket, const mesh_link_keys *keys)
{
    const int on = 1;
    int rc = zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on);
    assert(rc == 0);
    rc = zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, MESH_LINK_KEY_SIZE);
    assert(rc == 0);
    rc = zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, MESH_LINK_ZAP_DOMAIN, strlen(MESH_LINK_ZAP_DOMAIN));
    assert(rc == 0);
    rc = zmq_setsockopt(socket, MESH_LINK_ZAP_ENFORCE_DOMAIN, &on, sizeof on);
    assert(rc == 0);
}

/* The next handshake event of a monitored socket: true only for "the key was refused". */
static bool monitor_says_refused(void *monitor)
{
    const int limit = SELF_TEST_MS;
    zmq_setsockopt(monitor, ZMQ_RCVTIMEO, &limit, sizeof limit);
    uint8_t event[6] = { 0 };
    int n;
    do {
        n = zmq_recv(monitor, event, sizeof event, 0);
    } while (n < 0 && zmq_errno() == EINTR);
    uint16_t kind;
    memcpy(&kind, event, sizeof kind);
    return n == (int)sizeof event && kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
}

static bool stranger_is_refused(void *server, void *stranger, void *monitor)
{
    mesh_link_keys ours;
    mesh_link_keys theirs;
    if (zmq_curve_keypair(ours.public_key, ours.secret_key) != 0 ||
        zmq_curve_keypair(theirs.public_key, theirs.secret_key) != 0) {
        return false;
    }
    bool decoded = zmq_z85_decode(auth.stranger, theirs.public_key) != NULL;
    assert(decoded);
    atomic_store(&auth.stranger_set, true);
    mesh_link_auth_guard(server, &ours);
    zmq_setsockopt(stranger, ZMQ_CURVE_SERVERKEY, ours.public_key, MESH_LINK_KEY_SIZE);
    zmq_setsockopt(stranger, ZMQ_CURVE_PUBLICKEY, theirs.public_key, MESH_LINK_KEY_SIZE);
    zmq_setsockopt(stranger, ZMQ_CURVE_SECRETKEY, theirs.secret_key, MESH_LINK_KEY_SIZE);
    char endpoint[64];
    size_t size = sizeof endpoint;
    return zmq_socket_monitor(server, "inproc://parley.self-test",
                              ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                                  ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL) == 0 &&
           zmq_connect(monitor, "inproc://parley.self-test") == 0 && zmq_bind(server, "tcp://127.0.0.1:*") == 0 &&
           zmq_getsockopt(server, ZMQ_LAST_ENDPOINT, endpoint, &size) == 0 && zmq_connect(stranger, endpoint) == 0 &&
           monitor_says_refused(monitor);
}

static mesh_err self_test(void *context)
{
    void *server = zmq_socket(context, ZMQ_ROUTER);
    void *stranger = zmq_socket(context, ZMQ_DEALER);
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    assert(server != NULL && stranger != NULL && monitor != NULL);
    const int none = 0;
    zmq_setsockopt(stranger, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(server, ZMQ_LINGER, &none, sizeof none);

    bool ok = stranger_is_refused(server, stranger, monitor);
    zmq_close(stranger);
    zmq_socket_monitor(server, NULL, 0);
    zmq_close(server);
    zmq_close(monitor);
    if (!ok) {
        mesh_log(MESH_ERROR, "link_self_test_failed", "reason=%s", "a key nobody knows was not refused");
        return MESH_DENIED;
    }
    return MESH_OK;
}

/* ---- setup ---- */

static void learn_keys(const mesh_conf *conf)
{
    size_t n = mesh_conf_nodes(conf);
    auth.known = mesh_alloc((n + 1) * sizeof *auth.known);
    auth.n_known = 0;
    for (size_t i = 0; i < n; i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        known_key *known = &auth.known[auth.n_known];
        if (strlen(node->public_key) == MESH_LINK_KEY_SIZE - 1 &&
            zmq_z85_decode(known->key, node->public_key) != NULL) {
            memcpy(known->name, node->name, sizeof known->name);
            auth.n_known++;
        }
    }
}

static bool have_a_key(const mesh_conf *conf, const char *keys_dir)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s.key", keys_dir, mesh_conf_node(conf, (mesh_peer)i)->name);
        if (n > 0 && n < PATH_MAX && access(path, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

mesh_err mesh_link_setup(const mesh_conf *conf, const char *keys_dir)
{
    assert(!auth.running);
    if (strlen(keys_dir) >= sizeof auth.keys_dir || !have_a_key(conf, keys_dir)) {
        mesh_log(MESH_ERROR, "no_key", "dir=%s", keys_dir);
        return MESH_IO;
    }
    memcpy(auth.keys_dir, keys_dir, strlen(keys_dir) + 1);
    (void)snprintf(auth.node, sizeof auth.node, "%s", mesh_log_node());
    atomic_store(&auth.stranger_set, false);
    learn_keys(conf);
    void *context = mesh_link_auth_context();
    void *handler = zmq_socket(context, ZMQ_REP);
    assert(handler != NULL);
    const int none = 0;
    zmq_setsockopt(handler, ZMQ_LINGER, &none, sizeof none);
    int rc = zmq_bind(handler, ZAP_ENDPOINT);
    assert(rc == 0);
    rc = pthread_create(&auth.thread, NULL, zap_run, handler);
    assert(rc == 0);
    auth.running = true;
    mesh_err err = self_test(context);
    if (err != MESH_OK) {
        mesh_link_teardown();
    }
    return err;
}

void mesh_link_teardown(void)
{
    if (auth.context != NULL) {
        zmq_ctx_shutdown(auth.context);
        if (auth.running) {
            pthread_join(auth.thread, NULL);
        }
        while (zmq_ctx_term(auth.context) != 0 && zmq_errno() == EINTR) {
        }
    }
    auth.context = NULL;
    auth.running = false;
    free(auth.known);
    auth.known = NULL;
    auth.n_known = 0;
}

mesh_err mesh_link_auth_own(const mesh_node_conf *node, mesh_link_keys *keys)
{
    if (!auth.running) {
        mesh_log(MESH_ERROR, "no_key", "node=%s reason=%s", node->name, "no key directory was set up");
        return MESH_IO;
    }
    mesh_err err = mesh_link_keys_read(auth.keys_dir, node->name, keys);
    if (err == MESH_OK && strcmp(keys->public_key, node->public_key) != 0) {
        mesh_log(MESH_ERROR, "key_refused", "node=%s reason=%s", node->name, "not the pair of the config's public key");
        err = MESH_IO;
    }
    return err;
}
