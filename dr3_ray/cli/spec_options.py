"""From the words of a command line to a specification: what is given there stands above what a file says."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dr3_ray.cli.specfile import read_spec
from dr3_ray.data.mixture_names import is_mixture
from dr3_ray.errors import UserError
from dr3_ray.process.stopping import resuming
from dr3_ray.runs.directory import RUN
from dr3_ray.sweep.spec.spec import ALSO, SweepSpec, by_field

EPISODES = ALSO["episodes"]
SEARCH = {"search": "method", "trials": "trials", "point": "points", "study": "study"}  # options of its mapping


def spec_from(file: Path | None, given: Mapping[str, Any]) -> SweepSpec:
    """Return the specification in a file, if there is one, with the given options above it.

    Raises:
        UserError: an option or the file is not acceptable.
    """
    if file and (file / RUN).exists():
        raise UserError(f"{file} is the run directory of a sweep: `{resuming(file)}` goes on with it")
    written = read_spec(file) if file else {}
    _check_played(by_field(written), "episodes" if "episodes" in written else EPISODES)
    return spec_above(written, given)


def spec_above(values: dict[str, Any], given: Mapping[str, Any]) -> SweepSpec:
    """Return the specification of these fields, with the options of a command line above them.

    Raises:
        UserError: an option or a field is not acceptable.
    """
    values = by_field(values)
    fixed, axes = (_pairs(given.get(key, ()), read) for key, read in SETTINGS)
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
    for name, value in given.items():
        if name not in dict(SETTINGS) and name not in SEARCH:
            values[ALSO.get(name.rstrip("_"), name)] = READERS[name](value) if name in READERS else value
    if "episodes" in given:
        _check_played(values, "--episodes")
    if "datasets" not in values and not values.get("parents"):
        raise UserError("Missing option '--dataset': name the data, a SPEC file, or a run directory after --resume")
    return SweepSpec(**values)


def _check_played(values: Mapping[str, Any], called: str) -> None:
    """Refuse a field or option that asks for episodes where there is no environment to play them in."""
    if values.get("environment") == "none" and EPISODES in values:
        raise UserError(f"environment none plays no episodes: leave out {called}, or name an environment")


def read_settings(words: Iterable[str]) -> dict[str, Any]:
    """Read `OPTION=VALUE` words, a value as JSON where it is JSON.

    Raises:
        UserError: a word has another form.
    """
    return _pairs(words, _value)


def _pairs(words: Iterable[str], read: Callable[[str], Any]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for name, text in map(_split, words):
        if name in pairs:
            raise UserError(f"{name} is given twice: leave out one of {name}={text} and the one before")
        pairs[name] = read(text)
    return pairs


def _split(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not (name and equals and value):
        raise UserError(f"{setting!r} is not of the form OPTION=VALUE")
    return name, value


def _value(text: str) -> Any:
    """Read a text as JSON where it is JSON (numbers, lists, true, false), else as itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _values(text: str) -> Any:
    """Read `0.1,1` and `[64,64],[256,256]` as JSON, `huber,squared` as words, `{"log_uniform": …}` as a space."""
    if isinstance(space := _value(text), dict):
        return space
    try:
        return list(json.loads(f"[{text}]"))
    except ValueError:
        return [_value(part) for part in text.split(",")]


def read_coefficients(texts: Sequence[str]) -> Any:
    """Read numbers with commas between them, or a space as JSON.

    Raises:
        UserError: the texts are neither.
    """
    spaces = [space for space in map(_value, texts) if isinstance(space, dict)]
    if spaces and len(texts) > 1:
        raise UserError("--coefficients: a space stands alone: give it once, with further values in its `also`")
    return spaces[0] if spaces else [_number(text, "--coefficients") for text in words_of(texts)]


def _seeds(texts: Sequence[str]) -> Any:
    words = list(filter(None, words_of(texts)))  # `5,` is a list of one
    alone = len(words) == 1 and "," not in texts[0] and words[0].isdecimal()
    return int(words[0]) if alone else [_number(text, "--seeds") for text in words]


def words_of(texts: Sequence[str]) -> list[str]:
    """Return what stands between commas; each text may hold several."""
    return [word.strip() for text in texts for word in text.split(",")]


def _sources(texts: Sequence[str]) -> list[str]:
    """Return the names of data sets or runs; a comma may also be part of a mixture, or of a folder that is there.

    Raises:
        UserError: a mixture stands behind another name, and nobody knows which commas are its own.
    """
    names: list[str] = []
    for text in texts:
        words = [text] if is_mixture(text) or Path(text).exists() else words_of([text])
        if len(words) > 1 and (mixtures := list(filter(is_mixture, words))):
            raise UserError(f"{mixtures[0]}… stands in a list, and has commas of its own: give it an option of its own")
        names += words
    return names


def _number(text: str, option: str) -> float:
    value = _value(text.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{option}: {text!r} is not a number: give numbers with commas between them")
    return value


SETTINGS: tuple[tuple[str, Callable[[str], Any]], ...] = (("set_", _value), ("axis", _values))
READERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "coefficients": read_coefficients,
    "seeds": _seeds,
    **dict.fromkeys(("dataset", "from_"), _sources),
    **dict.fromkeys(("algorithm", "objective", "log"), words_of),
}
