"""Time limits of flat rows: where an episode without a flag was cut."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.rows import Batch, Order, plain
from dr3_ray.errors import UserError


def check_max_steps(limit: Any) -> None:
    """Check that a limit of steps is a whole number from 1, or None.

    Raises:
        UserError: it is not.
    """
    if limit is not None and (type(limit) is bool or not isinstance(limit, int | np.integer) or limit < 1):
        raise UserError(f"max_steps is {limit!r}: give a whole number of steps, at least 1")


def with_timeouts(batches: Iterable[Batch], max_steps: int) -> Iterator[Batch]:
    """Mark every `max_steps`-th step since the beginning of an episode as truncated.

    Raises:
        UserError: as `episodes_of`.
    """
    order, steps = Order(Findings()), 0  # `steps` since the last beginning
    for given in batches:
        batch = plain(given, order.row)
        rows = np.arange(len(batch["rewards"]))
        began = np.full(len(rows), -steps)
        starts = order.starts(batch)
        began[starts] = starts
        since = rows - np.maximum.accumulate(began)
        steps = int(since[-1]) + 1
        none = np.zeros(len(rows), bool)
        timeouts = ((since + 1) % max_steps == 0) & ~batch.get("terminateds", none)
        yield batch | {"truncateds": batch.get("truncateds", none) | timeouts}
