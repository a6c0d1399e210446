"""Members that are trained longer: their pack goes on from the last checkpoint of the shorter ones."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from dr3_ray.runs.identity import but_for_length, every, goes_on
from dr3_ray.runs.index import FINAL, Record
from dr3_ray.sweep.packs.packing import Pack, pack_name
from dr3_ray.sweep.spec.spec import Config


class Longer(NamedTuple):
    """Packs that go on from shorter ones, by name, and what keeps other members from it."""

    packs: dict[str, Pack]
    reasons: list[str]
    """A sentence each."""


def longer_packs(
    missing: Mapping[str, Config], records: Mapping[str, Record], kept: Callable[[], Collection[str]]
) -> Longer:
    """Return packs that go on from shorter ones: the same members in the same order, with more steps.

    What comes of them is, to the bit, what training them in one go would have given. `missing` are the members to be
    trained, beside those in `records` that have ended; `kept` tells which packs have a checkpoint.
    """
    members = {member: record["config"] for member, record in records.items()} | dict(missing)
    begun = {name: configs for name, configs in _begun(records).items() if name == pack_name(configs)}
    wanted: dict[str, dict[tuple[int, int], str]] = {}  # the members of a kind, by their length
    for member, config in members.items():
        wanted.setdefault(but_for_length(config), {})[_length(config)] = member
    packs: dict[str, Pack] = {}
    going: set[str] = set()
    refused: dict[str, list[str]] = {}  # members by what keeps them
    there: Collection[str] | None = None
    for origin, configs in sorted(begun.items(), key=lambda item: -_steps(item[1])):  # the longest one counts
        twins = [wanted[but_for_length(old)] for old in configs.values()]
        for length in sorted({length for twin in twins for length in twin if length[0] > _steps(configs)}):
            longer = {twin[length]: members[twin[length]] for twin in twins if length in twin}
            if longer.keys().isdisjoint(missing) or not going.isdisjoint(longer):
                continue
            there = kept() if there is None else there
            if reason := _reason(origin, configs, longer, records, there):
                refused.setdefault(reason, []).extend(longer)
            else:
                packs[pack_name(longer)] = Pack(pack_name(longer), longer, origin, _made(configs, records))
                going |= longer.keys()
    return Longer(packs, list(_sentences(refused, missing.keys() - going)))


def _begun(records: Mapping[str, Record]) -> dict[str, dict[str, Config]]:
    """Return the members of each pack that was begun."""
    packs: dict[str, dict[str, Config]] = {}
    for member, record in records.items():
        if record["pack"]:
            packs.setdefault(record["pack"], {})[member] = record["config"]
    return packs


def _reason(
    origin: str,
    configs: Mapping[str, Config],
    longer: Mapping[str, Config],
    records: Mapping[str, Record],
    kept: Collection[str],
) -> str:
    """Say what keeps longer members from going on where a pack was left; empty: nothing does."""
    statuses = {records[member]["status"] for member in configs}
    old, new = next(iter(configs.values())), next(iter(longer.values()))
    if old.get("compile"):
        return "compiled steps are equal up to rounding only"
    if "halving" in old and len(configs) == 1:
        return "who was cut depended on who came first"
    if not all(goes_on(config, new) for config in configs.values()):
        return _apart(old, new)
    if every(old) != every(new) and (statuses - set(FINAL) or "diverged" in statuses):
        left = "diverged" if "diverged" in statuses else "had not ended"
        return f"{_spacing(old, new)}, and members {left}"
    if len(longer) < len(configs):
        return "other members of their packs are not trained longer; give the whole sweep more steps"
    if origin not in kept:
        return "the checkpoints of the shorter ones are not there"
    return ""


def _apart(old: Config, new: Config) -> str:
    """Say that evaluations do not fit, and how many would."""
    fits = new["steps"] % every(old) == 0
    would = f"; {new['steps'] // every(old)} evaluations would let them go on" if fits else ""
    return f"{_spacing(old, new)}{would}"


def _spacing(old: Config, new: Config) -> str:
    return f"evaluations came every {every(old):,} of {old['steps']:,} updates and are to come every {every(new):,} now"


def _sentences(refused: Mapping[str, list[str]], anew: set[str]) -> Iterator[str]:
    """Say how many of the members that begin anew each reason keeps from going on; of several the first counts."""
    for reason, members in refused.items():
        if here := anew.intersection(members):
            yield f"{len(here)} members begin anew, and not where shorter ones were left: {reason}"
            anew = anew - here


def _length(config: Config) -> tuple[int, int]:
    return int(config["steps"]), int(config["evaluations"])


def _steps(configs: Mapping[str, Config]) -> int:
    return max(int(config["steps"]) for config in configs.values())


def _made(configs: Mapping[str, Config], records: Mapping[str, Record]) -> int:
    """Return the updates after which a longer pack goes on, where that is known."""
    return _steps(configs) if all(records[member]["status"] in FINAL for member in configs) else 0
