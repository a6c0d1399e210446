"""Make offline_workflow_dr3.npz again: DR3 on convolutional features, as OfflineRlWorkflow has it.

    git clone https://github.com/Asap7772/OfflineRlWorkflow
    python tests/golden/make_offline_workflow.py OfflineRlWorkflow

The file in the repository was made at commit d9589bc. Its CNN is used as it stands, with COG's convolutions; the
penalty is that of `rlkit/torch/sac/cql.py`, lines 614 and 680, and everything else that is imported is stood in for.
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

BATCH, CHANNELS, SIZE, ACTION, WEIGHT = 6, 3, 8, 2, 0.001


def main() -> None:
    """Everything, from the checkout that the command line names."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    sys.path.insert(0, sys.argv[1])
    for absent in ("rlkit.torch.networks", "rlkit.torch.vae.vq_vae", "rlkit.pythonplusplus"):
        sys.modules[absent] = MagicMock(Mlp=torch.nn.Module, identity=lambda x: x)
    from rlkit.torch.conv_networks import ConcatCNN  # type: ignore[import-not-found]

    critic = ConcatCNN(
        input_width=SIZE, input_height=SIZE, input_channels=CHANNELS, output_size=1, added_fc_input_size=ACTION,
        kernel_sizes=[3, 3, 3], n_channels=[16, 16, 16], strides=[1, 1, 1], paddings=[1, 1, 1], hidden_sizes=[6],
        pool_type="max2d", pool_sizes=[2, 2, 1], pool_strides=[2, 2, 1], pool_paddings=[0, 0, 0],
    )  # fmt: skip
    for layer in critic.conv_layers:
        torch.nn.init.normal_(layer.bias, std=0.1)
        for parameter in layer.parameters():  # numbers of few digits make a small file
            parameter.data = (256.0 * parameter.data).round() / 256.0
    observations, next_observations = torch.randint(256, (2, BATCH, CHANNELS * SIZE * SIZE)) / 256.0
    actions, next_actions = torch.randn(2, BATCH, ACTION)
    _, features = critic(observations, actions, return_conv_outputs=True)
    _, next_features = critic(next_observations, next_actions, return_conv_outputs=True)
    penalty = (features * next_features.detach()).sum(dim=1).mean(dim=0)
    gradients = torch.autograd.grad(WEIGHT * penalty, list(critic.conv_layers.parameters()))
    shape = (BATCH, CHANNELS, SIZE, SIZE)
    np.savez_compressed(
        Path(__file__).parent / "offline_workflow_dr3.npz",
        observations=observations.view(shape).numpy(),
        next_observations=next_observations.view(shape).numpy(),
        penalty=penalty.detach().numpy(),
        weight=WEIGHT,
        **{f"weights/{name}": each.detach().numpy() for name, each in critic.conv_layers.named_parameters()},
        **{
            f"gradients/{name}": each.numpy().astype(np.float32)
            for (name, _), each in zip(critic.conv_layers.named_parameters(), gradients, strict=True)
        },
    )


if __name__ == "__main__":
    main()
