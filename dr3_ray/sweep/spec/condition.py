"""Conditions on the options of a member: where an axis counts, and what is left out."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from dr3_ray.data.mixture_names import absolute_name


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class ValueCondition(BaseModel):
    """A condition on a value: the numbers that it lies between, bounds included, or what it is not."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)

    min: float | None = None
    """The least value that meets the condition."""
    max: float | None = None
    """The largest."""
    unlike: Annotated[tuple[Any, ...], BeforeValidator(_as_list, json_schema_input_type=Any)] = Field((), alias="not")
    """A value, or a list of values, that do not meet it."""

    def admit(self, value: Any) -> bool:
        """Return whether a value meets all of these conditions; only numbers lie between bounds."""
        bounded = self.min is not None or self.max is not None
        if bounded and (isinstance(value, bool) or not isinstance(value, int | float)):
            return False
        low, high = (-math.inf if self.min is None else self.min), (math.inf if self.max is None else self.max)
        return (not bounded or low <= value <= high) and not is_among(value, self.unlike)


def _placed(condition: dict[str, Any]) -> dict[str, Any]:
    """Return a condition with data sets named as a specification names them, wherever it is read."""

    def absolutes(value: Any) -> Any:
        """Return the value with every data set in it named in full."""
        if isinstance(value, ValueCondition):
            return value.model_copy(update={"unlike": tuple(map(absolutes, value.unlike))})
        if isinstance(value, list | tuple):
            return [absolutes(item) for item in value]
        return absolute_name(value) if isinstance(value, str) else value

    return {name: absolutes(value) if name == "dataset" else value for name, value in condition.items()}


def _condition_kind(value: Any) -> str:
    return "bounds" if isinstance(value, dict | ValueCondition) else "value"


_Value = Annotated[Any, Tag("value"), WithJsonSchema({"type": ["string", "number", "boolean", "null", "array"]})]
Wanted = Annotated[Annotated[ValueCondition, Tag("bounds")] | _Value, Discriminator(_condition_kind)]
Condition = Annotated[dict[str, Wanted], AfterValidator(_placed)]
"""Names with a value, a list of values, or bounds; met where all of them are."""


def is_among(value: Any, wanted: Any) -> bool:
    """Return whether a value is the wanted one, or one of a list of them."""
    plain = [list(one) if isinstance(one, tuple) else one for one in (value, wanted)]
    return bool(plain[0] == plain[1] or (isinstance(plain[1], list) and plain[0] in plain[1]))


def meets(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Return whether these values meet a condition; one on a missing value is not met."""
    return all(
        name in values
        and (wanted.admit(values[name]) if isinstance(wanted, ValueCondition) else is_among(values[name], wanted))
        for name, wanted in condition.items()
    )
