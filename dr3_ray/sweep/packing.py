"""Members into packs: which of them train together in one trial."""

import hashlib
from typing import NamedTuple

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.member import REGULARIZERS
from dr3_ray.sweep.halving import Race
from dr3_ray.sweep.identity import canonical, configuration
from dr3_ray.sweep.spec import Config


class Pack(NamedTuple):
    """Members of one structure, by their hashes."""

    name: str
    members: dict[str, Config]


def structure(config: Config) -> str:
    """What the members of a pack have in common: everything that is neither a number of the options nor the seed."""
    forms = [form.options for form in kinds_of(config["algorithm"]).values()]
    apart = {"seed", *(name for options in (*forms, *REGULARIZERS) for name in options.numbers())}
    return canonical({name: value for name, value in config.items() if name not in apart})


def pack_members(members: dict[str, Config], limit: int, slots: int) -> list[Pack]:
    """Packs of at most `limit` members each, for `slots` trials at a time.

    Packs of one structure differ in size by one unit at most: a member or, where packs are halved, a configuration with
    all its seeds. The fewest packs that respect the limit are cut further until the number of packs is a multiple of
    `slots`, so that no slot is idle while another works, or no pack can be cut further. Packs that are halved begin
    with `factor` configurations or more, whatever the limit.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for member, config in members.items():
        together = configuration(config) if "halving" in config and limit > 1 else member
        groups.setdefault(structure(config), {}).setdefault(together, []).append(member)
    most, cuts = {}, {}  # packs of each structure: at most, and to begin with
    for key, units in groups.items():
        race = Race.of(members[next(iter(units.values()))[0]]) if limit > 1 else None
        least = race.factor if race else 1
        most[key] = max(1, len(units) // least)
        cuts[key] = min(most[key], -(-len(units) // max(limit // max(map(len, units.values())), 1)))
    while sum(cuts.values()) % slots and (further := [key for key in groups if cuts[key] < most[key]]):
        cuts[max(further, key=lambda key: sum(map(len, groups[key].values())) / cuts[key])] += 1
    packs = []
    for key, units in groups.items():
        group = list(units.values())
        size, larger = divmod(len(group), cuts[key])
        for number in range(cuts[key]):
            start = number * size + min(number, larger)
            chosen = group[start : start + size + (number < larger)]
            pack = {each: members[each] for unit in chosen for each in unit}
            packs.append(Pack(pack_name(pack), pack))
    return packs


def pack_name(members: dict[str, Config]) -> str:
    """The same name for the same members in the same order."""
    algorithm = next(iter(members.values()))["algorithm"]
    return f"{algorithm}-{len(members)}-{hashlib.sha256(' '.join(members).encode()).hexdigest()[:8]}"
