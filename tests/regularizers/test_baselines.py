"""The penalties that DR3 is compared with, by hand and against the singular values."""

import math
from typing import Any

import pytest
import torch
from torch import tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.errors import UserError
from dr3_ray.regularizers.bottleneck import bottleneck_kl
from dr3_ray.regularizers.feature_l2 import FeatureL2, feature_l2, with_feature_l2
from dr3_ray.regularizers.srank import SRank, srank_penalty, with_srank
from dr3_ray.training.member import Member
from dr3_ray.types import Backup, Terms, Transition

# singular values 3 and 2, each with its own axis: the gradients are ±2 σ there, and 2 φ / 3 of the mean square
PHI = tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
SRANK_GRADIENT = tensor([[6.0, 0.0], [0.0, -4.0], [0.0, 0.0]])


def test_values_and_gradients_by_hand():
    phi = PHI.clone().requires_grad_()
    for penalty, value, gradient in (
        (srank_penalty(phi), 9.0 - 4.0, SRANK_GRADIENT),
        (srank_penalty(phi.mT), 9.0 - 4.0, SRANK_GRADIENT),
        (feature_l2(phi), 13.0 / 3.0, 2.0 * PHI / 3.0),
    ):
        assert penalty.item() == pytest.approx(value)
        torch.testing.assert_close(torch.autograd.grad(penalty, phi)[0], gradient)


def test_the_divergence_of_the_bottleneck_has_the_gradient_std_squared_minus_one():
    log_std = tensor([[0.0], [math.log(2.0)]], requires_grad=True)
    (gradient,) = torch.autograd.grad(bottleneck_kl(torch.zeros(2, 1), log_std), log_std)
    torch.testing.assert_close(gradient, tensor([[0.0], [3.0 / 2.0]]))  # of the mean over two rows


def test_the_wrapper_by_hand():
    # two critics with φ and 2 φ: the penalties grow fourfold, the gradients twofold, and each counts for a half
    phi = torch.stack([PHI, 2.0 * PHI]).unsqueeze(0).requires_grad_()

    def base(*_: Any) -> tuple[Terms, Backup]:
        return Terms({"critic": tensor([7.0])}, {}), Backup(phi, torch.zeros(1, 3), torch.ones(1, 3))

    both = with_feature_l2(with_srank(base, SRank(srank_coeff=0.1)), FeatureL2(feature_l2_coeff=0.3))
    terms, _ = both({}, Transition(PHI, PHI), {}, 0)
    assert {name: loss.item() for name, loss in terms.losses.items()} == pytest.approx(
        {"critic": 7.0, "srank": 0.1 * (5.0 + 20.0) / 2.0, "feature_l2": 0.3 * (13.0 + 52.0) / 6.0}
    )
    (gradient,) = torch.autograd.grad(terms.losses["srank"] + terms.losses["feature_l2"], phi)
    first = 0.1 * SRANK_GRADIENT / 2.0 + 0.3 * (2.0 * PHI / 3.0) / 2.0
    torch.testing.assert_close(gradient[0], torch.stack([first, 2.0 * first]))


@pytest.mark.parametrize("rows", [1, 3])
def test_without_a_weight_no_eigenvalue_is_sought(monkeypatch, rows):
    monkeypatch.setattr(torch.linalg, "eigvalsh", None)
    phi = PHI[:rows].view(1, 1, rows, 2)
    backup = Backup(phi, torch.zeros(1, rows), torch.ones(1, rows))
    ranked = with_srank(lambda *_: (Terms({}, {}), backup), SRank())
    penalized = with_feature_l2(ranked, FeatureL2(feature_l2_coeff=0.3))
    terms, _ = penalized({}, Transition(PHI, PHI), {}, 0)
    assert terms.losses["srank"].tolist() == [0.0] and terms.losses["feature_l2"].item() > 0.0


@pytest.mark.parametrize("shape", [(2, 3, 16, 5), (2, 3, 5, 16)])
def test_srank_penalty_and_gradient_against_singular_values(shape: tuple[int, ...]):
    phi = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sigma = torch.linalg.svdvals(phi)
    expected = sigma[..., 0].square() - sigma[..., -1].square()
    penalty = srank_penalty(phi)
    torch.testing.assert_close(penalty, expected)
    ours, theirs = (torch.autograd.grad(each.sum(), phi, retain_graph=True)[0] for each in (penalty, expected))
    torch.testing.assert_close(ours, theirs)


