"""Gradient steps of K members, as their objectives write them down.

What carries them out (`dr3_ray.training.execution`) wraps these functions and is not known here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.n_step import Rows
from dr3_ray.data.sampler import counted, generator
from dr3_ray.networks.critics import LooksAhead
from dr3_ray.networks.members import flatten_parameters, member_view
from dr3_ray.networks.optim import StackedAdam, adam
from dr3_ray.networks.stochastic import Stochastic
from dr3_ray.networks.targets import polyak_update
from dr3_ray.options import Options
from dr3_ray.regularizers.registry import REGULARIZERS
from dr3_ray.training.batches import Batches, check_shares
from dr3_ray.training.member import Member, Stacked, objective_of, stack_regularizers
from dr3_ray.training.profiling import named_range
from dr3_ray.training.returns import Returns
from dr3_ray.training.rewards import return_range, with_rewards
from dr3_ray.training.share import ALONE, Share
from dr3_ray.types import Noise, Terms, Transition

Found = tuple[Tensor, dict[str, Tensor]]
"""Of some steps: the sum of losses [K], and the metrics of the last, each [K]."""
TermsOf = Callable[["View", Transition, dict[str, Tensor], int, Collection[str]], Terms]
Gradients = Callable[["View", Transition, dict[str, Tensor], int, Collection[str]], tuple[Terms, list[Tensor]]]
"""Of view, batch, noise, step and the parts that are trained: terms, and the sum of losses with its gradients."""
Find = Callable[["View", Transition, dict[str, Tensor], int, Collection[str], bool], tuple[Terms | None, list[Tensor]]]
"""The same; the last argument says whether the terms are asked for, which may else be None."""
RunSteps = Callable[["View", int, int], Found]
"""Of view, first step and how many: makes the steps."""


LayerNoise = Mapping[str, Sequence[torch.Generator]]
"""Generators [K] of layers that draw noise, by the kind of layer: `dropout`, and at (s', a') `next_dropout`."""


class Part:
    """One trained child of the networks on flat storage, with its optimiser, and its target if it has one."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        target: nn.Module | None,
        members: Sequence[Member],
        update: Callable[..., None],
    ):
        self.values = flatten_parameters(module)
        self.target_values = None if target is None else flatten_parameters(target)
        lrs = [member.step_size(name) for member in members]
        shapes = [parameter.shape for parameter in module.parameters()]
        epsilons = [member.options.adam_eps for member in members]
        decays = [member.weight_decay(name) for member in members]
        self.adam = StackedAdam(self.values, shapes, lrs, epsilons, decays, update)


class View:
    """Some of the members, as the objective sees them."""

    def __init__(
        self,
        spec: AlgorithmSpec,
        networks: nn.Module,
        members: range,
        options: Options,
        regularizers: Stacked,
        layer_noise: LayerNoise,
        divisor: float,
    ):
        rows = slice(members.start, members.stop)
        self.members, self.rows = members, rows
        regularizers = {name: regularizer.members(rows) for name, regularizer in regularizers.items()}
        self.looks_ahead = any(
            REGULARIZERS[name].looks_ahead(regularizer) for name, regularizer in regularizers.items()
        )
        self.networks = member_view(networks, rows)
        for module in self.networks.modules():
            if isinstance(module, Stochastic):
                module.generators, module.next_generators = (
                    tensor[rows] for tensor in (layer_noise[module.stream], layer_noise[f"next_{module.stream}"])
                )
            if isinstance(module, LooksAhead):
                module.looks_ahead = self.looks_ahead
        self.parameters = {name: tuple(child.parameters()) for name, child in self.networks.named_children()}
        own = options.members(rows)
        self.base_objective = with_rewards(spec.objective(own), own, divisor)
        self.objective = objective_of(self.base_objective, regularizers)


