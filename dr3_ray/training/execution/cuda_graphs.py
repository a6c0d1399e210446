"""Gradient steps on a GPU, recorded once as CUDA graphs and replayed: the host starts a chunk of them at a time.

A small network's update is some hundred operations that each take a GPU less time than the host needs to start them.
What a graph does is what `Steps.run` does, by the same operations in the same order.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dr3_ray.data.resident import Resident
from dr3_ray.training.batches import Batches
from dr3_ray.training.execution.choice import Switch
from dr3_ray.training.member import Member, first_steps
from dr3_ray.training.profiling import named_range
from dr3_ray.training.steps import Found, RunSteps, Steps, View

CHUNK = 16  # steps of a graph


class RecordedGraph(NamedTuple):
    """A graph, and the tensors that hold what it found when it was replayed last."""

    graph: torch.cuda.CUDAGraph
    summed: Tensor
    metrics: dict[str, Tensor]


class CudaGraphs:
    """A wrapper of `run`, a function that makes steps, with a CUDA graph for each kind of chunk of them.

    Chunks are of one kind if they have equally many steps and the same members, train the same parts, move the targets
    in the same steps, draw by the same weights of a mixture, and find the `switch` in the same position.
    """

    def __init__(self, run: RunSteps, steps: Steps, switch: Switch | None = None):
        self._run, self._steps, self._switch = run, steps, switch
        self._recorded: dict[Hashable, RecordedGraph | None] = {}
        self._settled = first_steps(steps.members)

    @property
    def count(self) -> int:
        """The number of graphs."""
        return sum(map(bool, self._recorded.values()))

    @staticmethod
    def serve(batches: Batches, members: Sequence[Member]) -> bool:
        """Return whether steps run on the GPU alone: the data are there, and neither learners nor host take part."""
        asks = batches.share.average is not None or any(member.needs_host for member in members)
        return isinstance(batches.data, Resident) and not asks

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @contextmanager
    def one_stream(self) -> Iterator[None]:
        """Keep the GPU to the stream in which graphs are recorded, after all that came before.

        Compiled functions keep leaves of the graph of autograd, and a leaf's gradient arrives in the stream that it was
        made in: if that is another one, nothing can be recorded.
        """
        outer = torch.cuda.current_stream()
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            yield
        outer.wait_stream(self._stream)

    def __call__(self, view: View, first: int, n_steps: int) -> Found:
        """Make steps as `run` does, by graphs, and return its result."""
        summed = torch.zeros(len(view.members), dtype=self._steps.dtype, device=self._steps.device)
        end = first + n_steps
        while first < end:
            n = min(CHUNK - first % CHUNK, end - first)  # chunks begin where others of their kind did
            with named_range(f"{n} steps"):
                more, metrics = self._chunk(view, first, n)
            summed += more
            first += n
        return summed, {name: values.clone() for name, values in metrics.items()}

    def _chunk(self, view: View, first: int, n: int) -> Found:
        if first < self._settled:
            return self._run(view, first, n)
        steps = self._steps
        kinds = [
            (frozenset(steps.active(step)), steps.moves_targets(step), steps.batches.phase(step))
            for step in range(first, first + n)
        ]
        kind = (view.members, self._switch is not None and self._switch.on, *kinds)
        if kind not in self._recorded:  # what is done once in a process is not for a graph
            self._recorded[kind] = None
            return self._run(view, first, n)
        recorded = self._recorded[kind] or self._record(view, first, n)
        self._recorded[kind] = recorded
        recorded.graph.replay()
        return recorded.summed, recorded.metrics

    def _record(self, view: View, first: int, n: int) -> RecordedGraph:
        graph = torch.cuda.CUDAGraph()
        for sources in self._steps.layer_noise.values():
            for source in sources[view.rows]:
                graph.register_generator_state(source)
        pools = [recorded.graph.pool() for recorded in self._recorded.values() if recorded]
        torch.cuda.empty_cache()  # a graph has memory of its own
        # other threads of the process may go on, but nothing of a GPU's may be freed by chance
        collects = gc.isenabled()
        gc.disable()
        try:
            pool, stream = pools[0] if pools else None, torch.cuda.current_stream() if self._switch else None
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                ran = self._run(view, first, n)
        finally:
            if collects:
                gc.enable()
        return RecordedGraph(graph, *ran)
