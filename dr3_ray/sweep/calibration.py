"""What a pack takes: some of its updates are made here, without Ray, and its tensors are counted."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.member import REGULARIZERS, Member
from dr3_ray.population import Population
from dr3_ray.sweep.spec import Config

LONG_ENOUGH = 0.5  # seconds of updates that are measured
PLAYED_STEPS, PLAYED_EPISODES = 20, 2  # of each member, to time a step of its environment


class Cost(NamedTuple):
    """What a pack takes: seconds, and bytes of memory. `data` are mapped, and shared by all trials of a machine."""

    update: float
    """Seconds of one update of all members."""
    evaluation: float
    """Seconds of one evaluation of all members."""
    parameters: int
    optimiser: int
    targets: int
    data: int

    @property
    def state(self) -> int:
        """Bytes of what a checkpoint holds."""
        return self.parameters + self.optimiser + self.targets


def measure(members: Sequence[Config], cpus: float, gpus: float) -> Cost:
    """Build a pack of these members, which share a structure, and time a few of its updates and its evaluation.

    On a GPU if trials are given one and there is one here. Episodes are taken to be as long as those of the data.
    """
    torch.set_num_threads(max(1, int(cpus)))
    first, device = members[0], "cuda" if gpus and torch.cuda.is_available() else "cpu"
    data = load_dataset(first["dataset"])
    spec = find(first["algorithm"], data.spaces.action_kind)
    names = {name for name, _ in spec.options()} | {"seed"}
    if spec.has_critic:
        names |= {name for options in REGULARIZERS for name, _ in options()}
    pack = [Member.from_dict(spec, {name: config[name] for name in names}) for config in members]
    population = Population.of(spec, pack, data, data.spaces, to=device)
    population.update(1)  # what is done once
    made, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < LONG_ENOUGH:
        population.update(max(1, made))
        made += max(1, made)
    evaluation = timed(population.probe)
    if first["environment"]:
        length = data.manifest.counts.rows / data.manifest.counts.episodes
        evaluation += _step_of_all(first["environment"], population) * length * first["evaluation_episodes"]
    parts = population.parts.values()
    return Cost(
        update=elapsed / made,
        evaluation=evaluation,
        parameters=_bytes(part.values for part in parts),
        optimiser=_bytes(each for part in parts for each in (part.adam.exp_avg, part.adam.exp_avg_sq)),
        targets=_bytes(part.target_values for part in parts if part.target_values is not None),
        data=sum(entry.bytes for entry in (*data.manifest.shards, data.manifest.episodes)),
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _step_of_all(environment: str, population: Population) -> float:
    """Seconds of one step in one episode of every member."""
    rollout = Rollout(
        lambda: gym.wrappers.TimeLimit(make_environment(environment), PLAYED_STEPS),
        len(population.members),
        PLAYED_EPISODES,
    )
    try:
        lengths: list[int] = []
        seconds = timed(lambda: lengths.extend(rollout.play(population.act, range(PLAYED_EPISODES))[1].ravel()))
        return seconds * len(population.members) / sum(lengths)
    finally:
        rollout.close()


def _bytes(tensors: Any) -> int:
    return sum(each.nbytes for each in tensors if isinstance(each, Tensor))
