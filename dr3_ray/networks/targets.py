"""Target networks: a copy that follows."""

import copy
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def target_of(module: Module) -> Module:
    """Copy a module without gradients."""
    return copy.deepcopy(module).requires_grad_(False)


def polyak_update(target: Tensor, online: Tensor, tau: Tensor) -> None:
    """Update target ← (1 − τ) target + τ online, on flat parameters [K, P] with τ [K]; τ = 1 is a copy."""
    target.lerp_(online, tau.unsqueeze(-1))
