"""What is used of torch that is not public. It serves speed: where a name is gone, a plain path does the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx

from dr3_ray.compat import find, item

NAMES = {
    "torch._fused_adamw_": "networks/optim.py: one pass of Adam; without it, the equations",
    "torch._foreach_add_": "networks/blocks.py: sums of gradients; without it, one by one",
    "torch._C._are_functorch_transforms_active": "networks: whether torch.func is at work; without it, no oneDNN",
    "torch._C._AutoDispatchBelowAutograd": "training/execution/recordings.py: replays; without it, torch.no_grad",
    "torch.ops.mkldnn._linear_pointwise": "networks/products.py: products with a ReLU; without it, torch's own",
    "torch.ops.mkldnn._convolution_pointwise": "networks/convolutions.py: the same of convolutions",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "networks/precision.py: whether a CPU rounds; else it does not",
    "torch.utils._pytree.tree_leaves": "training/execution/recordings.py; without it, no recordings",
    "torch.utils._pytree.tree_map_only": "training/execution/recordings.py; without it, no recordings",
    "torch.utils._python_dispatch.TorchDispatchMode": "training/execution/tape.py; without it, no recordings",
    "torch.ops.aten.relu.default._schema": "training/execution/tape.py: which operations are views",
    "torch.ops.aten.relu.default._op": "training/execution/tape.py: calls operations by it; else as they are",
}
"""Every name, where it is used, and what takes its place."""

COMPILER = {
    "torch._inductor.mkldnn_lowerings": "registers what is replaced",
    "torch._inductor.compile_fx.compile_fx": "compiles a graph",
    "torch._inductor.decomposition.select_decomp_table": "what operations come to",
    "torch._inductor.ir.ExternKernel.require_contiguous": "an argument without gaps",
    "torch._inductor.lowering.fallback_handler": "an operation as it is",
    "torch._inductor.lowering.lowerings": "what is compiled of operations",
}
"""The same of training/execution/inductor.py, where steps are replayed and not compiled without one of them."""

fused_adamw = find("torch._fused_adamw_")
in_transform = find("torch._C._are_functorch_transforms_active")
linear = find("torch.ops.mkldnn._linear_pointwise")
convolution = find("torch.ops.mkldnn._convolution_pointwise")
_bf16_supported = find("torch.ops.mkldnn._is_mkldnn_bf16_supported")
_below_autograd = find("torch._C._AutoDispatchBelowAutograd")
_foreach_add = find("torch._foreach_add_")
tree_leaves = find("torch.utils._pytree.tree_leaves")
tree_map_only = find("torch.utils._pytree.tree_map_only")
DispatchMode: Any = find("torch.utils._python_dispatch.TorchDispatchMode")
CAN_RECORD = None not in (tree_leaves, tree_map_only, DispatchMode)


def by_onednn(operator: Any) -> bool:
    """Return whether an operator of oneDNN's, `linear` or `convolution`, can be called here."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and operator is not None and in_transform is not None and not in_transform()


def rounds_on_cpus() -> bool:
    """Return whether this CPU multiplies numbers in bfloat16."""
    return None not in (_bf16_supported, linear) and bool(_bf16_supported())


def below_autograd() -> AbstractContextManager[Any]:
    """Return a context without gradients, like `torch.no_grad` but below what each operation asks of autograd."""
    context: AbstractContextManager[Any] = (_below_autograd or torch.no_grad)()
    return context


def add_each(sums: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Add the others in place, one to each."""
    if _foreach_add is not None:
        _foreach_add(sums, others)
        return
    for one, other in zip(sums, others, strict=True):
        one.add_(other)


def is_view(operation: Any) -> bool:
    """Return whether an operation returns another view of its argument's memory."""
    schema = operation._schema
    return not schema.is_mutable and any(returned.alias_info for returned in schema.returns)


def called(operation: Any) -> Any:
    """Return the callable behind an operation."""
    return getattr(operation, "_op", operation)


def compile_graph(
    graph: fx.Graph, inputs: Sequence[Tensor], decomposed: Callable[[dict[Any, Any]], dict[Any, Any]]
) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph by inductor, with the decompositions `decomposed`, and return it as a function.

    Raises:
        RuntimeError: this torch has no such compiler.
    """
    parts = {path.rpartition(".")[2]: find(path) for path in COMPILER}
    if gone := [name for name, part in parts.items() if part is None]:
        raise RuntimeError(f"torch {torch.__version__} has no {', '.join(gone)}")
    # oneDNN's product as it is: inductor's own wants weights that never change
    operation = torch.ops.mkldnn._linear_pointwise.default
    recorded = parts["fallback_handler"](operation, add_to_fallback_set=False)

    def product(x: Any, *others: Any) -> Any:
        return recorded(parts["require_contiguous"](x), *others)  # or the operator copies it, more slowly

    with item(parts["lowerings"], operation, product), torch.no_grad():
        function: Callable[..., Sequence[Tensor]] = parts["compile_fx"](
            fx.GraphModule(torch.nn.Module(), graph),
            list(inputs),
            config_patches={"cpp_wrapper": True},  # operations are started from C++ as well
            decompositions=decomposed(parts["select_decomp_table"]()),
        )
    return function
