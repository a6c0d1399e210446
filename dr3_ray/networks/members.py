"""How the members of a pack are laid out in memory, and how one of them is looked at.

All parameters of a module lie in one matrix [K, P]: a member's numbers are contiguous, and one target update serves
all of them. The module's own parameters are views of it.
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def flatten_parameters(module: nn.Module) -> Tensor:
    """Move the parameters into one matrix [K, P] and return it. Shapes stay as they are."""
    parameters = list(module.parameters())
    values = torch.cat([parameter.detach().flatten(1) for parameter in parameters_with_members(module)], dim=1)
    start = 0
    for parameter in parameters:
        stop = start + parameter[0].numel()
        parameter.data = values[:, start:stop].view(parameter.shape)
        start = stop
    return values


def parameters_with_members(module: nn.Module) -> list[Tensor]:
    """Return the parameters, each at least [K, 1]."""
    return [parameter.unsqueeze(-1) if parameter.ndim == 1 else parameter for parameter in module.parameters()]


def member_view(module: Module, rows: slice | list[int]) -> Module:
    """Return a module of only these members, whose parameters are views of the whole module's, or copies for a list.

    So are the buffers of its children; those of the module itself are everybody's.
    """
    views: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.data[rows], requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    views |= {id(buffer): buffer[rows] for name, buffer in module.named_buffers() if "." in name}
    return copy.deepcopy(module, memo=views)


def members_together(modules: Sequence[Module]) -> Module:
    """Return a module of the members of several modules of one structure, one after the other; all are copies.

    Buffers of a module itself are everybody's, and have to be the same in all of them.
    """
    first = modules[0]
    parameters, buffers = (
        [dict(module.named_parameters()) for module in modules],
        [dict(m.named_buffers()) for m in modules],
    )
    stacks: dict[int, object] = {
        id(parameter): nn.Parameter(
            torch.cat([parameter[name].data for parameter in parameters]), parameter.requires_grad
        )
        for name, parameter in parameters[0].items()
    }
    stacks |= {
        id(buffer): torch.cat([buffer[name] for buffer in buffers])
        for name, buffer in buffers[0].items()
        if "." in name
    }
    return copy.deepcopy(first, memo=stacks)


class frozen:  # noqa: N801 - reads as a verb phrase in a with statement
    """A context in which a forward pass builds no graph to the critic's parameters, only to its inputs."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.module.requires_grad_(True)
