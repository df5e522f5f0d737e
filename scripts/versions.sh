#!/usr/bin/env bash
# Builds other versions of parley, for the tests that run two versions together. The shipped source knows nothing of them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

usage() {
    cat <<'EOF'
usage: scripts/versions.sh VERSION [BUILD_DIR]      prints the path of its binary; builds it if it is not there
  previous   the commit or tag named in tests/live/previous, built as release
of this source, with other numbers, built in the mode of BUILD_DIR (build/asan), from a copy of its objects:
  later      the release after this one: link versions this one and the next, group level one higher
  apart      two releases on: link versions this one does not speak, rows of a later format
  narrow     in the place of an older release: a store that does not know one kind of log entry (profile)
Exit status 3: this clone does not have the previous version's commit (a shallow clone, an archive).
EOF
}

die() {
    echo "versions.sh: $*" >&2
    exit 1
}

number() { # FILE NAME: of a #define
    sed -nE "s/^#define $2 ([0-9]+)\b.*/\1/p" "$1" | grep . || die "$1 has no number $2"
}

define() { # FILE NAME VALUE
    grep -qE "^#define $2 " "$1" || die "$1 has no #define $2"
    sed -i -E "s|^#define $2 .*|#define $2 $3|" "$1"
}

build() { # MODE: in the directory of the source; says nothing when all is well
    make -s -j"$(nproc)" MODE="$1" all >make.log 2>&1 || {
        cat make.log >&2
        die "the build in $PWD failed"
    }
}

previous() {
    local named commit dir short
    named=$(awk '!/^#/ && NF { print $1; exit }' tests/live/previous)
    [ -n "$named" ] || die "tests/live/previous names no commit"
    if ! commit=$(git rev-parse -q --verify "$named^{commit}" 2>/dev/null); then
        echo "versions.sh: this clone does not have the previous version, $named: git fetch --unshallow --tags" >&2
        exit 3
    fi
    short=${commit:0:12}
    dir=$root/build/versions/previous-$short
    if [ ! -e "$dir/built" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        git archive "$commit" | tar -x -C "$dir"
        cd "$dir"
        sed -i -E "s/^(#define MESH_VERSION \"[^\"+]*)\"/\1+$short\"/" mesh/version.h # status is to tell them apart
        build release
        touch built
    fi
    echo "$dir/build/release/parley"
}

# A copy of this tree and its objects, so that only what depends on the numbers is compiled.
variant() { # NAME BUILD_DIR
    local mode dir sum wire
    mode=$(basename "$2")
    dir=$root/build/versions/$1-$mode
    sum=$(find Makefile scripts/versions.sh client edge mesh proto router store -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    if [ -e "$dir/built" ] && [ "$(<"$dir/built")" = "$sum" ]; then
        echo "$dir/build/$mode/parley"
        return
    fi
    rm -rf "$dir"
    mkdir -p "$dir/build/$mode"
    cp -a Makefile client edge mesh proto router store "$dir/"
    if [ -d "build/$mode" ]; then
        tar -C "build/$mode" --exclude=./tests --exclude=./log --exclude=./parley -cf - . | tar -C "$dir/build/$mode" -xf -
    fi
    cd "$dir"
    wire=$(number mesh/link_priv.h LINK_VERSION)
    case "$1" in
    later)
        define mesh/link_priv.h LINK_VERSION $((wire + 1))
        define mesh/link_priv.h LINK_VERSION_MIN "$wire"
        define store/group.h STORE_GROUP_LEVEL $(($(number store/group.h STORE_GROUP_LEVEL) + 1))
        ;;
    apart)
        define mesh/link_priv.h LINK_VERSION $((wire + 2))
        define mesh/link_priv.h LINK_VERSION_MIN $((wire + 1))
        define store/consensus_log.h STORE_FORMAT $(($(number store/consensus_log.h STORE_FORMAT) + 1))
        ;;
    narrow)
        grep -q 'case MESH__MSG__BODY_PROFILE:$' store/fsm.c || die "store/fsm.c has no kind profile"
        sed -i '/^static store_fsm_handler \*handler_of/,/^}/{/case MESH__MSG__BODY_PROFILE:/,+1d}' store/fsm.c
        ;;
    esac
    define mesh/version.h MESH_VERSION "\"$1\""
    build "$mode"
    echo "$sum" >built
    echo "$dir/build/$mode/parley"
}

case "${1:-}" in
previous) previous ;;
later | apart | narrow) variant "$1" "${2:-build/asan}" ;;
-h | --help) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
