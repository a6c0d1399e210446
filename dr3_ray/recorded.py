"""Gradients on a CPU: the operations that a batch's losses and gradients come to, recorded once and replayed.

They are the same at every step, and finding them takes torch a third of a small network's update: the calls of modules,
views of parameters, the graph of autograd and its walk back. A replay is the same operations in the same order without
all that, equal to the bit; what is not, on another batch than that of the recording, goes on as it is.
"""

from __future__ import annotations

import logging
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from dr3_ray import inductor
from dr3_ray.errors import first_line
from dr3_ray.member import Member, first_steps
from dr3_ray.networks.stochastic import passive
from dr3_ray.precision import rounded
from dr3_ray.types import Terms, Transition

if TYPE_CHECKING:
    from dr3_ray.population import Population, View

AFTER = 2000  # steps of a kind: recording them takes as long as a few thousand steps save
SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}  # as their argument, to who needs no gradient
# largest difference between what is compiled and what is not, by the largest number of a tensor
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2}
ASKS = torch.Tag.data_dependent_output

log = logging.getLogger("dr3_ray")
Made = TypeVar("Made")
Found = tuple[Terms, list[Tensor]]  # of a batch: see `Population.gradients`
Gradients = Callable[[Transition, dict[str, Tensor]], Found]
Function = Callable[[Transition, dict[str, Tensor]], list[Tensor]]  # the same without the terms


class Recordings:
    """The recordings of a population, one for each kind of step: of which members, and what it trains."""

    def __init__(self, members: tuple[Member, ...]):
        self.after = AFTER
        self._settled = first_steps(members)
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, Recorded | None] = {}
        self._compiled: dict[Hashable, Function | None] = {}

    @staticmethod
    def serve(networks: torch.nn.Module, device: torch.device) -> bool:
        """Whether a step's operations are the same every time, on a device that waits for their start."""
        return device.type == "cpu" and passive(networks)

    def gradients(
        self,
        population: Population,
        view: View,
        batch: Transition,
        noise: dict[str, Tensor],
        step: int,
        active: Collection[str],
        asked: bool,
        compiled: bool,
    ) -> tuple[Terms | None, list[Tensor]]:
        """What `population.gradients` returns of this step; of recorded ones the terms only where they are `asked` for.

        What is to be `compiled` is recorded at the first step. A step of which the terms are asked for is not compiled.
        """

        def plain(batch: Transition, noise: dict[str, Tensor]) -> Found:
            return population.gradients(view, batch, noise, step, active)

        kind = view.members, frozenset(active)
        if step < self._settled:
            return plain(batch, noise)
        if kind not in self._recorded:
            self._seen[kind] += 1
            if compiled or self._seen[kind] > self.after:
                self._recorded[kind] = recorded(plain, batch, noise)
        replay = self._recorded.get(kind)
        if replay is None:
            return plain(batch, noise)
        if asked:
            return replay(batch, noise)
        if compiled and kind not in self._compiled:
            self._compiled[kind] = compile_steps(plain, batch, noise)
        function = (self._compiled.get(kind) if compiled else None) or replay.gradients
        return None, function(batch, noise)

    @property
    def refused(self) -> bool:
        """Whether there are steps that were to be compiled and are not."""
        return not all([*self._recorded.values(), *self._compiled.values()])


def recorded(gradients: Gradients, batch: Transition, noise: dict[str, Tensor]) -> Recorded | None:
    """The same function as a list of operations; None where that cannot be had, or does not do the same."""

    def attempt() -> tuple[Recorded, bool]:
        replay = Recorded(*tape_of(gradients, batch, noise))
        theirs = gradients(batch, noise)
        return replay, near(replay(batch, noise), theirs) and near(replay.gradients(batch, noise), theirs[1])

    return _if_the_same(attempt, "recorded", "they depend on the data")


def compile_steps(gradients: Gradients, batch: Transition, noise: dict[str, Tensor]) -> Function | None:
    """What `gradients` returns without the terms, up to rounding; None where that cannot be had."""

    def attempt() -> tuple[Function, bool]:
        tape, _, found = tape_of(gradients, batch, noise)
        function = of_batches(tape.compiled(found, [*_leaves(batch), *noise.values()]))
        theirs = gradients(batch, noise)[1]
        kind = torch.bfloat16 if rounded(theirs[0]) else theirs[0].dtype
        return function, near(function(batch, noise), theirs, ROUNDING[kind])

    return _if_the_same(attempt, "compiled", "they do something else")


def _if_the_same(attempt: Callable[[], tuple[Made, bool]], done: str, why: str) -> Made | None:
    """What was made, if it does the same. Else the log says what was not `done`, and `why` or what went wrong."""
    try:
        made, same = attempt()
    except Exception as error:
        log.info(f"steps are not {done} ({first_line(error)}): they go on as they are")
        return None
    if not same:
        log.info(f"steps are not {done} ({why}): they go on as they are")
    return made if same else None


class Recorded:
    """The operations of `gradients`."""

    def __init__(self, tape: Tape, terms: Terms, found: list[Tensor]):
        self._names = list(terms.losses), list(terms.metrics)
        self._all = of_batches(tape.function([*terms.losses.values(), *terms.metrics.values(), *found]))
        self.gradients = of_batches(tape.function(found))

    def __call__(self, batch: Transition, noise: dict[str, Tensor]) -> Found:
        """Terms, and the sum of losses with its gradients."""
        results = iter(self._all(batch, noise))
        losses, metrics = ({name: next(results) for name in names} for names in self._names)
        return Terms(losses, metrics), list(results)


