"""What a sweep would take, before anything runs: packs, trials, and about how much time, memory and room."""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import ray
import torch
from rich import box
from rich.console import Group
from rich.table import Table

from dr3_ray.cluster.connect import cluster_address, connect
from dr3_ray.compat.ray import get_num_cpus
from dr3_ray.data.labels import dataset_label
from dr3_ray.runs.checkpoints import KEPT
from dr3_ray.runs.directory import id_of, is_run
from dr3_ray.runs.identity import PARENT, configuration, configurations
from dr3_ray.runs.index import read_index
from dr3_ray.runs.mirror import check_storage
from dr3_ray.runs.status import duration
from dr3_ray.sweep.packs.calibration import Cost, measure
from dr3_ray.sweep.packs.limit import planned_limit
from dr3_ray.sweep.packs.packing import Pack, structure
from dr3_ray.sweep.plan import Plan, planned_members, unfinished
from dr3_ray.sweep.resume import packs_in
from dr3_ray.sweep.search.study_files import check_study
from dr3_ray.sweep.spec.halving import Race
from dr3_ray.sweep.spec.problems import problems
from dr3_ray.sweep.spec.spec import Config, SweepSpec
from dr3_ray.sweep.trials.loggers import check_installed
from dr3_ray.sweep.trials.progress import size
from dr3_ray.sweep.trials.ray_trials import slots

MUCH = 0.15  # of the time for evaluation, about which something is said
ROW = 150  # bytes of a member's evaluation in the histories, compressed


class Kind(NamedTuple):
    """Members of one structure, the number of their packs, and the cost of the largest of these."""

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
        """Return the seconds in which a pack trains and evaluates."""
        assert self.cost is not None
        updates = self._of(pack, (self.first["steps"] - pack.made) * self.cost.update)
        return updates + self.evaluating(pack)

    def evaluating(self, pack: Pack) -> float:
        """Return the seconds in which a pack evaluates."""
        assert self.cost is not None
        left = 1.0 - pack.made / self.first["steps"]
        return self._of(pack, left * self.first["evaluations"] * self.cost.evaluation)

    def _of(self, pack: Pack, seconds: float) -> float:
        """Compute the seconds of this pack from those of the largest one."""
        return seconds * len(pack.members) / len(self.largest) * made(pack)


def made(pack: Pack) -> float:
    """Return the share of a pack's updates that halving leaves to be made; of a pack of one, its mean."""
    members = list(pack.members.values())
    race, evaluations = Race.of(members[0]), members[0]["evaluations"]
    if race is None:
        return 1.0
    alone = race.factor ** len(race.rungs(evaluations))  # as many as are halved without a rest
    return race.share(alone if len(members) == 1 else len(configurations(members)), evaluations)


class SweepEstimate(NamedTuple):
    """The costs of a plan, and where it runs; `kinds` are its packs by structure."""

    spec: SweepSpec
    plan: Plan
    kinds: list[Kind]
    where: str

    @property
    def done(self) -> int:
        """The number of members that were done before."""
        return len(self.plan.members) - len(self.plan.missing)

    @property
    def seconds(self) -> float:
        """The seconds of all trials in their slots, each of them begun as soon as a slot is free."""
        busy = [0.0] * self.plan.slots
        for kind in self.kinds:
            for pack in kind.packs:
                heapq.heapreplace(busy, busy[0] + kind.seconds(pack))
        return max(busy)

    @property
    def evaluation(self) -> float:
        """The share of evaluation in the time of all trials."""
        parts = [(kind.evaluating(pack), kind.seconds(pack)) for kind in self.kinds for pack in kind.packs]
        evaluating, whole = map(sum, zip(*parts, strict=True))
        return evaluating / whole

    @property
    def storage(self) -> int:
        """Bytes of the index, of the histories, and of the checkpoints if all trials leave as many as are kept."""
        index = sum(3 * len(json.dumps(config)) for config in self.plan.members.values())
        histories = sum(config["evaluations"] * ROW for config in self.plan.members.values())
        kept = max(KEPT, self.spec.keep_checkpoints + 1) if self.spec.checkpoint_every != 0 else 0
        checkpoints = sum(kept * kind.cost.state * len(kind.packs) for kind in self.kinds if kind.cost)
        return index + histories + checkpoints


