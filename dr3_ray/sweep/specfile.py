"""Specifications in files: YAML 1.2, of which JSON is a part."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dr3_ray.errors import UserError


class _Loader(yaml.SafeLoader):
    """Numbers and words as in YAML 1.2: `1e-3` is a number, `no` and `on` are words. A key stands there once."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is there twice", problem_mark=node.value[number][0].start_mark
                )
        return dict(super().construct_mapping(node, deep))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_spec(path: Path) -> dict[str, Any]:
    """What a specification file holds, for `SweepSpec(**…)`.

    Raises:
        UserError: there is no such file, or it is not a YAML mapping; says the line.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a YAML file, or options alone") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UserError(f"{where} is not YAML: {getattr(error, 'problem', None) or 'it is not text'}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise UserError(f"{path} is not a specification: it has to be names with values, such as `steps: 1000`")
    return document
