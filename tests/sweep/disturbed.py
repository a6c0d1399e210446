"""A small sweep to which something is done, and what it is compared by with one that was left alone."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # comes with Ray
import pyarrow.fs as pafs

from dr3_ray.remote import open_store
from dr3_ray.runs.digests import MANIFEST
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import INDEX
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.sweep.trials.trainable import RESULTS
from tests.sweep.conftest import statuses

PARAMETERS = "learner_group/learner/rl_module/default_policy/module_state.safetensors"


def sweep(run: Path, **more: Any) -> SweepSpec:
    """Two packs of two members, one after another; sampled actions make the most of the state of training."""
    return SweepSpec(
        datasets=["embedded:pendulum-replay"],
        coefficients=[0, 0.1],
        seeds=2,
        steps=300,
        evaluations=30,
        pack=2,
        concurrent=1,
        environment="none",
        checkpoint_every=1,
        options={"hidden_sizes": [16, 16], "batch_size": 32},
        out=run,
        **more,
    )


def checkpoints(storage: Path) -> list[Path]:
    """All that are whole, oldest first."""
    return [path.parent for path in sorted(storage.glob(f"checkpoints/*/0*/{MANIFEST}"))]


def checkpoints_at(uri: str) -> list[str]:
    """The same in a bucket, of which a few may be on their way out."""
    filesystem, root = open_store(uri)
    everything = pafs.FileSelector(f"{root}/checkpoints", recursive=True, allow_not_found=True)
    found = sorted(info.path for info in filesystem.get_file_info(everything))
    return [path for path in found if path.endswith(MANIFEST)]


def results(checkpoint: Path) -> list[Any]:
    """Of every evaluation, with the time that it took: those that are equal were not done twice."""
    found: list[Any] = json.loads((checkpoint / RESULTS).read_text())
    return found


def outcome(run: Path, storage: Path | None = None, members: int = 4) -> tuple[dict[str, str], list[str]]:
    """Digests of every pack's parameters, and all rows but for what they took."""
    lines = [json.loads(line) for line in (run / INDEX).read_text().splitlines()]
    assert set(Counter(line["member"] for line in lines if line["status"] == "finished").values()) == {1}
    assert statuses(run) == {"finished": members}
    kept = checkpoints(storage or run)
    assert len(kept) == len({path.parent for path in kept})
    rows = read_histories(run).drop_columns(["time_s", "updates_per_second"]).to_pylist()
    assert len(rows) == members * 30
    return {path.parent.name: json.loads((path / MANIFEST).read_text())[PARAMETERS] for path in kept}, sorted(
        map(repr, rows)
    )


def meanwhile(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def trial_of(raylet: psutil.Process) -> psutil.Process:
    (worker,) = [each for each in raylet.children() if "PackTrainable" in " ".join(each.cmdline())]
    return worker


def raylet_of(driver: int) -> psutil.Process:
    (raylet,) = [each for each in psutil.Process(driver).children() if each.name() == "raylet"]
    return raylet
