"""What comes beside gradient updates: imports, the command line, an RLlib run, a sweep, a trial of Ray Tune.

    python benchmarks/startup.py [--turns 5] [--trials 6] [--json FILE]

Every line but the last two is a process of its own, from its start to its end; all but the sweep take turns on one
core. The sweep of one update has all cores, starts Ray, trains, and writes its report; its CPU seconds are also given
with those of all processes of Ray and of the trial, as seen ten times a second. The last two are trials of one update,
one after the other in one Ray cluster: what a trial costs from the end of the one before to its own first result, in a
new process and, with `reuse_actors`, in the one that there is. CPU seconds are those of the process and of what it
waits for.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # comes with Ray
from shared.contest import HERE, ONE_THREAD, arguments, write

os.environ |= ONE_THREAD | {"PYTHONPATH": str(HERE.parent)}  # before this process and Ray's workers read any of it

import ray
from ray import tune

import dr3_ray
from dr3_ray.errors import first_line

FIRST_UPDATE = """
from dr3_ray.rllib import config_for
config = config_for("DR3-CQL").offline_data(input_="embedded:breakout-replay").population(updates_per_iteration=1)
config.build_algo().train()
"""
STARTS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import ray.rllib": ["-c", "import ray.rllib.algorithms.algorithm"],
    "import dr3_ray": ["-c", "import dr3_ray"],
    "import dr3_ray.rllib": ["-c", "import dr3_ray.rllib"],
    "dr3-ray --help": ["-m", "dr3_ray", "--help"],
    "dr3-ray schema": ["-m", "dr3_ray", "schema"],
    "dr3-ray data info": ["-m", "dr3_ray", "data", "info", "embedded:breakout-replay"],
    "first update through RLlib": ["-c", FIRST_UPDATE],
}
SWEEP = [
    "-m",
    "dr3_ray",
    "sweep",
    "--dataset",
    "embedded:breakout-replay",
    "--environment",
    "none",
    "--seeds",
    "1",
]
SWEEP += ["--coefficients", "0.03", "--steps", "1", "--evaluations", "1", "--set", "hidden_sizes=[8]", "--out"]
SAMPLED = 0.1  # seconds between two looks at what a sweep has started
TRIALS = {"trial in a new process": False, "trial in a used process": True}


def start(arguments: list[str], core: int | None, everything: bool = False) -> dict[str, float]:
    """Return the seconds of a process on one core, or on any, and with `everything` of all that it starts as `all`."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*([] if core is None else ["taskset", "-c", str(core)]), sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAY_ADDRESS": "local"},
    )
    others: dict[psutil.Process, float] = {}
    parent = psutil.Process(process.pid)
    while not (ended := os.wait4(process.pid, os.WNOHANG if everything else 0))[0]:
        with suppress(psutil.Error):
            for each in parent.children(recursive=True):
                with suppress(psutil.Error):
                    others[each] = each.cpu_times().user + each.cpu_times().system
        time.sleep(SAMPLED)
    _, status, used = ended
    if status:
        raise SystemExit(f"python {arguments} has failed")
    wall, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
    return {"wall": wall, "cpu": cpu} | ({"all": cpu + sum(others.values())} if everything else {})


def mark(*, result: dict[str, Any], **_: Any) -> None:
    """Add to a result when and where it was made, and how much CPU time its process has had."""
    result |= {"at": time.time(), "process": os.getpid(), "used": time.process_time()}


def trials(count: int, reuse: bool, folder: Path) -> list[dict[str, float]]:
    """Return the seconds of each trial but the first that had a new process, or with `reuse` that of the one before."""
    dr3_ray.register_algorithms()
    config = dr3_ray.DR3CQLConfig().offline_data(input_="embedded:breakout-replay")
    config.population(updates_per_iteration=1).callbacks(on_train_result=mark)
    config.debugging(seed=tune.grid_search(list(range(count))))
    results = tune.Tuner(
        "DR3-CQL",
        param_space=config,
        tune_config=tune.TuneConfig(reuse_actors=reuse, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            stop={"training_iteration": 1},
            verbose=0,
        ),
    ).fit()
    if results.errors:
        raise SystemExit(f"{results.num_errors} of {count} trials failed: {first_line(results.errors[0])}")
    marks = sorted((each.metrics for each in results), key=lambda each: each["at"])
    pairs = [each for each in itertools.pairwise(marks) if (each[0]["process"] == each[1]["process"]) == reuse]
    if not pairs:
        raise SystemExit(f"no two trials {'shared a' if reuse else 'had another'} process: measure again")
    return [
        {"wall": this["at"] - before["at"], "cpu": this["used"] - (before["used"] if reuse else 0.0)}
        for before, this in pairs
    ]


def show(name: str, measured: list[dict[str, float]]) -> None:
    shown = ""
    for clock in ("wall", "cpu"):
        values = [each[clock] for each in measured]
        shown += f"{statistics.median(values):8.2f}{f'{min(values):.2f}-{max(values):.2f}':>14}"
    print(f"{name:30}{shown}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    turns, count = (1, 2) if options.smoke else (options.turns, options.trials)
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in STARTS}
    for _ in range(turns):
        for name, command in STARTS.items():
            figures[name].append(start(command, options.core))
    print(f"{'seconds':30}{'wall':>8}{'min-max':>14}{'CPU':>8}{'min-max':>14}")
    for name, measured in figures.items():
        show(name, measured)
    with tempfile.TemporaryDirectory() as folder:
        name = "a sweep of one update"
        figures[name] = [start([*SWEEP, f"{folder}/run{turn}"], None, True) for turn in range(turns)]
        show(name, figures[name])
        name = "the same, all processes"
        figures[name] = [{"wall": turn["wall"], "cpu": turn.pop("all")} for turn in figures["a sweep of one update"]]
        show(name, figures[name])
        # its own cluster, whatever else runs on the machine
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/ray")
        for name, reuse in TRIALS.items():
            figures[name] = trials(count, reuse, Path(folder) / str(reuse))
            show(name, figures[name])
        ray.shutdown()
    write(options.json, figures)


if __name__ == "__main__":
    main()
