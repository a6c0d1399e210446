"""Recorded operations compiled by torch's inductor: what stands between two products becomes loops in C++.

Products stay with the operators that were recorded. A function is kept for all graphs that are alike, of other members
and of later trials in a process; for other processes the compiler's own cache is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx

ALIVE = 16  # functions that a process keeps
MOST = 10_000  # operations of a graph: compiling them takes some three minutes
Compiled = Callable[..., Sequence[Tensor]]

_compiled: dict[str, Compiled] = {}


def compiled(graph: fx.Graph, inputs: Sequence[Tensor]) -> Compiled:
    """The graph, whose placeholders are all used, as a function of tensors that are laid out like these inputs.

    RuntimeError: it is too long, or what compiling it met.
    """
    if len(graph.nodes) > MOST:
        raise RuntimeError(f"{len(graph.nodes):,} operations, of at most {MOST:,} that are compiled")
    layouts = [(each.dtype, each.shape, each.stride()) for each in inputs]
    key = sha256(f"{graph.python_code('self').src}{layouts}{torch.get_num_threads()}".encode()).hexdigest()
    function = _compiled.pop(key, None) or _compile(graph, inputs)
    _compiled[key] = function  # as the last that was asked for
    if len(_compiled) > ALIVE:
        del _compiled[next(iter(_compiled))]
    return function


def _compile(graph: fx.Graph, inputs: Sequence[Tensor]) -> Compiled:
    import torch._inductor.mkldnn_lowerings  # which registers what is replaced here
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.ir import ExternKernel
    from torch._inductor.lowering import fallback_handler, lowerings

    # oneDNN's product as it is: inductor's own wants weights that never change
    operation = torch.ops.mkldnn._linear_pointwise.default
    recorded = fallback_handler(operation, add_to_fallback_set=False)  # type: ignore[no-untyped-call]

    def product(x: Any, *others: Any) -> Any:
        return recorded(ExternKernel.require_contiguous(x), *others)  # or the operator copies it, more slowly

    module = fx.GraphModule(torch.nn.Module(), graph)
    with patch.dict(lowerings, {operation: product}), torch.no_grad():
        function: Compiled = compile_fx(  # type: ignore[assignment]
            module,
            list(inputs),
            config_patches={"cpp_wrapper": True},  # operations are started from C++ as well
            decompositions=by_sums(select_decomp_table()),
        )
    return function


def by_sums(table: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """The table of decompositions, with products with a vector as sums: one loop with what is around them."""

    def product(x: Tensor, y: Tensor) -> Tensor:
        return (x.unsqueeze(-1) * y.unsqueeze(-3)).sum(-2)

    def of_vectors(operation: Any, sums: Callable[..., Tensor]) -> Callable[..., Any]:
        """The operation by `sums` where one of its last two arguments is a vector, else as the table has it."""
        usual = table.get(operation)

        def decomposed(*arguments: Any, **options: Any) -> Any:
            x, y = arguments[-2:]
            vectors = 1 in (x.shape[-2], x.shape[-1], y.shape[-1]) and not options
            return sums(*arguments) if vectors else usual(*arguments, **options) if usual else NotImplemented

        return decomposed

    aten = torch.ops.aten
    alone = {each: of_vectors(each, product) for each in (aten.mm.default, aten.bmm.default)}
    added = {
        each: of_vectors(each, lambda bias, x, y: bias + product(x, y))
        for each in (aten.addmm.default, aten.baddbmm.default)
    }
    return table | alone | added
