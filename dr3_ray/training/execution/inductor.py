"""Recorded operations compiled by torch's inductor: what stands between two products becomes loops in C++.

Products stay with the operators that were recorded. A function is kept for all graphs that are alike, of other members
and of later trials in a process; for other processes the compiler's own cache is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, fx

from dr3_ray.compat.torch import compile_graph

ALIVE = 16  # functions that a process keeps
MOST = 10_000  # operations of a graph: compiling them takes some three minutes
Compiled = Callable[..., Sequence[Tensor]]

_compiled: dict[str, Compiled] = {}


def compiled(graph: fx.Graph, inputs: Sequence[Tensor]) -> Compiled:
    """Compile a graph, whose placeholders are all used, to a function of tensors laid out like these inputs.

    Raises:
        RuntimeError: the graph is too long, or the compiler failed.
    """
    if len(graph.nodes) > MOST:
        raise RuntimeError(f"{len(graph.nodes):,} operations, of at most {MOST:,} that are compiled")
    layouts = [(tensor.dtype, tensor.shape, tensor.stride()) for tensor in inputs]
    key = sha256(f"{graph.python_code('self').src}{layouts}{torch.get_num_threads()}".encode()).hexdigest()
    function = _compiled.pop(key, None) or compile_graph(graph, inputs, by_sums)
    _compiled[key] = function  # as the last that was asked for
    if len(_compiled) > ALIVE:
        del _compiled[next(iter(_compiled))]
    return function


def by_sums(table: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Return the decompositions with products with a vector as sums: one loop with their neighbours."""

    def product(x: Tensor, y: Tensor) -> Tensor:
        return (x.unsqueeze(-1) * y.unsqueeze(-3)).sum(-2)

    def of_vectors(operation: Any, sums: Callable[..., Tensor]) -> Callable[..., Any]:
        """Return the operation by `sums` where one of its last two arguments is a vector, else as the table has it."""
        usual = table.get(operation)

        def decomposed(*arguments: Any, **options: Any) -> Any:
            x, y = arguments[-2:]
            vectors = 1 in (x.shape[-2], x.shape[-1], y.shape[-1]) and not options
            return sums(*arguments) if vectors else usual(*arguments, **options) if usual else NotImplemented

        return decomposed

    aten = torch.ops.aten
    alone = {operator: of_vectors(operator, product) for operator in (aten.mm.default, aten.bmm.default)}
    added = {
        operator: of_vectors(operator, lambda bias, x, y: bias + product(x, y))
        for operator in (aten.addmm.default, aten.baddbmm.default)
    }
    return table | alone | added
