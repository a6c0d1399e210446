"""The regression of Q on a target, which is one for all algorithms: by squared or Huber error, or by cross-entropy."""

from typing import Any

from torch import Tensor

from dr3_ray.losses import td
from dr3_ray.networks.coding import ErrorKind, scalar_errors
from dr3_ray.types import Terms


def regression(
    critic: Any, outputs: Tensor, targets: Tensor, usable: Tensor | None = None, error: ErrorKind = "squared"
) -> Terms:
    """Return the loss `critic` of a critic's outputs for (s, a) against targets [K, B], summed over critics.

    `outputs` are what `critic.along` returns: Q [K, C, B], or logits [K, C, B, bins]. Rows count where `usable` [K, B]
    is 1; None: all of them. With logits the metrics tell which share of the targets lies beyond v_min and v_max, and
    the error of Q that a scalar head would have.
    """
    coding = critic.coding
    goals, mask = targets.unsqueeze(1), None if usable is None else usable.unsqueeze(1)
    losses = td.masked_mean(coding.errors(outputs, goals, error), mask)
    q = coding.decode(outputs.detach())
    metrics = {"q_data": q.mean((1, 2)), "target": td.masked_mean(targets, usable)}
    if coding.categorical:
        metrics["clipped_targets"] = td.masked_mean(coding.outside(targets), usable)
        metrics["value_error"] = td.masked_mean(scalar_errors(q, goals, error), mask).sum(1)
    return Terms({"critic": losses.sum(1)}, metrics)