def estimate_sweep(
    spec: SweepSpec, calibrate: bool = True, say: Callable[[str], None] = lambda text: None
) -> SweepEstimate:
    """Estimate time, memory and room of a sweep from here on. Nothing is written, and no Ray is started.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    check_installed(spec.log)
    check_storage(spec.out, spec.storage)
    check_study(spec.search)
    planned = planned_members(spec, say)
    if spec.search and is_run(spec.out):
        from dr3_ray.sweep.search.studies import check_studies  # Optuna takes a second to import

        check_studies(spec, problems(spec), id_of(spec.out))
    records = {record["member"]: record for record in read_index(spec.out)} if is_run(spec.out) else {}
    fits, where = slots_here(spec)
    if not fits:
        say(
            f"no machine of {where} has {spec.cpus:g} CPUs and {spec.gpus:g} GPUs for a trial: planned for one that has"
        )
    if calibrate and spec.gpus and not torch.cuda.is_available():
        say("there is no GPU here: times are those of a CPU")
    slots = fits or 1
    missing = unfinished(planned, records.values())
    plan = Plan.of(
        planned, missing, records, slots, lambda begun: planned_limit(spec, planned, slots, calibrate, say),
        partial(packs_in, spec.checkpoints),
    )  # fmt: skip
    groups: dict[str, list[Pack]] = {}
    for pack in plan.packs:
        groups.setdefault(structure(next(iter(pack.members.values()))), []).append(pack)
    about = differences(groups)
    kinds = [Kind(about[key], packs, _why(packs, plan, fits), None) for key, packs in groups.items()]
    if calibrate:
        kinds = [kind._replace(cost=measure(list(kind.largest.values()), spec.cpus, spec.gpus)) for kind in kinds]
    return SweepEstimate(spec, plan, kinds, where)


def slots_here(spec: SweepSpec) -> tuple[int, str]:
    """Return how many trials fit at a time, and where: into the cluster that a sweep would use, or this machine."""
    if ray.is_initialized() or cluster_address() is not None:
        connect()
        return slots(spec), "the Ray cluster"
    cpus, gpus = get_num_cpus(), torch.cuda.device_count()
    fits = min(int(have / want) for have, want in ((cpus, spec.cpus), (gpus, spec.gpus)) if want)
    return min(fits, spec.concurrent or fits), f"this machine ({cpus} CPUs, {gpus} GPUs)"


def differences(structures: Iterable[str]) -> dict[str, str]:
    """Return algorithm and data set of each structure, and what tells it from others of these two."""
    documents = {key: json.loads(key) for key in structures}
    groups: dict[tuple[str, str], list[Config]] = {}
    for values in documents.values():
        groups.setdefault((values["algorithm"], values["dataset"]), []).append(values)
    apart = {
        name: None for group in groups.values() for name in group[0] if any(c[name] != group[0][name] for c in group)
    }
    return {
        key: ", ".join(_setting(name, values[name]) for name in ("algorithm", "dataset", *apart) if name in values)
        for key, values in documents.items()
    }


def _setting(name: str, value: object) -> str:
    if name == "dataset":
        return dataset_label(str(value))
    return str(value) if name == "algorithm" else f"{name} {value}"


def _why(packs: list[Pack], plan: Plan, fits: int) -> str:
    """Say why members of one structure are in so many packs."""
    if any(pack in plan.begun + plan.longer for pack in packs):
        return "as they were begun"
    limit = plan.limit
    race = Race.of(next(iter(packs[0].members.values())))
    if race and 1 < limit < max(len(pack.members) for pack in packs):
        return f"{race.factor} configurations a pack at least, to be halved"
    count = sum(len(pack.members) for pack in packs)
    least = -(-count // limit)
    reasons = [f"{limit} a pack at most: {least}"] if least > 1 else []
    reasons += [f"trials at a time ({fits}): {len(packs)}"] if len(packs) > least else []
    return ", ".join(reasons) or "one pack"


def estimate_table(estimate: SweepEstimate) -> Group:
    """Return a table of the plan and its costs."""
    plan = estimate.plan
    counts = _table(f"{len(plan.members)} members", "members", "packs", "updates of each", "why so many packs")
    costs = _table("of a pack", "time", "parameters", "optimiser", "targets", "data")
    for kind in estimate.kinds:
        sizes = sorted({len(pack.members) for pack in kind.packs}, reverse=True)
        packs = f"{len(kind.packs)} of {' and '.join(map(str, sizes))}"
        members = sum(member in plan.missing for pack in kind.packs for member in pack.members)
        counts.add_row(kind.about, str(members), packs, f"{kind.first['steps']:,}", kind.why)
        if kind.cost:
            costs.add_row(kind.about, duration(max(map(kind.seconds, kind.packs))), *map(size, kind.cost[2:]))
    calibrated = costs.row_count > 0
    return Group(counts, *([costs] if calibrated else []), *_sentences(estimate, calibrated))


def _table(title: str, *columns: str) -> Table:
    """Return one row for members that can train together."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("members that can train together", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _much_evaluation(estimate: SweepEstimate) -> list[str]:
    if estimate.evaluation <= MUCH:
        return []
    less = "fewer --evaluations or --episodes, or more --cpus, each of which plays episodes"
    return [f"Evaluation is {estimate.evaluation:.0%} of that. To have less of it: {less}."]


