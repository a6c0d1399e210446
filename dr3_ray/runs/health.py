"""Health flags of members: what is wrong with a critic, told from its history alone.

Each rule compares curves with `THRESHOLDS`; docs/report.md describes both, and `studies/health.py` measures how often
they are right.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dr3_ray.runs.index import Record

Curve = NDArray[np.float64]
Curves = Mapping[str, Curve]
"""`step` and measured quantities of one member, each [evaluations]; NaN where nothing was measured."""
FlagName = Literal["diverged", "dead features", "Q out of bounds", "targets clipped", "co-adapting", "overfit"]
NAMED = 3  # members that a sentence names
NEEDED = ("dot_product", "phi_norm", "effective_rank", "q_mean", "td_error")
READ = (*NEEDED, "clipped_targets")
"""What rules look at; the last of them is measured of categorical critics alone."""


class Threshold(NamedTuple):
    """A number that a rule compares with, and what it means."""

    value: float
    meaning: str


THRESHOLDS = {
    "rank": Threshold(1, "features are dead: their effective rank is at most this"),
    "norm": Threshold(1e-3, "features are dead: their mean norm is at most this"),
    "evaluations": Threshold(4, "evaluations from which co-adaptation and overfitting are told, at least"),
    "settled": Threshold(0.2, "mean Q has settled where it stays this near to its last value, as a share of that"),
    "part": Threshold(1 / 3, "share of training in which mean Q has to be settled to tell co-adaptation"),
    "growth": Threshold(2, "co-adapting: the dot product grew by this factor since mean Q settled"),
    "cosine": Threshold(0.1, "and is now at least this share of the squared norm of the features, else it is noise"),
    "fall": Threshold(0.3, "overfit: mean Q fell from its peak by this share of its rise, or of its height if larger"),
    "after": Threshold(
        3,
        "evaluations since that peak, at least; the TD error is lower at the last one than there",
    ),
    "cut": Threshold(0.05, "targets are clipped: at least this share of them lies beyond v_min and v_max"),
    "early": Threshold(
        0.1, "underfit: the TD error, or CQL's gap, is compared with what it was at this share of training"
    ),
    "unlearned": Threshold(0.5, "and stays above this share of that to the end"),
    "lower": Threshold(0.5, "c₀ brings the dot product down: to this share of that of c₀ = 0, for certain"),
    "moved": Threshold(0.1, "and leaves mean Q alone: it differs by at most this share of that of c₀ = 0"),
    "error": Threshold(1.2, "and the TD error too: it is at most this many times that of c₀ = 0"),
    "dormant": Threshold(0.025, "a unit is dormant: its mean activation is at most this share of its layer's"),
    "idle": Threshold(0.5, "dormant units: at least this share of the features"),
    "seem": Threshold(0.001, "self-exciting: SEEM's eigenvalue is at least this share of the norm of its kernel"),
    "promise": Threshold(1, "over-estimating: Q is above the returns by so many of their standard deviations"),
    "tail": Threshold(0.05, "returns count that were cut so late that what followed is discounted to this or less"),
    "unseen": Threshold(2, "overfit to its rows: the TD error on held-out rows is at least so many times that on them"),
    "random": Threshold(0.6, "prefers random actions: their Q is above that of the data's in this share of rows"),
}
"""Every number that flags and verdicts depend on."""


def threshold(name: str) -> float:
    """Return the value of a threshold."""
    return THRESHOLDS[name].value


class Flag(NamedTuple):
    """Something that is wrong with a member."""

    name: FlagName
    since: int
    """The gradient update of the first evaluation that shows it."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} since update {self.since:,}" + (f" ({self.detail})" if self.detail else "")


class Coadaptation(NamedTuple):
    """Whether the features of a run co-adapt, and by which numbers."""

    answer: Literal["yes", "no", "not measured", "too few evaluations", "mean Q has not settled"]
    since: int = 0
    """The gradient update at which mean Q had settled."""
    growth: float = np.nan
    """The factor by which the dot product grew since then."""
    moved: float = np.nan
    """The change of mean Q since then, as a share of its value then."""


class Health(NamedTuple):
    """How a member is: what is wrong with it, and whether its features co-adapt."""

    flags: list[Flag]
    coadaptation: Coadaptation


def health_of(histories: pa.Table, records: Iterable[Record], rewards: Mapping[str, float]) -> dict[str, Health]:
    """Return how every member is that has a history.

    `histories` have `member`, `step` and what there is of `READ`. `rewards` are the largest magnitudes of a reward in
    each data set, by its fingerprint; without them Q has no bound.
    """
    curves = _curves_of(histories)
    return {
        record["member"]: Health(
            flags_of(own, largest_q(record["config"], rewards), diverged=record["status"] == "diverged"),
            coadaptation(own),
        )
        for record in records
        if (own := curves.get(record["member"])) is not None
    }


