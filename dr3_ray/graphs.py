"""Gradient steps on a GPU, recorded once as CUDA graphs and replayed: the host starts a chunk of them at a time.

A small network's update is some hundred operations that each take a GPU less time than the host needs to start them.
What a graph does is what `Population.steps` does, by the same operations in the same order.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dr3_ray.data.resident import Resident
from dr3_ray.member import Member, first_steps
from dr3_ray.networks.stochastic import Stochastic
from dr3_ray.ranges import named_range

if TYPE_CHECKING:
    from dr3_ray.batches import Batches
    from dr3_ray.population import Population, View

CHUNK = 16  # steps of a graph


class Recorded(NamedTuple):
    """A graph, and the tensors that hold what it found when it was replayed last."""

    graph: torch.cuda.CUDAGraph
    summed: Tensor
    metrics: dict[str, Tensor]


class Graphs:
    """The graphs of a population, one for each kind of chunk: how long, which steps train what and move the targets."""

    def __init__(self, members: Sequence[Member]):
        self._recorded: dict[Hashable, Recorded | None] = {}
        self._settled = first_steps(members)

    @staticmethod
    def serve(batches: Batches, members: Sequence[Member]) -> bool:
        """Whether a step is the GPU's alone: the data are there, no other learner is asked, no eigenvalue is sought."""
        seek_rank = any(member.baselines and member.baselines.seeks_rank for member in members)
        return isinstance(batches.data, Resident) and batches.share.average is None and not seek_rank

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @contextmanager
    def one_stream(self) -> Iterator[None]:
        """Within, the GPU does everything in the stream in which graphs are recorded, after all that came before.

        Compiled functions keep leaves of the graph of autograd, and a leaf's gradient arrives in the stream that it was
        made in: if that is another one, nothing can be recorded.
        """
        outer = torch.cuda.current_stream()
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            yield
        outer.wait_stream(self._stream)

    def run(self, population: Population, view: View, first: int, n_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What `population.steps` returns of these steps."""
        summed = torch.zeros(len(view.members), dtype=population.dtype, device=population.device)
        end = first + n_steps
        while first < end:
            n = min(CHUNK - first % CHUNK, end - first)  # chunks begin where others of their kind did
            with named_range(f"{n} steps"):
                more, metrics = self._chunk(population, view, first, n)
            summed += more
            first += n
        return summed, {name: values.clone() for name, values in metrics.items()}

    def _chunk(self, population: Population, view: View, first: int, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        if first < self._settled:
            return population.steps(view, first, n)
        kinds = [
            (frozenset(population.active(step)), population.moves_targets(step)) for step in range(first, first + n)
        ]
        kind = (view.members, population.compiles, *kinds)
        if kind not in self._recorded:  # what is done once in a process is not for a graph
            self._recorded[kind] = None
            return population.steps(view, first, n)
        recorded = self._recorded[kind] or self._record(population, view, first, n)
        self._recorded[kind] = recorded
        recorded.graph.replay()
        return recorded.summed, recorded.metrics

    def _record(self, population: Population, view: View, first: int, n: int) -> Recorded:
        graph = torch.cuda.CUDAGraph()
        if any(isinstance(layer, Stochastic) for layer in view.networks.modules()):
            for source in population.layer_noise[view.rows]:
                graph.register_generator_state(source)
        pools = [recorded.graph.pool() for recorded in self._recorded.values() if recorded]
        torch.cuda.empty_cache()  # a graph has memory of its own
        # other threads of the process may go on, but nothing of a GPU's may be freed by chance
        collects = gc.isenabled()
        gc.disable()
        try:
            pool, stream = pools[0] if pools else None, torch.cuda.current_stream() if population.compiler else None
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                found = population.steps(view, first, n)
        finally:
            if collects:
                gc.enable()
        return Recorded(graph, *found)
