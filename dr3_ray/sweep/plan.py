"""What a sweep trains from here on: which members, in which packs, how many at a time; run and estimate share it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from dr3_ray.runs.directory import DamagedRunError, is_run, read_run
from dr3_ray.runs.index import FINAL, Record, readable
from dr3_ray.sweep.adoption import adopted
from dr3_ray.sweep.children import children
from dr3_ray.sweep.packs.longer import longer_packs
from dr3_ray.sweep.packs.packing import Pack, begun_packs, pack_members
from dr3_ray.sweep.parents import Parent, find_parents
from dr3_ray.sweep.spec.problems import members, problems
from dr3_ray.sweep.spec.spec import Config, SweepSpec


@dataclass(frozen=True)
class Plan:
    """A plan of what a sweep trains from here on."""

    members: dict[str, Config]
    """All members, by their hashes, those that are done among them."""
    missing: dict[str, Config]
    """The members that are not done."""
    begun: tuple[Pack, ...]
    """Packs that go on from their checkpoints, composed as they were."""
    longer: tuple[Pack, ...]
    """Packs that go on from the last checkpoints of shorter ones."""
    anew: tuple[str, ...]
    """Why others do not, a sentence each."""
    fresh: tuple[Pack, ...]
    """Packs of the other members that are missing."""
    limit: int
    """Members of a pack, at most."""
    slots: int
    """Packs that are trained at a time."""

    @classmethod
    def of(
        cls,
        members: dict[str, Config],
        missing: dict[str, Config],
        records: dict[str, Record],
        slots: int,
        limit: Callable[[Sequence[Pack]], int],
        kept: Callable[[], Collection[str]],
    ) -> Self:
        """Resolve a plan; `records` are what the index knows, and `limit` is told which packs go on before it answers.

        `kept` tells which packs have a checkpoint.

        Raises:
            UserError: by `limit`.
        """
        begun, rest = begun_packs(missing, records)
        packs = longer_packs(missing, records, kept)
        begun = [packs.packs.get(pack.name, pack) for pack in begun]
        taken = {member for pack in begun for member in pack.members}
        longer = [pack for pack in packs.packs.values() if pack.members.keys().isdisjoint(taken)]
        for member in {member for pack in longer for member in pack.members}:
            rest.pop(member, None)
        most = limit([*begun, *longer])
        fresh = pack_members(rest, most, slots)
        return cls(members, missing, tuple(begun), tuple(longer), tuple(packs.reasons), tuple(fresh), most, slots)

    @property
    def packs(self) -> tuple[Pack, ...]:
        """All packs in the order in which they are trained, each a trial."""
        return self.begun + self.longer + self.fresh


def planned_members(
    spec: SweepSpec, say: Callable[[str], None], force: bool = False, parents: Sequence[Parent] = ()
) -> dict[str, Config]:
    """Return all members of a sweep; those of a search as far as they are known, and examples of others.

    `parents` are those of the specification, where they have been found before.

    Raises:
        UserError: the sweep cannot be done as asked.
    """
    records = readable(spec.out) if is_run(spec.out) else []
    if spec.search is None:
        created = None
        with suppress(DamagedRunError):
            created = read_run(spec.out).get("created") if records else None
        planned = children(spec, parents or find_parents(spec, say), say) if spec.parents else members(spec, say)
        return adopted(planned, records, created, force)
    from dr3_ray.sweep.search.studies import foreseen  # Optuna takes a second to import

    return foreseen(spec, problems(spec, say), records)


def unfinished(planned: dict[str, Config], records: Iterable[Record]) -> dict[str, Config]:
    """Return the planned members that have not ended, in the order of the index, which names packs; new ones last."""
    statuses = {record["member"]: record["status"] for record in records}
    order = dict.fromkeys([*(member for member in statuses if member in planned), *planned])
    return {member: planned[member] for member in order if statuses.get(member) not in FINAL}
