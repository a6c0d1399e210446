"""From the results of a pack, as its trial returns them and its checkpoints keep them, to rows of members."""

from collections.abc import Iterator, Sequence
from typing import Any

from dr3_ray.runs.columns import Row

RESULTS, MEMBERS = "results.json", "members.json"
"""Files of a checkpoint: the results so far, and the hashes of the pack's members by place."""
NOT_MEASURED = ("diverged", "error", "seed", "dr3_coeff")  # of a member's result: index and configuration have them


def row_of(result: dict[str, Any], measured: dict[str, Any]) -> Row:
    """Return the row of a member with these measured values."""
    row = {"time_s": result["time_s"], "updates_per_second": result["updates_per_second"]}
    row |= {"episode_return_mean": float("nan"), "episodes": 0}  # without an environment
    return row | {name: value for name, value in measured.items() if name not in NOT_MEASURED}


def rows_of(results: Sequence[dict[str, Any]], members: Sequence[str]) -> Iterator[tuple[str, int, Row]]:
    """Yield all rows of a pack's members: the member, its step, its measured values.

    That of a divergence is the last one.
    """
    diverged: set[str] = set()
    for result in results:
        for member, measured in zip(members, result["members"], strict=True):
            if measured is not None and member not in diverged:
                yield member, result["num_updates"], row_of(result, measured)
                if measured["diverged"]:
                    diverged.add(member)
