"""`compile=True`: steps compiled by torch's compiler, where that pays for its warm-up.

A few steps of training are timed as they are and compiled, and what takes less over the planned number of updates goes
on. The choice is in a run's checkpoints, so that a run that is resumed goes on with it; before the first of them it may
turn out otherwise, and results are then the same up to rounding. What was compiled is kept on disk for other processes.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from dr3_ray.errors import first_line
from dr3_ray.networks import blocks
from dr3_ray.training.execution.choice import Switch
from dr3_ray.training.execution.cuda_graphs import CHUNK, CudaGraphs
from dr3_ray.training.execution.recordings import Recordings
from dr3_ray.training.member import Member, first_steps
from dr3_ray.training.steps import Find, Found, RunSteps, Steps, TermsOf, View
from dr3_ray.types import Terms, Transition

TIMED = 64  # steps, of each kind, after as many that warm up
USUAL_UPDATES = 100_000  # updates that a run is taken to have when nobody says how many are planned

log = logging.getLogger("dr3_ray")


@cache
def hide_from_compiler() -> None:
    """Have torch.compile call functions as they are that it cannot look into, from now on: gradients within blocks.

    No decorator: torch's would import the compiler, and sympy with it, into every process.
    """
    blocks._in_blocks = torch.compiler.disable(blocks._in_blocks)  # type: ignore[no-untyped-call]


class Composed(Protocol):
    """What the compiler knows of a population: its steps and their wrappers, and its state."""

    steps: Steps
    recordings: Recordings | None
    graphs: CudaGraphs | None
    planned: int

    def state_dict(self) -> dict[str, Any]:
        """Return all state that `steps.networks` does not hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up such a state again."""
        ...


class CompiledTerms:
    """A wrapper of the function that finds an objective's terms: compiled on a GPU while the `switch` is on."""

    def __init__(self, terms: TermsOf, members: Sequence[Member], switch: Switch):
        self._terms, self._switch, self._settled = terms, switch, first_steps(members)
        self._compiled: dict[Hashable, Callable[..., Terms]] = {}

    def __call__(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str]
    ) -> Terms:
        """Return the terms at a step that trains these parts; compiled if they depend on nothing else of the step."""
        if not self._switch.on or step < self._settled:
            return self._terms(view, batch, noise, step, active)
        kind = view.members, frozenset(active)
        if kind not in self._compiled:

            def terms(networks: Any, batch: Transition, noise: dict[str, Tensor]) -> Terms:
                return view.objective(networks, batch, noise, step)[0]

            self._compiled[kind] = torch.compile(terms, dynamic=False)
        return self._compiled[kind](view.networks, batch, noise)


class Compiler:
    """A wrapper of `run`, a function that makes steps, which turns the `switch` on where a few steps show that it pays.

    On a CPU recorded steps are compiled, on a GPU the objective, the optimiser and the sampler. `find` finds the
    gradients of one step.
    """

    def __init__(self, run: RunSteps, find: Find, trained: Composed, switch: Switch):
        self._run, self._find, self._trained, self._switch = run, find, trained, switch
        self.planned, self._settled = trained.planned, first_steps(trained.steps.members)
        self.decided, self._tried = False, False

    @property
    def on(self) -> bool:
        """Whether steps are compiled now."""
        return self._switch.on

    @on.setter
    def on(self, compiled: bool) -> None:
        self._switch.on = compiled

    @property
    def choice(self) -> bool | None:
        """Whether steps are compiled; None: nothing is decided yet."""
        return self.on if self.decided else None

    @choice.setter
    def choice(self, chosen: bool | None) -> None:
        self.on, self.decided = bool(chosen), chosen is not None

    def __call__(self, view: View, first: int, n_steps: int) -> Found:
        """Make `n_steps` steps by `run`, and return its result.

        If the steps are enough, some of them are timed, plain and compiled, and the rest are made in the faster way.
        """
        graphs = self._trained.graphs
        with graphs.one_stream() if graphs else nullcontext():
            return self._steps(view, first, n_steps)

    def _steps(self, view: View, first: int, n_steps: int) -> Found:
        run, steps, recordings = self._run, self._trained.steps, self._trained.recordings
        if not self.decided and (why := impossible(steps, recordings)):
            self.decided = True
            log.info(f"compile: {why}: not compiled")
        if self.on and not self._tried and (error := self._error(view, first)):
            self.on = False  # in a run that goes on, on another machine than that on which this was decided
            log.info(f"compile: {error}: not compiled from here on")
        if self.decided or first < self._settled or n_steps <= 4 * TIMED:
            return run(view, first, n_steps)
        if recordings:  # what compiled steps have to be faster than
            recordings.after = 0
        end = first + n_steps
        summed: Tensor | float = 0.0

        def seconds() -> float:
            """Return the seconds of further steps."""
            nonlocal summed, first
            started = time.perf_counter()
            more, _ = run(view, first, TIMED)
            summed, first = summed + more, first + TIMED
            more.tolist()  # a GPU has then made them
            return time.perf_counter() - started

        seconds()
        plain = seconds()
        self.on = True
        started = time.perf_counter()
        if error := self._error(view, first):
            self.on, why = False, f"{plain / TIMED * 1e3:.3g} ms, and {error}"
        else:
            warm_up = time.perf_counter() - started + seconds()
            compiled = seconds()
            warm_up, saved = warm_up - compiled, (plain - compiled) / TIMED * len(steps.views)
            cost = warm_up * len({view.looks_ahead for view in steps.views})  # members in turn share functions
            self.on = saved * (self.planned - first) > cost
            why = f"{plain / TIMED * 1e3:.3g} ms, compiled {compiled / TIMED * 1e3:.3g}, "
            why += f"and compiling took {warm_up:.1f} s"
            why += f", made good by {cost / saved:,.0f} updates" if saved > 0.0 else ""
        self.decided = True
        chosen = "compiled" if self.on else "not compiled"
        log.info(f"compile: an update takes {why}: {chosen} for {self.planned:,} updates")
        more, metrics = run(view, first, end - first)
        return summed + more, metrics

    def _error(self, view: View, first: int) -> str | None:
        """Return the error of compiling steps from `first` on, on a GPU of recording them; all is then as it was."""
        self._tried = True
        trained, steps, recordings = self._trained, self._trained.steps, self._trained.recordings
        networks, others = copy.deepcopy(steps.networks.state_dict()), trained.state_dict()
        try:
            if trained.graphs:  # of chunks; a graph's first chunk is made without the graph
                trained.graphs(view, first, 3 * CHUNK)
            else:
                for step in range(first, first + 4):
                    batch, noise = next(steps.batches.stream(view.rows, 1, step))
                    self._find(view, batch, noise, step, steps.active(step), False)
        except Exception as error:
            return f"compiling failed ({first_line(error)})"
        finally:
            steps.networks.load_state_dict(networks)
            trained.load_state_dict(others)
            # counted draws went on since the step that the state is of
            steps.batches.sampler.load_state_dict(others["sampler"], first)
            self.on = True  # which a state before the choice does not know
        refused = recordings is not None and recordings.refused
        return "some steps cannot be compiled" if refused else None


def impossible(steps: Steps, recordings: Recordings | None) -> str | None:
    """Return why nothing can be compiled; None: something can."""
    if steps.device.type == "cpu":
        noisy = "layers that draw noise or have a state of their own are not compiled on a CPU"
        return noisy if recordings is None else None
    return "members that are walked in turn are not compiled on a GPU" if len(steps.views) > 1 else None