def flags_of(curves: Curves, bound: float | None = None, diverged: bool = False) -> list[Flag]:
    """Return the flags of one member; `bound` is the largest magnitude that Q can have, None if it is not known."""
    steps, q = curves["step"], curves["q_mean"]
    flags: list[Flag] = []
    if not len(steps):
        return flags
    broken = np.isinf(q) | np.isinf(curves["td_error"])
    if diverged or broken[-1]:
        flags.append(Flag("diverged", int(steps[_start(broken) if broken[-1] else -1])))
    dead = (curves["effective_rank"] <= threshold("rank")) | (curves["phi_norm"] <= threshold("norm"))
    if dead[-1]:
        flags.append(Flag("dead features", int(steps[_start(dead)])))
    if bound is not None and (beyond := np.isfinite(q) & (np.abs(q) > bound))[-1]:
        flags.append(Flag("Q out of bounds", int(steps[_start(beyond)]), f"mean Q {q[-1]:.3g}, at most ±{bound:.3g}"))
    hopeless = bool(flags)
    cut = curves.get("clipped_targets", np.full(len(steps), np.nan)) >= threshold("cut")
    if cut[-1]:
        share = curves["clipped_targets"][-1]
        flags.append(Flag("targets clipped", int(steps[_start(cut)]), f"{share:.0%} lie beyond v_min and v_max"))
    if hopeless:
        return flags  # what such a critic's curves do further says nothing
    if (since := coadaptation(curves)).answer == "yes":
        detail = f"dot product \N{MULTIPLICATION SIGN}{since.growth:.1f}, mean Q {since.moved:+.0%}"
        flags.append(Flag("co-adapting", since.since, detail))
    if (peak := overfit_since(curves)) is not None:
        flags.append(Flag("overfit", peak, "mean Q falls, and the TD error with it"))
    return flags


def coadaptation(curves: Curves) -> Coadaptation:
    """Tell whether the dot product grew in the part of training in which mean Q had settled."""
    measured = np.isfinite(curves["dot_product"]) & np.isfinite(curves["q_mean"])
    steps, dot, q, norm = (curves[name][measured] for name in ("step", "dot_product", "q_mean", "phi_norm"))
    if len(steps) < threshold("evaluations"):
        return Coadaptation("too few evaluations" if len(steps) else "not measured")
    start = _start(np.abs(q - q[-1]) <= threshold("settled") * np.abs(q[-1]))
    if len(steps) - start < threshold("evaluations") or steps[-1] - steps[start] < threshold("part") * steps[-1]:
        return Coadaptation("mean Q has not settled")
    growth = float(dot[-1] / dot[start]) if dot[start] > 0 else np.inf if dot[-1] > 0 else 0.0
    moved = float((q[-1] - q[start]) / np.abs(q[start])) if q[start] else 0.0
    grew = growth >= threshold("growth") and dot[-1] >= threshold("cosine") * norm[-1] ** 2
    return Coadaptation("yes" if grew else "no", int(steps[start]), growth, moved)


def overfit_since(curves: Curves) -> int | None:
    """Return the update from which mean Q falls while the TD error falls too (arXiv 2109.10813); None: it does not.

    Both are averaged over three evaluations. They are those of the probe batch, whose rows are trained on.
    """
    measured = np.isfinite(curves["q_mean"]) & np.isfinite(curves["td_error"])
    if measured.sum() < threshold("evaluations"):
        return None
    q, error = (smoothed(curves[name][measured]) for name in ("q_mean", "td_error"))
    peak = int(q.argmax())
    rise, fall = q[peak] - q[0], q[peak] - q[-1]
    late = len(q) - 1 - peak >= threshold("after")
    falls = rise > 0 and fall > threshold("fall") * max(rise, abs(q[peak]))
    return int(curves["step"][measured][peak]) if late and falls and error[-1] < error[peak] else None


def largest_q(config: Mapping[str, Any], rewards: Mapping[str, float]) -> float | None:
    """Return max |r| / (1 − γ), beyond which no return is; None where rewards or γ do not bound it.

    Of rewards as they were trained on; their scaling by the range of returns is not known here.
    """
    numbers: dict[str, Any] = {"reward_scale": 1.0, "reward_shift": 0.0, "reward_clip": 0.0, **config}
    known: list[Any] = [rewards.get(config.get("data_fingerprint", ""))]
    known += [numbers.get(name) for name in ("gamma", "reward_scale", "reward_shift", "reward_clip")]
    if config.get("entropy_backup") or config.get("reward_scaling", "none") != "none":
        return None
    if not all(isinstance(value, int | float) and abs(value) < sys.float_info.max for value in known):
        return None
    reward, gamma, scale, shift, clip = map(float, known)
    if not (reward > 0 and 0 <= gamma < 1):
        return None
    largest = scale * (reward + abs(shift))
    return min(largest, clip or largest) / (1 - gamma)


def flag_sentences(flags: Mapping[str, list[Flag]], members: int) -> list[str]:
    """Say how many members have each flag, since when, and which these are."""
    said = []
    for name in get_args(FlagName):
        shown = {member: flag for member, own in flags.items() for flag in own if flag.name == name}
        if shown:
            which = ", ".join([*list(shown)[:NAMED], *(["\N{HORIZONTAL ELLIPSIS}"] if len(shown) > NAMED else [])])
            since = min(flag.since for flag in shown.values())
            said.append(f"{name}: {len(shown)} of {members} members, the first since update {since:,} ({which})")
    return said


def _curves_of(histories: pa.Table) -> dict[str, Curves]:
    """Return the curves of each member, in order of the updates; without pandas, which pyarrow takes for arrays."""
    if not len(histories):
        return {}
    names, place = np.unique(histories["member"].to_pylist(), return_inverse=True)
    nothing = np.full(len(histories), np.nan)
    columns = {
        name: np.array(histories[name].to_pylist(), np.float64) if name in histories.column_names else nothing
        for name in ("step", *READ)
    }
    order = np.lexsort((columns["step"], place))
    parts = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
    return {
        str(name): {column: values[part] for column, values in columns.items()}
        for name, part in zip(names, parts, strict=True)
    }


def _start(holds: NDArray[np.bool_]) -> int:
    """Return from which place on a condition holds until the end, where it holds at the end."""
    return len(holds) - int((~holds)[::-1].argmax()) if not holds.all() else 0


def smoothed(curve: Curve) -> Curve:
    """Return the average of each value with its neighbours."""
    padded = np.pad(curve, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3
