#!/usr/bin/env bash
# Installs what speed.py compares with, each in an environment of its own: peers.sh DIR
# Checkouts that are in DIR already stay as they are.
set -euo pipefail
dir=${1:?"peers.sh DIR: where to install the peers"}
mkdir -p "$dir" && cd "$dir"
[ -d CORL ] || git clone --quiet https://github.com/tinkoff-ai/CORL CORL
[ -d JAX-CORL ] || git clone --quiet https://github.com/nissymori/JAX-CORL JAX-CORL
environment() {
    local name=$1
    shift
    [ -x "$name/bin/python" ] || python3.11 -m venv "$name"
    "$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}
environment jax "jax[cpu]" flax optax distrax omegaconf pydantic tqdm
environment d3rlpy torch==2.13.0 d3rlpy==2.8.1
