"""Make d3rlpy_*.npz again: what d3rlpy's discrete CQL and DQN, with mean and quantile critics, say of given weights.

    pip install d3rlpy  # an environment of its own: it wants another gymnasium than Ray
    python tests/golden/make_d3rlpy.py

The files in the repository were made with d3rlpy 2.8.1.
"""

from typing import Any

import numpy as np
import torch
from d3rlpy.algos import DiscreteCQLConfig, DQNConfig
from d3rlpy.models import MeanQFunctionFactory, QRQFunctionFactory, VectorEncoderFactory
from d3rlpy.torch_utility import TorchMiniBatch
from discrete_inputs import ACTIONS, BATCH, HIDDEN, OBSERVATION, Layers, batch, layers, save
from torch import nn

QUANTILES = 6


def linears(network: nn.Module) -> list[nn.Linear]:
    """The linear layers, input first."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def fill(network: nn.Module, values: Layers) -> None:
    """Set the weights."""
    for layer, (weight, bias) in zip(linears(network.double()), values, strict=True):
        layer.weight.data.copy_(torch.as_tensor(weight))
        layer.bias.data.copy_(torch.as_tensor(bias))


def make(name: str, config: Any, heads: int, rng: np.random.Generator) -> None:
    """One gradient of an algorithm."""
    algorithm = config.create(device=False)
    algorithm.create_impl((OBSERVATION,), ACTIONS)
    modules = algorithm.impl.modules
    online, target, columns = layers(rng, heads), layers(rng, heads), batch(rng)
    fill(modules.q_funcs, online)
    fill(modules.targ_q_funcs, target)
    column = {key: torch.as_tensor(values) for key, values in columns.items()}
    rows = TorchMiniBatch(
        observations=column["observations"],
        actions=column["actions"].unsqueeze(-1),
        rewards=column["rewards"].unsqueeze(-1),
        next_observations=column["next_observations"],
        next_actions=column["actions"].unsqueeze(-1),
        returns_to_go=column["rewards"].unsqueeze(-1),
        terminals=column["terminateds"].unsqueeze(-1),
        intervals=torch.ones(BATCH, 1, dtype=torch.float64),
        device="cpu",
    )
    found = algorithm.impl.compute_grad(rows)
    losses = {"critic": found.loss.item()}
    if hasattr(found, "conservative_loss"):
        losses = {"critic": found.td_loss.item(), "cql": config.alpha * found.conservative_loss.item()}
    gradients = [(layer.weight.grad.numpy(), layer.bias.grad.numpy()) for layer in linears(modules.q_funcs)]
    save(f"d3rlpy_{name}", online, target, columns, losses, gradients)


def main() -> None:
    """Everything."""
    rng = np.random.default_rng(0)
    common = {"encoder_factory": VectorEncoderFactory([HIDDEN, HIDDEN]), "gamma": 0.97}
    quantiles = {"q_func_factory": QRQFunctionFactory(n_quantiles=QUANTILES)}
    make("cql", DiscreteCQLConfig(alpha=2.0, q_func_factory=MeanQFunctionFactory(), **common), 1, rng)
    make("qrcql", DiscreteCQLConfig(alpha=4.0, **quantiles, **common), QUANTILES, rng)
    make("qrdqn", DQNConfig(**quantiles, **common), QUANTILES, rng)


if __name__ == "__main__":
    main()
