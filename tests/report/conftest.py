"""Run directories as a sweep leaves them, with curves that look like those of the real thing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COEFFICIENTS = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
STEPS = np.arange(0, 20_001, 1_000)


def member_of(config: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def curves(config: dict[str, Any], steps: np.ndarray = STEPS) -> dict[str, np.ndarray]:
    """Histories of one member: features co-adapt without DR3, and too much of it costs return."""
    c, rng = config["dr3_coeff"], np.random.default_rng([config["seed"], int(config["dr3_coeff"] * 1e4)])
    t = steps / 20_000
    noise = rng.normal(0, 0.06, (4, len(t)))
    growth = 4.4 / (1 + 300 * c)
    best = 4.6 + 1.1 * np.exp(-((np.log10(max(c, 1e-4)) + 1.5) ** 2)) + rng.normal(0, 0.25)
    returns = best * (1 - np.exp(-6 * t)) - max(0, 1.5 - 60 * c) * t**2
    dot = 0.6 * np.exp(growth * np.sqrt(t) - 8 * np.minimum(c, 0.25) * t + noise[1])
    columns = {
        "step": steps,
        "time_s": t * 100.0,
        "episode_return_mean": returns + 3 * noise[0],
        "episodes": np.full(len(t), 20),
        "dot_product": dot,
        "dot_product_abs": dot,
        "cosine": np.clip(0.3 + 0.6 * growth / 4.4 * np.sqrt(t) + noise[2] / 3, -1, 1),
        "phi_norm": np.sqrt(dot) * 1.2,
        "effective_rank": np.round(120 - 70 * growth / 4.4 * t + 30 * noise[3]),
        "q_mean": 0.8 * (1 - np.exp(-4 * t)) + noise[2] / 5,
        "td_error": 0.3 * np.exp(-3 * t) + 0.02,
        "loss_critic": 0.5 * np.exp(-3 * t) + 0.02,
        "updates_per_second": np.full(len(t), 2_400.0),
    }
    return {name: np.asarray(values) for name, values in columns.items()}


class RunWriter:
    """Collects members and writes them in the format of a run directory."""

    def __init__(self, path: Path, axes: tuple[str, ...] = ("dr3_coeff",)) -> None:
        self.path, self.axes, self.records, self.tables = path, axes, [], []

    def add(self, status: str = "finished", error: str | None = None, upto: int = 20_000, **config: Any) -> str:
        """One member; `upto` is where its history ends, negative for none. Returns its hash."""
        override = config.pop("override", {})
        fixed = {"algorithm": "DR3-CQL", "dataset": "embedded:breakout-replay", "steps": 20_000, "hidden": [256, 256]}
        config = fixed | {"seed": 0, "dr3_coeff": 0.0} | config
        member = member_of(config)
        record = {"member": member, "status": status, "config": config, "error": error, "pack": "p0", "time": 1.78e9}
        self.records.append(record)
        steps = STEPS[: np.searchsorted(STEPS, upto, side="right")]
        if len(steps):
            axes = {key: config[key] for key in ("algorithm", "dataset", "seed", *self.axes)}
            columns = curves(config, steps) | override
            rows = {"member": [member] * len(steps)} | {key: [value] * len(steps) for key, value in axes.items()}
            self.tables.append(pa.table(rows | columns))
        return member

    def write(self) -> Path:
        self.path.mkdir(parents=True)
        info = {
            "format": 2,
            "name": self.path.name,
            "command": ["dr3-ray", "sweep", "--algorithm", "DR3-CQL", "--name", "it's a <run>"],
            "created": "2026-01-02T03:04:05+00:00",
            "versions": {"dr3-ray": "0.1.0", "ray": "2.60.0", "torch": "2.13.0", "python": "3.11.7"},
            "spec": {"coefficients": list(COEFFICIENTS), "seeds": 3},
            "axes": list(self.axes),
        }
        (self.path / "run.json").write_text(json.dumps(info))
        pending = [record | {"status": "pending", "error": None} for record in self.records]
        lines = [json.dumps(record) for record in pending + self.records]
        (self.path / "index.jsonl").write_text("\n".join(lines) + '\n{"member": "torn')
        if self.tables:
            pq.write_table(pa.concat_tables(self.tables, promote_options="permissive"), self.path / "histories.parquet")
        return self.path


@pytest.fixture(scope="session")
def run_writer() -> type[RunWriter]:
    """The class, for fixtures of a wider scope."""
    return RunWriter


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunWriter]:
    """Begin a run directory; `axes` as in `run.json`."""
    return partial(RunWriter, tmp_path / "run")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six coefficients and three seeds, all finished. Only to be read; `torn` is for changing."""
    run = RunWriter(tmp_path_factory.mktemp("runs") / "demo")
    for coefficient in COEFFICIENTS:
        for seed in range(3):
            run.add(dr3_coeff=coefficient, seed=seed)
    return run.write()


@pytest.fixture
def torn(demo: Path, tmp_path: Path) -> Path:
    """A copy of `demo` to damage, without the report that another test wrote."""
    return Path(shutil.copytree(demo, tmp_path / "torn", ignore=shutil.ignore_patterns("report")))
