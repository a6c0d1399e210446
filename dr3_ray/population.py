"""K members of one algorithm, trained together: the whole of training, without RLlib.

Members never mix. How they are executed is chosen here and invisible to the objectives: `in_turn` walks the members
one by one, each for many steps while its parameters are in cache (large activations on a CPU), `stacked` does one
batched product for all of them (a GPU, and small activations on a CPU, where the cost is that of starting operations).
The results are the same up to rounding.
"""

import copy
import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from functools import partial, reduce
from operator import add
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.allocator import keep_freed_memory
from dr3_ray.batches import Batches
from dr3_ray.compiled import USUAL, Compiler
from dr3_ray.data.n_step import Rows
from dr3_ray.data.sampler import generator
from dr3_ray.diagnostics.implicit import NEGLIGIBLE, Layers
from dr3_ray.graphs import Graphs
from dr3_ray.member import (
    Member,
    build_networks,
    objective_of,
    stack_regularizers,
    warn_of_unbounded_penalty,
)
from dr3_ray.networks.architecture import FLAT
from dr3_ray.networks.members import flatten_parameters, member_view
from dr3_ray.networks.optim import StackedAdam
from dr3_ray.networks.products import ONEDNN_IS_FASTER
from dr3_ray.networks.stochastic import Stochastic
from dr3_ray.networks.targets import polyak_update
from dr3_ray.normalization import normalized, observation_statistics
from dr3_ray.observations import Observations, each_part
from dr3_ray.options import Number, Options
from dr3_ray.precision import Precision, check_precision, matmul_precision
from dr3_ray.probe import diagnostics, implicit_terms
from dr3_ray.ranges import named_range
from dr3_ray.recorded import Recordings
from dr3_ray.regularizers.baselines import Baselines
from dr3_ray.regularizers.dr3 import DR3
from dr3_ray.share import ALONE, Share
from dr3_ray.types import Noise, Spaces, Terms, Transition

SMALL_ACTIVATION = 2**17  # floats; beyond, batched products were not faster on a CPU with 2 MiB of L2 cache
SMALL_COMPILED = 2**13  # floats; from there on, compiled steps of one member after the other were faster
Execution = Literal["auto", "in_turn", "stacked"]


class Part:
    """One trained child of the networks on flat storage, with its optimiser, and its target if it has one."""

    def __init__(self, name: str, module: nn.Module, target: nn.Module | None, members: Sequence[Member]):
        self.values = flatten_parameters(module)
        self.target_values = None if target is None else flatten_parameters(target)
        lrs = [member.step_size(name) for member in members]
        shapes = [parameter.shape for parameter in module.parameters()]
        epsilons = [member.options.adam_eps for member in members]
        self.adam = StackedAdam(self.values, shapes, lrs, epsilons, [member.weight_decay(name) for member in members])


class View:
    """Some of the members, as the objective sees them."""

    def __init__(
        self,
        spec: AlgorithmSpec,
        networks: nn.Module,
        members: range,
        options: Options,
        dr3: DR3 | None,
        baselines: Baselines | None,
        sources: Sequence[torch.Generator],
    ):
        rows = slice(members.start, members.stop)
        self.members, self.rows = members, rows
        dr3 = dr3 and dr3.members(rows)
        self.penalizes = dr3 is not None and dr3.penalizes
        self.networks = member_view(networks, rows)
        for layer in self.networks.modules():
            if isinstance(layer, Stochastic):
                layer.generators = sources[rows]
        for module in self.networks.modules():
            if hasattr(module, "looks_ahead"):
                module.looks_ahead = self.penalizes  # type: ignore[assignment]
        self.parameters = {name: tuple(child.parameters()) for name, child in self.networks.named_children()}
        self.base_objective = spec.objective(options.members(rows))
        self.objective = objective_of(spec, options.members(rows), dr3, baselines and baselines.members(rows))


