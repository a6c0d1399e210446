"""Numbers of a specification: as people write them (`10k`, `1e4`, `2.5M`), and no larger than can be meant."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from dr3_ray import limits

TEXT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)([km]?)", re.IGNORECASE)
FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


def read_count(text: str) -> int:
    """Read a whole number, which may end in k for thousands or M for millions.

    Raises:
        ValueError: the text is none.
    """
    found = TEXT.fullmatch(text.strip())
    value = Decimal(found[1].replace("_", "")) * FACTORS[found[2].lower()] if found else Decimal("0.5")
    if value != int(value):
        raise ValueError("it has to be a whole number, such as 5000, 10k or 1e6")
    return int(value)


def _as_count(value: Any) -> Any:
    return read_count(value) if isinstance(value, str) else value


def _no_flag(value: Any) -> Any:
    """Return anything but True and False, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("it has to be a number")
    return value


NO_FLAG = BeforeValidator(_no_flag)
WRITTEN = BeforeValidator(_as_count, json_schema_input_type=PositiveInt | str)

Count = Annotated[int, Field(gt=0, le=limits.COUNT), NO_FLAG, WRITTEN]
"""Of steps, or of whatever is only counted."""
Episodes = Annotated[int, Field(gt=0, le=limits.EPISODES), NO_FLAG, WRITTEN]
"""Of a member in an evaluation."""
Draws = Annotated[int, Field(gt=0, le=limits.MEMBERS), NO_FLAG]
"""Values of an axis."""
Whole = Annotated[int, Field(ge=0, le=limits.COUNT), NO_FLAG]
"""From 0 on."""
Processes = Annotated[int, Field(gt=0, le=limits.PROCESSES), NO_FLAG]
"""Machines, or trials at a time."""
Repeats = Annotated[int, Field(ge=0, le=limits.PROCESSES), NO_FLAG]
"""Starts again."""
Share = Annotated[float, Field(ge=0, le=limits.SHARE), NO_FLAG]
"""CPUs or GPUs of one process."""
Minutes = Annotated[float, Field(gt=0, le=limits.SECONDS // 60), NO_FLAG]
