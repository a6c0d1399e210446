"""Target smoothing and the scale of Q, worked by hand."""

import torch
from torch import tensor

from dr3_ray.losses import td3


def test_noise_is_scaled_then_clipped_and_so_is_the_action():
    actions, noise = tensor([[0.0, 0.4, -0.9, 0.9]], requires_grad=True), tensor([[1.0, 5.0, -1.0, 1.0]])
    # 0.2; 0.4 + min(1, 0.5); −0.9 − 0.2 → −1; 0.9 + 0.2 → 1
    smoothed = td3.smoothed_actions(actions, noise, 0.2, 0.5)
    torch.testing.assert_close(smoothed, tensor([[0.2, 0.9, -1.0, 1.0]]))
    smoothed.sum().backward()
    assert actions.grad is not None and actions.grad.tolist() == [[1.0, 1.0, 0.0, 0.0]]  # none through the last clip


def test_each_member_has_its_noise():
    actions, noise = torch.zeros(2, 1, 1), torch.ones(2, 1, 1)
    found = td3.smoothed_actions(actions, noise, tensor([0.1, 0.8]).view(-1, 1, 1), tensor([0.5, 0.3]).view(-1, 1, 1))
    torch.testing.assert_close(found.flatten(), tensor([0.1, 0.3]))


def test_q_scale_is_over_the_batch_and_has_no_gradient():
    q = tensor([[1.0, -3.0], [0.5, 0.5]], requires_grad=True)
    scale = td3.q_scale(q)
    torch.testing.assert_close(scale, tensor([[0.5], [2.0]]))
    assert not scale.requires_grad
