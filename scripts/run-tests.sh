#!/usr/bin/env bash
# Runs what `make check` built and closes with one line: N passed, N failed. What this machine does not allow is skipped, and
# said above that line.
# usage: run-tests.sh BUILD_DIR STAGE…      stages: lint unit story random live live-long web fuzz valgrind
# UNIT_SKIP names unit tests to leave out; RANDOM_SECONDS (110) or RANDOM_SEEDS (so many, however long it takes), RANDOM_FIRST
# (from the clock), RANDOM_SHARDS and RANDOM_REPLICAS (the seed chooses) steer the random stage.
# LIVE_JOBS (2) files of the live stage run at a time. The output of each test is in BUILD_DIR/log.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
build=$1
shift
mkdir -p "$build/log"
passed=0 failed=0 skipped=()
cores=(edge_codec edge_core edge_http edge_push edge_request edge_request_answer edge_request_bad edge_token mesh_base
    mesh_conf mesh_ring mesh_wire router_core store_core store_omap client_irc client_partial client_session)
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=0:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
PARLEY=$(realpath "$build/parley")
export PARLEY
count() { # count PASSED FAILED
    passed=$((passed + $1))
    failed=$((failed + $2))
}

show_failure() { # of NAME LOG
    echo "--- $1 failed; the end of $2:"
    tail -n 60 "$2"
}

run_one() { # NAME SECONDS COMMAND…: the command is one test
    local name=$1 limit=$2 log=$build/log/$1.log
    shift 2
    if timeout "$limit" "$@" >"$log" 2>&1; then
        count 1 0
        tail -n 1 "$log"
    else
        count 0 1
        show_failure "$name" "$log"
    fi
}

# Programs of unit, story and valgrind run TEST_JOBS at a time and are told of in their order.
jobs_max=${TEST_JOBS:-2} jobs_now=0
declare -A ended=() # exit status by process
waiting=()          # "process name" of what was started and not told of, in order
trap 'kill $(jobs -p) 2>/dev/null' EXIT

run_cmocka() { # NAME SECONDS COMMAND…: as many tests as it says; told of when all before it have been
    local name=$1 limit=$2
    shift 2
    while [ "$jobs_now" -ge "$jobs_max" ]; do
        wait_cmocka
    done
    timeout "$limit" "$@" >"$build/log/$name.log" 2>&1 &
    waiting+=("$! $name")
    jobs_now=$((jobs_now + 1))
}

wait_cmocka() { # for one of those that run
    local pid status
    wait -n -p pid
    status=$?
    ended[$pid]=$status
    jobs_now=$((jobs_now - 1))
    while [ ${#waiting[@]} -gt 0 ] && [ -n "${ended[${waiting[0]% *}]:-}" ]; do
        tell_cmocka "${waiting[0]#* }" "${ended[${waiting[0]% *}]}"
        waiting=("${waiting[@]:1}")
    done
}

finish_cmocka() {
    while [ "$jobs_now" -gt 0 ]; do
        wait_cmocka
    done
    ended=()
}

tell_cmocka() { # NAME STATUS
    local name=$1 status=$2 log=$build/log/$1.log ok bad
    ok=$(grep -c '^\[       OK \]' "$log")
    if [ "$status" -eq 0 ] && [ "$ok" -gt 0 ]; then
        count "$ok" 0
        echo "  $name: $ok passed"
    else
        bad=$(grep -c '^\[  FAILED  \] [a-z_0-9]*$' "$log")
        count "$ok" "$((bad > 0 ? bad : 1))"
        show_failure "$name" "$log"
    fi
}

run_node() { # DIRECTORY [SECONDS [FILES]]: node's own test runner, so many files at a time (1)
    local name=$1 log=$build/log/${1//\//-}.log
    timeout "${2:-600}" node --test --test-concurrency="${3:-1}" "tests/$1"/*.test.mjs >"$log" 2>&1
    local status=$? ok bad left why
    mapfile -t left < <(sed -nE 's/^ *ok [0-9]+ - (.*) # SKIP (.*)$/\1: \2/p; s/^﹣ (.*) \([0-9.]+ms\) # (.*)$/\1: \2/p' "$log")
    for why in "${left[@]}"; do
        skipped+=("$1: $why")
    done
    ok=$(sed -nE 's/^(# |ℹ )pass ([0-9]+)$/\2/p' "$log" | tail -n 1)
    bad=$(sed -nE 's/^(# |ℹ )fail ([0-9]+)$/\2/p' "$log" | tail -n 1)
    if [ "$status" -eq 0 ] && [ "${ok:-0}" -gt 0 ]; then
        count "$ok" 0
        echo "  $name: $ok passed"
    else
        count "${ok:-0}" "$((${bad:-0} > 0 ? bad : 1))"
        show_failure "$name" "$log"
    fi
}

run_random() { # both cores, different seeds
    local first=${RANDOM_FIRST:-$(($(date +%s) % 1000000 * 1000))} seeds=${RANDOM_SEEDS:-} i pids=() what=()
    if [ -n "$seeds" ]; then
        what=(--seeds $(((seeds + 1) / 2)))
    else
        what=(--seeds 100000000 --seconds "${RANDOM_SECONDS:-110}")
    fi
    what+=(${RANDOM_SHARDS:+--shards "$RANDOM_SHARDS"} ${RANDOM_REPLICAS:+--replicas "$RANDOM_REPLICAS"})
    echo "  random: seeds from $first and $((first + 500000000)), ${what[*]}"
    for i in 0 1; do
        "$build/tests/random/random" --first "$((first + i * 500000000))" "${what[@]}" >"$build/log/random$i.log" 2>&1 &
        pids+=($!)
    done
    for i in 0 1; do
        if wait "${pids[$i]}"; then
            count 1 0
            tail -n 5 "$build/log/random$i.log"
        else
            count 0 1
            show_failure "random$i" "$build/log/random$i.log"
        fi
    done
}

for stage in "$@"; do
    start=$(date +%s)
    echo "== $stage"
    case "$stage" in
    lint) run_one lint 300 scripts/lint.sh ;;
    unit | story)
        for t in tests/"$stage"/test_*.c; do
            t=${t%.c}
            [[ " ${UNIT_SKIP:-} " != *" ${t##*/} "* ]] || continue
            run_cmocka "${t##*/}" 120 "$build/$t"
        done
        finish_cmocka
        ;;
    valgrind) # of the cores: what runs threads, children or the clock is not for it
        for t in "${cores[@]}"; do
            run_cmocka "valgrind-$t" 600 valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
                "$build/tests/unit/test_$t"
        done
        finish_cmocka
        ;;
    random) run_random ;;
    live) run_node live 600 "${LIVE_JOBS:-2}" ;;
    live-long) run_node live/long 1800 ;;
    web)
        (cd tests/web && { [ -d node_modules ] || npm ci --no-audit --no-fund --ignore-scripts >/dev/null; })
        run_node web
        ;;
    fuzz) run_one fuzz $((120 + ${FUZZ_SECONDS:-7} * 20)) make -s fuzz-run ;;
    *)
        echo "run-tests.sh: no stage $stage" >&2
        exit 2
        ;;
    esac
    echo "   ($(($(date +%s) - start)) s)"
done

for why in "${skipped[@]}"; do
    echo "skipped: $why"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
