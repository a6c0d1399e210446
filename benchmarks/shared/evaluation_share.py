"""Evaluation's share of a sweep at the defaults of `dr3-ray sweep`, which `pack.py` prints.

An interval is training between two evaluations and the evaluation after it: all members of a pack play their episodes
at the same time, in environments made once. Updates are timed over a part of the interval. Episodes of Breakout are as
long as the members are good: theirs are those of policies trained for one interval.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from shared.noise import BREAKOUT, prepare

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.sweep.spec.spec import SweepSpec
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training


class Task(NamedTuple):
    """Who is rolled out where, and how many updates are timed in place of those of an interval."""

    algorithm: str
    environment: str
    dataset: str  # `cheetah`: noise
    updates: int


TASKS = [
    Task("DR3-CQL", "minatar:breakout", BREAKOUT, 5000),
    Task("DR3-CQL", "gymnasium:Pendulum-v1", "embedded:pendulum-replay", 10),
    Task("DR3-IQL", "gymnasium:Pendulum-v1", "embedded:pendulum-replay", 100),
    Task("DR3-CQL", "gymnasium:HalfCheetah-v5", "cheetah", 10),
    Task("DR3-IQL", "gymnasium:HalfCheetah-v5", "cheetah", 100),
]


def cpu(work: Callable[[], object]) -> float:
    """Return CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def shares(members: list[int], folder: Path, smoke: bool) -> list[dict[str, Any]]:
    """Return a line for every task and size of a pack; they are printed."""
    torch.set_num_threads(1)
    prepare_training()
    fields = SweepSpec.model_fields
    interval = fields["steps"].default // fields["evaluations"].default
    episodes = 1 if smoke else fields["evaluation_episodes"].default
    title = f"CPU s: {interval} updates, {episodes} episodes"
    print(f"\n{title:46}{'members':>8}{'updates':>9}{'play':>8}{'share':>7}")
    figures = []
    for task in TASKS[1:3] if smoke else TASKS:
        data = load_dataset(prepare(task.dataset, folder)["dataset"] if task.dataset == "cheetah" else task.dataset)
        spec = find(task.algorithm, data.spaces.action_kind)
        for n in members:
            pack = [Member.from_dict(spec, {"hidden_sizes": [256, 256], "seed": seed}) for seed in range(n)]
            population = Population.of(spec, pack, data, data.spaces)
            updates = 2 if smoke else max(2, task.updates // (1 if task.updates == interval else n))
            population.update(2)
            trained = cpu(lambda: population.update(updates)) * interval / updates  # noqa: B023
            rollout = Rollout(lambda: make_environment(task.environment), Recorded.of(data), n, episodes)  # noqa: B023
            played = cpu(lambda: rollout.play(population.act, range(episodes)))  # noqa: B023
            rollout.close()
            share = played / (played + trained)
            what = f"{task.algorithm} {task.environment}"
            print(f"{what:46}{n:8}{trained:9.1f}{played:8.1f}{share:7.1%}", flush=True)
            figures.append({"case": what, "members": n, "updates": trained, "play": played, "share": share})
    return figures
