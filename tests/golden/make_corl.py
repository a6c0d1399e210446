"""Make corl_*.npz again: what CORL's classes say of given weights, batch and noise.

    git clone https://github.com/corl-team/CORL && python tests/golden/make_corl.py CORL

The files in the repository were made at commit eeeeef22. Nothing is installed for it: environments, data sets and
loggers that CORL imports are stood in for.

A file holds plain arrays: `weights/NETWORK/N.weight` and `.bias` of the N-th linear layer, `batch/COLUMN`,
`noise/NAME`, `losses/NAME` and `gradients/NETWORK/N.weight`, the gradient of the loss that trains that network. All of
it in float64, with networks of two small layers.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn

OBSERVATION, ACTION, HIDDEN, BATCH = 5, 3, 8, 16
HERE = Path(__file__).parent


def corl(checkout: Path, name: str) -> ModuleType:
    """CORL's single-file algorithm as a module."""
    for absent in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[absent] = MagicMock()
    spec = importlib.util.spec_from_file_location(name, checkout / "algorithms" / "offline" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it is asked to step along, and stays where it is."""

    def __init__(self, network: nn.Module):
        super().__init__(network.parameters(), lr=0.0)
        self.network, self.gradients = network, dict[str, Tensor]()

    def step(self, closure: Any = None) -> None:
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.network.named_parameters()
            if parameter.grad is not None
        }


def batch(rng: torch.Generator) -> dict[str, Tensor]:
    """Rows of random transitions, every fourth of them terminal."""
    return {
        "observations": torch.randn(BATCH, OBSERVATION, generator=rng),
        "actions": torch.rand(BATCH, ACTION, generator=rng) * 1.9 - 0.95,
        "rewards": torch.randn(BATCH, generator=rng),
        "next_observations": torch.randn(BATCH, OBSERVATION, generator=rng),
        "terminateds": (torch.arange(BATCH) % 4 == 3).double(),
        "next_actions": torch.rand(BATCH, ACTION, generator=rng) * 1.9 - 0.95,
    }


def rows(columns: dict[str, Tensor]) -> list[Tensor]:
    """As CORL's buffers give them."""
    rewards, terminals = columns["rewards"].unsqueeze(-1), columns["terminateds"].unsqueeze(-1)
    return [columns["observations"], columns["actions"], rewards, columns["next_observations"], terminals]


def scale(network: nn.Module, factor: float = 3.0) -> nn.Module:
    """Larger weights than the first ones, so that values and advantages are not all alike."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


def parameters(kind: str, network: str, values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """`KIND/NETWORK/N.weight`, N counting the linear layers; other parameters keep the last part of their name."""
    layers: list[str] = []
    found = {}
    for name, value in values.items():
        path, _, last = name.rpartition(".")
        if last in ("weight", "bias"):
            if path not in layers:
                layers.append(path)
            last = f"{layers.index(path)}.{last}"
        found[f"{kind}/{network}/{last}"] = value.detach().numpy().copy()
    return found


def save(
    name: str, columns: dict[str, Tensor], noise: dict[str, Tensor], losses: dict[str, float], *arrays: Any
) -> None:
    """Write the file."""
    content = {f"batch/{column}": value.numpy() for column, value in columns.items()}
    content |= {f"noise/{each}": value.numpy() for each, value in noise.items()}
    content |= {f"losses/{each}": np.float64(value) for each, value in losses.items()}
    for each in arrays:
        content |= each
    np.savez_compressed(HERE / f"corl_{name}.npz", **content)


def iql(checkout: Path) -> None:
    """CORL's IQL with its Gaussian policy, τ 0.8 and β 3; some weights reach the clip."""
    theirs, rng = corl(checkout, "iql"), torch.Generator().manual_seed(1)
    actor = scale(theirs.GaussianPolicy(OBSERVATION, ACTION, 1.0, HIDDEN))
    actor.log_std.data = torch.tensor([-0.5, 0.1, 0.4])
    critic, value = scale(theirs.TwinQ(OBSERVATION, ACTION, HIDDEN)), scale(theirs.ValueFunction(OBSERVATION, HIDDEN))
    recorders = {"actor": Recorder(actor), "critic": Recorder(critic), "value": Recorder(value)}
    trainer = theirs.ImplicitQLearning(
        1.0, actor, recorders["actor"], critic, recorders["critic"], value, recorders["value"],
        iql_tau=0.8, beta=3.0, discount=0.97, tau=0.0,
    )  # fmt: skip
    trainer.q_target = scale(theirs.TwinQ(OBSERVATION, ACTION, HIDDEN)).requires_grad_(False)
    columns = batch(rng)
    found = trainer.train(rows(columns))
    networks = {"actor": actor, "critic": critic, "target_critic": trainer.q_target, "value": value}
    save(
        "iql", columns, {},
        {"critic": found["q_loss"], "value": found["value_loss"], "actor": found["actor_loss"]},
        *(parameters("weights", name, network.state_dict()) for name, network in networks.items()),
        *(parameters("gradients", name, recorder.gradients) for name, recorder in recorders.items()),
    )  # fmt: skip


def main() -> None:
    """Everything, from the checkout that the command line names."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    checkout = Path(sys.argv[1])
    iql(checkout)


if __name__ == "__main__":
    main()
