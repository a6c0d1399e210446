"""A tape of torch's operations: what tensors went through, as a function that does the same again."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils.weak import WeakIdKeyDictionary

from dr3_ray.compat import torch as compat
from dr3_ray.training.execution import inductor

SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}  # as their argument, to who needs no gradient
ASKS = torch.Tag.data_dependent_output  # of an operation whose result the host reads


class Tape(compat.DispatchMode or object):  # type: ignore[misc]
    """A record of the operations on the `given` tensors; all other tensors are held: parameters, options, their views.

    Their contents may change, their memory stays. torch's own `make_fx` took 16 s and 430 MiB for CQL's 32,000
    operations in a pack of 16, because it tracks shapes.
    """

    def __init__(self, given: Sequence[Tensor | None]):
        super().__init__()
        self._graph = fx.Graph()
        self._held: dict[str, Tensor] = {}
        self._nodes = WeakIdKeyDictionary()  # of tensors that are known by now
        for i, tensor in enumerate(given):
            node = self._graph.placeholder(f"given_{i}")
            if tensor is not None:
                self._nodes[tensor] = node

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = args, kwargs or {}
        result = operation(*args, **arguments[1])
        tensors = [leaf for leaf in compat.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        held = bool(tensors) and all(map(self._is_held, tensors))
        if held and (compat.is_view(operation) or ASKS in operation.tags):
            return result
        if ASKS in operation.tags:
            raise RuntimeError(f"{operation} asks for a number")
        if operation in SAME:
            self._nodes[result] = self._node(args[0])
            return result
        node = self._graph.call_function(operation, *map_aggregate(arguments, self._node))
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif result is not None:
            for i, tensor in enumerate(result):
                if tensor is not None:
                    self._nodes[tensor] = self._graph.call_function(operator.getitem, (node, i))
        return result

    def _is_held(self, tensor: Tensor) -> bool:
        return tensor not in self._nodes or self._nodes[tensor].op == "get_attr"

    def _node(self, argument: Any) -> Any:
        """Return the node of a tensor, or another argument as it is."""
        if not isinstance(argument, Tensor):
            return argument
        if argument not in self._nodes:
            name = f"held_{len(self._held)}"
            self._held[name], self._nodes[argument] = argument.detach(), self._graph.get_attr(name)
        return self._nodes[argument]

    def _ending(self, results: Sequence[Tensor]) -> fx.Graph:
        """Return the graph of the operations that these results need."""
        nodes = [self._node(tensor) for tensor in results]
        graph, copies = fx.Graph(), {}  # type: ignore[var-annotated]
        graph.graph_copy(self._graph, copies)
        graph.output([copies[node] for node in nodes])
        graph.eliminate_dead_code()
        return graph

    def function(self, results: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        """Return a function from tensors like the `given` ones to these results, by the recorded operations.

        Operations and tensors are its globals: to look them up by their full names took a tenth of DQN's update.
        """
        code = self._ending(results).python_code("self")
        known = {f"self.{name}": tensor for name, tensor in self._held.items()}
        bound = dict(code.globals)

        def bind(values: re.Match[str]) -> str:
            name = values[0].replace(".", "_")
            if name not in bound:  # of an operation, what its __call__ calls
                bound[name] = (
                    known[values[0]] if values[0] in known else compat.called(attrgetter(values[0][6:])(torch))
                )
            return name

        exec(re.sub(r"\b(self|torch\.ops\.\w+\.\w+)\.\w+", bind, code.src), bound)
        return partial(bound.pop("forward"), None)  # or it would be among its own globals, and outlive its use

    def compiled(self, results: Sequence[Tensor], given: Sequence[Tensor | None]) -> Callable[..., Sequence[Tensor]]:
        """Return a compiled function from tensors like the `given` ones to these results; it is passed what is held."""
        whole, graph = self._ending(results), fx.Graph()
        placeholders = list(whole.find_nodes(op="placeholder"))
        used = [i for i, node in enumerate(placeholders) if node.users]
        held = list(whole.find_nodes(op="get_attr"))
        known = [self._held[node.target] for node in held]
        arguments = {node: graph.placeholder(node.name) for node in (*(placeholders[i] for i in used), *held)}
        for node in placeholders:
            if node not in arguments:
                whole.erase_node(node)
        graph.output(graph.graph_copy(whole, arguments))

        def select(tensors: Sequence[Any]) -> list[Tensor]:
            return [*(tensors[i] for i in used), *known]

        function = inductor.compiled(graph, select(given))
        return lambda *tensors: function(*select(tensors))
