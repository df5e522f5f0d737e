#!/usr/bin/env bash
# Format, static checks, layering, and the few facts that two files must agree on. Ends with one line per check that failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
failed=0

fail() {
    echo "lint: $*" >&2
    failed=$((failed + 1))
}

mapfile -t sources < <(git ls-files '*.c' '*.h')
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)

clang-format --dry-run --Werror "${sources[@]}" || fail "clang-format: run make format"
shellcheck "${scripts[@]}" || fail "shellcheck"

# Programs never include each other: mesh/ and proto/ are what they share. client/ may start the roles (serve.h), make
# tokens, salvage, back up and restore.
layer() { # layer FOLDER 'allowed include prefixes'
    local hits
    hits=$(git grep -nE '^#include "[a-z]+/' -- "$1/*.c" "$1/*.h" | grep -vE "#include \"($2)" || true)
    [ -z "$hits" ] || fail "layering: $1 includes what it must not:"$'\n'"$hits"
}
layer mesh 'mesh/'
layer edge 'edge/|mesh/'
layer router 'router/|mesh/'
layer store 'store/|mesh/'
layer client 'client/|mesh/|edge/(serve|token)\.h|router/serve\.h|store/(serve|salvage|backup|restore|fetch)\.h'

# One door per library.
door() { # door 'include pattern' 'files allowed'
    local hits
    hits=$(git grep -lE "^#include <($1)" -- '*.c' '*.h' | grep -vE "^($2)$|^tests/" || true)
    [ -z "$hits" ] || fail "door: <$1> is included in: $hits"
}
door 'leveldb/' 'store/kv[a-z_]*\.[ch]'
door 'raft' 'store/consensus[a-z_]*\.[ch]'
door 'libwebsockets' 'edge/(listener|ws|http)[a-z_]*\.[ch]|edge/serve\.c|client/socket[a-z_]*\.[ch]'
door 'protobuf-c' 'mesh/wire[a-z_]*\.[ch]|mesh/arena\.[ch]|edge/(codec|json)[a-z_]*\.[ch]'
door 'jansson' 'edge/(codec|json)[a-z_]*\.[ch]'
door 'jwt' 'edge/token\.[ch]'
door 'zmq|czmq' 'mesh/[a-z_]+\.[ch]|router/[a-z_]+\.[ch]|edge/[a-z_]+\.[ch]|store/[a-z_]+\.[ch]|client/[a-z_]+\.[ch]'

# Clocks are read in one place.
hits=$(git grep -nE '\b(clock_gettime|gettimeofday|time\(NULL\)|zclock_)' -- '*.c' | grep -vE '^(mesh/clock\.c|tests/)' || true)
[ -z "$hits" ] || fail "clock: read outside mesh/clock.c:"$'\n'"$hits"

# Every error a client can get is documented, with its code.
while read -r code name; do
    grep -qE "^\| *$code *\| *\`$name\`" docs/protocol.md || fail "docs/protocol.md lacks error $code $name"
done < <(sed -nE 's/.*\{ *FAULT_[A-Z_]+, *"([a-z_]+)".*/\1/p' mesh/fault.c | while read -r name; do
    upper=$(echo "$name" | tr '[:lower:]' '[:upper:]')
    code=$(sed -nE "s/^ *FAULT_$upper = ([0-9]+).*/\1/p" mesh/fault.h)
    [ -n "$code" ] && [ "$code" -gt 0 ] && [ "$code" -lt 500 ] && echo "$code $name"
done)

# Every row of the table of bad input names tests that exist.
rows=$(sed -n '/^## Bad input$/,/^## Bad input between/p' docs/protocol.md | grep -E '^\| [^-]' | tail -n +2)
while IFS= read -r row; do
    # shellcheck disable=SC2016 # backticks of the table
    named=$(grep -oE '`[a-z_.]+\.(c|mjs)`: `[^`]+`' <<<"$row" || true)
    [ -n "$named" ] || fail "docs/protocol.md: no test in: $row"
    while IFS='`' read -r _ file _ name _; do
        grep -qF -- "$name" tests/{unit,live}/"$file" 2>/dev/null || fail "docs/protocol.md: $file has no test \"$name\""
    done <<<"$named"
done <<<"$rows"
[ "$(wc -l <<<"$rows")" -ge 20 ] || fail "docs/protocol.md: the table of bad input is not found"

if [ "${1:-}" != fast ]; then
    cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,portability --suppress=missingIncludeSystem \
        --suppress=syntaxError:edge/session.h -I. -j "$(nproc)" edge router store mesh client || fail "cppcheck"
fi

if [ "$failed" -gt 0 ]; then
    echo "lint: $failed failed" >&2
    exit 1
fi
echo "lint: clean"
