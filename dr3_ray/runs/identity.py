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
    "hindsight": "none",
    "hindsight_ratio": 0.8,
    "hindsight_threshold": 0.0,
    "hindsight_terminal": False,
    "dr3_features": "penultimate",
    "dr3_divisor": "rows",
    "critic_head": "scalar",
    "bins": 101,
    "v_min": 0.0,
    "v_max": 0.0,
    "sigma": 0.75,
    "actor_layer_norm": False,
    "actor_dropout": 0.0,
    "actor_weight_decay": 0.0,
}
EARLIER = {"DR3-ReBRAC": "actor_layer_norm"}  # which that algorithm always had, in every hash
LENGTH = ("steps", "evaluations")  # by which members of one kind may differ
PARENT = "parent"  # the member that a configuration goes on from, as `HASH@UPDATES`; the options of both tell which
OF_PARENT = f"{PARENT}_"  # before what that member had, where the configuration has another value
PLACES = ("dataset", f"{OF_PARENT}dataset")  # where data lie, which count by their contents
CONFIG_FORMAT = 1  # enters every hash: another number redoes every run


def member_id(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits for a full configuration.

    The data count by their contents, not by where they lie.
    """
    return hashlib.sha256(canonical(_counted(config) | {"config_format": CONFIG_FORMAT}).encode()).hexdigest()[:16]


def _counted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration tells members apart."""
    always = EARLIER.get(config.get("algorithm", ""))
    return {
        name: value
        for name, value in config.items()
        if name not in PLACES and (name == always or not (name in LATER and value == LATER[name]))
    }


def configuration(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for members that differ in their seed alone, and in their parent's."""
    return member_id({**{name: value for name, value in config.items() if name != PARENT}, "seed": None})


def configurations(members: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the places in a list of members of each configuration's seeds."""
    places: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        places.setdefault(configuration(member), []).append(place)
    return list(places.values())


def but_for_length(config: Mapping[str, Any]) -> str:
    """Return a text that is the same for members that differ only in how long they train and how often they play."""
    return json.dumps({name: value for name, value in _counted(config).items() if name not in LENGTH}, sort_keys=True)


def every(config: Mapping[str, Any]) -> int:
    """Return the updates between two evaluations of a member; 0 where its configuration does not say."""
    steps, evaluations = config.get("steps"), config.get("evaluations")
    return steps // evaluations if type(steps) is type(evaluations) is int and evaluations > 0 else 0


def goes_on(shorter: Mapping[str, Any], longer: Mapping[str, Any]) -> bool:
    """Return whether what a shorter member measured is, to the bit, the beginning of what a longer one does.

    Both have to be the same `but_for_length`. Training does not depend on when it is measured, so that the longer
    one's evaluations may be some of the shorter one's. What is compiled is equal up to rounding.
    """
    near, far = every(shorter), every(longer)
    if not (near and far) or shorter["steps"] >= longer["steps"] or shorter.get("compile"):
        return False
    return far == near or not (far % near or shorter["steps"] % far or "halving" in shorter)


def canonical(value: Any) -> str:
    """Return the one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
