"""K members of one algorithm, trained together: the whole of training, without RLlib.

Members never mix. How they are executed is chosen here and invisible to the objectives: `in_turn` walks the members
one by one, each for many steps while its parameters are in cache (large activations on a CPU), `stacked` does one
batched product for all of them (a GPU, and small activations on a CPU, where the cost is that of starting operations).
The results are the same up to rounding.
"""

import copy
from collections.abc import Collection, Sequence
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.n_step import Rows
from dr3_ray.data.sampler import counted
from dr3_ray.data.spaces import named_parts
from dr3_ray.diagnostics.implicit import NEGLIGIBLE, GradientLayers
from dr3_ray.errors import UserError
from dr3_ray.networks.members import member_view
from dr3_ray.networks.optim import adam
from dr3_ray.networks.precision import Precision, check_precision, matmul_precision
from dr3_ray.observations import Observations, check_bytes, each_part
from dr3_ray.options import Number
from dr3_ray.training.execution.choice import Execution, Switch, Wrapper, choose_execution, largest_activation
from dr3_ray.training.execution.compiler import USUAL_UPDATES, CompiledTerms, Compiler, hide_from_compiler
from dr3_ray.training.execution.cuda_graphs import CudaGraphs
from dr3_ray.training.execution.recordings import Recordings
from dr3_ray.training.member import Member, build_networks, warn_of_regularizers
from dr3_ray.training.normalization import as_trained, observation_statistics
from dr3_ray.training.probe import diagnostics, implicit_terms
from dr3_ray.training.returns import check_returns
from dr3_ray.training.share import ALONE, Share
from dr3_ray.training.steps import Find, Gradients, RunSteps, Steps, View
from dr3_ray.training.value_range import fit_ranges
from dr3_ray.types import Spaces, Terms, Transition


