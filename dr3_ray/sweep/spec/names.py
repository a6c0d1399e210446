"""Names of options in a specification: which there are, and which are used before they are set."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from dr3_ray.algorithms.registry import ALGORITHMS, kinds_of
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.errors import UserError, check_known
from dr3_ray.regularizers.registry import REGULARIZER_OPTIONS
from dr3_ray.sweep.spec.space import names_of, space_of

REGULAR = {name for options in REGULARIZER_OPTIONS for name in options.names()}
PLAIN = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def options_of(form: AlgorithmSpec) -> dict[str, Any]:
    """Return every option that an algorithm has, with its default."""
    options = (form.options, *(REGULARIZER_OPTIONS if form.has_critic else ()))
    return {name: value for option in options for name, value in option().to_dict().items()}


@cache
def option_types() -> dict[str, pa.DataType]:
    """Return the type of every option of every algorithm and regulariser as a column, by its declaration."""
    forms = [form.options for kinds in ALGORITHMS.values() for form in kinds.values()]
    return {
        option.name: _type_of(option) for form in (*forms, *REGULARIZER_OPTIONS) for option in dataclasses.fields(form)
    }


def check_names(
    algorithms: Sequence[str], options: Mapping[str, Any], axes: Mapping[str, Any], exclude: Sequence[Mapping[str, Any]]
) -> None:
    """Check that every option and condition has a name that one of the algorithms knows.

    Raises:
        UserError: one has not.
    """
    forms = [form for algorithm in algorithms for form in kinds_of(algorithm).values()]
    known = REGULAR.union(*map(options_of, forms))
    spaces = {name: space_of(axis) for name, axis in axes.items()}
    set_by = {name: names_of(name, axis) for name, axis in axes.items()}
    asked = [*options, *(name for names in set_by.values() for name in names)]
    for name in asked:
        if name not in known and (others := _algorithms_with(name)):
            raise UserError(
                f"{name!r} is an option of {', '.join(others)}, and not of {', '.join(algorithms)}: leave it out, or "
                "name one that has it"
            )
    check_known("option", asked, known)
    seen = known | {"algorithm", "dataset"}
    for name, space in spaces.items():
        check_known(f"name in axes.{name}.when", space.when, seen)
    for condition in exclude:
        check_known("name in exclude", condition, seen | {"seed"})
    later = [name for name, space in spaces.items() if space.when]
    while later:
        name = later.pop(0)
        for other in later:
            if both := set(spaces[name].when) & set(set_by[other]):
                raise UserError(f"axes.{name} depends on {min(both)!r}, which is set after it: move axes.{other} up")


def _algorithms_with(option: str) -> list[str]:
    return [name for name, kinds in ALGORITHMS.items() if any(option in options_of(form) for form in kinds.values())]


def _type_of(option: "dataclasses.Field[Any]") -> pa.DataType:
    if option.metadata["number"]:
        return pa.float64()
    return pa.list_(pa.int64()) if isinstance(option.default, tuple) else PLAIN[type(option.default)]