def _seeds(plan: Plan) -> int:
    """Return the largest number of seeds of a configuration."""
    return max(Counter(map(configuration, plan.members.values())).values())


def _sentences(estimate: SweepEstimate, calibrated: bool) -> list[str]:
    spec, plan, done = estimate.spec, estimate.plan, estimate.done
    said = [f"{done} of {len(plan.members)} members were done before, {len(plan.missing)} are left."] if done else []
    if not plan.missing:
        return [*said, "Nothing is left to train."]
    configurations = len(set(map(configuration, plan.members.values())))
    kinds = len(estimate.kinds)
    said.append(
        f"{configurations} configurations with up to {_seeds(plan)} seeds; "
        f"{kinds} structure{'s' * (kinds > 1)}; {len(plan.packs)} packs, each a trial of {spec.cpus:g} CPUs and "
        f"{spec.gpus:g} GPUs; {min(plan.slots, len(plan.packs))} trials at a time on {estimate.where}."
    )
    if parents := {config[PARENT] for config in plan.members.values() if PARENT in config}:
        said.append(f"They begin where {len(parents)} trained members ended.")
    if spec.search:
        said.append(f"What {spec.search.method} has still to propose was drawn here by chance: an estimate.")
    if longer := sum(len(pack.members) for pack in plan.longer):
        said.append(f"{longer} members go on from where shorter ones were left.")
    said += [f"{reason}." for reason in plan.anew]
    if going_on := len(plan.begun) + sum(not pack.made for pack in plan.longer):
        said.append(f"{going_on} packs go on from their checkpoints: less is left of them than is counted here.")
    left = [
        (made(pack), plan.missing[member]["steps"] - pack.made)
        for pack in plan.packs
        for member in pack.members
        if member in plan.missing
    ]
    whole, updates = sum(steps for _, steps in left), sum(share * steps for share, steps in left)
    if spec.halving:
        rungs = ", ".join(map(str, spec.halving.rungs(spec.evaluations)))
        saved = f"saves {1 - updates / whole:.0%} of {whole:,} updates"
        said.append(f"Halving by {spec.halving.factor} after evaluation {rungs} {saved}.")
    if calibrated:
        memory = max(kind.cost.state for kind in estimate.kinds if kind.cost)
        said += [
            f"About {duration(estimate.seconds)} for {updates:,.0f} updates, by a few made here; "
            "start-up comes on top.",
            *_much_evaluation(estimate),
            f"Memory of a pack: up to {size(memory)} and its activations, beside the process with its libraries. "
            "Data are mapped: trials of a machine share them.",
            f"Room in {spec.storage or spec.out}: about {size(estimate.storage)}"
            + (", of which most are checkpoints." if spec.checkpoint_every != 0 else "."),
        ]
    else:
        said.append(f"{updates:,.0f} updates in all. Not calibrated: no time and memory.")
    return [*said, "Nothing was written."]
