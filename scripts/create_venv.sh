#!/usr/bin/env bash
# Create the virtual environment DIR with a Python this package supports. One that exists is kept.
set -euo pipefail
dir=${1:?usage: create_venv.sh DIR}
here=$(dirname "$0")

[ -x "$dir/bin/pip" ] && exit 0

for python in python3.11 python3.12 python3.13 python3; do
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "error: no Python 3.11, 3.12 or 3.13 found; on Debian 12: apt-get install python3.11 python3.11-venv" >&2
    exit 1
fi

# Debian ships venv without ensurepip unless pythonX.Y-venv is installed.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    "$here/debian_packages.sh" "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
fi
"$python" -m venv --clear "$dir"
