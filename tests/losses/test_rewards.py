"""Rewards as critics learn them, by hand."""

import torch

from dr3_ray.losses.rewards import transformed


def test_shifted_then_scaled_then_cut():
    rewards = torch.tensor([[0.0, 1.0, -2.0], [0.0, 1.0, -2.0]])
    shift, scale, limit = (torch.tensor(each).reshape(-1, 1) for each in ([-1.0, 0.5], [10.0, 2.0], [25.0, torch.inf]))
    assert transformed(rewards, shift, scale, limit).tolist() == [[-10.0, 0.0, -25.0], [1.0, 3.0, -3.0]]
