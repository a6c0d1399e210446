"""Members into packs: which of them train together in one trial."""

import hashlib
from typing import NamedTuple

from dr3_ray.algorithms.registry import kinds_of
from dr3_ray.member import REGULARIZERS
from dr3_ray.sweep.spec import Config, canonical


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

    Packs of one structure differ in size by one at most. The fewest packs that respect the limit are cut further until
    the number of packs is a multiple of `slots`, so that no slot is idle while another works, or every pack has one
    member.
    """
    groups: dict[str, list[str]] = {}
    for member, config in members.items():
        groups.setdefault(structure(config), []).append(member)
    cuts = {key: -(-len(group) // limit) for key, group in groups.items()}
    while sum(cuts.values()) % slots and any(cuts[key] < len(group) for key, group in groups.items()):
        largest = max(groups, key=lambda key: len(groups[key]) / cuts[key])
        cuts[largest] += 1
    packs = []
    for key, group in groups.items():
        size, larger = divmod(len(group), cuts[key])
        for number in range(cuts[key]):
            start = number * size + min(number, larger)
            chosen = group[start : start + size + (number < larger)]
            pack = {each: members[each] for each in chosen}
            packs.append(Pack(pack_name(pack), pack))
    return packs


def pack_name(members: dict[str, Config]) -> str:
    """The same name for the same members in the same order."""
    algorithm = next(iter(members.values()))["algorithm"]
    return f"{algorithm}-{len(members)}-{hashlib.sha256(' '.join(members).encode()).hexdigest()[:8]}"
