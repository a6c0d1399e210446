"""DR3's penalty and its gradients, worked by hand and against the definition."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, tensor

from dr3_ray.algorithms.registry import find
from dr3_ray.data.sampler import generator
from dr3_ray.losses.features import feature_dot
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DiscreteCritic
from dr3_ray.regularizers.dr3 import DR3, dr3_penalty, multiplier_networks, with_dr3
from dr3_ray.types import Backup, Terms, Transition


class LinearCritic(nn.Module):
    """φ(s, a) = s W for one member and C critics: features of either sign, gradients that fit on paper."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = nn.Parameter(weights)  # [C, observation, feature]

    def features(self, observations: Tensor, actions: Tensor) -> Tensor:
        return observations.unsqueeze(1) @ self.weights


def silent(networks: Any, batch: Transition, noise: dict[str, Tensor], step: int) -> tuple[Terms, Backup]:
    """An objective without a loss, so that the penalty stands alone; a' is action 1."""
    phi = networks.critic.features(batch.observations, batch.actions)
    assert batch.terminateds is not None
    return Terms({}, {}), Backup(phi, torch.ones_like(batch.actions), 1.0 - batch.terminateds)


# with W = I: s·s' = 1·3 + 2·4 = 11, then 1·(−2) + 0 = −2, and 25 after a terminal step
S = tensor([[[1.0, 2.0], [1.0, 0.0], [5.0, 0.0]]])
NEXT_S = tensor([[[3.0, 4.0], [-2.0, 7.0], [5.0, 5.0]]])
BATCH = Transition(
    S, tensor([[1, 0, 1]]), torch.zeros(1, 3), next_observations=NEXT_S, terminateds=tensor([[0.0, 0.0, 1.0]])
)


def penalty_and_gradient(**options: Any) -> tuple[float, Tensor]:
    """The penalty's loss, and its gradient in W at W = I."""
    networks = nn.ModuleDict({"critic": LinearCritic(torch.eye(2).unsqueeze(0))})
    terms, _ = with_dr3(silent, DR3(**options))(networks, BATCH, {}, 0)
    weights = networks["critic"].weights
    total = terms.losses["dr3"].sum() + 0.0 * weights.sum()  # as there is always another loss
    (gradient,) = torch.autograd.grad(total, [weights])
    return terms.losses["dr3"].item(), gradient[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (11.0 - 2.0) / 2.0),  # the third row stands in no backup
        ({"dr3_form": "abs"}, (11.0 + 2.0) / 2.0),
        ({"dr3_mask_terminals": False}, (11.0 - 2.0 + 25.0) / 3.0),
        ({"dr3_match_actions": True}, 11.0),  # a' = 1: only the first of the rows with a backup took it at s
        ({"dr3_match_actions": True, "dr3_mask_terminals": False}, (11.0 + 25.0) / 2.0),
        ({"dr3_stop_gradient": True}, (11.0 - 2.0) / 2.0),
        ({"dr3_divisor": "batch"}, (11.0 - 2.0) / 3.0),
        ({"dr3_divisor": "batch", "dr3_match_actions": True}, 11.0 / 3.0),
    ],
    ids=str,
)
def test_value_of_every_variant(options: dict[str, Any], expected: float):
    assert penalty_and_gradient(dr3_coeff=1.0, **options)[0] == pytest.approx(expected)
    assert penalty_and_gradient(dr3_coeff=0.5, **options)[0] == pytest.approx(expected / 2.0)


def test_gradient_flows_through_both_sides():
    # ∂/∂W (sW)·(s'W) = sᵀ(s'W) + s'ᵀ(sW): at W = I, [[3, 4], [6, 8]] + [[3, 6], [4, 8]] for the first row,
    # [[−2, 7], [0, 0]] + [[−2, 0], [7, 0]] for the second; the mean of the two
    gradient = penalty_and_gradient(dr3_coeff=1.0)[1]
    torch.testing.assert_close(gradient, tensor([[6.0 - 4.0, 10.0 + 7.0], [10.0 + 7.0, 16.0]]) / 2.0)


def test_gradient_stops_at_the_next_features_when_asked():
    gradient = penalty_and_gradient(dr3_coeff=1.0, dr3_stop_gradient=True)[1]
    torch.testing.assert_close(gradient, tensor([[3.0 - 2.0, 4.0 + 7.0], [6.0, 8.0]]) / 2.0)


