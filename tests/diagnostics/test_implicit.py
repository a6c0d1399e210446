"""Both terms of R_TD against Jacobians made row by row, worked examples, closed forms and simulation."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor

from dr3_ray.diagnostics import implicit
from dr3_ray.diagnostics.implicit import (
    fixed_point,
    gradient_blocks,
    implicit_regularizer,
    label_noise,
    sample_gradients,
    semi_gradient_jacobian,
)
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import ActionInputCritic, DiscreteCritic, MultiHeadCritic
from dr3_ray.networks.members import member_view
from dr3_ray.regularizers.dr3 import dr3_penalty
from dr3_ray.types import Backup, Transition
from tests.diagnostics.brute_force import brute_force

K, B, GAMMA = 2, 7, 0.9
DOUBLE = torch.float64
SHAPES = {"vector": (4,), "pixels": {"image": (4, 4, 3), "speed": (2,)}}
CRITICS = ("discrete", "two discrete", "heads", "input", "input heads", "continuous", "layer norm", "pixels")


def make_critic(kind: str, hidden_sizes: tuple[int, ...] = (6, 5), seed: int = 0) -> nn.Module:
    generators = [torch.Generator().manual_seed(seed + k) for k in range(K)]
    pixels = kind == "pixels"
    of = Architecture(SHAPES["pixels" if pixels else "vector"], hidden_sizes, {"image": "cog"} if pixels else "flat")
    if "heads" in kind:
        critic: Any = MultiHeadCritic(generators, of, 3, 4, "input" if "input" in kind else "heads")
    elif kind == "input":
        critic = ActionInputCritic(generators, of, 3, n_critics=2)
    elif kind in ("discrete", "two discrete"):
        critic = DiscreteCritic(generators, of, 3, n_critics=1 if kind == "discrete" else 2)
    else:
        critic = ContinuousCritic(generators, of, 2, n_critics=2, layer_norm=kind == "layer norm")
    return critic.to(DOUBLE)


def observations_of(kind: str, rows: int) -> Any:
    if kind == "pixels":
        image = torch.randint(256, (K, rows, 4, 4, 3), dtype=torch.uint8)
        return {"image": image, "speed": torch.randn(K, rows, 2, dtype=DOUBLE)}
    return torch.randn(K, rows, 4, dtype=DOUBLE)


def actions_of(critic: nn.Module, rows: int) -> Tensor:
    if isinstance(critic, ContinuousCritic):
        return torch.rand(K, rows, 2, dtype=DOUBLE) * 2.0 - 1.0
    return torch.randint(3, (K, rows))


def make_batch(critic: nn.Module, kind: str, rows: int = B, terminal: int = 0) -> tuple[Transition, Backup]:
    """Of which the first `terminal` rows end an episode."""
    terminateds = (torch.arange(rows) < terminal).to(DOUBLE).expand(K, rows)
    batch = Transition(
        observations_of(kind, rows),
        actions_of(critic, rows),
        next_observations=observations_of(kind, rows),
        terminateds=terminateds,
    )
    phi = critic.features(batch.observations, batch.actions)  # type: ignore[operator]
    return batch, Backup(phi, actions_of(critic, rows), 1.0 - terminateds)


@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize("kind", CRITICS)
def test_gradients_and_terms_are_those_of_brute_force(kind: str, layers: Any):
    torch.manual_seed(1)
    critic = make_critic(kind)
    batch, backup = make_batch(critic, kind, terminal=2)
    here = brute_force(critic, batch.observations, batch.actions, layers)
    there = brute_force(critic, batch.next_observations, backup.next_actions, layers)
    torch.testing.assert_close(sample_gradients(critic, batch.observations, batch.actions, layers), here)

    discounts = GAMMA * (torch.arange(B) >= 2)
    first = (here * here).sum(-1).mean((1, 2))
    second = ((here * there).sum(-1) * discounts).mean((1, 2))
    found = implicit_regularizer(critic, batch, backup, GAMMA, layers)
    torch.testing.assert_close(found, {"first_term": first, "second_term": second, "r_td": first - second})
    assert (second != 0.0).all() and not any(parameter.grad is not None for parameter in critic.parameters())


def test_the_last_layer_by_its_features():
    """‖φ‖² − γ φ·φ', of which DR3 takes the second part, and 1 − γ for the bias."""
    torch.manual_seed(1)
    for kind in CRITICS:
        critic = make_critic(kind)
        batch, backup = make_batch(critic, kind)
        next_phi = critic.features(batch.next_observations, backup.next_actions)  # type: ignore[operator]
        heads = 4 if "heads" in kind else 1
        same = torch.ones(K, B, dtype=DOUBLE)
        if not critic.reads_actions:
            same = (batch.actions == backup.next_actions).to(DOUBLE)
        share = same.mean(-1)  # the penalty is a mean over the rows of its mask, R_TD one over all rows
        found = implicit_regularizer(critic, batch, backup, tensor([0.9, 0.5], dtype=DOUBLE), "last")
        first = (backup.phi.square().sum(-1).mean((1, 2)) + 1.0) / heads
        second = tensor([0.9, 0.5]) * share * (dr3_penalty(backup.phi, next_phi, same) + 1.0) / heads
        assert share.min() > 0.0 and (kind not in ("discrete", "heads") or share.max() < 1.0)
        torch.testing.assert_close(found, {"first_term": first, "second_term": second, "r_td": first - second})


