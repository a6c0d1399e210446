"""Data and environment in sweeps: the data's own or one that is named, and what NaN there leaves behind."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.spaces import Box, Discrete

from dr3_ray.data import Provenance, SpaceSpec, episode_columns, write_dataset
from dr3_ray.errors import UserError
from dr3_ray.report import write_report
from dr3_ray.runs.histories import read_histories
from dr3_ray.runs.index import read_index
from dr3_ray.runs.status import read_status, sentences
from dr3_ray.sweep.estimate import estimate_sweep
from dr3_ray.sweep.run import train_sweep
from dr3_ray.sweep.spec.problems import members
from dr3_ray.sweep.spec.spec import SweepSpec

ODD = "gymnasium:tests.sweep.odd_worlds:"
ANYWHERE, PUSH = Box(-np.inf, np.inf, (2,)), Box(-1.0, 1.0, (1,))


def write(path: Path, environment: str | None, observed: Any = ANYWHERE, taken: Any = PUSH) -> str:
    """Three episodes of chance."""
    rng = np.random.default_rng(0)
    discrete = isinstance(taken, Discrete)
    columns = [
        episode_columns(
            rng.uniform(-1, 1, (21, *observed.shape)).astype(np.float32),
            rng.integers(taken.n, size=20) if discrete else rng.uniform(-1, 1, (20, *taken.shape)).astype(np.float32),
            np.ones(20),
            terminated=False, truncated=True, episode_id=episode, gamma=0.9,
        )
        for episode in range(3)
    ]  # fmt: skip
    specs = {"observation_space": SpaceSpec.from_gymnasium(observed), "action_space": SpaceSpec.from_gymnasium(taken)}
    about = {"name": path.name, "gamma": 0.9, "environment": environment, "provenance": Provenance(source="chance")}
    write_dataset(path, columns, **about, **specs)
    return str(path)


def spec_of(data: str, **values: Any) -> SweepSpec:
    small = {"options": {"hidden_sizes": [64, 64]}, "steps": 4, "evaluations": 2, "evaluation_episodes": 2}
    return SweepSpec(**{"datasets": [data], "algorithms": ["BC"], "seeds": 2, "concurrent": 1} | small | values)


PENDULUM = gym.make("Pendulum-v1").observation_space


@pytest.mark.parametrize(
    ("observed", "taken"),
    [
        (PENDULUM, Box(-3.0, 3.0, (1,))),
        (PENDULUM, Discrete(3)),
        (Box(-1.0, 1.0, (3,)), Box(-2.0, 2.0, (1,))),
        (Box(-1.0, 1.0, (4,)), Box(-2.0, 2.0, (1,))),
    ],
    ids=str,
)
def test_the_datas_own_environment_is_left_out_with_a_line_and_a_named_one_is_refused(observed, taken, tmp_path):
    data, said = write(tmp_path / "data", "gymnasium:Pendulum-v1", observed, taken), []
    configs = members(spec_of(data), said.append)
    assert {config["environment"] for config in configs.values()} == {None}
    assert len(said) == 1 and said[0].startswith("no rollouts in gymnasium:Pendulum-v1: environment gymnasium:Pendulum")
    for name in ("gymnasium:Pendulum-v1", "Pendulum-v1"):
        with pytest.raises(UserError, match=rf"environment {name} has .*Box.*, the data set data .*, and .*: name the"):
            members(spec_of(data, environment=name))
        with pytest.raises(UserError, match="the data set data"):
            estimate_sweep(spec_of(data, environment=name, out=tmp_path / "run"), calibrate=True)


def test_what_is_within_the_environments_range_is_played_there(tmp_path):
    data = write(tmp_path / "data", "gymnasium:Pendulum-v1", PENDULUM, PUSH)
    said: list[str] = []
    assert {c["environment"] for c in members(spec_of(data), said.append).values()} == {"gymnasium:Pendulum-v1"}
    assert said == []


@pytest.mark.slow
def test_a_policy_without_an_action_has_diverged_with_the_reason_everywhere(cluster, tmp_path, capfd):
    data = write(tmp_path / "data", None)
    spec = spec_of(data, environment=f"{ODD}Far-v0", out=tmp_path / "run")
    statuses = train_sweep(spec).statuses
    assert statuses["diverged"] and sum(statuses.values()) == 2
    reason = "its policy gave NaN or infinity for an action at update 2"
    rows = read_histories(spec.out).to_pandas().set_index("member")
    for record in read_index(spec.out):
        diverged = record["status"] == "diverged"
        assert record["error"] == (reason if diverged else None)
        own = rows.loc[[record["member"]]]
        assert own["step"].tolist() == ([2] if diverged else [2, 4])
        assert own["episode_return_mean"].isna().all() == diverged
    assert f"diverged: {reason}" in capfd.readouterr().err
    assert f"{statuses['diverged']} diverged: {reason}" in sentences(read_status(spec.out), spec.out, 0.0)
    assert write_report(spec.out).page.read_text().count(reason) == statuses["diverged"]
    assert train_sweep(spec).statuses == statuses  # training is deterministic: it is not tried again


@pytest.mark.slow
def test_an_environment_that_pays_nan_is_told_of_members_that_finish(cluster, tmp_path, capfd):
    data = write(tmp_path / "data", None)
    spec = spec_of(data, environment=f"{ODD}Unpaid-v0", out=tmp_path / "run")
    assert train_sweep(spec).statuses == {"finished": 2}
    reason = "its environment gave NaN or infinity for an observation or a reward in 2 of 2 episodes at update 2"
    assert [(record["status"], record["error"]) for record in read_index(spec.out)] == [("finished", reason)] * 2
    assert f"go on: {reason}" in capfd.readouterr().err
    assert f"2 finished: {reason}" in sentences(read_status(spec.out), spec.out, 0.0)
    assert write_report(spec.out).page.read_text().count(reason) == 2
    runs = pd.read_csv(spec.out / "report" / "runs.csv")
    assert runs["error"].tolist() == [reason] * 2