def test_gradient_of_the_absolute_form_turns_negative_rows_around():
    gradient = penalty_and_gradient(dr3_coeff=1.0, dr3_form="abs")[1]
    torch.testing.assert_close(gradient, tensor([[6.0 + 4.0, 10.0 - 7.0], [10.0 - 7.0, 16.0]]) / 2.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # the third row, after whose step nothing comes: [[25, 25], [0, 0]] + [[25, 0], [25, 0]]
        ({"dr3_mask_terminals": False}, tensor([[6.0 - 4.0 + 50.0, 17.0 + 25.0], [17.0 + 25.0, 16.0]]) / 3.0),
        ({"dr3_match_actions": True}, tensor([[6.0, 10.0], [10.0, 16.0]])),
        ({"dr3_divisor": "batch"}, tensor([[2.0, 17.0], [17.0, 16.0]]) / 3.0),
        ({"dr3_warmup_steps": 4}, tensor([[2.0, 17.0], [17.0, 16.0]]) / 8.0),  # a quarter of the mean in step 0
    ],
    ids=str,
)
def test_gradient_of_the_other_variants(options: dict[str, Any], expected: Tensor):
    torch.testing.assert_close(penalty_and_gradient(dr3_coeff=1.0, **options)[1], expected)


@pytest.mark.parametrize(
    ("held", "mean"), [("dot_product", 4.5), ("cosine", (11.0 / (5.0**0.5 * 5.0) - 2.0 / 53.0**0.5) / 2.0)]
)
def test_the_multiplier_scales_the_gradient_and_hears_of_what_it_holds(held: Any, mean: float):
    # ρ = log 2, threshold ½: the weight is 2 c0, and the gradient in ρ is −(what is held − ½)
    options = DR3(dr3_coeff=0.3, dr3_adaptive=held, dr3_threshold=0.5)
    networks = nn.ModuleDict({"critic": LinearCritic(torch.eye(2).unsqueeze(0)), **multiplier_networks(options, 1)})
    rho: Any = networks["dr3_multiplier"].log_multiplier
    rho.data.fill_(math.log(2.0))
    terms, _ = with_dr3(silent, options)(networks, BATCH, {}, 0)
    assert terms.losses["dr3"].item() == pytest.approx(0.3 * 2.0 * 4.5)
    assert terms.losses["dr3_multiplier"].item() == pytest.approx(-math.log(2.0) * (mean - 0.5))
    torch.stack(list(terms.losses.values())).sum().backward()
    gradient: Any = networks["critic"].weights.grad
    torch.testing.assert_close(gradient[0], 0.3 * 2.0 * tensor([[2.0, 17.0], [17.0, 16.0]]) / 2.0)
    assert rho.grad.item() == pytest.approx(0.5 - mean)


def test_gradient_is_proportional_to_the_coefficient():
    torch.testing.assert_close(penalty_and_gradient(dr3_coeff=0.3)[1], 0.3 * penalty_and_gradient(dr3_coeff=1.0)[1])
    assert not penalty_and_gradient(dr3_coeff=0.0)[1].any()


def test_penalties_of_critics_are_averaged_and_not_their_features():
    # critics I and −I: their features cancel on average, their penalties do not
    phi = torch.stack([S[0], -S[0]]).unsqueeze(0)
    next_phi = torch.stack([NEXT_S[0], -NEXT_S[0]]).unsqueeze(0)
    mask = tensor([[1.0, 1.0, 0.0]])
    assert dr3_penalty(phi, next_phi, mask).item() == pytest.approx(4.5)
    assert dr3_penalty(phi * tensor([1.0, 3.0]).view(1, 2, 1, 1), next_phi, mask).item() == pytest.approx(4.5 * 2.0)


def test_a_batch_of_terminal_rows_has_no_penalty():
    phi = torch.ones(1, 1, 3, 2, requires_grad=True)
    penalty = dr3_penalty(phi, torch.ones(1, 1, 3, 2), torch.zeros(1, 3))
    penalty.sum().backward()
    assert penalty.item() == 0.0 and phi.grad is not None and not phi.grad.any()


def last_layer_gradient(critic: nn.Module, q: Tensor) -> Tensor:
    return torch.autograd.grad(q, critic.head.weight, retain_graph=True)[0].flatten()  # type: ignore[union-attr]


def test_dot_product_is_the_product_of_the_last_layers_gradients():
    # the definition: ∇Q(s, a) · ∇Q(s', a') over the weights of the last linear layer. With one head an action it is
    # 1[a = a'] φ(s)·φ(s'), which is what dr3_match_actions counts
    critic = DiscreteCritic([generator(0, "init")], Architecture((4,), (8, 6)), 3).double()
    observations, next_observations = torch.randn(2, 1, 20, 4, dtype=torch.float64)
    actions, next_actions = torch.randint(3, (2, 20))
    (q, phi), (next_q, next_phi) = critic(observations), critic(next_observations)
    matched = feature_dot(phi, next_phi)[0, 0] * (actions == next_actions)
    for row in range(20):
        gradients = [
            last_layer_gradient(critic, values[0, 0, row, taken[row]])
            for values, taken in ((q, actions), (next_q, next_actions))
        ]
        torch.testing.assert_close(gradients[0] @ gradients[1], matched[row])


