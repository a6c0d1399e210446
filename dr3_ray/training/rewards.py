"""The options of rewards: a wrapper around an objective, and the scale of the Q that it learns."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dr3_ray.algorithms.spec import RewardOptions
from dr3_ray.data.n_step import Rows
from dr3_ray.errors import UserError
from dr3_ray.losses.rewards import transformed
from dr3_ray.types import Backup, Objective, Terms, Transition

RETURN_RANGE = "return_range"


def return_range(options: Any, data: Rows) -> float:
    """Return what rewards are divided by: the range of the episodes' returns, where the options ask for it, or 1.

    Raises:
        UserError: all returns are the same.
    """
    if not isinstance(options, RewardOptions) or options.reward_scaling != RETURN_RANGE:
        return 1.0
    width = np.ptp(np.asarray(data.episodes["returns"]))  # type: ignore[attr-defined]
    if not width:
        raise UserError("reward_scaling = return_range divides by the range of returns, and all are the same")
    return float(width)


def numbers_of(options: RewardOptions, divisor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return shift, factor and limit of `transformed` as options say, of a member or stacked: each [K, 1], K from 1."""
    numbers: tuple[Any, ...] = (options.reward_shift, options.reward_scale / divisor, options.reward_clip)
    shift, factor, limit = (torch.as_tensor(number).reshape(-1, 1) for number in numbers)
    return shift, factor, limit.where(limit > 0.0, torch.inf)


def with_rewards(objective: Objective, options: Any, divisor: float) -> Objective:
    """Return the objective of the rewards that the stacked options say; itself, where they say nothing.

    r′ = scale · (r + shift) / divisor, cut to ±limit; of several steps each. Returns, which have the shift in them, are
    scaled alike, and know no limit.
    """
    if not isinstance(options, RewardOptions):
        return objective
    shift, factor, limit = numbers_of(options, divisor)
    if not shift.any() and (factor == 1.0).all() and limit.isinf().all():
        return objective

    def loss(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup | None]:
        """Evaluate the objective of other rewards."""
        changed: dict[str, Tensor] = {}
        if batch.rewards is not None:
            changed["rewards"] = transformed(batch.rewards, shift, factor, limit)
        if batch.n_step_rewards is not None and batch.n_steps is not None:
            places = torch.arange(batch.n_step_rewards.shape[-1], device=batch.n_steps.device)
            later = transformed(batch.n_step_rewards.movedim(-1, 0), shift, factor, limit).movedim(0, -1)
            changed["n_step_rewards"] = later * (places < batch.n_steps.unsqueeze(-1))
        if batch.monte_carlo_returns is not None:
            changed["monte_carlo_returns"] = factor * batch.monte_carlo_returns
        return objective(networks, batch._replace(**changed), noise, step)

    return loss
