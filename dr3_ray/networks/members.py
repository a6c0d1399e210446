"""How the members of a pack are laid out in memory, and how one of them is looked at.

All parameters of a module lie in one matrix [K, P], and so do their gradients: one fused optimiser call and one
target update serve a whole member, and a member's numbers are contiguous. The module's own parameters are views.
"""

import copy
import warnings
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

# rows of a flat matrix are not dense; autograd would rather have them so, but they are right and contiguous per member
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


def flatten_parameters(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Move the parameters into one matrix [K, P]; return it and its gradients [K, P], zero. Shapes stay as they are."""
    parameters = list(module.parameters())
    values = torch.cat([parameter.detach().flatten(1) for parameter in parameters_with_members(module)], dim=1)
    gradients = torch.zeros_like(values)
    start = 0
    for parameter in parameters:
        stop = start + parameter[0].numel()
        parameter.data = values[:, start:stop].view(parameter.shape)
        if parameter.requires_grad:
            parameter.grad = gradients[:, start:stop].view(parameter.shape)
        start = stop
    return values, gradients


def parameters_with_members(module: nn.Module) -> list[Tensor]:
    """The parameters, each at least [K, 1]."""
    return [parameter.unsqueeze(-1) if parameter.ndim == 1 else parameter for parameter in module.parameters()]


def member_view(module: Module, rows: slice) -> Module:
    """A module of only these members: its parameters and gradients are views of the whole module's."""
    views: dict[int, object] = {}
    for parameter in module.parameters():
        view = nn.Parameter(parameter.data[rows], requires_grad=parameter.requires_grad)
        view.grad = None if parameter.grad is None else parameter.grad[rows]
        views[id(parameter)] = view
    return copy.deepcopy(module, memo=views)


class frozen:  # noqa: N801 - reads as a verb phrase in a with statement
    """`with frozen(critic):` a forward pass builds no graph to the critic's parameters, only to its inputs."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.module.requires_grad_(True)
