#!/usr/bin/env bash
# Runs a parley cluster on this machine, each node a process of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'EOT'
usage: scripts/cluster.sh COMMAND [options]
  up            install packages, build, make keys and config, start every node, wait for a real message
  down          stop every node (drained, in order)
  status        one line per node
  logs [NODE]   follow the logs of one node, or of all
  kill NODE     kill -9
  start NODE    start a node that is down
options: --edges N (2)  --routers N (2)  --data DIR (./data)  --port P (8080)  --no-build
EOT
}

data=data edges=2 routers=2 port=8080 build=yes
words=()
while [ $# -gt 0 ]; do
    case "$1" in
    --edges) edges=$2; shift 2 ;;
    --routers) routers=$2; shift 2 ;;
    --data) data=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    --no-build) build=no; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "cluster.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    *) words+=("$1"); shift ;;
    esac
done
set -- "${words[@]:-}"
parley=${PARLEY:-build/release/parley}
conf=$data/cluster.conf

die() {
    echo "cluster.sh: $*" >&2
    exit 1
}

nodes() { # of a role, or all: in the order they start
    local role
    for role in ${1:-store router edge}; do
        "$parley" config nodes "$conf" | awk -v r="$role" '$2 == r { print $1 }'
    done
}

role_of() {
    "$parley" config nodes "$conf" | awk -v n="$1" '$1 == n { print $2 }'
}

pid_of() { # of a node that runs; nothing otherwise
    local pid
    pid=$(cat "$data/run/$1.pid" 2>/dev/null) || return 0
    if [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "--node $1 "; then
        echo "$pid"
    fi
}

start_node() {
    local node=$1 role
    role=$(role_of "$node")
    [ -n "$role" ] || die "no node $node in $conf"
    [ -z "$(pid_of "$node")" ] || return 0
    mkdir -p "$data/run" "$data/log"
    ulimit -n "$(ulimit -Hn)"
    setsid nohup "$parley" "$role" --conf "$conf" --keys "$data/keys" --node "$node" --data "$data" \
        >>"$data/log/$node.log" 2>&1 </dev/null &
    echo $! >"$data/run/$node.pid"
}

stop_nodes() { # SIGTERM to all given, then wait
    local node pid pids=()
    for node in "$@"; do
        pid=$(pid_of "$node")
        [ -z "$pid" ] || { kill -TERM "$pid" && pids+=("$pid"); }
    done
    for pid in "${pids[@]:-}"; do
        [ -z "$pid" ] || timeout 40 tail --pid="$pid" -f /dev/null || kill -9 "$pid"
    done
}

up() {
    if [ "$build" = yes ]; then
        scripts/deps.sh run
        make -s -j"$(nproc)"
    fi
    if [ ! -e "$conf" ]; then
        "$parley" init --data "$data" --edges "$edges" --routers "$routers" --port "$port"
    else
        port=$("$parley" config get "$conf" edge.port)
    fi
    local node
    for node in $(nodes); do
        start_node "$node"
    done
    if ! "$parley" wait --data "$data" --port "$port"; then
        tail -n 3 "$data"/log/*.log >&2
        die "no message came through; the logs are in $data/log"
    fi
    local ann bob
    ann=$("$parley" token ann --name Ann --data "$data")
    bob=$("$parley" token bob --name Bob --data "$data")
    cat <<EOT
parley is up: $(nodes edge | wc -l) edges on port $port, $(nodes router | wc -l) routers, $(nodes store | wc -l) store; data in $data

  open  http://127.0.0.1:$port/

  ann   $ann
  bob   $bob

next:
  $parley chat --port $port --user ann --data $data
  $parley replay tests/data/ubuntu-irc/2004-12-25.train-c.txt --port $port --data $data
  scripts/cluster.sh kill $(nodes edge | head -n 1) --data $data    # and watch both clients carry on
EOT
}

need_conf() {
    [ -x "$parley" ] || die "$parley is not built: run make"
    [ -e "$conf" ] || die "no cluster in $data (scripts/cluster.sh up --data $data)"
}

case "${1:-}" in
up) up ;;
down)
    need_conf
    # shellcheck disable=SC2046
    {
        stop_nodes $(nodes edge)
        stop_nodes $(nodes router)
        stop_nodes $(nodes store)
    }
    ;;
status)
    need_conf
    "$parley" status --data "$data"
    ;;
logs)
    need_conf
    if [ -n "${2:-}" ]; then
        exec tail -n 50 -F "$data/log/$2.log"
    fi
    exec tail -n 10 -F "$data"/log/*.log
    ;;
kill)
    need_conf
    pid=$(pid_of "${2:?cluster.sh kill NODE}")
    [ -n "$pid" ] || die "$2 does not run"
    kill -9 "$pid"
    ;;
start)
    need_conf
    start_node "${2:?cluster.sh start NODE}"
    ;;
*) usage >&2; exit 2 ;;
esac
