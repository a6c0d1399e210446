"""Members that are cut out of a population leave no trace in those that stay."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.training.population import Population
from tests.training.test_population import assert_equal, different_members, everything

KEPT = [2, 0]


def uncut_and_kept(whole: Population, before: int, after: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything of the members that stay: in a population that stays whole, and in one of them alone."""
    whole.update(before)
    kept = whole.keep(KEPT)
    assert (kept.step, kept.execution, len(kept.members)) == (before, whole.execution, 2)
    kept.update(after)
    assert whole.step == before  # they share nothing
    whole.update(after)
    shared = whole.networks.state_dict().keys() & {"observation_mean", "observation_scale"}
    uncut = {name: values if name in shared else values[KEPT] for name, values in everything(whole).items()}
    return uncut, everything(kept)


@pytest.mark.usefixtures("without_shape_checks")
def test_walked_in_turn_they_go_on_to_the_bit(spec: AlgorithmSpec, make_population: Any):
    assert_equal(*uncut_and_kept(make_population(spec, different_members(spec, 3), "in_turn"), 4, 5))


@pytest.mark.usefixtures("without_shape_checks")
def test_stacked_they_go_on_up_to_rounding(spec: AlgorithmSpec, make_population: Any):
    whole = make_population(spec, different_members(spec, 3), "stacked", torch.float64)
    uncut, kept = uncut_and_kept(whole, 8, 8)
    assert uncut.keys() == kept.keys()
    for name in uncut:
        torch.testing.assert_close(kept[name], uncut[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"dr3_adaptive": "dot_product", "dr3_threshold": 0.1, "dr3_multiplier_lr": 0.1},
        {"critic_dropout": 0.5, "critic_norm": "spectral", "critic_weight_decay": 0.1},
        {"critic_bottleneck": True},
        {"critic_head": "hl_gauss", "critic_norm": "unit"},
        {"normalize_observations": True, "n_step": 3, "critic_norm": "layer"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_so_does_what_surrounds_the_algorithm(options: dict[str, Any], make_population: Any):
    members = [options | {"seed": seed, "dr3_coeff": 0.1 + seed} for seed in range(3)]
    whole = make_population(find("DR3-DQN", "discrete"), members, "in_turn")
    assert_equal(*uncut_and_kept(whole, 4, 5))
    if "dr3_adaptive" in options:
        assert (whole.networks.dr3_multiplier() != 0.0).all()


def test_what_diverged_stays_so_and_a_penalty_goes_with_its_members(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    whole = make_population(spec, [{"seed": seed, "srank_coeff": 0.1 * (seed == 1)} for seed in range(3)])
    whole.update(2)
    whole.steps.parts["critic"].values[2, 0] = torch.nan
    whole.update(2)
    kept = whole.keep(KEPT)
    assert kept.diverged.tolist() == [True, False]
    assert {"loss_srank", "loss_critic"} <= kept.metrics.keys()
    metrics = kept.update(2)
    assert "loss_srank" not in metrics
    assert metrics["loss_critic"][0] == whole.metrics["loss_critic"][2]
