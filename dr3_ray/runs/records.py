"""The types of what stands in the lines of an index."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Status = Literal["pending", "running", "finished", "failed", "diverged", "cut"]
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Configuration(BaseModel, strict=True, extra="allow"):
    """What every reader takes from the configuration of a member, where it is there; other options may be anything."""

    algorithm: Name = ""
    dataset: Name = ""
    data_fingerprint: str = ""
    environment: str | None = None
    evaluation_episodes: Count = 0
    steps: Count = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dr3_coeff: Finite = 0.0


class Line(BaseModel, strict=True):
    """A line of the index."""

    member: Name
    status: Status
    config: Configuration = Configuration()
    error: str | None = None
    pack: str | None = None
    time: Finite = 0.0
    end: Count = 0


def check_line(line: dict[str, Any]) -> None:
    """Check the types of a line of the index.

    Raises:
        ValueError: one is wrong.
    """
    Line.model_validate(line)
