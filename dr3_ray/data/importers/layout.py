"""The layout of a table, type and shape of each column, and whether the rows that come later keep to it."""

from typing import Any

import numpy as np

from dr3_ray.data.importers.rows import Batch
from dr3_ray.errors import UserError

Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # type and shape of a row, by our columns


def layout_of(batch: Batch) -> Layout:
    """Return the type and shape of a row of each column."""
    return {name: (values.dtype, values.shape[1:]) for name, values in batch.items()}


def check_batch(batch: Batch, layout: Layout, where: str) -> None:
    """Check that all columns are as long, and their names and shapes those of a layout that is not empty.

    Raises:
        UserError: they are not.
    """
    lengths = {name: len(values) if np.ndim(values) else None for name, values in batch.items()}
    if None in lengths.values() or len(set(lengths.values())) != 1:
        first = next(iter(lengths))
        other = next((name for name, rows in lengths.items() if rows != lengths[first]), first)
        said = ", ".join(
            f"{name} has {lengths[name] if lengths[name] is not None else 'no'} rows" for name in (first, other)
        )
        raise UserError(f"{where}: the lengths differ: {said}: give as many of each")
    if not layout or not lengths["rewards"]:
        return
    if unlike := sorted(set(batch) ^ set(layout)):
        raise UserError(
            f"{where}: {unlike[0]} is {'there' if unlike[0] in batch else 'missing'}, other than in the first one: "
            "give all the same columns"
        )
    for name, (_, shape) in layout.items():
        if batch[name].shape[1:] != shape:
            raise UserError(
                f"{where}: {name} has rows of shape {batch[name].shape[1:]}, the first one of {shape}: "
                "correct the source"
            )


def check_next(layout: Layout) -> None:
    """Check that next observations, where there are any, have the observations' parts, shapes and kinds of numbers.

    Raises:
        UserError: they have others.
    """
    if not any(name.startswith("next_observations") for name in layout):
        return
    now, later = (
        {name.removeprefix("next_"): part for name, part in layout.items() if name.startswith(begins)}
        for begins in ("observations", "next_observations")
    )
    for name in sorted({*now, *later}):
        shapes = [parts[name][1] if name in parts else "none" for parts in (now, later)]
        said = f"{name} has rows of shape {shapes[0]}, next_{name} of {shapes[1]}" if shapes[0] != shapes[1] else ""
        if not said and not np.can_cast(later[name][0], now[name][0], "same_kind"):
            said = f"{name} has numbers of {now[name][0]}, next_{name} of {later[name][0]}"
        if said:
            raise UserError(f"{said}: give both alike, or no next observations")
