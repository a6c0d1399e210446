"""What makes members the same: one text, and one hash, for a full configuration."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

LATER = {  # options that came later, and change nothing at these values: no part of a hash then
    "target_share": 0.0,
    "shuffle_window": 0,
    "reward_shift": 0.0,
    "reward_scale": 1.0,
    "reward_scaling": "none",
    "reward_clip": 0.0,
    "critic_actions": "heads",
    "td_actions": "expected",
}
CONFIG_FORMAT = 1  # enters every hash: another number redoes every run


def member_id(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits for a full configuration.

    The data count by their contents, not by where they lie.
    """
    identity = {name: value for name, value in config.items() if name != "dataset"}
    identity = {name: value for name, value in identity.items() if name not in LATER or value != LATER[name]}
    identity |= {"config_format": CONFIG_FORMAT}
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:16]


def configuration(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for members that differ in their seed alone."""
    return member_id({**config, "seed": None})


def configurations(members: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the places in a list of members of each configuration's seeds."""
    found: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        found.setdefault(configuration(member), []).append(place)
    return list(found.values())


def canonical(value: Any) -> str:
    """Return the one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
