"""The likelihood of discrete actions, by hand and against torch."""

import math

import torch
from torch import tensor
from torch.nn import functional

from dr3_ray.losses import bc


def test_discrete_nll_and_its_gradient():
    logits = tensor([[0.0, math.log(3.0)]], requires_grad=True)  # probabilities ¼ and ¾
    nll = bc.discrete_nll(logits, tensor([1]))
    torch.testing.assert_close(nll, tensor([math.log(4.0 / 3.0)]))
    nll.sum().backward()
    torch.testing.assert_close(logits.grad, tensor([[0.25, -0.25]]))


def test_discrete_nll_is_cross_entropy_and_survives_large_logits():
    torch.manual_seed(0)
    logits, actions = torch.randn(6, 4), torch.randint(4, (6,))
    torch.testing.assert_close(
        bc.discrete_nll(logits, actions), functional.cross_entropy(logits, actions, reduction="none")
    )
    assert bc.discrete_nll(tensor([[1e4, 0.0]]), tensor([1])).item() == 1e4


def test_squared_distance_adds_up_the_components():
    # (1 − 0)² + (0.5 − 1)² = 1.25, gradient 2 (a − a_data)
    actions = tensor([[1.0, 0.5]], requires_grad=True)
    distance = bc.squared_distance(actions, tensor([[0.0, 1.0]]))
    torch.testing.assert_close(distance, tensor([1.25]))
    distance.sum().backward()
    torch.testing.assert_close(actions.grad, tensor([[2.0, -1.0]]))
