"""What a sweep would do, before anything runs: members, packs, trials, and about how much time, memory and room."""

import heapq
import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

import ray
import torch
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus
from rich import box
from rich.console import Group
from rich.table import Table

from dr3_ray.sweep.calibration import Cost, measure
from dr3_ray.sweep.checkpoints import KEPT
from dr3_ray.sweep.directory import is_run
from dr3_ray.sweep.halving import Race
from dr3_ray.sweep.identity import configuration, configurations
from dr3_ray.sweep.index import FINAL, read_index
from dr3_ray.sweep.limit import planned_limit
from dr3_ray.sweep.loggers import check_installed
from dr3_ray.sweep.packing import Pack, pack_members, structure
from dr3_ray.sweep.progress import duration, size
from dr3_ray.sweep.run import connect, planned_members, slots
from dr3_ray.sweep.spec import Config, SweepSpec

MUCH = 0.15  # of the time for evaluation, about which something is said
ROW = 150  # bytes of a member's evaluation in the histories, compressed


class Kind(NamedTuple):
    """Members that can train together, in how many packs they do, and what the largest of these packs takes."""

    about: str
    packs: list[Pack]
    why: str
    cost: Cost | None

    @property
    def first(self) -> Config:
        return next(iter(self.largest.values()))

    @property
    def largest(self) -> dict[str, Config]:
        return max((pack.members for pack in self.packs), key=len)

    def seconds(self, pack: Pack) -> float:
        """How long a pack trains and evaluates."""
        assert self.cost is not None
        updates = self._of(pack, self.first["steps"] * self.cost.update)
        return updates + self.evaluating(pack)

    def evaluating(self, pack: Pack) -> float:
        """How long it evaluates."""
        assert self.cost is not None
        return self._of(pack, self.first["evaluations"] * self.cost.evaluation)

    def _of(self, pack: Pack, seconds: float) -> float:
        """What takes the largest pack so long, for this one."""
        return seconds * len(pack.members) / len(self.largest) * made(pack)


def made(pack: Pack) -> float:
    """Of the updates of a pack, the share that halving leaves to be made; of a pack of one, what it is in the mean."""
    members = list(pack.members.values())
    race, evaluations = Race.of(members[0]), members[0]["evaluations"]
    if race is None:
        return 1.0
    alone = race.factor ** len(race.rungs(evaluations))  # as many as are halved without a rest
    return race.share(alone if len(members) == 1 else len(configurations(members)), evaluations)


class Plan(NamedTuple):
    """What is to be trained, in which packs, where; `done` members were finished before."""

    spec: SweepSpec
    members: dict[str, Config]
    done: int
    kinds: list[Kind]
    slots: int
    where: str

    @property
    def packs(self) -> list[Pack]:
        """All packs, each a trial."""
        return [pack for kind in self.kinds for pack in kind.packs]

    @property
    def seconds(self) -> float:
        """How long all trials take in their slots, each of them begun as soon as a slot is free."""
        busy = [0.0] * self.slots
        for kind in self.kinds:
            for pack in kind.packs:
                heapq.heapreplace(busy, busy[0] + kind.seconds(pack))
        return max(busy)

    @property
    def evaluation(self) -> float:
        """The share of evaluation in the time of all trials."""
        each = [(kind.evaluating(pack), kind.seconds(pack)) for kind in self.kinds for pack in kind.packs]
        evaluating, whole = map(sum, zip(*each, strict=True))
        return evaluating / whole

    @property
    def storage(self) -> int:
        """Bytes of the index, of the histories, and of the checkpoints if all trials leave as many as are kept."""
        index = sum(3 * len(json.dumps(config)) for config in self.members.values())
        histories = sum(config["evaluations"] * ROW for config in self.members.values())
        kept = KEPT if self.spec.checkpoint_every != 0 else 0
        checkpoints = sum(kept * kind.cost.state * len(kind.packs) for kind in self.kinds if kind.cost)
        return index + histories + checkpoints


