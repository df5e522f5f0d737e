#!/usr/bin/env bash
# Installs what parley needs, with apt, asking nothing: `deps.sh` (or `deps.sh run`) to build and run it, `deps.sh test` also
# what the tests and lint need, `deps.sh long` also what check-long does. Debian 12. Does nothing, and needs no
# root, when everything is there already.
set -euo pipefail

run_packages=(
    gcc make pkg-config                       # build
    libczmq-dev libzmq3-dev                   # node links
    libwebsockets-dev libwebsockets-evlib-uv  # clients
    libuv1-dev                                # event loop
    libleveldb-dev                            # storage
    libraft-dev                               # consensus
    libprotobuf-c-dev protobuf-c-compiler     # wire format
    libjansson-dev                            # JSON in
    libjwt-dev libsodium-dev                  # tokens, hashes
    ca-certificates curl                      # waiting for the page, status
)
test_packages=(
    libcmocka-dev                              # unit tests
    clang clang-format clang-tidy cppcheck shellcheck libclang-rt-dev # lint, fuzzing
    chromium                                   # browser tests
    procps strace iproute2                     # live tests
)
raft_version=0.22.1
backports_list=/etc/apt/sources.list.d/parley-backports.list
backports_pin=/etc/apt/preferences.d/parley-backports

case "${1:-run}" in
run | test | long) ;;
*)
    echo "usage: scripts/deps.sh [run|test|long]" >&2
    exit 2
    ;;
esac
[ $# -le 1 ] || {
    echo "deps.sh: one word at most: run, test or long" >&2
    exit 2
}

installed() {
    dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

# Debian 12 has libraft 0.15, which can lose acknowledged writes. Its backports have the one version parley is checked
# against; the mirror is the one this machine's apt already uses, and nothing else is taken from there.
enable_backports() {
    local uri
    # shellcheck disable=SC2016 # apt's own placeholders
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
        awk '$2 == "bookworm" { print $1; exit }')
    [ -n "$uri" ] || return 1
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    printf 'deb [signed-by=%s] %s bookworm-backports main\n' "$keyring" "$uri" |
        as_root tee "$backports_list" >/dev/null
    printf 'Package: *\nPin: release n=bookworm-backports\nPin-Priority: 1\n' |
        as_root tee "$backports_pin" >/dev/null
    apt_get update || true
}

disable_backports() {
    as_root rm -f "$backports_list" "$backports_pin"
    apt_get update || true
}

raft_candidate() { # prints where a fitting libraft-dev can come from: main, backports, or nothing
    apt-cache madison libraft-dev 2>/dev/null | awk -F'|' -v v="$raft_version" '
        { gsub(/ /, "", $2) } index($2, v) == 1 { print ($2 ~ /bpo/) ? "backports" : "main"; exit }'
}

install_raft() {
    local from
    from=$(raft_candidate)
    if [ -z "$from" ]; then
        enable_backports || true
        from=$(raft_candidate)
        [ -n "$from" ] || disable_backports
    fi
    case "$from" in
    main) apt_get install libraft-dev ;;
    backports) apt_get install -t bookworm-backports libraft-dev ;;
    *)
        echo "deps.sh: this machine's apt offers no libraft-dev $raft_version: enable bookworm-backports (Debian 12) or use Debian 13" >&2
        exit 1
        ;;
    esac
}

want=("${run_packages[@]}")
if [ "${1:-run}" != run ]; then
    want+=("${test_packages[@]}")
    [ "$1" = test ] || want+=(valgrind)
    command -v node >/dev/null && command -v npm >/dev/null || want+=(nodejs npm)
fi

missing=()
for package in "${want[@]}"; do
    installed "$package" || missing+=("$package")
done
if installed libraft-dev && ! dpkg-query -W -f '${Version}' libraft-dev | grep -q "^$raft_version"; then
    missing+=(libraft-dev)
fi
[ "${#missing[@]}" -eq 0 ] && exit 0

echo "deps.sh: installing ${missing[*]}"
apt_get update
rest=()
for package in "${missing[@]}"; do
    if [ "$package" = libraft-dev ]; then
        install_raft
    else
        rest+=("$package")
    fi
done
[ "${#rest[@]}" -eq 0 ] || apt_get install "${rest[@]}"
