"""From the words of a command line to a specification: what is given there stands above what a file says."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.sweep.spec import SweepSpec
from dr3_ray.sweep.specfile import read_spec

FIELDS = {"algorithm": "algorithms", "dataset": "datasets", "episodes": "evaluation_episodes"}  # other names there

SEARCH = {"search": "method", "trials": "trials", "point": "points", "study": "study"}  # options of its mapping


def spec_from(file: Path | None, given: Mapping[str, Any]) -> SweepSpec:
    """The specification in a file, if there is one, with the options that were given, by their names, above it.

    Raises:
        UserError: an option or the file is not acceptable.
    """
    return spec_above(read_spec(file) if file else {}, given)


def spec_above(values: dict[str, Any], given: Mapping[str, Any]) -> SweepSpec:
    """The specification of these fields, with the options that were given on a command line above them.

    Raises:
        UserError: an option or a field is not acceptable.
    """
    values = dict(values)
    fixed, axes = ({name: read(text) for name, text in map(_split, given.get(key, ()))} for key, read in SETTINGS)
    for key, new, other in (("options", fixed, axes), ("axes", axes, fixed)):
        before = values.get(key, {})
        if (new or other) and isinstance(before, dict):
            values[key] = {name: value for name, value in before.items() if name not in other} | new
    search = {key: given[name] for name, key in SEARCH.items() if name in given}
    if "points" in search:
        search["points"] = [_value(text) for text in search["points"]]
    if search:
        before = values.get("search")
        values["search"] = (before if isinstance(before, dict) else {}) | search
    texts: dict[str, Callable[[str], Any]] = {"coefficients": read_coefficients, "seeds": _seeds}
    for name, value in given.items():
        if name not in dict(SETTINGS) and name not in SEARCH:
            values[FIELDS.get(name, name)] = texts[name](value) if name in texts else value
    if "datasets" not in values:
        raise UserError("Missing option '--dataset': name the data, a SPEC file, or a run directory after --resume")
    return SweepSpec(**values)


def _split(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not (name and equals and value):
        raise UserError(f"{setting!r} is not of the form OPTION=VALUE")
    return name, value


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, lists, true, false), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _values(text: str) -> Any:
    """`0.1,1` and `[64,64],[256,256]` as JSON, `huber,squared` as words, `{"log_uniform": …}` as a space."""
    if isinstance(space := _value(text), dict):
        return space
    try:
        return list(json.loads(f"[{text}]"))
    except ValueError:
        return [_value(part) for part in text.split(",")]


def read_coefficients(text: str) -> Any:
    """Numbers with commas between them, or a space as JSON. UserError: something else."""
    space = _value(text)
    return space if isinstance(space, dict) else [_number(part, "--coefficients") for part in text.split(",")]


def _seeds(text: str) -> Any:
    return int(text) if text.isdecimal() else [_number(part, "--seeds") for part in text.split(",") if part]


def _number(text: str, option: str) -> float:
    value = _value(text.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{option}: {text!r} is not a number: give numbers with commas between them")
    return value


SETTINGS: tuple[tuple[str, Callable[[str], Any]], ...] = (("set_", _value), ("axis", _values))
