#!/usr/bin/env bash
# The one test command: installs what the tests need, then `make check`. `scripts/check.sh long` runs `make check-long`.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
'') scripts/deps.sh test ;;
long) scripts/deps.sh long ;;
*)
    echo "usage: scripts/check.sh [long]" >&2
    exit 2
    ;;
esac
exec make check"${1:+-$1}"
