"""Members never mix: each loss of a stack of members is the loss of each member alone."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dr3_ray import losses
from dr3_ray.losses import (
    bc,
    categorical,
    cql,
    divergence,
    edac,
    features,
    iql,
    marginal,
    quantile,
    rem,
    rewards,
    soft_actor_critic,
    td,
    td3,
)

MEMBERS, BATCH = 2, 3
SOURCE = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(MEMBERS, *shape, dtype=torch.float64, generator=SOURCE)


def positive(*shape: int) -> Tensor:
    return normal(*shape).abs() + 0.1


def choices(below: int, *shape: int) -> Tensor:
    return torch.randint(below, (MEMBERS, *shape), generator=SOURCE)


B = BATCH
CASES: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (bc.discrete_nll, (normal(B, 4), choices(4, B))),
    (bc.squared_distance, (normal(B, 2), normal(B, 2))),
    (categorical.hl_gauss, (normal(B), positive(B, 6).cumsum(-1) - 1.5, positive(1, 1))),
    (categorical.two_hot, (normal(B), positive(1, 6).cumsum(-1) - 1.5)),
    (categorical.cross_entropy, (normal(B, 6), positive(B, 6))),
    (categorical.expectation, (normal(B, 6), positive(1, 6).cumsum(-1))),
    (categorical.expectation_slope, (normal(B, 6), positive(1, 6).cumsum(-1))),
    (categorical.outside, (normal(B), normal(1) - 0.5, positive(1))),
    (cql.discrete_gap, (normal(B, 4), choices(4, B))),
    (cql.calibrated, (normal(B, 5), normal(B))),
    (cql.continuous_gap, (normal(B, 5), normal(B, 5), normal(B), positive(1, 1))),
    (cql.rho_gap, (normal(B, 5), normal(B), positive(1, 1))),
    (cql.max_then_min, (normal(2, B, 5),)),
    (cql.min_then_max, (normal(2, B, 5),)),
    (divergence.kl_estimate, (normal(B, 5), normal(B, 5))),
    (divergence.laplacian_kernel, (normal(B, 4, 2), normal(B, 5, 2), positive(1, 1, 1))),
    (divergence.gaussian_kernel, (normal(B, 4, 2), normal(B, 5, 2), positive(1, 1, 1))),
    (divergence.mmd, (normal(B, 4, 2), normal(B, 5, 2), divergence.gaussian_kernel, positive(1, 1, 1))),
    (edac.likeness, (normal(3, B, 2),)),
    (features.feature_dot, (normal(B, 4), normal(B, 4))),
    (iql.expectile_loss, (normal(B), positive(1))),
    (iql.advantage_weights, (normal(B), positive(1), 2.0)),
    (marginal.log_marginal, (normal(5, B),)),
    (marginal.marginal_entropy, (normal(5, B),)),
    (quantile.quantile_target, (normal(B), choices(2, B).double(), normal(B, 4), positive(1))),
    (quantile.quantile_huber, (normal(B, 4), normal(B, 5), positive(1, 1, 1))),
    (rem.mixture, (positive(5) / 10.0, "uniform")),
    (rem.mixture, (positive(5) / 10.0, "dirichlet")),
    (rem.mixture, (positive(5) / 10.0, "one_hot")),
    (rem.mix, (normal(B, 4, 5), normal(5))),
    (rewards.transformed, (normal(B), normal(1), positive(1), positive(1))),
    (soft_actor_critic.actor_loss, (normal(B), normal(B), positive(1))),
    (soft_actor_critic.policy_losses, (normal(B), normal(B), normal(1), normal(1))),
    (soft_actor_critic.temperature_loss, (normal(1), normal(B), normal(1))),
    (td.bellman_target, (normal(B), choices(2, B).double(), normal(B), positive(1))),
    (td.n_step_return, (normal(B, 4), positive(1))),
    (td.value_of, (normal(B, 4), choices(4, B))),
    (td.expected_value, (normal(B, 4), normal(B, 4))),
    (td.squared_error, (normal(B), normal(B))),
    (td.huber, (normal(B), normal(B))),
    (td.mean_over_batch, (normal(B),)),
    (td.masked_mean, (normal(B), choices(2, B).double())),
    (td3.smoothed_actions, (normal(B, 2), normal(B, 2), positive(1, 1), positive(1, 1))),
    (td3.q_scale, (normal(B),)),
]


def parts(result: Tensor | tuple[Tensor, ...] | dict[str, Tensor]) -> tuple[Tensor, ...]:
    result = tuple(result.values()) if isinstance(result, dict) else result
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("loss", "arguments"), CASES, ids=[loss.__name__ for loss, _ in CASES])
def test_a_member_of_a_stack_is_the_member_alone(loss: Callable[..., Any], arguments: tuple[Any, ...]):
    together = loss(*arguments)
    for k in range(MEMBERS):
        alone = loss(*(each[k] if isinstance(each, Tensor) else each for each in arguments))
        for ours, theirs in zip(parts(together), parts(alone), strict=True):
            torch.testing.assert_close(ours[k], theirs)


def test_every_loss_is_asked():
    modules = [importlib.import_module(each.name) for each in pkgutil.iter_modules(losses.__path__, "dr3_ray.losses.")]
    functions = [each for module in modules for _, each in inspect.getmembers(module, inspect.isfunction)]
    names = {each.__name__ for each in functions if each.__module__.startswith("dr3_ray.losses.")}
    assert names - {"uniform_log_density"} == {loss.__name__ for loss, _ in CASES}  # it takes no tensor
