"""What makes data sets the same: everything that changes what is learned, and nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

RULE = 3  # enters every identity: another number makes every data set another one
FILES_RULE = 2  # the same, where a manifest tells no digest of the rows: those of the files stand for it
# Fields of a manifest that change nothing that is learned. `environment` names where policies play: members record it
# on their own, and a sweep refuses to mix two. `statistics` follow from the rows. `content` is the digest
# of these, in whatever files they lie; without it, the files count, but for their names.
DESCRIPTION = ("format", "name", "environment", "statistics", "provenance", "digests", "shards", "episodes")
SUBSET_RULE = 1  # enters the identity of every subset, like RULE: raise it if a name comes to mean other rows
MIXTURE_RULE = 1  # the same, of every mixture
DISCOUNT_RULE = 1  # the same, of data opened with another discount than their own
ABSENT = {"box": ("start",), "discrete": ("shape",), "dict": ("shape", "start")}  # what a space of a kind never says


class Identities(NamedTuple):
    """The identities of the same data by the rules of all versions, each 64 hexadecimal digits."""

    now: str
    of_files: str
    """By the rule of formats 2 and 3, in which other files of the same rows were other data."""
    of_format_1: str
    """By the rule of format 1, which left out spaces, bounds and gamma."""


def identities(manifest: Mapping[str, Any]) -> Identities:
    """Return the identities of a dumped `Manifest`. Without `content`, it has the one of its files."""
    about = {
        "gamma": manifest["gamma"] + 0.0,
        "complete_episodes": manifest["complete_episodes"],
        "observation_space": space(manifest["observation_space"]),
        "action_space": space(manifest["action_space"]),
        "counts": manifest["counts"],
    }
    files = {
        "shards": [_file(entry) for entry in manifest["shards"]],  # their order is that of the rows
        "episodes": _file(manifest["episodes"]),
    }
    of_files = digest({"rule": FILES_RULE, **about, **files})
    content = manifest["content"]
    now = of_files if content is None else digest({"rule": RULE, **about, "content": content})
    return Identities(now, of_files, _of_format_1(manifest))


def _of_format_1(manifest: Mapping[str, Any]) -> str:
    files = [file for entry in manifest["shards"] for file in (entry, *entry.get("frames", ()))]
    files.append(manifest["episodes"])
    identity = [[entry["sha256"] for entry in files], manifest["counts"]]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def of_subset(whole: str, subset: str) -> str:
    """Return the identity of some rows: those that `subset` names in the data set with the identity `whole`."""
    return digest({"rule": SUBSET_RULE, "data": whole, "subset": subset})


def of_discount(whole: str, gamma: float) -> str:
    """Return the identity of data whose Monte-Carlo returns were computed anew, with the discount `gamma`."""
    return digest({"rule": DISCOUNT_RULE, "data": whole, "gamma": gamma + 0.0})


def of_mixture(
    parts: Sequence[str],
    shares: Sequence[Sequence[Fraction]],
    since: int | None,
    tasks: Sequence[int] | None,
    pad: bool = False,
) -> str:
    """Return the identity of a mixture: of data sets with these identities, by its shares in each phase and its tasks.

    Weights count by their shares: 9 and 1 are 0.9 and 0.1.
    """
    said = [[str(share) for share in phase] for phase in shares]
    padded = {"pad": True} if pad else {}
    return digest(
        {"rule": MIXTURE_RULE, "parts": list(parts), "shares": said, "since": since, "tasks": tasks, **padded}
    )


def digest(value: Any) -> str:
    """Return the SHA-256 of the one JSON text of a value; order of keys, spaces and indentation do not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _file(entry: Mapping[str, Any]) -> list[Any]:
    """Return what a file holds; of a shard with frames also those, and how observations are made of them."""
    frames = [[stored["part"], stored["stack"], stored["axis"], *_file(stored)] for stored in entry.get("frames", ())]
    return [entry["rows"], entry["bytes"], entry["sha256"], *([frames] if frames else [])]


def space(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields of a dumped space, its bounds in one spelling."""
    absent = () if said["choices"] else ABSENT[said["kind"]]
    description = {name: value for name, value in said.items() if value is not None and name not in absent}
    if said["spaces"] is not None:
        return description | {"spaces": {name: space(part) for name, part in said["spaces"].items()}}
    bounds = {"low": said["low"], "high": said["high"]}
    return description | {name: _bound(bound) for name, bound in bounds.items() if bound is not None}


def _bound(bound: tuple[float, ...]) -> list[str]:
    """Return bounds as text, because JSON has no infinity; one number where all are equal. -0 is 0."""
    numbers = bound[:1] if len(set(bound)) == 1 else bound
    return [repr(number + 0.0) for number in numbers]