def line(*rows: tuple[float, float, float]) -> tuple[nn.Module, Transition, Backup]:
    """Q = w s + b, of which ∇Q = (s, 1), with rows (s, s', terminated)."""
    critic = DiscreteCritic([torch.Generator().manual_seed(0)], Architecture((1,), ()), 1).to(DOUBLE)
    s, next_s, terminateds = tensor(rows, dtype=DOUBLE).T.unsqueeze(1)
    no_actions = torch.zeros(1, len(rows), dtype=torch.long)
    batch = Transition(s.unsqueeze(-1), no_actions, next_observations=next_s.unsqueeze(-1), terminateds=terminateds)
    return critic, batch, Backup(s[:, None, :, None], no_actions, 1.0 - terminateds)


def assert_terms(found: dict[str, Tensor], first: float, second: float) -> None:
    for name, value in {"first_term": first, "second_term": second, "r_td": first - second}.items():
        assert found[name].tolist() == pytest.approx([value], rel=1e-12), name


@pytest.mark.parametrize("layers", ["last", "all"])
def test_two_parameters_by_hand(layers: Any):
    # ∇Q = (1, 1), ∇Q' = (2, 1); ∇Q = (3, 1), terminal: mean(2, 10) and ½ mean(3, 0)
    critic, batch, backup = line((1.0, 2.0, 0.0), (3.0, 100.0, 1.0))
    assert_terms(implicit_regularizer(critic, batch, backup, 0.5, layers), 6.0, 0.75)
    here = sample_gradients(critic, batch.observations, batch.actions, layers)[0, 0]
    there = sample_gradients(critic, batch.next_observations, backup.next_actions, layers)[0, 0]
    assert here.tolist() == [[1.0, 1.0], [3.0, 1.0]] and there[0].tolist() == [2.0, 1.0]
    weights, discounts = tensor([0.5, 0.5], dtype=DOUBLE), tensor([0.5, 0.0], dtype=DOUBLE)
    # ½ (1, 1)ᵀ(0, ½) + ½ (3, 1)ᵀ(3, 1)
    assert semi_gradient_jacobian(here, there, discounts, weights).tolist() == [[4.5, 1.75], [1.5, 0.75]]
    assert label_noise(here, weights).tolist() == [[5.0, 2.0], [2.0, 1.0]]


def test_closed_form_of_a_linear_problem():
    # ∇Q = (1, ±1) with s' = s: G = (1 − γ) I and M = I, Σ* = η² / (1 − (1 − η (1 − γ))²) I = 0.16 / 0.36 I
    critic, batch, backup = line((1.0, 1.0, 0.0), (-1.0, -1.0, 0.0))
    sigma = 0.16 / 0.36
    assert_terms(implicit_regularizer(critic, batch, backup, 0.5, "last", step_size=0.4), 2.0 * sigma, sigma)
    # any linear problem: vec Σ* = (I − A ⊗ A)⁻¹ η² vec M, A = I − ηG, with the G and M worked out above
    critic, batch, backup = line((1.0, 2.0, 0.0), (3.0, 100.0, 1.0))
    a = torch.eye(2, dtype=DOUBLE) - 0.2 * tensor([[4.5, 1.75], [1.5, 0.75]], dtype=DOUBLE)
    m = tensor([[5.0, 2.0], [2.0, 1.0]], dtype=DOUBLE)
    solution = torch.linalg.solve(torch.eye(4, dtype=DOUBLE) - torch.kron(a, a), 0.04 * m.flatten()).view(2, 2)
    here, other, there = tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 1.0]], dtype=DOUBLE)
    first = float(here @ solution @ here + other @ solution @ other) / 2.0
    second = 0.5 * float(there @ solution @ here) / 2.0
    assert_terms(implicit_regularizer(critic, batch, backup, 0.5, "all", step_size=0.2), first, second)


def test_fixed_point_of_one_parameter():
    for g, m, step_size in ((2.0, 3.0, 0.1), (0.5, 1.0, 3.0)):
        expected = step_size**2 * m / (1.0 - (1.0 - step_size * g) ** 2)
        assert fixed_point(tensor([[g]]), tensor([[m]]), step_size).item() == pytest.approx(expected, rel=1e-6)


