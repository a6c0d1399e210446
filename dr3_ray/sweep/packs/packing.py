"""Members into packs: which of them train together in one trial."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.runs.identity import PARENT, canonical, configuration
from dr3_ray.runs.index import FINAL, Record
from dr3_ray.sweep.spec.halving import Race
from dr3_ray.sweep.spec.spec import Config


class Pack(NamedTuple):
    """Members of one structure, by their hashes."""

    name: str
    members: dict[str, Config]
    origin: str = ""
    """The pack of shorter members from whose last checkpoint this one begins; empty: it begins anew."""
    made: int = 0
    """The updates that the origin has made, where it has ended."""


def structure(config: Config) -> str:
    """Return what members of a pack share: everything that is neither a number of the options, the seed nor a parent.

    What tells a parent from a member is a part of it, so that a member of a pack is known by its options.
    """
    forms = [form.options for form in kinds_of(config["algorithm"]).values()]
    apart = {"seed", PARENT, *(name for options in (*forms, *REGULARIZER_OPTIONS) for name in options.numbers())}
    return canonical({name: value for name, value in config.items() if name not in apart})


def pack_members(members: dict[str, Config], limit: int, slots: int) -> list[Pack]:
    """Return packs of at most `limit` members each, for `slots` trials at a time.

    Packs of one structure differ in size by one unit at most: a member or, where packs are halved, a configuration with
    all its seeds. The fewest packs that respect the limit are cut further until the number of packs is a multiple of
    `slots`, so that no slot is idle while another works, or no pack can be cut further. Packs that are halved begin
    with `factor` configurations or more, whatever the limit.
    """
    structures: dict[str, dict[str, list[str]]] = {}  # of each structure its units, with their members
    for member, config in members.items():
        unit = configuration(config) if "halving" in config and limit > 1 else member
        structures.setdefault(structure(config), {}).setdefault(unit, []).append(member)
    most_packs, n_packs = {}, {}  # of each structure
    for key, units in structures.items():
        race = Race.of(members[next(iter(units.values()))[0]]) if limit > 1 else None
        least_units = race.factor if race else 1
        units_in_limit = max(limit // max(map(len, units.values())), 1)
        most_packs[key] = max(1, len(units) // least_units)
        n_packs[key] = min(most_packs[key], -(-len(units) // units_in_limit))
    while sum(n_packs.values()) % slots and (
        divisible := [key for key in structures if n_packs[key] < most_packs[key]]
    ):
        n_packs[max(divisible, key=lambda key: sum(map(len, structures[key].values())) / n_packs[key])] += 1
    return [pack for key, units in structures.items() for pack in _divided(list(units.values()), n_packs[key], members)]


def _divided(units: list[list[str]], n_packs: int, members: dict[str, Config]) -> Iterator[Pack]:
    """Yield units of members as packs whose sizes differ by one unit at most, larger ones first."""
    size, n_larger = divmod(len(units), n_packs)
    for number in range(n_packs):
        start = number * size + min(number, n_larger)
        chosen = units[start : start + size + (number < n_larger)]
        pack = {member: members[member] for unit in chosen for member in unit}
        yield Pack(pack_name(pack), pack)


def begun_packs(missing: dict[str, Config], records: dict[str, Record]) -> tuple[list[Pack], dict[str, Config]]:
    """Return the packs that were begun and not finished, as they were, and the missing members that are in none.

    A checkpoint belongs to a pack: it is of use only if the same members come together again, including those that
    diverged meanwhile.
    """
    packs: dict[str, dict[str, Config]] = {}
    for member, record in records.items():
        if record["pack"]:
            packs.setdefault(record["pack"], {})[member] = missing.get(member) or record["config"]
    again = [
        Pack(name, members)
        for name, members in packs.items()
        if name == pack_name(members)
        and len({config["environment"] for config in members.values()}) == 1  # that of what was asked for
        and not members.keys().isdisjoint(missing)
        and all(member in missing or records[member]["status"] in FINAL for member in members)
    ]
    taken = {member for pack in again for member in pack.members}
    return again, {member: config for member, config in missing.items() if member not in taken}


def pack_name(members: dict[str, Config]) -> str:
    """Return a name that depends on the members and their order alone."""
    algorithm = next(iter(members.values()))["algorithm"]
    return f"{algorithm}-{len(members)}-{hashlib.sha256(' '.join(members).encode()).hexdigest()[:8]}"