def test_dot_product_is_the_product_of_the_last_layers_gradients_on_continuous_actions():
    critic = ContinuousCritic([generator(0, "init")], Architecture((4,), (8, 6)), 2, n_critics=2).double()
    observations, next_observations = torch.randn(2, 1, 10, 4, dtype=torch.float64)
    actions, next_actions = torch.rand(2, 1, 10, 2, dtype=torch.float64)
    (q, phi), (next_q, next_phi) = critic(observations, actions), critic(next_observations, next_actions)
    dots = feature_dot(phi, next_phi)
    for c in range(2):
        for row in range(10):
            ours, theirs = (last_layer_gradient(critic, values[0, c, row]) for values in (q, next_q))
            torch.testing.assert_close(ours @ theirs, dots[0, c, row])


def test_the_penalty_is_computed_at_the_backups_action_by_the_online_critic(make_population: Any):
    population = make_population(find("DR3-SARSA", "continuous"), [{"dr3_coeff": 0.5}])
    critic, data = population.networks.critic, population.data
    population.networks.target_critic.requires_grad_(False)
    for parameter in population.networks.target_critic.parameters():
        parameter.fill_(torch.nan)  # a target that stood on either side would show
    view = population.steps.views[0]
    indices = torch.arange(60).unsqueeze(0)
    batch = Transition(**data.gather(indices, population.spec.columns))
    terms, _ = view.objective(view.networks, batch, {}, 0)
    phi = critic.features(batch.observations, batch.actions)
    next_phi = critic.features(batch.next_observations, batch.next_actions)
    rows = (phi * next_phi).sum(-1)[0][:, batch.next_actions_valid[0]]  # without the last steps of episodes
    torch.testing.assert_close(terms.losses["dr3"], 0.5 * rows.mean().reshape(1))
    torch.testing.assert_close(terms.metrics["dr3_penalty"], rows.mean().reshape(1))


def test_the_actor_gets_no_gradient(make_population: Any):
    population = make_population(find("DR3-CQL", "continuous"), [{"dr3_coeff": 1.0}])
    view = population.steps.views[0]
    indices, noise = population.steps.batches.sampler.draw(view.rows)
    terms, _ = view.objective(view.networks, population.steps.batches.gather(indices), noise, 0)
    parameters = [*view.networks.actor.parameters(), *view.networks.temperature.parameters()]
    critic = list(view.networks.critic.encoder.parameters())
    gradients = torch.autograd.grad(terms.losses["dr3"], parameters + critic, allow_unused=True)
    assert all(gradient is None for gradient in gradients[: len(parameters)])
    assert all(gradient is not None and gradient.any() for gradient in gradients[len(parameters) :])


@pytest.mark.usefixtures("without_shape_checks")
def test_without_a_coefficient_it_is_the_base_algorithm_to_the_bit(critic_spec: Any, make_population: Any):
    wrapped = make_population(critic_spec, [{"dr3_coeff": 0.0, "seed": 3}])
    base = make_population(critic_spec, [{"seed": 3}], regularized=False)
    ours, theirs = wrapped.update(50), base.update(50)
    for name, values in base.networks.state_dict().items():
        assert torch.equal(values, wrapped.networks.state_dict()[name]), name
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert ours["loss_dr3"].item() == 0.0 and "loss_dr3" not in theirs


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8), st.integers(1, 5))


@given(sizes=SIZES, seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
@settings(max_examples=50, deadline=None)
def test_invariances(sizes: tuple[int, int, int, int], seed: int, scale: float):
    source = torch.Generator().manual_seed(seed)
    k, _, rows, features = sizes
    phi, next_phi = torch.randn(2, *sizes, dtype=torch.float64, generator=source)
    mask = (torch.rand(k, rows, generator=source) < 0.7).double()
    penalty = dr3_penalty(phi, next_phi, mask)
    # either side may be called the next
    torch.testing.assert_close(dr3_penalty(next_phi, phi, mask), penalty)
    # it grows with the product of both lengths
    torch.testing.assert_close(dr3_penalty(scale * phi, scale * next_phi, mask), scale**2 * penalty)
    # a rotation of the features leaves it alone, and so does the order of the rows
    rotation = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64, generator=source))[0]
    torch.testing.assert_close(dr3_penalty(phi @ rotation, next_phi @ rotation, mask), penalty)
    order = torch.randperm(rows, generator=source)
    torch.testing.assert_close(dr3_penalty(phi[:, :, order], next_phi[:, :, order], mask[:, order]), penalty)
    # what stands in no backup does not count
    garbage = phi + 1e3 * (1.0 - mask)[:, None, :, None]
    torch.testing.assert_close(dr3_penalty(garbage, next_phi, mask), penalty)
    # the absolute form bounds it
    assert bool((dr3_penalty(phi, next_phi, mask, "abs") >= penalty.abs() - 1e-12).all())


def test_a_wrong_shape_raises():
    with pytest.raises(jaxtyping.TypeCheckError):
        dr3_penalty(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 4, 2), torch.ones(1, 3))
    with pytest.raises(jaxtyping.TypeCheckError):
        dr3_penalty(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2), torch.ones(1, 3))