def test_fixed_point_of_regression_is_half_the_step_size():
    """Without a bootstrap M = G: Σ* = η (2I − ηG)⁻¹ where there is data, close to η/2 · I, and 0 elsewhere."""
    torch.manual_seed(0)
    gradients = torch.randn(4, 6, dtype=DOUBLE)  # more parameters than rows, and one parameter that is dead
    gradients[:, 2] = 0.0
    weights = torch.full((4,), 0.25, dtype=DOUBLE)
    g = label_noise(gradients, weights)
    torch.testing.assert_close(g, semi_gradient_jacobian(gradients, gradients, 0.0 * weights, weights))
    basis = torch.linalg.qr(gradients.T)[0]
    expected = basis @ (0.1 * torch.linalg.inv(2.0 * torch.eye(4) - 0.1 * basis.T @ g @ basis)) @ basis.T
    torch.testing.assert_close(fixed_point(g, g, 0.1), expected)
    torch.testing.assert_close(fixed_point(g, g, 1e-4) / 0.5e-4, basis @ basis.T, rtol=1e-3, atol=1e-3)
    assert fixed_point(0.0 * g, 0.0 * g, 0.1).abs().max() == 0.0


@pytest.mark.parametrize("parameters", [3, 12])
def test_the_recursion_converges_to_the_fixed_point(parameters: int):
    torch.manual_seed(0)
    here, there = torch.randn(2, 10, parameters, dtype=DOUBLE)
    weights, discounts = torch.full((10,), 0.1, dtype=DOUBLE), torch.full((10,), 0.5, dtype=DOUBLE)
    g, m = semi_gradient_jacobian(here, there, discounts, weights), label_noise(here, weights)
    a, sigma = torch.eye(parameters, dtype=DOUBLE) - 0.1 * g, torch.zeros(parameters, parameters, dtype=DOUBLE)
    for _ in range(20_000):
        sigma = a @ sigma @ a.T + 0.01 * m
    torch.testing.assert_close(fixed_point(g, m, 0.1), sigma, rtol=1e-6, atol=1e-9)


def test_the_fixed_point_is_the_covariance_of_noisy_td():
    """Many learners of a linear Q, each with its own label noise: the definitions of G, M and Σ* fit together."""
    torch.manual_seed(0)
    here, there = torch.randn(2, 6, 3, dtype=DOUBLE)
    weights, discounts = torch.full((6,), 1.0 / 6.0, dtype=DOUBLE), torch.full((6,), 0.6, dtype=DOUBLE)
    rewards, theta = torch.randn(6, dtype=DOUBLE), torch.zeros(20_000, 3, dtype=DOUBLE)
    for _ in range(300):
        labels = rewards + 0.6 * theta @ there.T + torch.randn(20_000, 6, dtype=DOUBLE)
        theta -= 0.2 * (theta @ here.T - labels) @ here / 6.0
    g = semi_gradient_jacobian(here, there, discounts, weights)
    expected = fixed_point(g, label_noise(here, weights) / 6.0, 0.2)  # a minibatch of all six rows
    torch.testing.assert_close(theta.T.cov(), expected, rtol=0.05, atol=0.03 * float(expected.diag().max()))


def test_rows_without_a_backup():
    torch.manual_seed(1)
    critic = make_critic("continuous")
    batch, backup = make_batch(critic, "continuous", terminal=3)
    for step_size in (None, 1e-3):
        found = implicit_regularizer(critic, batch, backup, GAMMA, "all", step_size)
        assert batch.next_observations is not None and batch.terminateds is not None
        elsewhere = batch.next_observations + 5.0 * batch.terminateds.unsqueeze(-1)
        moved = implicit_regularizer(
            critic, batch._replace(next_observations=elsewhere), backup, GAMMA, "all", step_size
        )
        torch.testing.assert_close(moved, found)
        assert (found["second_term"] != 0.0).all()
        # a row that neither ends an episode nor has an a' counts nowhere
        unknown = backup.in_backup.clone()
        unknown[:, -1] = 0.0
        without = implicit_regularizer(critic, batch, backup._replace(in_backup=unknown), GAMMA, "all", step_size)
        fewer = Transition(*(None if column is None else column[:, :-1] for column in batch))
        rest = Backup(backup.phi[:, :, :-1], backup.next_actions[:, :-1], backup.in_backup[:, :-1])
        torch.testing.assert_close(without, implicit_regularizer(critic, fewer, rest, GAMMA, "all", step_size))


