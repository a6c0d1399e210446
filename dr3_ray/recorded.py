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
from typing import TYPE_CHECKING, Any

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
Found = tuple[Terms, list[Tensor]]  # of a batch: see `Population.gradients`
Gradients = Callable[[Transition, dict[str, Tensor]], Found]


class Recordings:
    """The recordings of a population, one for each kind of step: of which members, and what it trains."""

    def __init__(self, members: tuple[Member, ...]):
        self.after = AFTER
        self._settled = first_steps(members)
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, Gradients | None] = {}
        self._compiled: dict[Hashable, Gradients | None] = {}

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
        compiled: bool = False,
    ) -> Found:
        """What `population.gradients` returns of this step; the losses without a graph once it is recorded.

        Where it is to be `compiled` it is so from the first step on.
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
        if replay and compiled:
            if kind not in self._compiled:
                self._compiled[kind] = recorded(plain, batch, noise, compiled=True)
            replay = self._compiled[kind] or replay
        return (replay or plain)(batch, noise)

    @property
    def refused(self) -> bool:
        """Whether there are steps that were to be compiled and are not."""
        return not all([*self._recorded.values(), *self._compiled.values()])


def recorded(
    gradients: Gradients, batch: Transition, noise: dict[str, Tensor], compiled: bool = False
) -> Gradients | None:
    """The same function as a list of operations; None where that cannot be had, or does not do the same.

    `compiled`, it does the same up to rounding.
    """
    done = "compiled" if compiled else "recorded"
    try:
        # recorded on the rows in reverse: the comparison on the rows as they are is then one with other data
        others, their_noise = pytree.tree_map_only(Tensor, _reversed, (batch, noise))
        replay = Replay(gradients, others, their_noise, compiled)
        pairs = zip(*(pytree.tree_leaves(each(batch, noise)) for each in (replay, gradients)), strict=True)
        equal = all(_near(*pair) if compiled else _equal(*pair) for pair in pairs)
    except Exception as error:
        log.info(f"steps are not {done} ({first_line(error)}): they go on as they are")
        return None
    if not equal:
        why = "do something else" if compiled else "depend on the data"
        log.info(f"steps are not {done} (they {why}): they go on as they are")
    return replay if equal else None


class Replay:
    """The operations of `gradients`, found on a batch."""

    def __init__(self, gradients: Gradients, batch: Transition, noise: dict[str, Tensor], compiled: bool = False):
        given = [*_leaves(batch), *noise.values()]
        tape = Tape(given)
        with tape:
            terms, found = gradients(batch, noise)
        self._names = list(terms.losses), list(terms.metrics)
        tape.end([*terms.losses.values(), *terms.metrics.values(), *found])
        self._run = tape.compiled(given) if compiled else tape.function()

    def __call__(self, batch: Transition, noise: dict[str, Tensor]) -> Found:
        """Terms, and the sum of losses with its gradients."""
        with torch._C._AutoDispatchBelowAutograd():  # like no_grad, and nothing asks for each operation
            results = iter(self._run(*_leaves(batch), *noise.values()))
        losses, metrics = ({name: next(results) for name in names} for names in self._names)
        return Terms(losses, metrics), list(results)


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

    def end(self, results: Sequence[Tensor]) -> None:
        """These are what was looked for."""
        self._graph.output([self._node(each) for each in results])
        self._graph.eliminate_dead_code()

    def function(self) -> Callable[..., list[Tensor]]:
        """Of tensors like the given ones: the results. Operations and tensors are its globals.

        To look them up by their full names took a tenth of DQN's update.
        """
        code = self._graph.python_code("self")
        known = {f"self.{name}": tensor for name, tensor in self._held.items()}
        bound = dict(code.globals)

        def bind(found: re.Match[str]) -> str:
            name = found[0].replace(".", "_")
            if name not in bound:  # of an operation, what its __call__ calls
                bound[name] = known[found[0]] if found[0] in known else attrgetter(found[0][6:])(torch)._op
            return name

        exec(re.sub(r"\b(self|torch\.ops\.\w+\.\w+)\.\w+", bind, code.src), bound)
        return partial(bound.pop("forward"), None)  # or it would be among its own globals, and outlive its use

    def compiled(self, given: Sequence[Tensor | None]) -> Callable[..., Sequence[Tensor]]:
        """The same function, compiled for tensors like the `given` ones. What is held is an argument of it."""
        placeholders = list(self._graph.find_nodes(op="placeholder"))
        used = [i for i, node in enumerate(placeholders) if node.users]
        held = list(self._graph.find_nodes(op="get_attr"))
        known = [self._held[node.target] for node in held]
        graph = fx.Graph()
        arguments = {node: graph.placeholder(node.name) for node in (*(placeholders[i] for i in used), *held)}
        for node in placeholders:
            if node not in arguments:
                self._graph.erase_node(node)
        graph.output(graph.graph_copy(self._graph, arguments))

        def select(tensors: Sequence[Any]) -> list[Tensor]:
            return [*(tensors[i] for i in used), *known]

        function = inductor.compiled(graph, select(given))
        return lambda *tensors: function(*select(tensors))


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=0.0, atol=0.0, equal_nan=True)


def _near(ours: Tensor, theirs: Tensor) -> bool:
    """Up to the rounding of sums, of which it is not known what they were of."""
    bound = ROUNDING[torch.bfloat16 if rounded(theirs) else theirs.dtype]
    largest = float(theirs.detach().abs().nan_to_num().amax()) if theirs.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=0.0, atol=bound * max(largest, bound), equal_nan=True)


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
