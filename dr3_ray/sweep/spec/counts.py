"""Numbers of a specification: as people write them (`10k`, `1e4`, `2.5M`), and no larger than can be meant."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from dr3_ray import limits
from dr3_ray.limits import read_count


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
