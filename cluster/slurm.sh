#!/usr/bin/env bash
# A sweep under Slurm: Ray on every node of the job, the sweep on the first one. From a folder that all nodes see, with
# this package installed there in .venv, and MinAtar (GPL-3.0) for the returns of its games:
#   python3.11 -m venv .venv && .venv/bin/pip install --constraint constraints.txt '.[minatar]'
#   sbatch --nodes=4 cluster/slurm.sh --dataset embedded:breakout-replay --gpus 0.5 --out runs/breakout
# A job that ran out of time goes on when the same line is submitted again.
#SBATCH --job-name=dr3-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%j.log
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this script with sbatch}"
PATH=${DR3_RAY_BIN:-$SLURM_SUBMIT_DIR/.venv/bin}:$PATH
export OMP_NUM_THREADS=1

# A secret and a port of this job's own: other people's Ray may run on the same nodes.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
port=$((20000 + SLURM_JOB_ID % 10000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
if ! ip=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }'); then
    echo "error: no address of $head is known" >&2
    exit 1
fi
address=$ip:$port
folder=/tmp/ray-$SLURM_JOB_ID
resources=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# Every step ends with the job; --block keeps Ray in it.
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
    ray start --block --head --node-ip-address="$ip" --port="$port" --temp-dir="$folder" \
    --include-dashboard=false "${resources[@]}" &
first=$!
until ray status --address="$address" &>/dev/null; do
    kill -0 "$first" # or Ray did not start, and its own words are in the log
    sleep 1
done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --overlap --exclude="$head" \
        ray start --block --address="$address" "${resources[@]}" &
fi

# Slurm announces the end of the job's time with SIGTERM, which stops the sweep as Ctrl-C does.
RAY_ADDRESS=$address dr3-ray sweep --nodes "$SLURM_JOB_NUM_NODES" "$@" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
code=0
wait "$sweep" || code=$?
# the signal ends the first wait; the sweep still writes what it has
if kill -0 "$sweep" 2>/dev/null; then code=0 && wait "$sweep" || code=$?; fi
exit "$code"
