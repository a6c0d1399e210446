"""Per-sample gradients by one backward pass for each."""

from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import MultiHeadCritic


def brute_force(critic: nn.Module, observations: Any, actions: Tensor, layers: str) -> Tensor:
    """[K, C, B, P], one backward pass for each number of Q; nothing else may have a gradient."""
    if isinstance(critic, ContinuousCritic):
        q = critic(observations, actions)[0]
    elif isinstance(critic, MultiHeadCritic):
        heads = critic(observations)[0]
        index = actions[:, :, None, None].expand(-1, -1, 1, heads.shape[-1])
        q = heads.gather(2, index).mean((2, 3)).unsqueeze(1)
    else:
        values = critic(observations)[0]
        q = values.gather(-1, actions[:, None, :, None].expand(-1, values.shape[1], -1, 1)).squeeze(-1)
    chosen = [each for name, each in critic.named_parameters() if layers == "all" or "head." in name]
    rows = []
    for k, c, i in torch.cartesian_prod(*map(torch.arange, q.shape)).tolist():
        found = torch.autograd.grad(q[k, c, i], chosen, retain_graph=True, materialize_grads=True)
        own = torch.cat([each[k, c].flatten() for each in found])
        torch.testing.assert_close(sum(each.square().sum() for each in found), own.square().sum())
        rows.append(own)
    return torch.stack(rows).view(*q.shape, -1)
