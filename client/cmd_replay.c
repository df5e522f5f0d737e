#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/replay.h"
#include "edge/token.h"
#include "mesh/loop.h"
#include "mesh/rand.h"

#define FILES_MAX 64

typedef struct player {
    mesh_loop *loop;
    client_replay *replay;
    mesh_buf key;
} player;

static mesh_ms turn(void *arg, mesh_time now)
{
    player *p = arg;
    if (!p->replay) {
        return MESH_NEVER; /* the loop only turns to let go of things */
    }
    mesh_ms next = client_replay_turn(p->replay, now.mono);
    if (client_replay_done(p->replay) || mesh_loop_stopping()) {
        mesh_loop_stop(p->loop);
    }
    return next;
}

static char *token(void *arg, const char *user)
{
    player *p = arg;
    return edge_token_make(mesh_buf_slice(&p->key), user, NULL, NULL, mesh_clock_now().wall / 1000, 24 * 3600);
}

static bool add_file(player *p, const char *path, const char *expect)
{
    char why[300];
    client_irc_log log;
    mesh_err err = client_irc_load(path, &log, why, sizeof why);
    if (err == MESH_OK) {
        const char *slash = strrchr(path, '/');
        fprintf(stderr, "%s: %zu lines of %zu people, %zu renames, %zu other lines skipped\n", path, log.lines,
                log.n_users, log.renames, log.skipped);
        err = client_replay_add(p->replay, &log, slash ? slash + 1 : path, expect, why, sizeof why);
    }
    if (err != MESH_OK) {
        client_args_fail("%s: %s", path, why);
    }
    return err == MESH_OK;
}

static int report(const client_replay *replay, mesh_ms took)
{
    client_replay_result r = client_replay_result_get(replay);
    if (client_replay_trouble(replay)[0]) {
        fprintf(stderr, "parley: %s\n", client_replay_trouble(replay));
    }
    if (r.unsent || r.changed) {
        fprintf(stderr, "%llu lines not acked, %llu deliveries with other content\n", (unsigned long long)r.unsent,
                (unsigned long long)r.changed);
    }
    fprintf(stderr, "%.1f s, %.0f deliveries/s, %llu reconnects\n", (double)took / 1000,
            (double)r.deliveries * 1000 / (double)(took > 0 ? took : 1), (unsigned long long)r.reconnects);
    printf("replayed %llu lines, %llu deliveries, %llu missing, %llu doubled, %llu reordered\n",
           (unsigned long long)r.lines, (unsigned long long)r.deliveries, (unsigned long long)r.missing,
           (unsigned long long)r.doubled, (unsigned long long)r.reordered);
    return r.unsent || r.missing || r.doubled || r.reordered || r.changed ? 1 : 0;
}

static int play(player *p, client_replay_conf *conf, const char **files, int n_files, const char *expect)
{
    mesh_ms start = mesh_clock_now().mono;
    p->loop = mesh_loop_new(turn, p);
    int code = 1;
    if (client_socket_new(mesh_loop_uv(p->loop), 4096, &conf->socket) == MESH_OK) {
        p->replay = client_replay_new(conf, start);
        bool ok = true;
        for (int i = 0; i < n_files && ok; i++) {
            ok = add_file(p, files[i], expect);
        }
        if (ok) {
            mesh_loop_run(p->loop);
            code = report(p->replay, mesh_clock_now().mono - start);
        }
        client_replay_destroy(&p->replay);
        client_socket_destroy(&conf->socket);
    } else {
        client_args_fail("libwebsockets does not start");
    }
    mesh_loop_destroy(&p->loop);
    return code;
}

static bool load_key(player *p, const char *dir)
{
    char *path = client_data_path(dir, "token.key");
    bool ok = client_data_token_key(path, &p->key) == MESH_OK;
    if (!ok) {
        client_args_fail("%s is no token key", path);
    }
    free(path);
    return ok;
}

int client_cmd_replay(int argc, char **argv)
{
    const char *url = NULL, *port = NULL, *dir = "data", *speed = NULL, *seed = NULL, *expect = NULL, *cut = NULL,
               *patience = NULL;
    const client_option options[] = {
        { "url", "URL", "where to connect (ws://127.0.0.1:8080/v1/ws)", &url },
        { "port", "PORT", "the same on this machine", &port },
        { "data", "DIR", "the cluster's directory, with its token key (data)", &dir },
        { "speed", "N", "lines a second, 0 = as fast as acks come (0)", &speed },
        { "expect", "FILE", "check against this list (scripts/irc-list.mjs), with one log", &expect },
        { "seed", "N", "of the requests' ids (random)", &seed },
        { "cut-every", "N", "break a random device's connection after every N acks (0 = never)", &cut },
        { "patience", "SECONDS", "without progress for this long the rest is missing (60)", &patience },
        { NULL, NULL, NULL, NULL },
    };
    const char *files[FILES_MAX];
    const client_args args = { "parley replay FILE... [options]",
                               "Plays IRC logs as the people in them and checks every delivery at every device.",
                               options,
                               files,
                               1,
                               FILES_MAX };
    int code;
    int64_t n_speed, n_seed, n_cut, n_patience;
    client_replay_conf conf = { .token = token };
    int n = client_args_parse(&args, argc, argv, &code);
    if (n < 0) {
        return code;
    }
    if (!client_args_int("speed", speed, 0, 0, 1000000, &n_speed) ||
        !client_args_int("seed", seed, 0, 0, INT64_MAX, &n_seed) ||
        !client_args_int("cut-every", cut, 0, 0, 1000000, &n_cut) ||
        !client_args_int("patience", patience, 60, 1, 3600, &n_patience) ||
        !client_data_target(url, port, dir, &conf.url)) {
        return CLIENT_EXIT_USAGE;
    }
    if (expect && n != 1) {
        return client_args_fail("--expect goes with one log");
    }
    player p = { .loop = NULL };
    if (!load_key(&p, dir)) {
        return 1;
    }
    mesh_loop_signals();
    conf.arg = &p;
    conf.speed = (double)n_speed;
    conf.seed = seed ? (uint64_t)n_seed : mesh_rand_seed();
    conf.cut_every = (unsigned)n_cut;
    conf.patience = n_patience * 1000;
    code = play(&p, &conf, files, n, expect);
    mesh_buf_fini(&p.key);
    return code;
}