def test_equal_features_have_a_finite_gradient():
    for phi in (torch.ones(6, 4), torch.zeros(6, 4)):
        (gradient,) = torch.autograd.grad(srank_penalty(phi.requires_grad_()), phi)
        assert gradient.isfinite().all()


def test_a_non_finite_member_harms_nobody():
    phi = torch.ones(2, 3, 4)
    phi[0, 0, 0] = torch.inf
    penalty = srank_penalty(phi)
    assert penalty[0].isnan() and penalty[1].item() == pytest.approx(12.0)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_they_stand_beside_dr3_each_member_with_its_own_weights(kind: str, execution: str, make_population: Any):
    members = [
        {"dr3_coeff": 0.1, "srank_coeff": 0.2, "feature_l2_coeff": 0.0},
        {"dr3_coeff": 0.0, "srank_coeff": 0.0, "feature_l2_coeff": 0.3, "seed": 1},
    ]
    population = make_population(find("DR3-CQL", kind), members, execution)
    networks, rows = population.networks, [population.steps.batches.sampler.generators[k].get_state() for k in range(2)]
    indices, _ = population.steps.batches.sampler.draw(slice(0, 2))
    for source, state in zip(population.steps.batches.sampler.generators, rows, strict=True):
        source.set_state(state)
    batch = population.steps.batches.gather(indices)
    phi = networks.critic.features(batch.observations, batch.actions)
    metrics = population.update(1)
    srank, l2 = srank_penalty(phi).mean(1), phi.square().sum(-1).mean((1, 2))
    torch.testing.assert_close(metrics["loss_srank"], tensor([0.2, 0.0]) * srank.detach())
    torch.testing.assert_close(metrics["loss_feature_l2"], tensor([0.0, 0.3]) * l2.detach())
    assert metrics["loss_dr3"][0] > 0.0 and metrics["loss_dr3"][1] == 0.0


def test_they_do_what_they_say(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    members = [{"dr3_coeff": 0.0} | more for more in ({}, {"srank_coeff": 0.1}, {"feature_l2_coeff": 0.1})]
    population = make_population(spec, members)
    population.update(200)
    critic, rows = population.networks.critic, population.data.gather(torch.arange(200).expand(3, -1), spec.columns)
    phi = critic.features(rows["observations"], rows["actions"])[:, 0]
    srank, l2 = srank_penalty(phi), feature_l2(phi)
    assert srank[1] < 0.5 * srank[0] and l2[2] < 0.5 * l2[0]


@pytest.mark.parametrize("name", ["DR3-DQN", "DR3-REM", "DR3-CQL"])
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_normalised_critics(name: str, execution: str, make_population: Any):
    spec = find(name, "discrete")
    members = [{"seed": 0}, {"seed": 1}]
    plain = make_population(spec, members, execution)
    rows = plain.data.gather(torch.arange(100).expand(2, -1), spec.columns)
    phi = plain.networks.critic.features(rows["observations"], rows["actions"])
    for norm in ("unit", "layer"):
        population = make_population(spec, [member | {"critic_norm": norm} for member in members], execution)
        networks = population.networks
        first = networks.critic.features(rows["observations"], rows["actions"])
        if norm == "unit":
            torch.testing.assert_close(first, torch.nn.functional.normalize(phi, dim=-1))
        else:  # mean 0 and variance 1 of every row, until it learns another weight and bias
            torch.testing.assert_close(first.mean(-1), torch.zeros(2, 1, 100), atol=1e-5, rtol=0.0)
            assert (first.var(-1, unbiased=False) < 1.01).all() and first.min() < 0.0
        target = networks.target_critic.features(rows["observations"], rows["actions"])
        assert torch.equal(target, first) and not any(
            each.requires_grad for each in networks.target_critic.parameters()
        )
        before = {key: values.clone() for key, values in networks.critic.state_dict().items()}
        population.update(3)
        assert all(not torch.equal(values, before[key]) for key, values in networks.critic.state_dict().items())
        after = networks.critic.features(rows["observations"], rows["actions"])
        if norm == "unit":
            lengths = after.norm(dim=-1)
            torch.testing.assert_close(lengths[lengths > 0.0], torch.ones_like(lengths[lengths > 0.0]))


def test_without_a_weight_there_is_nothing(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    metrics = make_population(spec, [{"srank_coeff": 0.0}]).update(2)
    assert "loss_srank" not in metrics and "loss_feature_l2" not in metrics


def test_without_a_critic_they_fail():
    with pytest.raises(UserError, match="BC has no critic to regularise: leave out srank_coeff"):
        Member.from_dict(find("BC", "discrete"), {"srank_coeff": 0.1})
