#!/usr/bin/env bash
# Install the wheel, without extras, into an empty environment outside the tree and use it from there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

make -C "$root" --no-print-directory wheel
"$root/.venv/bin/python" -m venv "$away/venv"
"$away/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --constraint "$root/constraints.txt" "$root"/dist/*.whl

cd "$away"
export PATH="$away/venv/bin:$PATH" OMP_NUM_THREADS=1
dr3-ray doctor
dr3-ray sweep --algorithm DR3-CQL --dataset embedded:breakout-replay \
    --coefficients 0,0.03 --seeds 1 --steps 200 --evaluations 2 --out "$away/run"
test -s "$away/run/histories.parquet"
test -s "$away/run/report/report.html"
