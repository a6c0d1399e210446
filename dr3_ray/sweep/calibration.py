"""What packs take: some of their updates are made here, without starting Ray, and their tensors are counted."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from ray._private.utils import estimate_available_memory, get_num_cpus
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.evaluation.environments import make_environment
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.graphs import CHUNK
from dr3_ray.member import REGULARIZERS, Member, first_steps
from dr3_ray.population import Population
from dr3_ray.sweep.pack_size import Choice, PerMember, choose
from dr3_ray.sweep.spec import Config

LONG_ENOUGH = 0.5  # seconds of updates that are measured
PLAYED_STEPS, PLAYED_EPISODES = 20, 2  # of each member, to time a step of its environment
USABLE = 0.5  # of a trial's share of the memory that is free
RESIDENT = 2  # a process grew by 1.9 to 2.0 times what is counted of stacked DR3-CQL on a CPU


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
    first, population = members[0], _population(members, cpus, gpus)
    manifest = load_dataset(first["dataset"]).manifest
    update = _seconds_of_update(population)
    evaluation = timed(population.probe)
    if first["environment"]:
        length = manifest.counts.rows / manifest.counts.episodes
        played = _step_of_all(first["environment"], population) * length * first["evaluation_episodes"]
        evaluation += played / max(1, min(int(cpus), len(members)))
    data = sum(entry.bytes for entry in (*manifest.shards, manifest.episodes))
    return Cost(update, evaluation, **_state(population), data=data)


def choices(groups: Sequence[Sequence[Config]], cpus: float, gpus: float, slots: int) -> list[Choice]:
    """The pack size that members of each structure train best in, by updates that are made here.

    Each group holds the members of the largest pack that may be, `slots` is the number of trials at a time.
    """
    room = _room(cpus, gpus, slots)

    def choice(group: Sequence[Config]) -> Choice:
        return choose(len(group), room, lambda size: _per_member(group[:size], cpus, gpus))

    return list(map(choice, groups))


def _per_member(members: Sequence[Config], cpus: float, gpus: float) -> PerMember:
    population, count = _population(members, cpus, gpus), len(members)
    memory, seconds = _memory(population), _seconds_of_update(population)
    return PerMember(seconds / count, memory / count, population.execution == "in_turn")


def _device(gpus: float) -> str:
    return "cuda" if gpus and torch.cuda.is_available() else "cpu"


def _population(members: Sequence[Config], cpus: float, gpus: float) -> Population:
    """A pack of these members after its first update, in which what is done once was done.

    It is never compiled, which would take longer than all that is measured.
    """
    torch.set_num_threads(max(1, int(cpus)))
    data = load_dataset(members[0]["dataset"])
    spec = find(members[0]["algorithm"], data.spaces.action_kind)
    names = {name for name, _ in spec.options()} | {"seed"}
    if spec.has_critic:
        names |= {name for options in REGULARIZERS for name, _ in options()}
    pack = [Member.from_dict(spec, {name: config[name] for name in names}) for config in members]
    population = Population.of(spec, pack, data, data.spaces, to=_device(gpus))
    population.compiler = None
    population.update(1)
    return population


def _settle(population: Population) -> int:
    """Go on to what most updates are: after first steps of another kind, and replayed.

    Returns how many updates, or a multiple of them, are of one kind with those before.
    """
    chunk = CHUNK if population.graphs else 1
    population.record()
    first = max(population.step, first_steps(population.members))
    population.step = -(-first // chunk) * chunk
    population.update(3 * chunk)  # runs, is recorded when it comes again, and is replayed
    return chunk


def _seconds_of_update(population: Population) -> float:
    """Of all members."""
    chunk = _settle(population)
    population.diverged.tolist()  # a GPU has then made the updates
    made, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < LONG_ENOUGH:
        more = max(chunk, made)
        population.update(more)
        population.diverged.tolist()
        made += more
    return elapsed / made


def _state(population: Population) -> dict[str, int]:
    """Bytes of what an update changes."""
    parts = population.parts.values()
    return {
        "parameters": _bytes(part.values for part in parts),
        "optimiser": _bytes(each for part in parts for each in (part.adam.exp_avg, part.adam.exp_avg_sq)),
        "targets": _bytes(part.target_values for part in parts if part.target_values is not None),
    }


def _memory(population: Population) -> int:
    """Bytes that a pack takes: on a GPU its state and what torch reserves beside it, with graphs and the probe.

    On a CPU, where no peak is known of one pack alone, by the state and what an update keeps for its gradients.
    """
    state = sum(_state(population).values())
    if population.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        _settle(population)
        population.probe()
        return state + torch.cuda.max_memory_reserved() - before
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        population.update(1)
    return RESIDENT * (state + sum(kept.values()))


def _room(cpus: float, gpus: float, slots: int) -> float:
    """Bytes of memory for a pack: half of a trial's share of what is free, on a GPU or beside one's CPUs.

    The other half is for the processes with their libraries, for evaluations and for what is counted too low.
    """
    if _device(gpus) == "cuda":
        return USABLE * torch.cuda.mem_get_info()[0] * min(1.0, gpus)
    trials = min(slots, max(1, int(get_num_cpus() / cpus)))
    return USABLE * estimate_available_memory() / trials


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
