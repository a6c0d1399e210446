"""Means over rows, found in blocks of rows: the same value and gradient up to rounding.

A block stays in a CPU's cache; on a GPU it bounds the memory that an update takes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.compat import torch as compat
from dr3_ray.networks.precision import rounded
from dr3_ray.networks.products import differentiable_gradients
from dr3_ray.networks.stochastic import passive
from dr3_ray.observations import Observations, each_part

# Bytes of the widest layer of a block, as they are multiplied: three quarters of the L2 cache of a server's core. With
# all of it a process is a fifth slower or not, by where its memory happens to lie.
CACHED = 3 * 2**19
ON_A_GPU = 2**28  # the same of all members, which bounds the memory that a pack takes
BlockColumns = Sequence[Observations]  # each [K, B, …]


def mean_in_blocks(
    values: Callable[..., Float[Tensor, "member critic batch"]], critic: Any, columns: BlockColumns, evaluated: int
) -> Float[Tensor, "member critic"]:
    """Return the mean over rows of `values(*columns)`, which evaluates the critic `evaluated` times at each row.

    A row's value depends on no other row, and on nothing that needs a gradient but the critic, whose parameters
    [K, C, …] each belong to one member and copy.
    """
    block = rows_in_cache(critic, evaluated, rows_of(columns))
    parameters = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    if block is None or not (torch.is_grad_enabled() and parameters):
        return values(*columns).mean(-1)
    return _in_blocks(values, columns, block, parameters)


def rows_in_cache(critic: Any, evaluated: int, rows: int) -> int | None:
    """Return how many of the rows, evaluated so many times each, pass one member's critics without leaving the cache.

    On a GPU, all members' critics with 1 GiB a layer. None, all of them, where a GPU has room for that, and where a
    pass changes the critic's state or draws noise.
    """
    weights = list(critic.encoder.parameters())
    if not weights or not passive(critic):
        return None
    widest = max(weight.shape[-1] for weight in (*weights, critic.head.weight))
    size = 2 if rounded(weights[0]) else weights[0].element_size()
    floats = CACHED // size if weights[0].device.type == "cpu" else ON_A_GPU // len(weights[0])
    block = int(max(1, floats // (evaluated * critic.encoder.copies * widest)))
    return block if weights[0].device.type == "cpu" or block < rows else None


def _in_blocks(values: Any, columns: BlockColumns, block: int, parameters: list[nn.Parameter]) -> Tensor:
    mean: Tensor = _MeanInBlocks.apply(values, columns, block, *parameters)  # type: ignore[no-untyped-call]
    return mean


def rows_of(columns: BlockColumns) -> int:
    """Count the rows of columns."""
    return next(column for column in columns if isinstance(column, Tensor)).shape[1]


class _MeanInBlocks(torch.autograd.Function):
    """A mean whose gradient is found block by block with its value, so that no block's activations outlive it."""

    @staticmethod
    def forward(ctx: Any, values: Any, columns: BlockColumns, block: int, *parameters: nn.Parameter) -> Tensor:
        sums, gradients, rows = [], [torch.zeros_like(parameter) for parameter in parameters], 0
        for some in _blocks(columns, block):
            with torch.enable_grad():
                value = values(*some)
                rows += value.shape[-1]
                sums.append(value.detach().sum(-1))
                compat.add_each(gradients, torch.autograd.grad(value.sum(), parameters))
        ctx.save_for_backward(*gradients)
        ctx.rows, ctx.whole, ctx.parameters = rows, lambda *_: values(*columns).mean(-1), parameters
        return torch.stack(sums).sum(0) / rows

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        if torch.is_grad_enabled():  # of all rows at once: these gradients are differentiated themselves
            needs = ctx.needs_input_grad[3:]
            return None, None, None, *differentiable_gradients(ctx.whole, ctx.parameters, needs, upstream[0])
        scale = upstream[0] / ctx.rows  # [K, C]
        scaled = [tensor * scale.view(*scale.shape, *[1] * (tensor.ndim - 2)) for tensor in ctx.saved_tensors]
        return None, None, None, *scaled


def _blocks(columns: BlockColumns, block: int) -> Iterator[list[Observations]]:
    """Yield the columns of so many rows after the other."""
    for start in range(0, rows_of(columns), block):
        yield [each_part(lambda part, at=start: part[:, at : at + block], column) for column in columns]
