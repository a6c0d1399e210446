#!/usr/bin/env bash
# Installs what speed.py and pack.py compare with, each in an environment of its own: peers.sh DIR
# Checkouts that are in DIR already stay as they are.
set -euo pipefail
dir=${1:?"peers.sh DIR: where to install the peers"}
mkdir -p "$dir" && cd "$dir"
checkout() {
    local name=$1 repository=$2 commit=$3
    [ -d "$name" ] && return
    git clone --quiet "https://github.com/$repository" "$name"
    git -C "$name" checkout --quiet "$commit"
}
environment() {
    local name=$1
    shift
    [ -x "$name/bin/python" ] || python3.11 -m venv "$name"
    "$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}
checkout CORL tinkoff-ai/CORL eeeeef2
checkout JAX-CORL nissymori/JAX-CORL d747dd8
checkout unifloral EmptyJackson/unifloral f2dc127
environment jax "jax[cpu]==0.10.2" flax==0.12.8 optax==0.2.8 distrax==0.1.9 omegaconf pydantic tqdm
environment d3rlpy torch==2.13.0 d3rlpy==2.8.1