def plan_sweep(spec: SweepSpec, calibrate: bool = True, say: Callable[[str], None] = lambda _: None) -> Plan:
    """What the sweep would do from here on. Nothing is written, and no Ray is started.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    check_installed(spec.log)
    planned = planned_members(spec, say)
    records = read_index(spec.out) if is_run(spec.out) else []
    over = {record["member"] for record in records if record["status"] in FINAL}
    missing = {member: config for member, config in planned.items() if member not in over}
    fits, where = slots_here(spec)
    if not fits:
        say(
            f"no machine of {where} has {spec.cpus:g} CPUs and {spec.gpus:g} GPUs for a trial: planned for one that has"
        )
    if calibrate and spec.gpus and not torch.cuda.is_available():
        say("there is no GPU here: times are those of a CPU")
    limit = planned_limit(spec, planned, fits or 1, calibrate, say)
    groups: dict[str, list[Pack]] = {}
    for pack in pack_members(missing, limit, fits or 1):
        groups.setdefault(structure(next(iter(pack.members.values()))), []).append(pack)
    about = differences(groups)
    kinds = [Kind(about[key], packs, _why(packs, limit, fits), None) for key, packs in groups.items()]
    if calibrate:
        kinds = [kind._replace(cost=measure(list(kind.largest.values()), spec.cpus, spec.gpus)) for kind in kinds]
    return Plan(spec, planned, len(planned) - len(missing), kinds, fits or 1, where)


def slots_here(spec: SweepSpec) -> tuple[int, str]:
    """How many trials fit at a time, and where: into the cluster that a sweep would use, or this machine."""
    if ray.is_initialized() or canonicalize_bootstrap_address(None) is not None:
        connect()
        return slots(spec), "the Ray cluster"
    cpus, gpus = get_num_cpus(), torch.cuda.device_count()
    fits = min(int(have / want) for have, want in ((cpus, spec.cpus), (gpus, spec.gpus)) if want)
    return min(fits, spec.concurrent or fits), f"this machine ({cpus} CPUs, {gpus} GPUs)"


def differences(structures: Iterable[str]) -> dict[str, str]:
    """Algorithm and data set of each structure, and what tells it from others of these two."""
    found = {key: json.loads(key) for key in structures}
    groups: dict[tuple[str, str], list[Config]] = {}
    for values in found.values():
        groups.setdefault((values["algorithm"], values["dataset"]), []).append(values)
    apart = {
        name: None for group in groups.values() for name in group[0] if any(c[name] != group[0][name] for c in group)
    }
    return {
        key: ", ".join(_setting(name, values[name]) for name in ("algorithm", "dataset", *apart) if name in values)
        for key, values in found.items()
    }


def _setting(name: str, value: object) -> str:
    if name == "dataset":
        return str(value).partition("?")[0].rstrip("/").rpartition("/")[2].removeprefix("embedded:")
    return str(value) if name == "algorithm" else f"{name} {value}"


def _why(packs: list[Pack], limit: int, fits: int) -> str:
    """Why members of one structure are in so many packs."""
    race = Race.of(next(iter(packs[0].members.values())))
    if race and 1 < limit < max(len(pack.members) for pack in packs):
        return f"{race.factor} configurations a pack at least, to be halved"
    count = sum(len(pack.members) for pack in packs)
    least = -(-count // limit)
    reasons = [f"{limit} a pack at most: {least}"] if least > 1 else []
    reasons += [f"trials at a time ({fits}): {len(packs)}"] if len(packs) > least else []
    return ", ".join(reasons) or "one pack"


def plan_table(plan: Plan) -> Group:
    """The plan as people read it."""
    counts = _table(f"{len(plan.members)} members", "members", "packs", "updates of each", "why so many packs")
    costs = _table("of a pack", "time", "parameters", "optimiser", "targets", "data")
    for kind in plan.kinds:
        sizes = sorted({len(pack.members) for pack in kind.packs}, reverse=True)
        packs = f"{len(kind.packs)} of {' and '.join(map(str, sizes))}"
        members = sum(len(pack.members) for pack in kind.packs)
        counts.add_row(kind.about, str(members), packs, f"{kind.first['steps']:,}", kind.why)
        if kind.cost:
            costs.add_row(kind.about, duration(max(map(kind.seconds, kind.packs))), *map(size, kind.cost[2:]))
    calibrated = costs.row_count > 0
    return Group(counts, *([costs] if calibrated else []), *_sentences(plan, calibrated))


def _table(title: str, *columns: str) -> Table:
    """One row for members that can train together."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("members that can train together", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _much_evaluation(plan: Plan) -> list[str]:
    if plan.evaluation <= MUCH:
        return []
    less = "fewer --evaluations or --episodes, or more --cpus, each of which plays episodes"
    return [f"Evaluation is {plan.evaluation:.0%} of that. To have less of it: {less}."]


def _sentences(plan: Plan, calibrated: bool) -> list[str]:
    spec, todo = plan.spec, len(plan.members) - plan.done
    said = [f"{plan.done} of {len(plan.members)} members were done before, {todo} are left."] if plan.done else []
    if not todo:
        return [*said, "Nothing is left to train."]
    configurations = len(set(map(configuration, plan.members.values())))
    kinds = len(plan.kinds)
    said.append(
        f"{configurations} configurations with up to {len(spec.seeds)} seeds; "
        f"{kinds} structure{'s' * (kinds > 1)}; {len(plan.packs)} packs, each a trial of {spec.cpus:g} CPUs and "
        f"{spec.gpus:g} GPUs; {min(plan.slots, len(plan.packs))} trials at a time on {plan.where}."
    )
    if spec.search:
        said.append(f"What {spec.search.method} has still to propose was drawn here by chance: an estimate.")
    whole = sum(config["steps"] for pack in plan.packs for config in pack.members.values())
    updates = sum(made(pack) * config["steps"] for pack in plan.packs for config in pack.members.values())
    if plan.spec.halving:
        rungs = ", ".join(map(str, plan.spec.halving.rungs(plan.spec.evaluations)))
        saved = f"saves {1 - updates / whole:.0%} of {whole:,} updates"
        said.append(f"Halving by {plan.spec.halving.factor} after evaluation {rungs} {saved}.")
    if calibrated:
        memory = max(kind.cost.state for kind in plan.kinds if kind.cost)
        said += [
            f"About {duration(plan.seconds)} for {updates:,.0f} updates, by a few made here; start-up comes on top.",
            *_much_evaluation(plan),
            f"Memory of a pack: up to {size(memory)} and its activations, beside the process with its libraries. "
            "Data are mapped: trials of a machine share them.",
            f"Room in {spec.storage or spec.out}: about {size(plan.storage)}"
            + (", of which most are checkpoints." if spec.checkpoint_every != 0 else "."),
        ]
    else:
        said.append(f"{updates:,.0f} updates in all. Not calibrated: no time and memory.")
    return [*said, "Nothing was written."]
