"""Dropout, weight decay, spectral norm and the variational bottleneck in the critic, by hand and in training."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.networks.encoders import SpectralLinear, StackedLinear
from dr3_ray.networks.stochastic import Bottleneck, Dropout
from dr3_ray.regularizers.bottleneck import bottleneck_kl
from dr3_ray.training.member import Member
from tests.training.test_population import assert_equal, everything

SPECS = [find("DR3-DQN", "discrete"), find("DR3-REM", "discrete"), find("DR3-CQL", "continuous")]
CHANGES: list[dict[str, Any]] = [
    {"critic_dropout": 0.3},
    {"critic_bottleneck": True},
    {"critic_norm": "spectral"},
    {"critic_weight_decay": 0.1},
    {"critic_bottleneck": True, "critic_norm": "spectral", "critic_dropout": 0.2, "critic_weight_decay": 0.01},
]


def seeded(*seeds: int) -> list[torch.Generator]:
    return [generator(seed, "layers") for seed in seeds]


def test_dropout_keeps_the_mean_and_its_share():
    layer = Dropout(tensor([0.0, 0.25]))
    layer.generators = seeded(0, 1)
    x = torch.ones(2, 1, 400, 100, requires_grad=True)
    y = layer(x)
    assert torch.equal(y[0], x[0])
    torch.testing.assert_close(y[1].unique(), tensor([0.0, 1.0 / 0.75]))
    assert abs((y[1] == 0.0).float().mean() - 0.25) < 0.01 and abs(y[1].mean() - 1.0) < 0.01
    assert not torch.equal(layer(x), y)  # another draw
    with torch.no_grad():
        assert layer(x) is x
    assert layer.eval()(x) is x


def test_the_bottleneck_draws_from_its_posterior():
    layer = Bottleneck(seeded(0), 2, 1)
    layer.linear.weight.data.zero_()
    layer.linear.bias.data = tensor([1.0, -2.0, math.log(0.5), math.log(2.0)]).view(1, 1, 1, 4)
    layer.generators = seeded(0)
    x = torch.zeros(1, 1, 40_000, 2, requires_grad=True)
    z = layer(x)[0, 0]
    torch.testing.assert_close(z.mean(0), tensor([1.0, -2.0]), atol=0.04, rtol=0.0)
    torch.testing.assert_close(z.std(0), tensor([0.5, 2.0]), atol=0.04, rtol=0.0)
    assert torch.equal(layer.eval()(x)[0, 0, 0], tensor([1.0, -2.0]))


def test_the_divergence_of_the_bottleneck_by_hand_and_by_torch():
    mean, log_std = tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True), tensor([[0.0, 0.0], [0.0, math.log(2.0)]])
    # rows: 1 / 2, and (4 + 4 − 1) / 2 − log 2
    kl = bottleneck_kl(mean, log_std)
    assert kl.item() == pytest.approx((0.5 + 3.5 - math.log(2.0)) / 2.0)
    (gradient,) = torch.autograd.grad(kl, mean)
    assert torch.equal(gradient, mean.detach() / 2.0)  # mean over two rows of the mean itself
    normal = torch.distributions.Normal(mean.detach(), log_std.exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    assert kl.item() == pytest.approx(expected.item())


def test_spectral_norm_is_one_and_passes_the_gradient_of_the_quotient():
    torch.manual_seed(0)
    layer = SpectralLinear(StackedLinear(seeded(0, 1), 5, 4, copies=2)).double()
    sigma = torch.linalg.matrix_norm(layer.weight, 2)[..., None, None]
    torch.testing.assert_close(layer.matrix(), layer.weight / sigma)  # the iteration starts where it converges
    for _ in range(200):  # in float64 too
        layer.matrix()
    ours, theirs = (
        torch.autograd.grad(each.square().cumsum(-1).sum(), layer.weight)[0]
        for each in (layer.matrix(), layer.weight / torch.linalg.matrix_norm(layer.weight, 2)[..., None, None])
    )
    torch.testing.assert_close(ours, theirs)
    x = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ layer.matrix() + layer.bias)


def test_the_power_iteration_follows_the_weights_in_training_only():
    torch.manual_seed(0)
    layer = SpectralLinear(StackedLinear(seeded(0), 5, 4)).double()
    layer.weight.data = torch.randn(1, 1, 5, 4, dtype=torch.float64)
    stale = layer.right.clone()
    layer.eval().matrix()
    assert torch.equal(layer.right, stale)
    for _ in range(300):
        layer.train().matrix()
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.matrix(), 2), torch.ones(1, 1, dtype=torch.float64))


def test_weight_decay_shrinks_the_critic_and_nothing_else(make_population: Any):
    members = [{"critic_weight_decay": decay, "critic_lr": 0.0, "actor_lr": 0.0} for decay in (0.5, 0.0)]
    population = make_population(find("DR3-CQL", "continuous"), members, "stacked")
    part = population.steps.parts["critic"]
    before = part.values.clone()
    population.update(1)
    assert torch.equal(part.values, before)  # it is taken times the step size
    members = [{"critic_weight_decay": decay, "critic_lr": 0.1} for decay in (0.5, 0.0)]
    population = make_population(find("DR3-CQL", "continuous"), members, "stacked")
    part, actor = population.steps.parts["critic"], population.steps.parts["actor"]
    before = part.values.clone()
    population.update(1)
    # the first step of equal seeds differs by step size · λ · parameter alone
    torch.testing.assert_close(part.values[1] - part.values[0], 0.1 * 0.5 * before[0], atol=1e-6, rtol=1e-4)
    assert torch.equal(actor.values[0], actor.values[1])


@pytest.mark.spread(3)
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("algorithm", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_critic_trains_like_any_other(algorithm: Any, change: dict[str, Any], make_population: Any):
    """It continues from a checkpoint to the bit, looking changes nothing, and a member of a pack is itself alone."""
    warnings.simplefilter("ignore", UserWarning)  # the bottleneck's features are signed
    members = [change | {"seed": seed, "dr3_coeff": 0.01} for seed in (0, 1)]
    first = make_population(algorithm, members, "stacked")
    first.update(3)
    state = copy.deepcopy((first.networks.state_dict(), first.state_dict()))
    first.update(2)
    first.probe()
    first.update(2)
    second = make_population(algorithm, [member | {"seed": 7} for member in members], "stacked")
    second.networks.load_state_dict(state[0])
    second.load_state_dict(state[1])
    second.update(4)
    assert_equal(everything(first), everything(second))
    assert all(values.isfinite().all() for values in first.metrics.values())

    packs = [make_population(algorithm, members, execution, torch.float64) for execution in ("in_turn", "stacked")]
    alone = [make_population(algorithm, [member], dtype=torch.float64) for member in members]
    for each in (*packs, *alone):
        each.update(20)
    for pack in packs:
        found = pack.networks.state_dict()
        for k, single in enumerate(alone):
            for name, values in single.networks.state_dict().items():
                torch.testing.assert_close(found[name][k], values[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("algorithm", SPECS, ids=lambda spec: spec.name)
def test_targets_and_acting_are_without_noise(algorithm: Any, make_population: Any):
    warnings.simplefilter("ignore", UserWarning)
    change = {"critic_dropout": 0.5, "critic_bottleneck": True}
    population = make_population(algorithm, [change])
    population.update(2)
    observations = torch.randn(1, 5, 2, 3)
    assert torch.equal(population.act(observations), population.act(observations))
    view, batch = population.steps.views[0], next(population.steps.batches.stream(slice(0, 1), 1))[0]
    view.networks.train()
    with torch.no_grad():
        for critic in (view.networks.critic, view.networks.target_critic):
            one, two = (critic.features(batch.observations, batch.actions) for _ in range(2))
            assert torch.equal(one, two)
    one, two = (view.networks.critic.features(batch.observations, batch.actions) for _ in range(2))
    assert not torch.equal(one, two)


def test_phi_is_the_drawn_input_of_the_last_layer(make_population: Any):
    warnings.simplefilter("ignore", UserWarning)
    population = make_population(find("DR3-DQN", "discrete"), [{"critic_bottleneck": True}])
    critic = population.networks.critic
    q, phi = critic(torch.randn(1, 5, 2, 3))
    assert phi.min() < 0.0
    torch.testing.assert_close(q, phi @ critic.head.weight + critic.head.bias)
    metrics = population.update(1)
    assert metrics["loss_bottleneck"] > 0.0


def test_the_bottlenecks_loss_is_its_weight_times_the_divergence_averaged_over_rows_and_critics(make_population: Any):
    warnings.simplefilter("ignore", UserWarning)
    members = [{"critic_bottleneck": True, "bottleneck_coeff": weight} for weight in (0.2, 0.5)]
    population = make_population(find("DR3-CQL", "continuous"), members, "stacked")
    view, batches = population.steps.views[0], population.steps.batches
    indices, noise = batches.sampler.draw(view.rows)
    batch = batches.gather(indices)
    mean, log_std = population.networks.critic.posterior(batch.observations, batch.actions)  # [K, C, B, F]
    normal, standard = torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(normal, standard).sum(-1).mean((1, 2))
    terms, _ = view.objective(view.networks, batch, noise, 0)
    torch.testing.assert_close(terms.losses["bottleneck"], tensor([0.2, 0.5]) * divergence)


def encoders(module: nn.Module) -> list[Tensor]:
    return [each.weight for each in module.modules() if isinstance(each, SpectralLinear)]


def test_spectral_norm_stands_at_the_last_hidden_layer(make_population: Any):
    population = make_population(find("DR3-CQL", "continuous"), [{"critic_norm": "spectral"}])
    assert [tuple(weight.shape) for weight in encoders(population.networks.critic)] == [(1, 2, 12, 8)]
    assert not encoders(population.networks.actor)


def test_what_does_not_go_together_fails_in_one_line(make_population: Any):
    spec = find("DR3-DQN", "discrete")
    with pytest.raises(UserError, match="critic_bottleneck and critic_norm='unit' both say what φ is"):
        Member.from_dict(spec, {"critic_bottleneck": True, "critic_norm": "unit"})
    with pytest.raises(UserError, match=r"critic_dropout = 1\.0 is outside \[0, 0\.95\]"):
        Member.from_dict(spec, {"critic_dropout": 1.0})
    with pytest.raises(UserError, match="critic_norm='spectral' needs a hidden layer"):
        make_population(spec, [{"critic_norm": "spectral", "hidden_sizes": ()}])


@pytest.mark.parametrize(
    ("signed", "more"),
    [
        (True, {"critic_norm": "layer"}),
        (True, {"critic_bottleneck": True}),
        (True, {"hidden_sizes": ()}),
        (False, {}),
        (False, {"critic_norm": "unit"}),
        (False, {"critic_norm": "layer", "dr3_form": "abs"}),
        (False, {"critic_norm": "layer", "dr3_coeff": 0.0}),
    ],
    ids=str,
)
def test_a_penalty_without_a_lower_bound_is_warned_of(signed: bool, more: dict[str, Any], make_population: Any):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_population(find("DR3-DQN", "discrete"), [{"dr3_coeff": 0.1} | more])
    assert [str(each.message)[:45] for each in caught if each.category is UserWarning] == (
        ["the features of this critic can be negative, "] if signed else []
    )
