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
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from dr3_ray.errors import first_line
from dr3_ray.member import Member, first_steps
from dr3_ray.networks.stochastic import passive
from dr3_ray.types import Terms, Transition

if TYPE_CHECKING:
    from dr3_ray.population import Population, View

AFTER = 2000  # steps of a kind: recording them takes as long as a few thousand steps save
SAME = {torch.ops.aten.detach.default, torch.ops.aten.alias.default}  # as their argument, to who needs no gradient

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
    ) -> Found:
        """What `population.gradients` returns of this step; the losses without a graph once it is recorded."""

        def plain(batch: Transition, noise: dict[str, Tensor]) -> Found:
            return population.gradients(view, batch, noise, step, active)

        kind = view.members, frozenset(active)
        if step >= self._settled and kind not in self._recorded:
            self._seen[kind] += 1
            if self._seen[kind] > self.after:
                self._recorded[kind] = recorded(plain, batch, noise)
        replay = self._recorded.get(kind)
        return replay(batch, noise) if replay else plain(batch, noise)


def recorded(gradients: Gradients, batch: Transition, noise: dict[str, Tensor]) -> Gradients | None:
    """The same function as a list of operations; None where that cannot be had, or does not do the same."""
    try:
        # recorded on the rows in reverse: the comparison on the rows as they are is then one with other data
        replay = Replay(gradients, *pytree.tree_map_only(Tensor, _reversed, (batch, noise)))
        pairs = zip(*(pytree.tree_leaves(each(batch, noise)) for each in (replay, gradients)), strict=True)
        equal = all(torch.allclose(ours, theirs, rtol=0.0, atol=0.0, equal_nan=True) for ours, theirs in pairs)
    except Exception as error:
        log.info(f"steps are not recorded ({first_line(error)}): they go on as they are")
        return None
    if not equal:
        log.info("steps are not recorded (they depend on the data): they go on as they are")
    return replay if equal else None


class Replay:
    """The operations of `gradients`, found on a batch."""

    def __init__(self, gradients: Gradients, batch: Transition, noise: dict[str, Tensor]):
        self._names: tuple[list[str], list[str]] = [], []
        leaves, given = pytree.tree_flatten((batch, noise))

        def flat(*leaves: Tensor | None) -> list[Tensor]:
            terms, found = gradients(*pytree.tree_unflatten(list(leaves), given))
            self._names = list(terms.losses), list(terms.metrics)
            return [*terms.losses.values(), *terms.metrics.values(), *found]

        with _use_lazy_graph_module(True):  # torch keeps the code of others for good
            module = make_fx(flat)(*leaves)
        _find_views(module)
        self._run = _function(module)

    def __call__(self, batch: Transition, noise: dict[str, Tensor]) -> Found:
        """Terms, and the sum of losses with its gradients."""
        with torch._C._AutoDispatchBelowAutograd():  # like no_grad, and nothing asks for each operation
            results = iter(self._run(*_leaves(batch), *noise.values()))
        losses, metrics = ({name: next(results) for name in names} for names in self._names)
        return Terms(losses, metrics), list(results)


def _leaves(batch: Transition) -> Iterator[Tensor | None]:
    """The columns of a batch, or the parts of those that have some, as pytree finds them; this is faster."""
    for column in batch:
        if isinstance(column, dict):
            yield from column.values()
        else:
            yield column


def _find_views(module: fx.GraphModule) -> None:
    """Views of parameters and options are found now: what they show changes, where they are does not."""
    for node in module.graph.nodes:
        if node.target in SAME:
            node.replace_all_uses_with(node.args[0])
        elif _is_view(node.target) and all(each.op == "get_attr" for each in node.all_input_nodes):
            given = map_arg((node.args, node.kwargs), lambda each: getattr(module, str(each.target)))
            setattr(module, f"found_{node.name}", node.target(*given[0], **given[1]))
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.create_node("get_attr", f"found_{node.name}"))
    module.graph.eliminate_dead_code()


def _function(module: fx.GraphModule) -> Callable[..., list[Tensor]]:
    """The graph's own code with operations and tensors as globals: to look them up took a tenth of DQN's update."""
    code = module.graph.python_code("self")
    bound = dict(code.globals)

    def bind(found: re.Match[str]) -> str:
        name, (root, *path) = found[0].replace(".", "_"), found[0].split(".")
        value = reduce(getattr, path, module if root == "self" else torch)
        bound[name] = getattr(value, "_op", value)  # of an operation, what its __call__ calls
        return name

    exec(re.sub(r"\b(self|torch\.ops\.\w+\.\w+)\.\w+", bind, code.src), bound)
    return partial(bound.pop("forward"), None)  # or it would be among its own globals, and outlive its use


def _is_view(operation: Any) -> bool:
    if operation is operator.getitem:  # of the views that an operation returns
        return True
    if not isinstance(operation, torch._ops.OpOverload):
        return False
    return not operation._schema.is_mutable and any(each.alias_info for each in operation._schema.returns)


def _reversed(column: Tensor) -> Tensor:
    """[K, B, …] with the last row first; what has no rows as it is."""
    return column.flip(1) if column.ndim > 1 else column