class Population:
    """Networks of K members with their optimisers, targets, samplers and objectives.

    `networks` is bound in place: its parameters become views of flat storage and are what training changes. `divisor`
    is what rewards are divided by; None: what the members' options make of the data.
    """

    def __init__(
        self,
        spec: AlgorithmSpec,
        networks: nn.Module,
        members: Sequence[Member],
        data: Rows,
        spaces: Spaces,
        execution: Execution = "auto",
        share: Share = ALONE,
        planned: int = USUAL_UPDATES,
        divisor: float | None = None,
    ):
        first = next(networks.parameters())
        self.device, self.dtype, self.data, self.spaces = first.device, first.dtype, data, spaces
        self.spec, self.networks, self.members, self.planned = spec, networks, tuple(members), planned
        options = spec.options.stack([member.options for member in members], self.device, self.dtype)
        noise = spec.noise(options, spaces)
        compiles, on_gpu = members[0].options.compile, self.device.type != "cpu"
        self.precision: Precision = members[0].options.precision
        check_precision(self.precision, self.device)
        if execution == "auto":
            execution = choose_execution(self.device, largest_activation(options, noise, spaces.n_actions), compiles)
        self.execution = execution
        self.switch = Switch() if compiles else None
        chosen: dict[str, Any] = {}
        if self.switch and on_gpu:
            hide_from_compiler()
            chosen = {"update": self.switch.choosing(adam), "draw": self.switch.choosing(counted)}
        in_turn = execution == "in_turn"
        check_returns(spec.columns, members, data)
        self.steps = Steps(spec, networks, members, data, options, noise, in_turn, share, divisor=divisor, **chosen)
        fit_ranges(networks, members, data, self.steps.divisor)
        warn_of_regularizers(networks, members)
        self.step = 0
        self.diverged = torch.zeros(len(members), dtype=torch.bool, device=self.device)
        self.metrics: dict[str, Tensor] = {}
        self.compose()

    def compose(self, without: Sequence[Wrapper] = (), graphs: type[CudaGraphs] | None = None) -> None:
        """Wrap the functions of steps in those that carry them out faster, each where it serves; anew, if called again.

        `without` leaves some out; `graphs` takes the place of CUDA graphs, on any device.
        """
        steps, switch = self.steps, None if "compiler" in without else self.switch
        if self.switch:
            self.switch.on = False  # a compiler that begins has decided nothing
        on_gpu = self.device.type != "cpu"
        terms = CompiledTerms(steps.terms, self.members, switch) if switch and on_gpu else steps.terms
        gradients = partial(steps.gradients, terms)
        self.recordings = self.graphs = self.compiler = None
        if "recordings" not in without and Recordings.serve(self.networks, self.device):
            self.recordings = Recordings(gradients, self.members, switch)
        find: Find = self.recordings or as_it_is(gradients)
        self.run: RunSteps = partial(steps.run, find)
        if graphs or ("graphs" not in without and CudaGraphs.serve(steps.batches, self.members)):
            self.graphs = (graphs or CudaGraphs)(self.run, steps, switch)
            self.run = self.graphs
        if switch:
            self.compiler = Compiler(self.run, find, self, switch)
            self.run = self.compiler

    @classmethod
    def of(
        cls,
        spec: AlgorithmSpec,
        members: Sequence[Member],
        data: Rows,
        spaces: Spaces,
        execution: Execution = "auto",
        to: torch.device | torch.dtype | str = "cpu",
    ) -> Self:
        """Return a population that begins: networks with their first weights, `to` a device or a precision.

        Observations are normalised by their statistics in `data` where the members ask for it.
        """
        statistics = observation_statistics(data) if members[0].options.normalize_observations else None
        networks = build_networks(spec, spaces, members, statistics, getattr(data, "task", None))
        return cls(spec, networks.to(to), members, data, spaces, execution)

    def keep(self, rows: Sequence[int]) -> Self:
        """Return a population of these members alone, which go on as they would have here; this one stays as it is.

        Walked in turn they are equal to the bit, stacked up to rounding.
        """
        networks, members = member_view(self.networks, list(rows)), [self.members[row] for row in rows]
        data, share, how = self.steps.batches.data, self.steps.batches.share, (self.planned, self.steps.divisor)
        kept = type(self)(self.spec, networks, members, data, self.spaces, self.execution, share, *how)
        kept.load_state_dict(state_of(self.state_dict(), rows))
        return kept

    def update(self, n_steps: int) -> dict[str, Tensor]:
        """Train every member for `n_steps` gradient steps; return the metrics of its last step, each [K].

        A member whose loss or parameters become non-finite is marked in `diverged`, keeps its last finite metrics,
        and leaves the others untouched. `dr3_ray.training.process.prepare_training` makes a process faster at it.
        """
        latest: dict[str, list[Tensor]] = {}
        for view in self.steps.views:
            before = {name: values[view.rows] for name, values in self.metrics.items()}
            with matmul_precision(self.precision, self.device):
                after = before if before and bool(self.diverged[view.rows].all()) else self._train(view, n_steps)
            alive = ~self.diverged[view.rows]
            for name, values in after.items():
                latest.setdefault(name, []).append(torch.where(alive, values, before.get(name, values)))
        # a penalty on which no member that was kept has a weight is known of diverged members alone
        self.metrics = {
            name: torch.cat(values) for name, values in latest.items() if len(values) == len(self.steps.views)
        }
        self.step += n_steps
        return self.metrics

    def _train(self, view: View, n_steps: int) -> dict[str, Tensor]:
        view.networks.train()
        summed, metrics = self.run(view, self.step, n_steps)
        view.networks.eval()
        finite = summed.isfinite()
        for part in self.steps.parts.values():
            finite &= part.values[view.rows].isfinite().all(1)
        self.diverged[view.rows] |= ~finite
        return dict(zip(metrics, self.steps.batches.share.mean(list(metrics.values())), strict=True))

    def lose(self, rows: Sequence[int]) -> None:
        """Mark these members as `diverged` from now on, whatever their loss is."""
        self.diverged[list(rows)] = True

    def record(self) -> None:
        """Record steps on a CPU as soon as they come, not after many of them: for timing them."""
        if self.recordings:
            self.recordings.after = 0

    def probe(self) -> dict[str, Tensor]:
        """Measure diagnostics on a fixed probe batch of 2,048 rows, each [K]; none for an algorithm without a critic.

        `dot_product`, `dot_product_abs`, `cosine`, `phi_norm` and `next_phi_norm` over rows with a backup;
        `effective_rank` of φ(s, a); `seem_eigenvalue` and `seem_normalized` of the backup; `dot_product_data` and
        `cosine_data` over rows whose a' the data know, absent where they know none; `q_mean` over the data's actions;
        `td_error`, the base algorithm's temporal-difference loss, the mean over blocks of 256 rows, with convolutions
        of no more than a batch. On a mixture the rows are equally many of each part, and `q_mean_1`, say, is that of
        its first one.
        """
        return diagnostics(self.steps, self.step)

    def implicit_regularizer(
        self, layers: GradientLayers = "last", step_size: Number | None = None, negligible: float = NEGLIGIBLE
    ) -> dict[str, Tensor]:
        """Return the two terms of R_TD on the probe batch, each [K]; none for an algorithm without a critic.

        `first_term`, `second_term` and their difference `r_td`, with the arguments of
        `dr3_ray.diagnostics.implicit.implicit_regularizer`.
        """
        return implicit_terms(self.steps, self.step, layers, step_size, negligible)

    def act(self, observations: Observations) -> Tensor:
        """Return deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A]."""
        check_bytes(observations, self._stored_as_bytes)
        return act(self.spec, self.networks, each_part(lambda part: part.to(self.device), observations))

    @cached_property
    def _stored_as_bytes(self) -> dict[str, bool]:
        first = self.data.gather(torch.zeros(1, dtype=torch.int64), ("observations",))["observations"]
        return {name: part.dtype == torch.uint8 for name, part in named_parts(first).items()}

    def execution_report(self) -> dict[str, Any]:
        """Report how steps are carried out: `execution`, and how many kinds of them are recorded, compiled, or graphs.

        `compiled_now` says whether compiled ones are used; None: nothing is decided yet, or nothing was asked for.
        """
        return {
            "execution": self.execution,
            "recorded": self.recordings.counts[0] if self.recordings else 0,
            "compiled": self.recordings.counts[1] if self.recordings else 0,
            "graphs": self.graphs.count if self.graphs else 0,
            "compiled_now": self.compiler and self.compiler.choice,
        }

    def state_dict(self) -> dict[str, Any]:
        """Copy all state that `networks` does not hold: optimisers, generators, step count, divergence."""
        state = {
            "adam": {name: part.adam.state_dict() for name, part in self.steps.parts.items()},
            "sampler": self.steps.batches.sampler.state_dict(),
            "layers": {name: [item.get_state() for item in row] for name, row in self.steps.layer_noise.items()},
            "step": self.step,
            "diverged": self.diverged,
            "metrics": self.metrics,
            "compiled": self.compiler and self.compiler.choice,
        }
        return copy.deepcopy(state)

    def check_state_dict(self, state: Any) -> None:
        """Check that `load_state_dict` can take a state, before anything is changed.

        Raises:
            UserError: it lacks something, or tensors have other shapes.
        """
        own = self.state_dict()
        for name in ("adam", "sampler", "step", "diverged", "metrics", "layers"):
            if not isinstance(state, dict) or name not in state:
                raise UserError(f"a state of training has no {name}: give what state_dict() returned")
        for name in ("adam", "diverged"):
            if wrong := _unlike(own[name], state[name], name):
                raise UserError(f"a state of training does not fit: {wrong} is missing or of another shape")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; `networks` is loaded on its own."""
        for name, part in self.steps.parts.items():
            part.adam.load_state_dict(state["adam"][name])
        self.steps.batches.sampler.load_state_dict(state["sampler"], state["step"])
        layers = state["layers"] if isinstance(state["layers"], dict) else {}  # older checkpoints: all of one stream
        for name, sources in self.steps.layer_noise.items():
            for source, saved in zip(sources, layers.get(name, ()), strict=False):
                if source.get_state().shape == saved.shape:  # a CPU's generator and a GPU's differ in shape
                    source.set_state(saved)
        self.step = state["step"]
        self.diverged.copy_(state["diverged"])
        self.metrics = {name: values.to(self.device) for name, values in state["metrics"].items()}
        if self.compiler:
            self.compiler.choice = state.get("compiled")


def _unlike(own: Any, given: Any, path: str) -> str | None:
    """Return where a state lacks what `own` has, or has a tensor of another shape; None: nowhere."""
    if isinstance(own, dict):
        parts = own.items() if isinstance(given, dict) else ()
        unlike = (_unlike(part, given.get(name), f"{path}/{name}") for name, part in parts)
        return next(filter(None, unlike), None) if isinstance(given, dict) else path
    same = isinstance(given, Tensor) and given.shape == own.shape if isinstance(own, Tensor) else given is not None
    return None if same else path


def state_of(state: Any, rows: Sequence[int]) -> Any:
    """Return these members' part of the result of `Population.state_dict`."""
    if isinstance(state, dict):
        return {name: state_of(item, rows) for name, item in state.items()}
    if isinstance(state, Tensor):
        return state[list(rows)]
    return [state[row] for row in rows] if isinstance(state, list) else state


@torch.no_grad()
def act(spec: AlgorithmSpec, networks: nn.Module, observations: Observations) -> Tensor:
    """Return deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A].

    Observations are the environment's: the task of a mixture's target is set behind them.
    """
    assert spec.act is not None
    return spec.act(networks, as_trained(networks, observations))


def as_it_is(gradients: Gradients) -> Find:
    """Return the function that finds the gradients of every step anew, and its terms in any case."""

    def find(
        view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str], asked: bool
    ) -> tuple[Terms | None, list[Tensor]]:
        return gradients(view, batch, noise, step, active)

    return find
