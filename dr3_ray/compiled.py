"""`compile=True`: steps compiled by torch's compiler, where that pays for its warm-up.

A few steps of training are timed as they are and compiled, and what takes less over the planned number of updates goes
on. The choice is in a run's checkpoints, so that a run that is resumed goes on with it; before the first of them it may
turn out otherwise, and results are then the same up to rounding. What was compiled is kept on disk for other processes.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Hashable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dr3_ray.data.cache import cache_folder
from dr3_ray.data.sampler import CountingSampler, counted
from dr3_ray.errors import first_line
from dr3_ray.graphs import CHUNK
from dr3_ray.member import first_steps
from dr3_ray.networks import blocks
from dr3_ray.networks.optim import adam
from dr3_ray.types import Terms, Transition

if TYPE_CHECKING:
    from dr3_ray.population import Population, View

TIMED = 64  # steps, of each kind, after as many that warm up
USUAL = 100_000  # updates of a run of which nothing else is known
KEPT = "TORCHINDUCTOR_CACHE_DIR"  # torch's variable for the folder with what was compiled

log = logging.getLogger("dr3_ray")
Found = tuple[Tensor, dict[str, Tensor]]  # of some steps: see `Population.steps`
Run = Callable[["View", int, int], Found]


@cache
def hide_from_compiler() -> None:
    """What torch.compile cannot look into is called as it is, from now on: gradients are found within blocks.

    No decorator: torch's would import the compiler, and sympy with it, into every process.
    """
    blocks._in_blocks = torch.compiler.disable(blocks._in_blocks)  # type: ignore[no-untyped-call]


class Compiler:
    """What a population has compiled, and whether it uses it.

    On a CPU those are recorded steps, on a GPU the objective, the optimiser and the sampler.
    """

    def __init__(self, population: Population, planned: int):
        self.planned, self._settled = planned, first_steps(population.members)
        self.on, self.decided, self._tried = False, False, False
        self._objectives: dict[Hashable, Callable[..., Terms]] = {}
        os.environ.setdefault(KEPT, str(cache_folder().parent / "compiled"))
        if population.device.type == "cpu":
            return
        hide_from_compiler()
        for part in population.parts.values():
            part.adam.update = self._choosing(adam)
        if isinstance(population.batches.sampler, CountingSampler):
            population.batches.sampler.counted = self._choosing(counted)

    def _choosing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled whenever steps are."""
        compiled = torch.compile(function, dynamic=False)
        return lambda *arguments: (compiled if self.on else function)(*arguments)

    @property
    def choice(self) -> bool | None:
        """Whether steps are compiled; None: nothing is decided yet."""
        return self.on if self.decided else None

    @choice.setter
    def choice(self, chosen: bool | None) -> None:
        self.on, self.decided = bool(chosen), chosen is not None

    def terms(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: frozenset[str]
    ) -> Terms:
        """The objective's terms at a step that trains these parts, where it depends on nothing else of the step."""
        if not self.on or step < self._settled:
            return view.objective(view.networks, batch, noise, step)[0]
        kind = view.members, active
        if kind not in self._objectives:

            def terms(networks: Any, batch: Transition, noise: dict[str, Tensor]) -> Terms:
                return view.objective(networks, batch, noise, step)[0]

            self._objectives[kind] = torch.compile(terms, dynamic=False)
        return self._objectives[kind](view.networks, batch, noise)

    def run(self, population: Population, run: Run, view: View, first: int, n_steps: int) -> Found:
        """These steps, by `run`. If they are enough, some of them are timed, and what is better goes on."""
        if not self.decided and (why := impossible(population)):
            self.decided = True
            log.info(f"compile: {why}: not compiled")
        if self.on and not self._tried and (error := self._error(population, view, first)):
            self.on = False  # in a run that goes on, on another machine than that on which this was decided
            log.info(f"compile: {error}: not compiled from here on")
        if self.decided or first < self._settled or n_steps <= 4 * TIMED:
            return run(view, first, n_steps)
        population.record()  # what compiled steps have to be faster than
        end = first + n_steps
        summed: Tensor | float = 0.0

        def seconds() -> float:
            """That further steps take."""
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
        if error := self._error(population, view, first):
            self.on, why = False, f"{plain / TIMED * 1e3:.3g} ms, and {error}"
        else:
            warm_up = time.perf_counter() - started + seconds()
            compiled = seconds()
            warm_up, saved = warm_up - compiled, (plain - compiled) / TIMED * len(population.views)
            cost = warm_up * len({each.penalizes for each in population.views})  # members in turn share functions
            self.on = saved * (self.planned - first) > cost
            why = f"{plain / TIMED * 1e3:.3g} ms, compiled {compiled / TIMED * 1e3:.3g}, "
            why += f"and compiling took {warm_up:.1f} s"
            why += f", made good by {cost / saved:,.0f} updates" if saved > 0.0 else ""
        self.decided = True
        chosen = "compiled" if self.on else "not compiled"
        log.info(f"compile: an update takes {why}: {chosen} for {self.planned:,} updates")
        more, metrics = run(view, first, end - first)
        return summed + more, metrics

    def _error(self, population: Population, view: View, first: int) -> str | None:
        """What goes wrong when steps from `first` on are compiled, and on a GPU recorded; all is then as it was."""
        self._tried = True
        networks, others = copy.deepcopy(population.networks.state_dict()), population.state_dict()
        try:
            if population.graphs:  # of chunks, the first of which is made as it is
                population.graphs.run(population, view, first, 3 * CHUNK)
            else:
                for step in range(first, first + 4):
                    batch, noise = next(population.batches.stream(view.rows, 1))
                    population.find(view, batch, noise, step, population.active(step), asked=False)
        except Exception as error:
            return f"compiling failed ({first_line(error)})"
        finally:
            population.networks.load_state_dict(networks)
            population.load_state_dict(others)
            # counted draws went on since the step that the state is of
            population.batches.sampler.load_state_dict(others["sampler"], first)
            self.on = True  # which a state before the choice does not know
        refused = population.recordings is not None and population.recordings.refused
        return "some steps cannot be compiled" if refused else None


def impossible(population: Population) -> str | None:
    """Why nothing can be compiled."""
    if population.device.type == "cpu":
        noisy = "layers that draw noise or have a state of their own are not compiled on a CPU"
        return noisy if population.recordings is None else None
    return "members that are walked in turn are not compiled on a GPU" if len(population.views) > 1 else None
