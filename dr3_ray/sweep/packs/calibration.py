"""What packs take: some of their updates are made here, without starting Ray, and their tensors are counted."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.cluster.environments import make_known
from dr3_ray.compat.ray import estimate_available_memory, get_num_cpus
from dr3_ray.data import load_dataset
from dr3_ray.evaluation.contract import Recorded
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.sweep.spec.pack_size import BestPack, PerMember, choose
from dr3_ray.sweep.spec.spec import Config
from dr3_ray.training.execution.cuda_graphs import CHUNK
from dr3_ray.training.member import Member, first_steps
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training

LONG_ENOUGH = 0.5  # seconds of updates that are measured
PLAYED_STEPS, PLAYED_EPISODES = 20, 2  # of each member, to time a step of its environment
USABLE = 0.5  # of a trial's share of the memory that is free
RESIDENT = 2  # a process grew by 1.9 to 2.0 times what is counted of stacked DR3-CQL on a CPU


class Cost(NamedTuple):
    """The cost of a pack: seconds, and bytes of memory; `data` are mapped, and shared by all trials of a machine."""

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
        """Bytes of a checkpoint."""
        return self.parameters + self.optimiser + self.targets


def measure(members: Sequence[Config], cpus: float, gpus: float) -> Cost:
    """Build a pack of these members, which share a structure, and time a few of its updates and its evaluation.

    On a GPU if trials are given one and there is one here. Episodes are taken to be as long as those of the data.
    """
    first, population = members[0], _population(members, cpus, gpus)
    data = load_dataset(first["dataset"])
    manifest = data.manifest
    update = _seconds_of_update(population)
    evaluation = timed(population.probe)
    if first["environment"]:
        length = manifest.counts.rows / manifest.counts.episodes
        step = _step_of_all(first["environment"], Recorded.of(data), population)
        played = step * length * first["evaluation_episodes"]
        evaluation += played / max(1, min(int(cpus), len(members)))
    mapped = sum(entry.bytes for entry in manifest.files)
    return Cost(update, evaluation, **_state(population), data=mapped)


def choices(groups: Sequence[Sequence[Config]], cpus: float, gpus: float, slots: int) -> list[BestPack]:
    """Return the best pack size for members of each structure, by updates that are made here.

    Each group holds the members of the largest pack that may be, `slots` is the number of trials at a time.
    """
    room = _room(cpus, gpus, slots)

    def choice(group: Sequence[Config]) -> BestPack:
        return choose(len(group), room, lambda size: _per_member(group[:size], cpus, gpus))

    return list(map(choice, groups))


def _per_member(members: Sequence[Config], cpus: float, gpus: float) -> PerMember:
    population, count = _population(members, cpus, gpus), len(members)
    memory, seconds = _memory(population), _seconds_of_update(population)
    return PerMember(seconds / count, memory / count, population.execution == "in_turn")


def _device(gpus: float) -> str:
    return "cuda" if gpus and torch.cuda.is_available() else "cpu"


def _population(members: Sequence[Config], cpus: float, gpus: float) -> Population:
    """Return a pack of these members after its first update, which does the work of a beginning.

    It is never compiled, which would take longer than all that is measured.
    """
    torch.set_num_threads(max(1, int(cpus)))
    prepare_training()
    data = load_dataset(members[0]["dataset"])
    spec = find(members[0]["algorithm"], data.spaces.action_kind)
    names = {name for name, _ in spec.options()} | {"seed"}
    if spec.has_critic:
        names |= {name for options in REGULARIZER_OPTIONS for name in options.names()}
    pack = [Member.from_dict(spec, {name: config[name] for name in names}) for config in members]
    population = Population.of(spec, pack, data, data.spaces, to=_device(gpus))
    population.compose(without=("compiler",))
    population.update(1)
    return population


def _settle(population: Population) -> int:
    """Make updates until they are what most updates are: after first steps of another kind, and replayed.

    Returns how many updates, or a multiple of them, are of one kind with those before.
    """
    chunk = CHUNK if population.graphs else 1
    population.record()
    first = max(population.step, first_steps(population.members))
    population.step = -(-first // chunk) * chunk
    population.update(3 * chunk)  # runs, is recorded when it comes again, and is replayed
    return chunk


def _seconds_of_update(population: Population) -> float:
    """Return the seconds of one update of all members."""
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
    """Return the bytes that an update changes."""
    parts = population.steps.parts.values()
    return {
        "parameters": _bytes(part.values for part in parts),
        "optimiser": _bytes(moment for part in parts for moment in (part.adam.exp_avg, part.adam.exp_avg_sq)),
        "targets": _bytes(part.target_values for part in parts if part.target_values is not None),
    }


def _memory(population: Population) -> int:
    """Return the bytes that a pack takes.

    On a GPU its state and what torch reserves beside it, with graphs and the probe. On a CPU, where no peak is known of
    one pack alone, its state and what an update keeps for its gradients.
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
    """Return the bytes of memory for a pack: half of a trial's share of what is free, on a GPU or beside one's CPUs.

    The other half is for the processes with their libraries, for evaluations and for what is counted too low.
    """
    if _device(gpus) == "cuda":
        return USABLE * torch.cuda.mem_get_info()[0] * min(1.0, gpus)
    trials = min(slots, max(1, int(get_num_cpus() / cpus)))
    return USABLE * estimate_available_memory() / trials


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _step_of_all(environment: str, recorded: Recorded, population: Population) -> float:
    """Return the seconds of one step in one episode of every member."""
    rollout = Rollout(
        lambda: gym.wrappers.TimeLimit(make_known(environment), PLAYED_STEPS),
        recorded,
        len(population.members),
        PLAYED_EPISODES,
    )
    try:
        lengths: list[int] = []
        seconds = timed(lambda: lengths.extend(rollout.play(population.act, range(PLAYED_EPISODES)).lengths.ravel()))
        return seconds * len(population.members) / sum(lengths)
    finally:
        rollout.close()


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
