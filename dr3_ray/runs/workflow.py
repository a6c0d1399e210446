"""Overfit, underfit or neither: what the curves of a member say of its training (Kumar et al., arXiv 2109.10813).

Their workflow reads the mean Q of the data's actions, the TD error and CQL's gap. Their thresholds are not public; ours
stand in `dr3_ray.runs.health.THRESHOLDS`, and whether what they say goes with returns was not measured.
"""

from typing import Literal, NamedTuple

import numpy as np

from dr3_ray.runs.health import Curve, Curves, overfit_since, smoothed, threshold

Answer = Literal["overfit", "underfit", "undecided"]
REMEDIES: dict[Answer, str] = {
    "overfit": "take the checkpoint at the peak of mean Q, or train with a bottleneck, dropout or a smaller network",
    "underfit": "train a larger network or for longer, or with DR3",
    "undecided": "the curves ask for no change",
}
"""What the workflow does next, as far as there is an option for it."""


class Fit(NamedTuple):
    """What the workflow says of a member."""

    answer: Answer
    peak: int | None = None
    """The update at which mean Q was highest, of an overfit member."""
    by: str = ""
    """The curve that speaks of underfitting."""


def fit_of(curves: Curves) -> Fit:
    """Return what the workflow says; `curves` have `step`, `q_mean` and `td_error`, and `cql_gap` where it is measured.

    Overfit is the flag of `dr3_ray.runs.health`: mean Q falls from its peak while the TD error falls. Underfit: the TD
    error or CQL's gap stays above the share `unlearned` of what it was at the share `early` of training.
    """
    peak = overfit_since(curves)
    if peak is not None:
        return Fit("overfit", peak)
    for name, called in (("td_error", "TD error"), ("cql_gap", "CQL's gap")):
        if name in curves and _stays(curves["step"], curves[name]):
            return Fit("underfit", by=called)
    return Fit("undecided")


def _stays(steps: Curve, curve: Curve) -> bool:
    """Return whether a curve is, wherever it is measured from early on, above a share of what it was there."""
    known = np.isfinite(curve) & (steps > 0)
    if known.sum() < threshold("evaluations"):
        return False
    at, values = steps[known], smoothed(curve[known])
    start = int(np.searchsorted(at, threshold("early") * at[-1]))
    first = values[start]
    return bool(first > 0 and (values[start:] > threshold("unlearned") * first).all())