class Steps:
    """K members with their parts, batches and objectives, and the functions that a gradient step consists of.

    `networks` is bound in place: its parameters become views of flat storage. `options` and `noise` are those of the
    members, stacked. `update` is the equation of Adam and `draw` that of counted random numbers, where a GPU uses them.
    `divisor` is what rewards are divided by; None: what the options make of the data.
    """

    def __init__(
        self,
        spec: AlgorithmSpec,
        networks: nn.Module,
        members: Sequence[Member],
        data: Rows,
        options: Any,
        noise: Noise,
        in_turn: bool,
        share: Share = ALONE,
        update: Callable[..., None] = adam,
        draw: Callable[..., Any] = counted,
        divisor: float | None = None,
    ):
        self.spec, self.networks, self.members = spec, networks, tuple(members)
        first = next(networks.parameters())
        self.device, self.dtype = first.device, first.dtype
        stacked = stack_regularizers(members, self.device, self.dtype)
        regularizers = {
            name: regularizer for name, regularizer in stacked.items() if REGULARIZERS[name].wanted(regularizer)
        }
        self.parts = {
            name: Part(name, child, getattr(networks, f"target_{name}", None), members, update)
            for name, child in networks.named_children()
            if not name.startswith("target_")
        }
        self.tau: Tensor | None = getattr(options, "tau", None)
        self.target_period: int = getattr(options, "target_period", 1)
        self.gamma: Tensor | None = getattr(options, "gamma", None)
        n, seeds = len(members), [member.seed for member in members]
        packs = [range(k, k + 1) for k in range(n)] if in_turn else [range(n)]
        counts = check_shares(data, members)
        returns = Returns.of(spec.columns, members, data)
        self.batches = Batches(data, spec.columns, options, noise, seeds, networks, share, draw, counts, returns)
        kinds = sorted({layer.stream for layer in networks.modules() if isinstance(layer, Stochastic)})
        self.layer_noise: LayerNoise = {
            stream: [generator(seed, stream, self.device) for seed in seeds]
            for kind in kinds
            for stream in (kind, f"next_{kind}")
        }
        divisor = self.divisor = return_range(options, data) if divisor is None else divisor
        self.views = [View(spec, networks, pack, options, regularizers, self.layer_noise, divisor) for pack in packs]

    def run(self, find: Find, view: View, first: int, n: int) -> Found:
        """Make `n` gradient steps, from step `first` on, with the gradients that `find` finds.

        Returns the sum of losses, and the metrics of the last step, each [K]. The sum is not finite once a loss is not.
        Nothing here waits for a GPU.
        """
        summed = torch.zeros(len(view.members), dtype=self.dtype, device=self.device)
        for step, (batch, noise) in enumerate(self.batches.stream(view.rows, n, first), first):
            active = self.active(step)
            terms, outputs = find(view, batch, noise, step, active, step == first + n - 1)
            loss, *means = self.batches.share.mean(outputs)
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

    def terms(
        self, view: View, batch: Transition, noise: dict[str, Tensor], step: int, active: Collection[str]
    ) -> Terms:
        """Return the objective's terms at a step that trains these parts."""
        return view.objective(view.networks, batch, noise, step)[0]

    def gradients(
        self,
        terms_of: TermsOf,
        view: View,
        batch: Transition,
        noise: dict[str, Tensor],
        step: int,
        active: Collection[str],
    ) -> tuple[Terms, list[Tensor]]:
        """Return terms, and the sum of their losses [K] with its gradient in each parameter of these parts.

        Losses of the other parts, which train nothing here, are not in the sum.
        """
        with named_range("objective"):
            terms = terms_of(view, batch, noise, step, active)
            idle = self.parts.keys() - set(active)
            total = reduce(add, [loss for name, loss in terms.losses.items() if name not in idle])  # [K]
        trained = [parameter for name in active for parameter in view.parameters[name]]
        with named_range("gradients"):
            # of the sum: torch imports sympy, in half a second, to compare the shapes of gradients that it is given
            return terms, [total.detach(), *torch.autograd.grad(total.sum(), trained, materialize_grads=True)]

    def moves_targets(self, step: int) -> bool:
        """Return whether the targets follow after this step."""
        return (step + 1) % self.target_period == 0

    def active(self, step: int) -> dict[str, Part]:
        """Return the parts that this step trains."""
        if self.spec.active is None:
            return self.parts
        member = self.members[0]
        names = self.spec.active(member.options, step)
        leaders = {name: "critic" if member.follows_critic(name) else name for name in self.parts}
        return {name: part for name, part in self.parts.items() if leaders[name] in names}
