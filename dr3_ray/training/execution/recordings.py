"""Gradients on a CPU: the operations that a batch's losses and gradients come to, recorded once and replayed.

They are the same at every step, and finding them takes torch a third of a small network's update: the calls of modules,
views of parameters, the graph of autograd and its walk back. A replay is the same operations in the same order without
all that. It has to equal the step to the bit on another batch than that of the recording, or else it is not used.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from dr3_ray.compat import torch as compat
from dr3_ray.errors import first_line
from dr3_ray.networks.precision import rounded
from dr3_ray.networks.stochastic import passive
from dr3_ray.training.execution.choice import Switch
from dr3_ray.training.execution.tape import Tape
from dr3_ray.training.member import Member, first_steps
from dr3_ray.training.steps import Gradients, View
from dr3_ray.types import Terms, Transition

AFTER = 2000  # steps of a kind: recording them takes as long as a few thousand steps save
# largest difference between compiled and plain results, by the largest number of a tensor
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2}

log = logging.getLogger("dr3_ray")
Made = TypeVar("Made")
TermsAndGradients = tuple[Terms, list[Tensor]]  # of a batch: see `Steps.gradients`
OfBatch = Callable[[Transition, dict[str, Tensor]], TermsAndGradients]  # the gradients of one kind of step
Function = Callable[[Transition, dict[str, Tensor]], list[Tensor]]  # the same without the terms


class Recordings:
    """A wrapper of the function that finds gradients: it records a step's operations once, and replays them.

    There is a recording for every set of members and every set of parts that are trained. A step is recorded after some
    of its kind, or at once where the `switch` is on; it is then compiled, too.
    """

    def __init__(self, gradients: Gradients, members: Sequence[Member], switch: Switch | None = None):
        self.after, self._gradients, self._switch = AFTER, gradients, switch
        self._settled = first_steps(members)
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, Recording | None] = {}
        self._compiled: dict[Hashable, Function | None] = {}

    @staticmethod
    def serve(networks: torch.nn.Module, device: torch.device) -> bool:
        """Return whether a step's operations are the same every time, on a device that waits for their start."""
        return device.type == "cpu" and passive(networks) and compat.CAN_RECORD

    def __call__(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str], asked: bool
    ) -> tuple[Terms | None, list[Tensor]]:
        """Return the wrapped function's result of this step; recorded steps give their terms only if `asked`.

        A step that gives its terms is not compiled.
        """

        def plain(batch: Transition, noise: dict[str, Tensor]) -> TermsAndGradients:
            return self._gradients(view, batch, noise, step, active)

        kind = view.members, frozenset(active)
        compiled = self._switch is not None and self._switch.on
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
        """Whether steps that were to be compiled could not be."""
        return not all([*self._recorded.values(), *self._compiled.values()])

    @property
    def replays(self) -> list[Recording | None]:
        """The recording of each kind of step; None: it cannot be recorded."""
        return list(self._recorded.values())

    @property
    def counts(self) -> tuple[int, int]:
        """How many kinds of steps are recorded, and how many compiled."""
        return sum(map(bool, self._recorded.values())), sum(map(bool, self._compiled.values()))


def recorded(gradients: OfBatch, batch: Transition, noise: dict[str, Tensor]) -> Recording | None:
    """Record a function as a list of operations; None if it cannot be, or the recording gives other results."""

    def attempt() -> tuple[Recording, bool]:
        replay = Recording(*tape_of(gradients, batch, noise))
        theirs = gradients(batch, noise)
        return replay, near(replay(batch, noise), theirs) and near(replay.gradients(batch, noise), theirs[1])

    return _if_the_same(attempt, "recorded", "they depend on the data")


def compile_steps(gradients: OfBatch, batch: Transition, noise: dict[str, Tensor]) -> Function | None:
    """Compile `gradients` without its terms, equal up to rounding; None if it cannot be."""

    def attempt() -> tuple[Function, bool]:
        """Compile once, and compare what it finds with the gradients as they are."""
        tape, _, recorded = tape_of(gradients, batch, noise)
        function = of_batches(tape.compiled(recorded, [*_leaves(batch), *noise.values()]))
        theirs = gradients(batch, noise)[1]
        kind = torch.bfloat16 if rounded(theirs[0]) else theirs[0].dtype
        return function, near(function(batch, noise), theirs, ROUNDING[kind])

    return _if_the_same(attempt, "compiled", "they do something else")


def _if_the_same(attempt: Callable[[], tuple[Made, bool]], done: str, why: str) -> Made | None:
    """Return the result of `attempt` if it agrees with the function; else log what was not `done`, and `why`."""
    try:
        made, same = attempt()
    except Exception as error:
        log.info(f"steps are not {done} ({first_line(error)}): they go on as they are")
        return None
    if not same:
        log.info(f"steps are not {done} ({why}): they go on as they are")
    return made if same else None


class Recording:
    """The operations of `gradients`."""

    def __init__(self, tape: Tape, terms: Terms, gradients: list[Tensor]):
        self._names = list(terms.losses), list(terms.metrics)
        self._all = of_batches(tape.function([*terms.losses.values(), *terms.metrics.values(), *gradients]))
        self.gradients = of_batches(tape.function(gradients))

    def __call__(self, batch: Transition, noise: dict[str, Tensor]) -> TermsAndGradients:
        """Return terms, and the sum of losses with its gradients."""
        results = iter(self._all(batch, noise))
        losses, metrics = ({name: next(results) for name in names} for names in self._names)
        return Terms(losses, metrics), list(results)


def tape_of(gradients: OfBatch, batch: Transition, noise: dict[str, Tensor]) -> tuple[Tape, Terms, list[Tensor]]:
    """Return the operations of `gradients`, and its result.

    They are recorded on the rows in reverse, so that a comparison on the rows as they are is one with other data.
    """
    batch, noise = compat.tree_map_only(Tensor, _reversed, (batch, noise))
    with Tape([*_leaves(batch), *noise.values()]) as tape:
        terms, outputs = gradients(batch, noise)
    return tape, terms, outputs


def of_batches(run: Callable[..., Sequence[Tensor]]) -> Function:
    """Return a function of tensors as one of a batch and noise."""

    def function(batch: Transition, noise: dict[str, Tensor]) -> list[Tensor]:
        with compat.below_autograd():
            return list(run(*_leaves(batch), *noise.values()))

    return function


def near(ours: Any, theirs: Any, tolerance: float = 0.0) -> bool:
    """Return whether two nested structures agree, tensor by tensor.

    With `tolerance` 0: exactly, NaN equal to NaN. Otherwise entries may differ by
    `tolerance · max(largest magnitude in theirs, tolerance)`, because kernels may have summed in another order.
    """

    def near_one(one: Tensor, other: Tensor) -> bool:
        largest = float(other.detach().abs().nan_to_num().amax()) if tolerance and other.numel() else 0.0
        return torch.allclose(one, other, rtol=0.0, atol=tolerance * max(largest, tolerance), equal_nan=True)

    return all(near_one(*pair) for pair in zip(*map(compat.tree_leaves, (ours, theirs)), strict=True))


def _leaves(batch: Transition) -> Iterator[Tensor | None]:
    """Yield the columns of a batch, or the parts of columns that have parts."""
    for column in batch:
        if isinstance(column, dict):
            yield from column.values()
        else:
            yield column


def _reversed(column: Tensor) -> Tensor:
    """Return [K, B, …] with the last row first; a column without rows as it is."""
    return column.flip(1) if column.ndim > 1 else column
