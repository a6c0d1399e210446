"""The command that trains what a verdict lacks."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dr3_ray.report.reader import as_label
from dr3_ray.report.verdict import Verdict
from dr3_ray.sweep.spec.pack_size import USUAL_PACK

WORDS = {
    "steps": "--steps",
    "evaluations": "--evaluations",
    "environment": "--environment",
    "evaluation_episodes": "--episodes",
    "cpus": "--cpus",
    "gpus": "--gpus",
    "pack": "--pack",
    "storage": "--storage",
}
"""Options of `dr3-ray sweep` for fields of a specification that say what is trained, and on what."""
USUAL = {"gpus": 0.0, "cpus": 1.0, "pack": USUAL_PACK}
"""What these are where nobody asks; a GPU takes CPUs with it, so that theirs is another then."""
REPLACED = ("--coefficients", "--seeds")


def command(info: Mapping[str, Any], verdict: Verdict, about: Mapping[str, str] | None = None) -> str:
    """Return the command that trains the missing seeds; empty if none are, or it cannot be told.

    `info` is the run's `run.json`, whose last command it follows. Where that was no `dr3-ray sweep`, or trained other
    things too, it names everything that was asked for. `about` has what the settings of the verdict have in common, as
    their algorithm and data set.
    """
    words, asked = list(info.get("command", [])), info.get("spec") or {}
    if not verdict.rivals or any(asked.get(name) for name in ("search", "budget", "halving", "parents")):
        return ""
    coefficients = ",".join(dict.fromkeys(f"{c:g}" for c in verdict.open))
    new = ["--coefficients", coefficients, "--seeds", str(verdict.seeds)]
    several = asked.get("axes") or any(len(asked.get(name, ())) > 1 for name in ("algorithms", "datasets"))
    if words[:2] == ["dr3-ray", "sweep"] and "--resume" not in words and not several:
        return shlex.join([*_without(words, REPLACED), *new])
    axes = asked.get("axes") or {}
    if not asked.get("datasets") or asked.get("exclude") or any(isinstance(values, dict) for values in axes.values()):
        return ""
    rivals = [{**(about or {}), **rival} for rival in verdict.rivals]
    return shlex.join(["dr3-ray", "sweep", *_asked(asked, rivals), *new])


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return words without some options and their values."""
    kept = list(words)
    for option in options:
        while option in kept:
            del kept[kept.index(option) : kept.index(option) + 2]
        kept = [word for word in kept if not word.startswith(f"{option}=")]
    return kept


def _asked(asked: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the words for all but coefficients and seeds; of axes only the values of the rivals."""
    words: list[str] = []
    for name, option in (("algorithms", "algorithm"), ("datasets", "dataset")):
        for value in dict.fromkeys(rival[option] for rival in rivals if option in rival) or asked[name]:
            words += [f"--{option}", value]
    unplayed = asked.get("environment") == "none"
    expected = USUAL if not asked.get("gpus") else {}
    for field, word in WORDS.items():
        usual = asked.get(field) in (None, expected.get(field))
        if not usual and not (unplayed and field == "evaluation_episodes"):
            words += [word, str(asked[field])]
    for name, value in (asked.get("options") or {}).items():
        words += ["--set", f"{name}={_text(value)}"]
    for axis, values in (asked.get("axes") or {}).items():
        wanted = {rival[axis] for rival in rivals if axis in rival}
        kept = [value for value in values if not wanted or any(_is(value, label) for label in wanted)]
        words += ["--axis", f"{axis}={','.join(map(_text, kept))}"]
    return [*words, "--out", str(asked["out"])]


def _is(value: Any, label: str) -> bool:
    """Return whether a value, as it was asked for, is that of a member's label: 0 is `0.0`, where an option is real."""
    if as_label(value) == label:
        return True
    try:
        return isinstance(value, int | float) and float(value) == float(label)
    except ValueError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
