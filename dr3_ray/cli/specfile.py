"""Specifications in files: YAML 1.2, which includes JSON."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError

from dr3_ray.errors import UserError

LARGEST = 200_000  # bytes, which take some three seconds to read


class _Core(SafeConstructor):
    """A constructor of the values of YAML's core schema alone: a date and a lone `=` are words."""


for _tag in ("timestamp", "value"):
    _Core.add_constructor(f"tag:yaml.org,2002:{_tag}", SafeConstructor.construct_yaml_str)


def read_spec(path: Path) -> dict[str, Any]:
    """Read a specification file as fields for `SweepSpec(**…)`.

    Raises:
        UserError: there is no such file, it is larger than 200 kB, or it is not a YAML mapping; says the line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Core
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise UserError(
                f"{path} is larger than {LARGEST // 1000} kB: give ranges instead of lists, or SweepSpec from Python"
            )
        document = yaml.load(text.decode())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a YAML file, or options alone") from None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(f"{where} is not YAML: {_reason(error)}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise UserError(f"{path} is not a specification: it has to be names with values, such as `steps: 1000`")
    return document


def _reason(error: Exception) -> str:
    """Return what is wrong, without the values that ruamel shows of a repeated key, which may be secret."""
    if isinstance(error, DuplicateKeyError):
        key = str(error.problem).removeprefix('found duplicate key "').partition('" with value "')[0]
        return f"{key!r} is there twice"
    otherwise = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not text"
    return getattr(error, "problem", None) or otherwise
