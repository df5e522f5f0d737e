#!/usr/bin/env bash
# usage: tests/fuzz/run.sh BUILD SECONDS TARGET...
# Runs each fuzz target for SECONDS from its corpus, two at a time, with a fixed seed. What is found goes to BUILD/found.
set -u
build=$1 seconds=$2
shift 2
mkdir -p "$build/found" "$build/log"
export ASAN_OPTIONS=abort_on_error=0:symbolize=1 UBSAN_OPTIONS=print_stacktrace=1

one() {
    local work status
    work=$(mktemp -d)
    "$build/tests/fuzz/fuzz_$1" -seed=1 -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -max_len=8192 \
        -print_final_stats=1 -artifact_prefix="$build/found/$1-" "$work" "tests/fuzz/corpus/$1" >"$build/log/$1" 2>&1
    status=$?
    rm -rf "$work"
    if [ $status -ne 0 ]; then
        echo "fuzz: $1 failed, see $build/log/$1:"
        grep -m 12 -E 'ERROR|runtime error|Assertion|^ +#[0-9] |Test unit written' "$build/log/$1"
    fi
    return $status
}

failed=0 running=0
for target in "$@"; do
    one "$target" &
    running=$((running + 1))
    if [ $running -ge 2 ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
done
while [ $running -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
echo "fuzz: $# targets, $failed failed"
[ $failed -eq 0 ]
