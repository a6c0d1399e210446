"""Options of algorithms and regularisers: frozen dataclasses whose numbers may differ between the members of a pack.

A `number` becomes a [K] tensor in a stack of K members; a `choice` sets the structure (widths, batch size, variants)
and is the same for all. The text beside each default is its documentation and names its source.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from dr3_ray.errors import UserError

Number = float | Tensor  # a float, or [K] in a stack of members


def number(
    default: float, doc: str, low: float = -math.inf, high: float = math.inf, *, needs: dict[str, Any] | None = None
) -> Any:
    """A field that may differ between members: a float in [low, high].

    It has an effect only where the options in `needs` have one of the values listed there.
    """
    limits = {"number": True, "low": low, "high": high, "needs": needs or {}}
    return field(default=default, metadata={"doc": doc, **limits})


def choice(
    default: Any,
    doc: str,
    among: tuple[Any, ...] | None = None,
    low: int = 1,
    *,
    by_name: bool = False,
    needs: dict[str, Any] | None = None,
) -> Any:
    """A field that is the same for all members of a pack; `among` lists what is allowed, `low` bounds integers.

    With `by_name` it may also be a mapping from names to such values. `needs`: as for a `number`.
    """
    limits = {"number": False, "among": among, "low": low, "by_name": by_name, "needs": needs or {}}
    return field(default=default, metadata={"doc": doc, **limits})


@dataclass(frozen=True)
class Options:
    """Base of all options: validation, stacking over members, and slicing."""

    __no_type_check__ = True  # `checked` does it, with errors for people

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if not isinstance(value, Tensor):
                object.__setattr__(self, option.name, checked(option, value))
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if not isinstance(value, Tensor) and value != option.default:
                self._check_effect(option)

    def _check_effect(self, option: "dataclasses.Field[Any]") -> None:
        for name, values in option.metadata["needs"].items():
            if (has := getattr(self, name)) not in values:
                wanted = " or ".join(map(repr, values))
                raise UserError(
                    f"{option.name} has no effect with {name}={has!r}: set {name} to {wanted}, or leave it out"
                )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Options from plain values; unknown names fail."""
        known = {option.name for option in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"unknown option {unknown[0]!r}: {cls.__name__} has {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def numbers(cls) -> tuple[str, ...]:
        """The names of the options that may differ between members."""
        return tuple(option.name for option in dataclasses.fields(cls) if option.metadata["number"])

    @classmethod
    def stack(
        cls, members: Sequence[Self], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Self:
        """One set of options for K members: every number a [K] tensor, everything else equal in all of them."""
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
        return cls(**values)

    def members(self, rows: slice) -> Self:
        """The same options for some of the stacked members."""
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in self.numbers()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for hashes and logs."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for option in dataclasses.fields(self):
            yield option.name, getattr(self, option.name)


def checked(option: "dataclasses.Field[Any]", value: Any) -> Any:
    """The value in the option's type, or a one-line error."""
    default, limits = option.default, option.metadata
    if limits["number"]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{option.name} must be a finite number, not {value!r}")
        if not limits["low"] <= value <= limits["high"]:
            raise UserError(f"{option.name} = {value} is outside [{limits['low']:g}, {limits['high']:g}]")
        return float(value)
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(type(item) is int and item >= 1 for item in value):
            raise UserError(f"{option.name} must be a list of positive integers, not {list(value)}")
        return value
    named = limits["by_name"] and isinstance(value, dict)
    for one in value.values() if named else [value]:
        if type(one) is not type(default):
            raise UserError(f"{option.name} must be of type {type(default).__name__}, not {one!r}")
        if limits["among"] and one not in limits["among"]:
            raise UserError(f"{option.name} must be one of {', '.join(limits['among'])}, not {one!r}")
        if type(one) is int and one < limits["low"]:
            raise UserError(f"{option.name} must be at least {limits['low']}, not {one}")
    return value


def largest(value: Number) -> float:
    """Of all members."""
    return float(torch.as_tensor(value).max())


def per_row(value: Number) -> Number:
    """A per-member number [K] as [K, 1], to stand beside [K, B] in an equation."""
    return value.unsqueeze(-1) if isinstance(value, Tensor) else value