class Population:
    """Networks of K members with their optimisers, targets, samplers and objectives.

    `networks` is bound in place: its parameters become views of flat storage and are what training changes.
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
        planned: int = USUAL,
    ):
        keep_freed_memory()
        self.spec, self.networks, self.members = spec, networks, tuple(members)
        first = next(networks.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.data, self.spaces = data, spaces
        options = spec.options.stack([each.options for each in members], self.device, self.dtype)
        regularizers = stack_regularizers(members, self.device, self.dtype)
        self.parts = {
            name: Part(name, child, getattr(networks, f"target_{name}", None), members)
            for name, child in networks.named_children()
            if not name.startswith("target_")
        }
        self.tau: Tensor | None = getattr(options, "tau", None)
        self.target_period: int = getattr(options, "target_period", 1)
        self.gamma: Tensor | None = getattr(options, "gamma", None)
        self.precision: Precision = members[0].options.precision
        check_precision(self.precision, self.device)

        noise = spec.noise(options, spaces)
        if execution == "auto":
            execution = choose_execution(self.device, largest_activation(options, noise), members[0].options.compile)
        self.execution, n = execution, len(members)
        packs = [range(k, k + 1) for k in range(n)] if execution == "in_turn" else [range(n)]
        seeds = [each.seed for each in members]
        self.batches = Batches(data, spec.columns, options, noise, seeds, networks, share)
        self.layer_noise = [generator(seed, "layers", self.device) for seed in seeds]
        self.views = [View(spec, networks, pack, options, *regularizers, self.layer_noise) for pack in packs]
        warn_of_unbounded_penalty(networks, members)

        self.planned = planned
        self.graphs = Graphs(members) if Graphs.serve(self.batches, members) else None
        self.recordings = Recordings(self.members) if Recordings.serve(networks, self.device) else None
        self.compiler = Compiler(self, planned) if members[0].options.compile else None
        self.step = 0
        self.diverged = torch.zeros(n, dtype=torch.bool, device=self.device)
        self.metrics: dict[str, Tensor] = {}

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
        """A population that begins: networks with their first weights, `to` a device or a precision.

        Observations are normalised by their statistics in `data` where the members ask for it.
        """
        statistics = observation_statistics(data) if members[0].options.normalize_observations else None
        return cls(spec, build_networks(spec, spaces, members, statistics).to(to), members, data, spaces, execution)

    def keep(self, rows: Sequence[int]) -> Self:
        """A population of these members alone, which goes on as they would have gone on here; this one stays as it is.

        Walked in turn they are equal to the bit, stacked up to rounding.
        """
        networks, members = member_view(self.networks, list(rows)), [self.members[row] for row in rows]
        data, share = self.batches.data, self.batches.share
        kept = type(self)(self.spec, networks, members, data, self.spaces, self.execution, share, self.planned)
        kept.load_state_dict(state_of(self.state_dict(), rows))
        return kept

    def update(self, n_steps: int) -> dict[str, Tensor]:
        """Train every member for `n_steps` gradient steps; return the metrics of its last step, each [K].

        A member whose loss or parameters become non-finite is marked in `diverged`, keeps its last finite metrics,
        and leaves the others untouched. The calling thread flushes denormal numbers to zero from then on.
        """
        # the moments of dead units decay into denormal numbers, on which a CPU's Adam takes twice as long
        torch.set_flush_denormal(True)
        latest: dict[str, list[Tensor]] = {}
        for view in self.views:
            before = {name: values[view.rows] for name, values in self.metrics.items()}
            with matmul_precision(self.precision, self.device):
                after = before if before and bool(self.diverged[view.rows].all()) else self._train(view, n_steps)
            alive = ~self.diverged[view.rows]
            for name, values in after.items():
                latest.setdefault(name, []).append(torch.where(alive, values, before.get(name, values)))
        # a penalty on which no member that was kept has a weight is known of diverged members alone
        self.metrics = {name: torch.cat(values) for name, values in latest.items() if len(values) == len(self.views)}
        self.step += n_steps
        return self.metrics

    def _train(self, view: View, n_steps: int) -> dict[str, Tensor]:
        view.networks.train()
        run = partial(self.graphs.run, self) if self.graphs else self.steps
        if self.compiler:
            run = partial(self.compiler.run, self, run)
        with self.graphs.one_stream() if self.graphs and self.compiler else nullcontext():
            summed, metrics = run(view, self.step, n_steps)
        view.networks.eval()
        finite = summed.isfinite()
        for part in self.parts.values():
            finite &= part.values[view.rows].isfinite().all(1)
        self.diverged[view.rows] |= ~finite
        return dict(zip(metrics, self.batches.share.mean(list(metrics.values())), strict=True))

    def steps(self, view: View, first: int, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """`n` gradient steps, the first of which is step `first`: the sum of losses, and the metrics of the last.

        Each is [K]. The sum is not finite once a loss is not. Nothing here waits for a GPU.
        """
        summed = torch.zeros(len(view.members), dtype=self.dtype, device=self.device)
        for step, (batch, noise) in enumerate(self.batches.stream(view.rows, n), first):
            active = self.active(step)
            terms, found = self.find(view, batch, noise, step, active, asked=step == first + n - 1)
            loss, *means = self.batches.share.mean(found)
            gradients = iter(means)
            with named_range("parameters"):
                for name, part in active.items():
                    part.adam.step(view.members, [next(gradients) for _ in view.parameters[name]])
                    if part.target_values is not None and self.tau is not None and self.moves_targets(step):
                        polyak_update(part.target_values[view.rows], part.values[view.rows], self.tau[view.rows])
            summed += loss
        assert terms is not None
        metrics = {f"loss_{name}": loss.detach() for name, loss in terms.losses.items()} | terms.metrics
        return summed, metrics

    def find(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str], asked: bool
    ) -> tuple[Terms | None, list[Tensor]]:
        """What `gradients` returns, in the fastest way; the terms at least where they are `asked` for."""
        if not self.recordings:
            return self.gradients(view, batch, noise, step, active)
        return self.recordings.gradients(self, view, batch, noise, step, active, asked, self.compiles)

    def gradients(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str]
    ) -> tuple[Terms, list[Tensor]]:
        """The objective's terms, and the sum of its losses [K] with its gradient in each parameter of these parts.

        Losses of the other parts, which train nothing here, are not in the sum.
        """
        with named_range("objective"):
            if self.compiler and self.device.type != "cpu":
                terms = self.compiler.terms(view, batch, noise, step, frozenset(active))
            else:
                terms, _ = view.objective(view.networks, batch, noise, step)
            idle = self.parts.keys() - set(active)
            total = reduce(add, [loss for name, loss in terms.losses.items() if name not in idle])  # [K]
        trained = [parameter for name in active for parameter in view.parameters[name]]
        with named_range("gradients"):
            # of the sum: torch imports sympy, in half a second, to compare the shapes of gradients that it is given
            return terms, [total.detach(), *torch.autograd.grad(total.sum(), trained, materialize_grads=True)]

    def moves_targets(self, step: int) -> bool:
        """Whether the targets follow after this step."""
        return (step + 1) % self.target_period == 0

    def active(self, step: int) -> dict[str, Part]:
        """The parts that this step trains."""
        if self.spec.active is None:
            return self.parts
        names = self.spec.active(self.members[0].options, step)
        # what belongs to DR3 is trained when the critic is
        owners = {name: "critic" if name.startswith("dr3_") else name for name in self.parts}
        return {name: part for name, part in self.parts.items() if owners[name] in names}

    @property
    def compiles(self) -> bool:
        """Whether steps are compiled now."""
        return self.compiler is not None and self.compiler.on

    def record(self) -> None:
        """Steps on a CPU are recorded as soon as they come, not after many of them: for what times them."""
        if self.recordings:
            self.recordings.after = 0

    def probe(self) -> dict[str, Tensor]:
        """Diagnostics on a fixed probe batch of 2,048 rows, each [K]; none for an algorithm without a critic.

        `dot_product`, `dot_product_abs`, `cosine`, `phi_norm` over rows with a backup; `effective_rank` of φ(s, a);
        `q_mean` over the data's actions; `td_error`, the base algorithm's temporal-difference loss, the
        mean over blocks of 256 rows, with convolutions of no more than a batch.
        """
        return diagnostics(self)

    def implicit_regularizer(
        self, layers: Layers = "last", step_size: Number | None = None, negligible: float = NEGLIGIBLE
    ) -> dict[str, Tensor]:
        """The two terms of R_TD on the probe batch, each [K]; none for an algorithm without a critic.

        `first_term`, `second_term` and their difference `r_td`, with the arguments of
        `dr3_ray.diagnostics.implicit.implicit_regularizer`.
        """
        return implicit_terms(self, layers, step_size, negligible)

    def act(self, observations: Observations) -> Tensor:
        """Deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A]."""
        return act(self.spec, self.networks, each_part(lambda part: part.to(self.device), observations))

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that `networks` does not hold: optimisers, generators, step count, divergence."""
        state = {
            "adam": {name: part.adam.state_dict() for name, part in self.parts.items()},
            "sampler": self.batches.sampler.state_dict(),
            "layers": [each.get_state() for each in self.layer_noise],
            "step": self.step,
            "diverged": self.diverged,
            "metrics": self.metrics,
            "compiled": self.compiler and self.compiler.choice,
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; `networks` is loaded on its own."""
        for name, part in self.parts.items():
            part.adam.load_state_dict(state["adam"][name])
        self.batches.sampler.load_state_dict(state["sampler"], state["step"])
        for source, saved in zip(self.layer_noise, state["layers"], strict=True):
            if source.get_state().shape == saved.shape:  # that of a CPU's generator is not for a GPU's
                source.set_state(saved)
        self.step = state["step"]
        self.diverged.copy_(state["diverged"])
        self.metrics = {name: values.to(self.device) for name, values in state["metrics"].items()}
        if self.compiler:
            self.compiler.choice = state.get("compiled")


def state_of(state: Any, rows: Sequence[int]) -> Any:
    """These members' part of what `Population.state_dict` returned."""
    if isinstance(state, dict):
        return {name: state_of(each, rows) for name, each in state.items()}
    if isinstance(state, Tensor):
        return state[list(rows)]
    return [state[row] for row in rows] if isinstance(state, list) else state


def largest_activation(options: Any, noise: Noise) -> float:
    """Floats in one member's widest layer: rows of the batch, once and for every action sampled at each, by width.

    Without bound where there are convolutions, which were no faster stacked either.
    """
    if options.encoder != FLAT:
        return math.inf
    samples = sum(shape[0] for shape in (noise.normal | noise.uniform).values() if len(shape) == 2)
    return float(options.batch_size * (1 + samples) * max(options.hidden_sizes, default=1))


def choose_execution(device: torch.device, activation: float, compiled: bool = False) -> Execution:
    """`stacked` on a GPU, where activations are small, and where oneDNN multiplies large ones network by network.

    Else `in_turn`: see benchmarks/pack.py. What is compiled costs little to start, and is compiled once for all members
    that are walked in turn.
    """
    if device.type != "cpu":
        return "stacked"
    if not ONEDNN_IS_FASTER:
        return "stacked" if activation <= SMALL_ACTIVATION else "in_turn"
    return "stacked" if activation < (SMALL_COMPILED if compiled else math.inf) else "in_turn"


@torch.no_grad()
def act(spec: AlgorithmSpec, networks: nn.Module, observations: Observations) -> Tensor:
    """Deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A]."""
    assert spec.act is not None
    return spec.act(networks, normalized(networks, observations))
