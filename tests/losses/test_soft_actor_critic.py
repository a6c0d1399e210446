"""The actor's and the temperature's losses, worked by hand."""

import math

import torch
from torch import tensor

from dr3_ray.losses import soft_actor_critic
from dr3_ray.networks.actors import squashed_sample


def test_actor_loss_and_its_gradient():
    log_probs, q = tensor([-1.0, 2.0], requires_grad=True), tensor([3.0, 5.0], requires_grad=True)
    temperature = tensor([0.5], requires_grad=True)
    loss = soft_actor_critic.actor_loss(log_probs, q, temperature)
    assert loss.tolist() == [-3.5, -4.0]  # ½ · (−1) − 3, ½ · 2 − 5
    loss.sum().backward()
    assert log_probs.grad is not None and q.grad is not None
    assert log_probs.grad.tolist() == [0.5, 0.5] and q.grad.tolist() == [-1.0, -1.0]
    assert temperature.grad is None


def test_actor_loss_of_a_sample_and_its_gradient():
    # mean 0, std 1, noise ½: a = tanh(½) = t, log π = log N(½; 0, 1) − log(1 − t²); Q = 3 a and α = 2.
    # u moves with the mean by 1, with log std by ½: ∂a = (1 − t²) ∂u, ∂log π = 2 t ∂u − ∂log std
    mean, log_std = torch.zeros(1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1, requires_grad=True)
    actions, log_probs = squashed_sample(mean, log_std, torch.full((1, 1, 1), 0.5))
    loss = soft_actor_critic.actor_loss(log_probs, 3.0 * actions.squeeze(-1), tensor([2.0]))
    t = math.tanh(0.5)
    log_prob = -0.125 - 0.5 * math.log(2.0 * math.pi) - math.log(1.0 - t**2)
    torch.testing.assert_close(loss, tensor([[2.0 * log_prob - 3.0 * t]]))
    loss.sum().backward()
    by_u = 2.0 * 2.0 * t - 3.0 * (1.0 - t**2)
    torch.testing.assert_close(mean.grad, tensor([[[by_u]]]))
    torch.testing.assert_close(log_std.grad, tensor([[[0.5 * by_u - 2.0]]]))


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
