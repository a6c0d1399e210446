"""The actor's and the temperature's losses, worked by hand."""

import math

import torch
from torch import tensor

from dr3_ray.losses import soft_actor_critic


def test_actor_loss_and_its_gradient():
    log_probs, q = tensor([-1.0, 2.0], requires_grad=True), tensor([3.0, 5.0], requires_grad=True)
    temperature = tensor([0.5], requires_grad=True)
    loss = soft_actor_critic.actor_loss(log_probs, q, temperature)
    assert loss.tolist() == [-3.5, -4.0]  # ½ · (−1) − 3, ½ · 2 − 5
    loss.sum().backward()
    assert log_probs.grad is not None and q.grad is not None
    assert log_probs.grad.tolist() == [0.5, 0.5] and q.grad.tolist() == [-1.0, -1.0]
    assert temperature.grad is None


def test_temperature_loss_rises_when_entropy_is_below_its_target():
    # entropy −log π = −1 against the target −2: above it, so the gradient in log α, −(1 − 2) = 1, takes α down;
    # the second row's entropy −3 lies below: −(3 − 2) = −1 takes α up
    log_temperature = tensor([[math.log(2.0)], [math.log(2.0)]], requires_grad=True)
    log_probs = tensor([[1.0], [3.0]], requires_grad=True)
    loss = soft_actor_critic.temperature_loss(log_temperature, log_probs, -2.0)
    torch.testing.assert_close(loss, tensor([[math.log(2.0)], [-math.log(2.0)]]))
    loss.sum().backward()
    torch.testing.assert_close(log_temperature.grad, tensor([[1.0], [-1.0]]))
    assert log_probs.grad is None
    torch.testing.assert_close(
        soft_actor_critic.temperature_loss(log_temperature, log_probs, tensor([[-2.0], [-2.0]])), loss
    )
