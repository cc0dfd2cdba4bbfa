#!/bin/bash
# Collect all that install-agent.sh --offline needs for a Pi (64-bit, Python 3.11), on a machine with internet.
#
#   deploy/collect-wheels.sh WHEELDIR        then copy this repository and WHEELDIR to the Pi
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ $# = 1 ] || { echo "collect-wheels: name the folder to fill, as in: deploy/collect-wheels.sh wheels" >&2; exit 2; }
mkdir -p "$1"
python3 -m pip download --quiet --require-hashes --only-binary :all: --no-deps --dest "$1" --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    -r "$HERE/requirements-agent-aarch64.txt"
python3 -m pip wheel --quiet --no-deps --wheel-dir "$1" "$HERE/.."
echo "$(find "$1" -name '*.whl' | wc -l) wheels in $1, $(du -sh "$1" | cut -f1)"
