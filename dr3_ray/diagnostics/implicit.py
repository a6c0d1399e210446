"""R_TD, the implicit regulariser of temporal-difference learning with noise, which DR3's explicit one opposes.

R_TD(θ) = η Σ_i tr[Σ* ∇Q_i ∇Q_iᵀ] − η Σ_i γ_i tr[Σ* ∇Q_i ∇Q'_iᵀ],   Q_i = Q(s_i, a_i), Q'_i = Q(s'_i, a'_i)

γ_i is the discount of a row's bootstrap: γ, γⁿ after n steps, 0 behind a terminal one. The stop-gradient on ∇Q' in the
paper's form concerns the gradient of R_TD, not its value.

Σ* is the covariance of θ about a fixed point of θ ← θ − η mean_i (Q_i − r_i − γ_i Q'_i) ∇Q_i with noise: the solution
of Σ = (I − ηG) Σ (I − ηG)ᵀ + η² M with G = mean_i ∇Q_i (∇Q_i − γ_i ∇Q'_i)ᵀ, the Jacobian of the expected step, and M
the covariance of the noise in the gradient. DR3 (Kumar et al., arXiv 2112.04716) takes Σ* = I and the last layer alone,
whence ‖φ‖² − γ φ·φ'. The display form of R_TD, the recursion and G are as we recall them from there and from the work
on label noise it builds on (Blanc et al. 2020; Damian et al. 2021); they were not compared with the paper's display.
They describe plain gradient steps without momentum or a target network. On a gridworld label noise moves weights along
half of the first term less the second, not the whole first term (docs/results/implicit_regularizer.md).

What is reported is R_TD / (η N): means over the rows instead of η times their sum.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import scipy  # which loads its parts when they are asked for
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from dr3_ray.errors import UserError
from dr3_ray.losses.features import feature_dot
from dr3_ray.losses.td import masked_mean, value_of
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import MultiHeadCritic
from dr3_ray.observations import Observations, each_part
from dr3_ray.options import Number, per_row
from dr3_ray.types import Backup, Transition

GradientLayers = Literal["last", "all"]
Pairs = tuple[Observations, Tensor, Observations, Tensor]  # (s, a, s', a'), each [K, B, …]
BLOCK = 2**22  # floats of per-sample gradients at a time, 16 MiB
LARGEST_BLOCK = 256  # rows: what is below the last layer takes memory, too
LARGEST_COVARIANCE = 1024  # parameters: the time of a Lyapunov equation grows with their cube
NEGLIGIBLE = 1e-9  # rounding would decide whether such directions are stable


def implicit_regularizer(
    critic: nn.Module,
    batch: Transition,
    backup: Backup,
    gamma: Number,
    layers: GradientLayers = "last",
    step_size: Number | None = None,
    negligible: float = NEGLIGIBLE,
) -> dict[str, Float[Tensor, "member"]]:
    """Return the two terms of R_TD / (η N) and their difference, averaged over the critics, each on its own parameters.

    `first_term` is the mean of tr[Σ* ∇Q ∇Qᵀ] over the rows that are trained on, `second_term` that of
    γ_i tr[Σ* ∇Q ∇Q'ᵀ], 0 where a row stands in no backup; `r_td` is the first minus the second.

    `layers` "last": gradients of the last linear layer alone. With one output ∇Q·∇Q' = φ·φ' + 1, the 1 being the
    bias's; with one an action 1[a = a'] (φ·φ' + 1); with a mean over H outputs, that divided by H. "all": of every
    parameter of the critic, a few rows at a time.

    `step_size` None: Σ* = I. A number, or one a member: Σ* is the fixed point at that η, with the M of `label_noise`,
    on all directions but the `negligible` ones (see `fixed_point`).

    Raises:
        UserError: there is no fixed point, or the layers have more than 1,024 parameters.
    """
    assert batch.next_observations is not None and batch.terminateds is not None
    trained = torch.maximum(backup.in_backup, batch.terminateds)  # on the others a' is unknown
    weights = (trained / trained.sum(-1, keepdim=True).clamp(min=1.0)).unsqueeze(1)
    gammas = per_row(gamma) if batch.n_steps is None else per_row(gamma) ** batch.n_steps
    discounts = (gammas * backup.in_backup).unsqueeze(1)
    pairs = (batch.observations, batch.actions, batch.next_observations, backup.next_actions)
    sigma = None
    if step_size is not None:
        sigma = covariance(critic, pairs, discounts, weights, layers, step_size, negligible)
    first, second = torch.zeros(2, len(weights), device=weights.device, dtype=weights.dtype)
    for rows, here, there in gradient_blocks(critic, pairs, layers):
        first += (weights[..., rows] * product(here, here, sigma)).sum(-1).mean(-1)
        second += (weights[..., rows] * discounts[..., rows] * product(here, there, sigma)).sum(-1).mean(-1)
    return {"first_term": first, "second_term": second, "r_td": first - second}


def last_layer_terms(
    phi: Float[Tensor, "*member batch feature"],
    next_phi: Float[Tensor, "*member batch feature"],
    in_backup: Float[Tensor, "*#member batch"],
    trained: Float[Tensor, "*#member batch"],
    discounts: Float[Tensor, "*#member batch"],
    share: Float[Tensor, "*#member batch"],
    outputs: int = 1,
    bias: float = 1.0,
    own_share: Float[Tensor, "*#member batch"] | float = 1.0,
) -> dict[str, Float[Tensor, "*member"]]:
    """Return what `implicit_regularizer` does of the last layer with Σ* = I, from the features alone.

    ∇Q·∇Q' = share (φ·φ' + bias) / outputs: `share` is 1, or 1[a = a'] where each action has outputs of its own, and Q
    is the mean of so many `outputs`. `bias` 0: of a layer without one. Where Q is no mean of outputs, `share` also has
    the inner product of ∂Q/∂outputs with ∂Q'/∂outputs, and `own_share` that with itself. Rows count that are `trained`
    on. Gradients are those of the matrix that multiplies φ, also where that is a normalised one.
    """
    first = masked_mean(own_share * (feature_dot(phi, phi) + bias) / outputs, trained)
    second = masked_mean(discounts * in_backup * share * (feature_dot(phi, next_phi) + bias) / outputs, trained)
    return {"first_term": first, "second_term": second, "r_td": first - second}


def product(
    left: Float[Tensor, "*member batch parameter"],
    right: Float[Tensor, "*member batch parameter"],
    sigma: Float[Tensor, "*member parameter parameter"] | None = None,
) -> Float[Tensor, "*member batch"]:
    """Return tr[Σ left rightᵀ] = leftᵀ Σ right of every row, Σ symmetric; None: the identity."""
    return ((left if sigma is None else left @ sigma) * right).sum(-1)


def semi_gradient_jacobian(
    gradients: Float[Tensor, "*member batch parameter"],
    next_gradients: Float[Tensor, "*member batch parameter"],
    discounts: Float[Tensor, "*#member batch"],
    weights: Float[Tensor, "*#member batch"],
) -> Float[Tensor, "*member parameter parameter"]:
    """Return G = Σ_i w_i ∇Q_i (∇Q_i − γ_i ∇Q'_i)ᵀ, w_i = 1 / N for a mean: the Jacobian of TD(0)'s expected step."""
    return (weights.unsqueeze(-1) * gradients).mT @ (gradients - discounts.unsqueeze(-1) * next_gradients)


def label_noise(
    gradients: Float[Tensor, "*member batch parameter"], weights: Float[Tensor, "*#member batch"]
) -> Float[Tensor, "*member parameter parameter"]:
    """Return M = Σ_i w_i ∇Q_i ∇Q_iᵀ: of a step on one row, drawn by w, with noise of variance 1 in its label.

    Σ* is proportional to M: divide it by b for minibatches of b rows, multiply it by the variance of the labels.
    """
    return (weights.unsqueeze(-1) * gradients).mT @ gradients


def fixed_point(
    jacobian: Float[Tensor, "parameter parameter"],
    noise: Float[Tensor, "parameter parameter"],
    step_size: float,
    negligible: float = NEGLIGIBLE,
) -> Float[Tensor, "parameter parameter"]:
    """Return Σ* = (I − ηG) Σ* (I − ηG)ᵀ + η² M, the limit from Σ = 0: a discrete Lyapunov equation.

    Directions that neither G nor M reaches (dead units; most directions of a network with more parameters than rows)
    stay at Σ = 0 and are left out: those with no more than `negligible` of the largest singular value of [G, M]. NaN
    where an entry is not finite. On a trained critic directions of hardly any variance are often unstable, though so
    slowly that it does not show: `negligible` = 1e-5 leaves them out and changes little else.

    Raises:
        UserError: I − ηG is no contraction of the rest: one of its eigenvalues has a modulus of 1 or more.
    """
    g, m = (matrix.double().numpy(force=True) for matrix in (jacobian, noise))
    if not (np.isfinite(g).all() and np.isfinite(m).all()):
        return torch.full_like(jacobian, torch.nan)
    basis = scipy.linalg.orth(np.hstack([g, m]), rcond=negligible)
    g, m = basis.T @ g @ basis, basis.T @ m @ basis
    eigenvalues = np.linalg.eigvals(g)
    largest = (2.0 * eigenvalues.real / np.abs(eigenvalues) ** 2).min(initial=np.inf)  # |1 − ηλ| < 1 for η below
    if largest <= 0.0:
        raise UserError(
            f"Σ* does not exist: an eigenvalue of G has the real part {eigenvalues.real.min():.3g}, so that TD leaves "
            "these weights at every step size; take Σ* = I (no step_size), or leave out weak directions (negligible = "
            "1e-5)"
        )
    if not 0.0 < step_size < largest:
        raise UserError(f"Σ* does not exist at step_size = {step_size:g}: choose one between 0 and {largest:.3g}")
    sigma = scipy.linalg.solve_discrete_lyapunov(np.eye(len(g)) - step_size * g, step_size**2 * m)
    return torch.from_numpy(basis @ sigma @ basis.T).to(jacobian)


def covariance(
    critic: nn.Module,
    pairs: Pairs,
    discounts: Float[Tensor, "member 1 batch"],
    weights: Float[Tensor, "member 1 batch"],
    layers: GradientLayers,
    step_size: Number,
    negligible: float = NEGLIGIBLE,
) -> Float[Tensor, "member critic parameter parameter"]:
    """Return Σ* of every member's every critic, from the rows (s, a, s', a') and label noise."""
    first = next(iter(parameters_of(critic, layers).values()))
    members, critics = first.shape[:2]
    n = sum(parameter[0, 0].numel() for parameter in parameters_of(critic, layers).values())
    if n > LARGEST_COVARIANCE:
        raise UserError(
            f"Σ* of {n:,} parameters is too large to solve for (at most {LARGEST_COVARIANCE:,}): use Σ* = I (no "
            "step_size), layers = 'last', or a smaller critic"
        )
    jacobian, noise = torch.zeros(2, members, critics, n, n, dtype=torch.float64, device=first.device)
    for rows, here, there in gradient_blocks(critic, pairs, layers):
        here, there, weight, discount = (
            values.double() for values in (here, there, weights[..., rows], discounts[..., rows])
        )
        jacobian += semi_gradient_jacobian(here, there, discount, weight)
        noise += label_noise(here, weight)
    sizes = torch.as_tensor(step_size, dtype=torch.float64).expand(members).tolist()
    sigma = torch.empty_like(jacobian)
    for k, c in itertools.product(range(members), range(critics)):
        sigma[k, c] = fixed_point(jacobian[k, c], noise[k, c], sizes[k], negligible)
    return sigma.to(first)


def gradient_blocks(critic: nn.Module, pairs: Pairs, layers: GradientLayers) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield a slice of rows with its ∇Q(s, a) and ∇Q(s', a'), so that memory does not grow with the number of rows."""
    size = sum(parameter.numel() for parameter in parameters_of(critic, layers).values())
    at_once = min(LARGEST_BLOCK, max(1, BLOCK // size))
    for start in range(0, pairs[1].shape[1], at_once):
        rows = slice(start, start + at_once)
        observations, actions, next_observations, next_actions = (
            each_part(lambda part, rows=rows: part[:, rows], column) for column in pairs
        )
        here = sample_gradients(critic, observations, actions, layers)
        yield rows, here, sample_gradients(critic, next_observations, next_actions, layers)


@torch.no_grad()
def sample_gradients(
    critic: Any, observations: Observations, actions: Tensor, layers: GradientLayers
) -> Float[Tensor, "member critic batch parameter"]:
    """Return ∇Q(s, a) of every row with respect to the parameters of its own member and critic.

    `observations` [K, B, *observation], or the parts of a dict observation by name; `actions` [K, B] or [K, B, A].
    Dropout and the like are off.
    """

    def total(parameters: dict[str, Tensor], inputs: Any, actions: Tensor) -> Tensor:
        inputs = each_part(lambda part: part.unsqueeze(1), inputs)
        return q_value(critic, layers, parameters, inputs, actions.unsqueeze(1)).sum()

    with evaluated(critic):
        # the last layer needs no gradient of what is below it, nor a copy of that for each row
        inputs = critic.features(observations, actions).transpose(1, 2) if layers == "last" else observations
        # members and critics share no parameter, so that the gradient of their sum is each one's own
        gradients = vmap(grad(total), in_dims=(None, 1, 1), out_dims=2)(parameters_of(critic, layers), inputs, actions)
    return torch.cat([gradient.flatten(3) for gradient in gradients.values()], dim=-1)


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation, and back to how it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def q_value(
    critic: nn.Module, layers: GradientLayers, parameters: dict[str, Tensor], inputs: Any, actions: Tensor
) -> Float[Tensor, "member critic batch"]:
    """Return Q(s, a) with these parameters; of several heads or quantiles an action, their mean.

    `inputs` are observations where the parameters are all, φ [K, B, C, F] where they are the last layer's.
    """
    if layers == "last":
        values = functional_call(head_of(critic), parameters, (inputs.transpose(1, 2),))
        coding: Any = critic.coding
        if isinstance(critic, MultiHeadCritic):
            values = values.unflatten(-1, (-1, critic.n_heads)).mean(-1)
        if critic.reads_actions:
            return coding.decode(coding.one(values))  # type: ignore[no-any-return]
        values = coding.decode(coding.several(values))
    elif isinstance(critic, ContinuousCritic):
        return functional_call(critic, parameters, (inputs, actions))[0]  # type: ignore[no-any-return]
    else:
        values = functional_call(critic, parameters, (inputs,))[0]
        if isinstance(critic, MultiHeadCritic):
            values = values.mean(-1).unsqueeze(1)
    return value_of(values, actions.unsqueeze(1))


def parameters_of(critic: nn.Module, layers: GradientLayers) -> dict[str, Tensor]:
    """Return the parameters of the critic or of its last linear layer, by name, each [K, C, …]."""
    module = critic if layers == "all" else head_of(critic)
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def head_of(critic: Any) -> nn.Module:
    """Return the last linear layer."""
    return (critic.critic if isinstance(critic, MultiHeadCritic) else critic).head
