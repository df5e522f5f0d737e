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
  restart NODE  drain it if it runs, start it
  roll          restart every node, one after the other, each when all is green again
options: --edges N (2)  --routers N (2)  --shards N (1)  --replicas N (1)
         --data DIR (./data)  --port P (8080)  --no-build
A shard has as many stores as --replicas says: 1, 3 or 5. store1, store2 ... are dealt out shard by shard.
EOT
}

die() {
    echo "cluster.sh: $*" >&2
    exit 1
}

misuse() {
    echo "cluster.sh: $* (scripts/cluster.sh --help)" >&2
    exit 2
}

data=data edges='' routers='' shards='' replicas='' port='' build=yes
words=()
while [ $# -gt 0 ]; do
    case "$1" in
    --edges | --routers | --shards | --replicas | --data | --port)
        [ -n "${2:-}" ] || misuse "$1 wants a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
    --no-build) build=no; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) misuse "unknown option $1" ;;
    *) words+=("$1"); shift ;;
    esac
done
for number in "$edges" "$routers" "$shards" "$replicas" "$port"; do
    [[ $number =~ ^([1-9][0-9]{0,4})?$ ]] || misuse "'$number' is no number"
done
set -- "${words[@]:-}"
case "${1:-}" in
up | down | status | roll) [ $# -eq 1 ] || misuse "what is '$2'?" ;;
logs) [ $# -le 2 ] || misuse "what is '$3'?" ;;
kill | start | restart) [ $# -eq 2 ] || misuse "$1 wants one NODE" ;;
esac
parley=${PARLEY:-build/release/parley}
conf=$data/cluster.conf

nodes() { # of a role, or all: in the order they start
    local role
    for role in ${1:-store router edge}; do
        "$parley" config nodes "$conf" | awk -v r="$role" '$2 == r { print $1 }'
    done
}

shards_of_conf() {
    stores_by_shard | wc -l
}

stores_by_shard() { # how many each shard has, a line each
    "$parley" config nodes "$conf" | awk '$2 == "store" { n[$4]++ } END { for (s in n) print s, n[s] }' | sort -n | cut -d ' ' -f 2
}

replicas_of_conf() { # 3, or 3,3,1 where the shards differ
    if [ "$(stores_by_shard | sort -u | wc -l)" -eq 1 ]; then
        stores_by_shard | head -n 1
    else
        stores_by_shard | paste -sd ,
    fi
}

stores_in_words() {
    local n shards
    n=$(nodes store | wc -l) shards=$(shards_of_conf)
    if [ "$n" -eq 1 ]; then
        echo "1 store"
    else
        echo "$n stores ($shards $([ "$shards" -eq 1 ] && echo shard || echo shards) of $(replicas_of_conf | sed "s:,:, :g"))"
    fi
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

need_node() {
    local known
    known=$(nodes | tr '\n' ' ')
    [[ " $known" == *" $1 "* ]] || die "no node '$1' in $conf, only ${known% }"
}

start_node() {
    local node=$1 role
    role=$(role_of "$node")
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

port_taken() { # does anything listen there, as seen from this machine?
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

need_port() { # PORT FOR: dies when another process has it
    ! port_taken "$1" || die "port $1 (for $2) is taken by a process that is not of this cluster: stop it, or use --port P and --data DIR"
}

need_ports_of_plan() { # the ports `parley init` gives
    local base=$((port < 60000 ? port + 1000 : port - 1000)) stores=$((shards * replicas)) i
    need_port "$port" "the edges"
    for ((i = 1; i <= stores; i++)); do
        need_port $((base + i - 1)) "store$i"
    done
    for ((i = 1; i <= routers; i++)); do
        need_port $((base + stores + i - 1)) "router$i"
    done
}

need_ports_of_conf() { # of the nodes that are to start
    local node role endpoint edge_runs=no
    while read -r node role endpoint _; do
        if [ -n "$(pid_of "$node")" ]; then
            [ "$role" != edge ] || edge_runs=yes
        elif [[ $endpoint == tcp://* ]]; then
            need_port "${endpoint##*:}" "$node"
        fi
    done < <("$parley" config nodes "$conf")
    [ "$edge_runs" = yes ] || need_port "$port" "the edges"
}

need_same() { # OPTION GIVEN FOUND: an existing cluster keeps its size and port
    [ -z "$2" ] || [ "$2" = "$3" ] || die "$conf is there already with --$1 $3: leave --$1 out, or use another --data DIR"
}

wait_for_ring() { # until every router is in the ring, and every node knows it
    local end=$((SECONDS + 10)) state=''
    while [ "$SECONDS" -lt "$end" ]; do
        state=$("$parley" status --data "$data" || true)
        if awk -v want="$(nodes router | wc -l)" '
            function figure(name,  i) { for (i = 4; i < NF; i++) if ($i == name) return $(i + 1); return "" }
            $3 != "up" || (epoch != "" && figure("epoch") != epoch) { bad = 1 }
            { epoch = figure("epoch") }
            $2 == "store" && figure("routers") != want { bad = 1 }
            END { exit bad || NR == 0 }' <<<"$state"; then
            return 0
        fi
        sleep 0.2
    done
    echo "$state" >&2
    die "not every node knows a ring with all routers; the logs are in $data/log"
}

up() {
    if [ "$build" = yes ]; then
        scripts/deps.sh run
        make -s -j"$(nproc)"
    fi
    [ -x "$parley" ] || die "$parley is not built: run make"
    if [ ! -e "$conf" ]; then
        edges=${edges:-2} routers=${routers:-2} shards=${shards:-1} replicas=${replicas:-1} port=${port:-8080}
        need_ports_of_plan
        "$parley" init --data "$data" --edges "$edges" --routers "$routers" --shards "$shards" --replicas "$replicas" \
            --port "$port"
    else
        need_same edges "$edges" "$(nodes edge | wc -l)"
        need_same routers "$routers" "$(nodes router | wc -l)"
        need_same shards "$shards" "$(shards_of_conf)"
        need_same replicas "$replicas" "$(replicas_of_conf)"
        need_same port "$port" "$("$parley" config get "$conf" edge.port)"
        port=$("$parley" config get "$conf" edge.port)
        need_ports_of_conf
    fi
    local node
    for node in $(nodes); do
        start_node "$node"
    done
    if ! "$parley" wait --data "$data" --port "$port"; then
        tail -n 3 "$data"/log/*.log >&2
        die "no message came through; the logs are in $data/log"
    fi
    wait_for_ring
    local ann bob
    ann=$("$parley" token ann --name Ann --data "$data")
    bob=$("$parley" token bob --name Bob --data "$data")
    cat <<EOT
parley is up: $(nodes edge | wc -l) edges on port $port, $(nodes router | wc -l) routers, $(stores_in_words); data in $data

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
        need_node "$2"
        exec tail -n 50 -F "$data/log/$2.log"
    fi
    exec tail -n 10 -F "$data"/log/*.log
    ;;
kill)
    need_conf
    need_node "$2"
    pid=$(pid_of "$2")
    [ -n "$pid" ] || die "$2 does not run"
    kill -9 "$pid"
    ;;
start)
    need_conf
    need_node "$2"
    start_node "$2"
    ;;
restart)
    need_conf
    need_node "$2"
    stop_nodes "$2"
    start_node "$2"
    ;;
roll)
    need_conf
    printf -v again '%q ' env "PARLEY=$parley" scripts/cluster.sh restart --data "$data"
    "$parley" cluster roll --data "$data" --exec "$again {node}"
    ;;
'') usage >&2; exit 2 ;;
*) misuse "unknown command $1" ;;
esac
