#!/usr/bin/env bash
# The one test command: installs what the tests need, then `make check`. `scripts/check.sh long` runs `make check-long`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh test
exec make check"${1:+-$1}"
