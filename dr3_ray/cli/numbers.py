"""Numbers as they are typed: `10k` and `1e4` as well as 10000, within their bounds."""

import math
from typing import Any

import typer

from dr3_ray.limits import read_count


def count(low: int = 0, high: int | None = None) -> dict[str, Any]:
    """Return what typer is told of a whole number from `low` to `high`; None: without an end."""

    def read(text: str | int) -> int:
        try:
            value = read_count(str(text))
        except ValueError as error:
            raise typer.BadParameter(f"{text!r}: {error}") from None
        if value < low or (high is not None and value > high):
            raise typer.BadParameter(f"{text!r}: it has to be {low} or more" + (f", up to {high}" if high else ""))
        return value

    return {"parser": read, "metavar": "COUNT"}


def number(low: float = -math.inf) -> dict[str, Any]:
    """Return what typer is told of a number that is `low` or more."""

    def read(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise typer.BadParameter(f"{text!r}: it has to be a number, such as 0.5 or 1e-3")
        if value < low:
            raise typer.BadParameter(f"{text!r}: it has to be {low:g} or more")
        return value

    return {"parser": read, "metavar": "NUMBER"}
