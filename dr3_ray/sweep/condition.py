"""Conditions on the options of a member: where an axis counts, and what is left out."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class Bounds(BaseModel):
    """What a number lies between, bounds included, or what a value is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)

    min: float | None = None
    """The least value that meets the condition."""
    max: float | None = None
    """The largest."""
    unlike: Annotated[tuple[Any, ...], BeforeValidator(_as_list, json_schema_input_type=Any)] = Field((), alias="not")
    """A value, or a list of values, that do not meet it."""

    def admit(self, value: Any) -> bool:
        """Whether a value meets all of this. Only numbers lie between bounds."""
        bounded = self.min is not None or self.max is not None
        if bounded and (isinstance(value, bool) or not isinstance(value, int | float)):
            return False
        low, high = (-math.inf if self.min is None else self.min), (math.inf if self.max is None else self.max)
        return (not bounded or low <= value <= high) and not is_among(value, self.unlike)


def _condition_kind(value: Any) -> str:
    return "bounds" if isinstance(value, dict | Bounds) else "value"


_Value = Annotated[Any, Tag("value"), WithJsonSchema({"type": ["string", "number", "boolean", "null", "array"]})]
Wanted = Annotated[Annotated[Bounds, Tag("bounds")] | _Value, Discriminator(_condition_kind)]
Condition = dict[str, Wanted]
"""Names with a value, a list of values, or bounds; met where all of them are."""


def is_among(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one, or one of a list of them."""
    plain = [list(each) if isinstance(each, tuple) else each for each in (value, wanted)]
    return bool(plain[0] == plain[1] or (isinstance(plain[1], list) and plain[0] in plain[1]))


def meets(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether these values meet a condition; one that looks at what is not there is not met."""
    return all(
        name in values and (each.admit(values[name]) if isinstance(each, Bounds) else is_among(values[name], each))
        for name, each in condition.items()
    )