def tape_of(gradients: Gradients, batch: Transition, noise: dict[str, Tensor]) -> tuple[Tape, Terms, list[Tensor]]:
    """The operations of `gradients`, and what it returned.

    They are of the rows in reverse, so that a comparison on the rows as they are is one with other data.
    """
    batch, noise = pytree.tree_map_only(Tensor, _reversed, (batch, noise))
    with Tape([*_leaves(batch), *noise.values()]) as tape:
        terms, found = gradients(batch, noise)
    return tape, terms, found


def of_batches(run: Callable[..., Sequence[Tensor]]) -> Function:
    """Of a batch and noise, what is a function of their tensors."""

    def function(batch: Transition, noise: dict[str, Tensor]) -> list[Tensor]:
        with torch._C._AutoDispatchBelowAutograd():  # like no_grad, and nothing asks for each operation
            return list(run(*_leaves(batch), *noise.values()))

    return function


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what is made of the `given` tensors. All other tensors are held: parameters, options, their views.

    What those show changes, where they are does not. torch's own `make_fx` took 16 s and 430 MiB for CQL's 32,000
    operations in a pack of 16, for what it knows of shapes.
    """

    def __init__(self, given: Sequence[Tensor | None]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._held: dict[str, Tensor] = {}
        self._nodes = WeakIdKeyDictionary()  # of tensors that are known by now
        for i, each in enumerate(given):
            node = self._graph.placeholder(f"given_{i}")
            if each is not None:
                self._nodes[each] = node

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = args, kwargs or {}
        found = operation(*args, **arguments[1])
        tensors = [each for each in pytree.tree_leaves(arguments) if isinstance(each, Tensor)]
        held = bool(tensors) and all(map(self._is_held, tensors))
        if held and (_is_view(operation) or ASKS in operation.tags):
            return found
        if ASKS in operation.tags:
            raise RuntimeError(f"{operation} asks for a number")
        if operation in SAME:
            self._nodes[found] = self._node(args[0])
            return found
        node = self._graph.call_function(operation, *map_aggregate(arguments, self._node))
        if isinstance(found, Tensor):
            self._nodes[found] = node
        elif found is not None:
            for i, each in enumerate(found):
                if each is not None:
                    self._nodes[each] = self._graph.call_function(operator.getitem, (node, i))
        return found

    def _is_held(self, tensor: Tensor) -> bool:
        return tensor not in self._nodes or self._nodes[tensor].op == "get_attr"

    def _node(self, argument: Any) -> Any:
        """What stands for a tensor; anything else stands for itself."""
        if not isinstance(argument, Tensor):
            return argument
        if argument not in self._nodes:
            name = f"held_{len(self._held)}"
            self._held[name], self._nodes[argument] = argument.detach(), self._graph.get_attr(name)
        return self._nodes[argument]

    def _ending(self, results: Sequence[Tensor]) -> fx.Graph:
        """The operations that it takes to these results."""
        nodes = [self._node(each) for each in results]
        graph, copies = fx.Graph(), {}  # type: ignore[var-annotated]
        graph.graph_copy(self._graph, copies)
        graph.output([copies[node] for node in nodes])
        graph.eliminate_dead_code()
        return graph

    def function(self, results: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
        """Of tensors like the given ones: the results. Operations and tensors are its globals.

        To look them up by their full names took a tenth of DQN's update.
        """
        code = self._ending(results).python_code("self")
        known = {f"self.{name}": tensor for name, tensor in self._held.items()}
        bound = dict(code.globals)

        def bind(found: re.Match[str]) -> str:
            name = found[0].replace(".", "_")
            if name not in bound:  # of an operation, what its __call__ calls
                bound[name] = known[found[0]] if found[0] in known else attrgetter(found[0][6:])(torch)._op
            return name

        exec(re.sub(r"\b(self|torch\.ops\.\w+\.\w+)\.\w+", bind, code.src), bound)
        return partial(bound.pop("forward"), None)  # or it would be among its own globals, and outlive its use

    def compiled(self, results: Sequence[Tensor], given: Sequence[Tensor | None]) -> Callable[..., Sequence[Tensor]]:
        """The same function, compiled for tensors like the `given` ones. What is held is an argument of it."""
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


def near(ours: Any, theirs: Any, tolerance: float = 0.0) -> bool:
    """As many tensors are equal, up to the rounding of sums of which it is not known what they were of."""

    def near_one(one: Tensor, other: Tensor) -> bool:
        largest = float(other.detach().abs().nan_to_num().amax()) if tolerance and other.numel() else 0.0
        return torch.allclose(one, other, rtol=0.0, atol=tolerance * max(largest, tolerance), equal_nan=True)

    return all(near_one(*pair) for pair in zip(*map(pytree.tree_leaves, (ours, theirs)), strict=True))


def _leaves(batch: Transition) -> Iterator[Tensor | None]:
    """The columns of a batch, or the parts of those that have some."""
    for column in batch:
        if isinstance(column, dict):
            yield from column.values()
        else:
            yield column


def _is_view(operation: Any) -> bool:
    schema = operation._schema
    return not schema.is_mutable and any(each.alias_info for each in schema.returns)


def _reversed(column: Tensor) -> Tensor:
    """[K, B, …] with the last row first; what has no rows as it is."""
    return column.flip(1) if column.ndim > 1 else column
