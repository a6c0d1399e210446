"""Options of algorithms and regularisers: frozen dataclasses whose numbers may differ between the members of a pack.

A `number` becomes a [K] tensor in a stack of K members; a `choice` sets the structure (widths, batch size, variants)
and is the same for all. The text beside each default is its documentation and names its source.
"""

import dataclasses
import difflib
import math
import reprlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from dr3_ray.errors import UserError
from dr3_ray.limits import read_count

Number = float | Tensor  # a float, or [K] in a stack of members


def number(
    default: float, doc: str, low: float = -math.inf, high: float = math.inf, *, needs: dict[str, Any] | None = None
) -> Any:
    """Return a field that may differ between members: a float in [low, high].

    It has an effect only where the options in `needs` have one of the values listed there.
    """
    limits = {"number": True, "low": low, "high": high, "needs": needs or {}}
    return field(default=default, metadata={"doc": doc, **limits})


def choice(
    default: Any,
    doc: str,
    among: tuple[Any, ...] | None = None,
    low: float = 1,
    *,
    by_name: bool = False,
    needs: dict[str, Any] | None = None,
) -> Any:
    """Return a field that is the same for all members of a pack; `among` lists what is allowed, `low` bounds numbers.

    With `by_name` it may also be a mapping from names to such values. `needs`: as for a `number`.
    """
    limits = {"number": False, "among": among, "low": low, "by_name": by_name, "needs": needs or {}}
    return field(default=default, metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class Options:
    """The base of all options: validation, stacking over members, and slicing."""

    __no_type_check__ = True  # `checked` does it, with errors for people

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, checked(option, getattr(self, option.name)))
        for option in dataclasses.fields(self):
            if getattr(self, option.name) != option.default:
                self._check_effect(option)

    def _check_effect(self, option: "dataclasses.Field[Any]") -> None:
        for name, values in option.metadata["needs"].items():
            if (has := getattr(self, name)) not in values:
                wanted = " or ".join(map(repr, values))
                raise UserError(
                    f"{option.name} has no effect with {name}={has!r}: set {name} to {wanted}, or leave it out"
                )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(option.name for option in dataclasses.fields(cls))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return options from plain values; unknown names fail."""
        known = set(cls.names())
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"unknown option {unknown[0]!r}: {cls.__name__} has {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def numbers(cls) -> tuple[str, ...]:
        """Return the names of the options that may differ between members."""
        return tuple(option.name for option in dataclasses.fields(cls) if option.metadata["number"])

    @classmethod
    def stack(
        cls, members: Sequence[Self], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """Stack the options of K members: every number a [K] tensor, everything else equal in all of them."""
        values: dict[str, Any] = {}
        for option in dataclasses.fields(cls):
            column = [getattr(member, option.name) for member in members]
            if option.metadata["number"]:
                values[option.name] = torch.tensor(column, device=device, dtype=dtype or torch.get_default_dtype())
            elif any(value != column[0] for value in column):
                different = ", ".join(sorted(set(map(str, column))))
                name = option.name
                raise UserError(
                    f"{name} cannot differ inside a pack ({different}): put members of equal {name} together"
                )
            else:
                values[option.name] = column[0]
        return cls._unchecked(values)

    @classmethod
    def _unchecked(cls, values: dict[str, Any]) -> Self:
        """Return options of values that were checked before."""
        options = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(options, name, value)
        return options

    def members(self, rows: slice) -> Self:
        """Return the same options for some of the stacked members."""
        return self._unchecked(dict(self) | {name: getattr(self, name)[rows] for name in self.numbers()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for hashes and logs."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for option in dataclasses.fields(self):
            yield option.name, getattr(self, option.name)


def checked(option: "dataclasses.Field[Any]", value: Any) -> Any:
    """Return the value in the option's type.

    Raises:
        UserError: the option does not take it.
    """
    default: Any = option.default
    limits = option.metadata
    if isinstance(value, str) and (limits["number"] or type(default) in (int, float)):
        with suppress(ValueError):  # which is said of the whole option
            value = read_count(value)
    if limits["number"]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
            raise UserError(f"{option.name} must be a finite number, not {value!r}")
        if abs(value) > sys.float_info.max:  # a whole number of Python's may be
            raise UserError(f"{option.name} = {reprlib.repr(value)} is more than a float can be")
        if not limits["low"] <= value <= limits["high"]:
            raise UserError(f"{option.name} = {value} is outside [{limits['low']:g}, {limits['high']:g}]")
        return float(value)
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(type(item) is int and item >= 1 for item in value):
            raise UserError(f"{option.name} must be a list of positive integers, not {list(value)}")
        return value
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    named = limits["by_name"] and isinstance(value, dict)
    for one in value.values() if named else [value]:
        if type(one) is not type(default):
            raise UserError(f"{option.name} must be of type {type(default).__name__}, not {one!r}")
        if limits["among"] and one not in limits["among"]:
            raise UserError(f"{option.name} must be one of {', '.join(limits['among'])}, not {one!r}")
        if type(one) in (int, float) and not limits["low"] <= one < math.inf:
            raise UserError(f"{option.name} must be at least {limits['low']:g}, not {one}")
    return value


def deal(values: dict[str, Any], classes: Sequence[type[Options]]) -> list[dict[str, Any]]:
    """Deal values to the classes of options that have their names, a dictionary for each class.

    An unknown name goes where the most similar one is, whose `from_dict` names it.
    """
    owners = {name: place for place, options in enumerate(classes) for name in options.names()}
    dealt: list[dict[str, Any]] = [{} for _ in classes]
    for name, value in values.items():
        known = name if name in owners else difflib.get_close_matches(name, owners, n=1, cutoff=0.0)[0]
        dealt[owners[known]][name] = value
    return dealt


def largest(value: Number) -> float:
    """Return the largest value over all members."""
    return float(torch.as_tensor(value).max())


def per_row(value: Number) -> Number:
    """Return a per-member number [K] as [K, 1], to stand beside [K, B] in an equation."""
    return value.unsqueeze(-1) if isinstance(value, Tensor) else value
