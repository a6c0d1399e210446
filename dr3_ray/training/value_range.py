"""v_min and v_max of categorical critics that take them from the data's returns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dr3_ray.algorithms.spec import RewardOptions
from dr3_ray.data.n_step import Rows
from dr3_ray.data.number_types import Array
from dr3_ray.errors import UserError
from dr3_ray.losses.rewards import transformed
from dr3_ray.networks.coding import Categorical
from dr3_ray.training.returns import COLUMN, are_known, as_stored, column_of, discounted, known_at
from dr3_ray.training.rewards import numbers_of

FACTOR = 1.5  # of the largest return: policies that are better than the data's have more


def asks_returns(member: Any) -> bool:
    """Return whether a member's critic takes v_min and v_max from the data's returns."""
    head = member.regularizers.get("head")
    return head is not None and head.asks_data


def check_ranges(members: Sequence[Any], data: Rows | None) -> None:
    """Check that the returns of what members learn from are known; without data, of an online learner.

    Raises:
        UserError: they are not.
    """
    for member in filter(asks_returns, members):
        if data is None:
            raise UserError("v_min = v_max asks for the data's returns, and an online learner has none yet: give both")
        if not are_known(member.options, data):
            raise UserError(f"v_min = v_max asks for the data's returns, and {known_at(data)}: give v_min and v_max")


def fit_ranges(networks: nn.Module, members: Sequence[Any], data: Rows, divisor: float) -> None:
    """Tell categorical critics that have no v_min and v_max yet those of the data's returns.

    They are ± one and a half times the largest magnitude of a discounted sum of rewards to the end of an episode, ±1
    where all are 0. Around 0, so that Q begins there, as that of a scalar critic does: bootstrapping forgets another
    beginning only by a factor γ an update of the target. Rewards are those that a member's options make, over
    `divisor`.

    Raises:
        UserError: the returns are not known.
    """
    codings = [module for module in networks.modules() if isinstance(module, Categorical)]
    if not any(bool(coding.fitted.isnan().any()) for coding in codings):
        return
    check_ranges(members, data)
    known: dict[tuple[float, ...], tuple[float, float]] = {}
    ranges = torch.tensor([_range(member, data, divisor, known) for member in members], dtype=torch.float64)
    for coding in codings:
        coding.fit(ranges)


def _range(
    member: Any, data: Rows, divisor: float, known: dict[tuple[float, ...], tuple[float, float]]
) -> tuple[float, float]:
    if not asks_returns(member):
        return 0.0, 0.0  # which nobody reads
    key = tuple(getattr(member.options, name, 0.0) for name in ("gamma", "reward_shift", "reward_scale", "reward_clip"))
    if key not in known:
        largest = FACTOR * float(np.abs(_returns(member.options, data, divisor)).max()) or 1.0
        known[key] = -largest, largest
    return known[key]


def _returns(options: Any, data: Rows, divisor: float) -> Array:
    """Return the discounted returns of all rows, of rewards as they are learned from, [N]."""
    if as_stored(options, data):
        factor = options.reward_scale / divisor if isinstance(options, RewardOptions) else 1.0
        returns: Array = factor * column_of(data, COLUMN).double().numpy()
        return returns
    rewards = transformed(column_of(data, "rewards").unsqueeze(0), *numbers_of(options, divisor))[0].numpy()
    return discounted(rewards, data, options.gamma)