def test_n_steps_bootstrap_with_the_power_of_gamma():
    torch.manual_seed(1)
    critic = make_critic("discrete")
    batch, backup = make_batch(critic, "discrete")
    backup = backup._replace(next_actions=batch.actions)
    one, three = (
        implicit_regularizer(critic, batch._replace(n_steps=torch.full((K, B), n)), backup, GAMMA) for n in (1, 3)
    )
    torch.testing.assert_close(one, implicit_regularizer(critic, batch, backup, GAMMA))
    torch.testing.assert_close(three["second_term"], one["second_term"] * GAMMA**2)
    torch.testing.assert_close(three["first_term"], one["first_term"])


@pytest.mark.parametrize("layers", ["last", "all"])
def test_blocks_do_not_matter_and_bound_memory(layers: Any, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(1)
    critic = make_critic("continuous")
    batch, backup = make_batch(critic, "continuous", rows=11)
    whole = [implicit_regularizer(critic, batch, backup, GAMMA, layers, step) for step in (None, 1e-3)]
    pairs = (batch.observations, batch.actions, batch.next_observations, backup.next_actions)
    size = sample_gradients(critic, batch.observations, batch.actions, layers)[:, :, 0].numel()
    for block, rows in ((1, 1), (4 * size, 4), (100 * size, 11)):
        monkeypatch.setattr(implicit, "BLOCK", block)
        assert max(here.shape[2] for _, here, _ in gradient_blocks(critic, pairs, layers)) == rows
        parts = [implicit_regularizer(critic, batch, backup, GAMMA, layers, step) for step in (None, 1e-3)]
        torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("kind", ["heads", "continuous"])
def test_members_do_not_mix(kind: str):
    torch.manual_seed(1)
    critic = make_critic(kind)
    batch, backup = make_batch(critic, kind, terminal=1)
    step_sizes, gamma = tensor([1e-3, 2e-3], dtype=DOUBLE), tensor([0.1, 0.2], dtype=DOUBLE)
    for layers in ("last", "all"):
        together = implicit_regularizer(critic, batch, backup, gamma, layers, step_sizes)
        for k in range(K):
            rows = slice(k, k + 1)
            mine = Transition(*(None if column is None else column[rows] for column in batch))
            rest = Backup(*(None if column is None else column[rows] for column in backup))
            critic_k, gamma_k, step_size_k = member_view(critic, rows), float(gamma[k]), float(step_sizes[k])
            alone = implicit_regularizer(critic_k, mine, rest, gamma_k, layers, step_size_k)
            torch.testing.assert_close(alone, {name: values[rows] for name, values in together.items()})
    with torch.no_grad():
        next(critic.parameters())[1] = torch.nan  # a member that has diverged
    for step_size in (None, 1e-3):
        found = implicit_regularizer(critic, batch, backup, gamma, "all", step_size)["r_td"]
        assert found[0].isfinite() and found[1].isnan()


def test_where_there_is_no_fixed_point():
    with pytest.raises(UserError, match=r"step_size = 1.5: choose one between 0 and 1$"):
        fixed_point(tensor([[2.0]]), tensor([[1.0]]), 1.5)
    for step_size in (0.0, -0.1, 1.0):
        with pytest.raises(UserError, match=r"between 0 and 1$"):
            fixed_point(tensor([[2.0]]), tensor([[1.0]]), step_size)
    # |1 − η (1 ± 2i)| < 1 up to η = 2 / 5
    spiral, noise = tensor([[1.0, 2.0], [-2.0, 1.0]]), torch.eye(2)
    assert fixed_point(spiral, noise, 0.39).isfinite().all()
    with pytest.raises(UserError, match=r"between 0 and 0\.4$"):
        fixed_point(spiral, noise, 0.41)
    # ∇Q' is thrice ∇Q: bootstrapping runs away (Tsitsiklis and Van Roy's θ → 2θ)
    critic, batch, backup = line((0.0, 0.0, 1.0), (1.0, 3.0, 0.0))
    with pytest.raises(UserError, match="every step size; take Σ"):
        implicit_regularizer(critic, batch, backup, 0.99, "last", step_size=0.1)
    # (1, 0) is stable and (0, 1), with a thousandth of its variance, is not
    weak, noise = tensor([[1.0, 0.0], [0.0, -1e-3]]), tensor([[1.0, 0.0], [0.0, 1e-3]])
    with pytest.raises(UserError, match=r"real part -0\.001, .*negligible"):
        fixed_point(weak, noise, 0.5)
    assert fixed_point(weak, noise, 0.5, negligible=0.01).flatten().tolist() == pytest.approx(
        [1.0 / 3.0, 0.0, 0.0, 0.0]
    )
    wide = make_critic("continuous", hidden_sizes=(40, 40))
    with pytest.raises(UserError, match=r"1,961 parameters is too large .* layers = 'last'"):
        implicit_regularizer(wide, *make_batch(wide, "continuous"), GAMMA, "all", step_size=0.1)
