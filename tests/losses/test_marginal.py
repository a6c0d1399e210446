"""The marginal over copies and its entropy, by hand and by what holds for any distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.losses.marginal import log_marginal, marginal_entropy


def test_two_certain_copies_that_disagree():
    """p̄ = (½, ½) of (0.9, 0.1) and (0.1, 0.9): log 2 nats, and no gradient by symmetry of each copy's share."""
    logits = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log().requires_grad_()
    entropy = marginal_entropy(logits)
    assert entropy.item() == pytest.approx(math.log(2.0), abs=1e-6)
    (gradient,) = torch.autograd.grad(entropy, logits)
    assert gradient.abs().max() < 1e-6


def test_a_gradient_by_hand():
    """H = −Σ p̄ log p̄ of copies (0.8, 0.2) and (0.4, 0.6): p̄ = (0.6, 0.4), ∂H/∂p̄ = −log p̄ − 1, halved to each copy."""
    copies = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    logits = copies.log().requires_grad_()
    entropy = marginal_entropy(logits)
    assert entropy.item() == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4), abs=1e-6)
    (gradient,) = torch.autograd.grad(entropy, logits)
    slope = (math.log(0.4) - math.log(0.6)) / 2.0  # of p̄ towards the first action, through a softmax: p (1 − p)
    for row, share in zip(gradient, (0.8 * 0.2, 0.4 * 0.6), strict=True):
        assert row.tolist() == pytest.approx([slope * share, -slope * share], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 6), st.floats(0.1, 200.0))
def test_what_holds_for_any_copies(seed, copies, actions, scale):
    logits = scale * torch.randn(3, copies, actions, generator=torch.Generator().manual_seed(seed))
    probabilities = logits.softmax(-1)
    assert torch.allclose(log_marginal(logits).exp(), probabilities.mean(-2), atol=1e-6)
    entropy = marginal_entropy(logits)
    each = torch.special.entr(probabilities).sum(-1)
    assert (entropy >= each.mean(-1) - 1e-5).all() and (entropy <= math.log(actions) + 1e-5).all()
    assert torch.allclose(marginal_entropy(logits[:, :1]), each[:, 0], atol=1e-5)  # of one copy its own
    shifted = logits + torch.arange(copies).unsqueeze(-1)  # a constant of each copy says nothing
    assert torch.allclose(marginal_entropy(shifted), entropy, atol=1e-4)
