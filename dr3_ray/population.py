"""K members of one algorithm, trained together: the whole of training, without RLlib.

Members never mix. How they are executed is chosen here and invisible to the objectives: `in_turn` walks the members
one by one, each for many steps while its parameters are in cache (large activations on a CPU), `stacked` does one
batched product for all of them (a GPU, and small activations on a CPU, where the cost is that of starting operations).
The results are the same up to rounding.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add, itemgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dr3_ray.algorithms.spec import AlgorithmSpec
from dr3_ray.data.n_step import Rows, gather_n_step
from dr3_ray.data.sampler import Sampler, generator
from dr3_ray.diagnostics.features import feature_statistics
from dr3_ray.diagnostics.rank import effective_rank
from dr3_ray.member import Member, objective_of, stack_regularizers, warn_of_unbounded_penalty
from dr3_ray.networks.members import flatten_parameters, member_view
from dr3_ray.networks.optim import StackedAdam
from dr3_ray.networks.pixels import crop_images
from dr3_ray.networks.stochastic import Stochastic
from dr3_ray.networks.targets import polyak_update
from dr3_ray.normalization import normalized
from dr3_ray.observations import Observations, each_part
from dr3_ray.options import Options
from dr3_ray.regularizers.baselines import Baselines
from dr3_ray.regularizers.dr3 import DR3
from dr3_ray.share import ALONE, Share
from dr3_ray.types import Noise, Spaces, Transition

PROBE_ROWS = 2048
PROBE_BLOCK = 256  # rows at a time: 2,048 at once took gigabytes where a row stands for many actions or quantiles
CROPS = {"observations": "crop", "next_observations": "next_crop"}  # the noise that moves the images of a column
GATHERED_ROWS = 512  # at a time: enough to make the cost of a gather small, few enough to stay in cache
SMALL_ACTIVATION = 2**17  # floats; beyond, stacked members were not faster on a CPU with 2 MiB of L2 cache
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
        self.networks = member_view(networks, rows)
        for layer in self.networks.modules():
            if isinstance(layer, Stochastic):
                layer.generators = sources[rows]
        self.parameters = {name: tuple(child.parameters()) for name, child in self.networks.named_children()}
        self.base_objective = spec.objective(options.members(rows))
        self.objective = objective_of(
            spec, options.members(rows), dr3 and dr3.members(rows), baselines and baselines.members(rows)
        )


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
    ):
        self.spec, self.networks, self.members, self.data, self.share = spec, networks, tuple(members), data, share
        first = next(networks.parameters())
        self.device, self.dtype = first.device, first.dtype
        options = spec.options.stack([each.options for each in members], self.device, self.dtype)
        regularizers = stack_regularizers(members, self.device, self.dtype)
        self.parts = {
            name: Part(name, child, getattr(networks, f"target_{name}", None), members)
            for name, child in networks.named_children()
            if not name.startswith("target_")
        }
        self.tau: Tensor | None = getattr(options, "tau", None)
        self.target_period: int = getattr(options, "target_period", 1)
        self.n_step: int = getattr(options, "n_step", 1)

        noise = spec.noise(options, spaces)
        self.random_crop: int = options.random_crop  # type: ignore[attr-defined]
        if self.random_crop:
            noise = noise._replace(uniform=noise.uniform | dict.fromkeys(CROPS.values(), (2,)))
        if execution == "auto":
            execution = choose_execution(self.device, largest_activation(options, noise))
        n = len(members)
        packs = [range(k, k + 1) for k in range(n)] if execution == "in_turn" else [range(n)]
        seeds = [each.seed for each in members]
        self._layer_noise = [generator(seed, "layers", self.device) for seed in seeds]
        self.views = [View(spec, networks, pack, options, *regularizers, self._layer_noise) for pack in packs]
        warn_of_unbounded_penalty(networks, members)

        self.sampler = Sampler(len(data), options.batch_size, noise, seeds, self.dtype)  # type: ignore[attr-defined]
        # one probe batch for every member of every run on these data
        self._probe = Sampler(len(data), PROBE_ROWS, noise, [0], self.dtype, stream="probe").draw(slice(0, 1))
        self.step = 0
        self.diverged = torch.zeros(n, dtype=torch.bool, device=self.device)
        self.metrics: dict[str, Tensor] = {}

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
            after = before if before and bool(self.diverged[view.rows].all()) else self._train(view, n_steps)
            alive = ~self.diverged[view.rows]
            for name, values in after.items():
                latest.setdefault(name, []).append(torch.where(alive, values, before.get(name, values)))
        self.metrics = {name: torch.cat(values) for name, values in latest.items()}
        self.step += n_steps
        return self.metrics

    def _train(self, view: View, n_steps: int) -> dict[str, Tensor]:
        view.networks.train()
        summed = torch.zeros(len(view.members), dtype=self.dtype, device=self.device)  # non-finite once a loss is
        for step, (batch, noise) in enumerate(self._batches(view, n_steps), self.step):
            terms, _ = view.objective(view.networks, batch, noise, step)
            total = reduce(add, terms.losses.values())  # [K]
            active = self._active(step)
            trained = [parameter for name in active for parameter in view.parameters[name]]
            found = torch.autograd.grad(total, trained, torch.ones_like(total), materialize_grads=True)
            loss, *means = self.share.mean([total.detach(), *found])
            gradients = iter(means)
            for name, part in active.items():
                part.adam.step(view.members, [next(gradients) for _ in view.parameters[name]])
                if part.target_values is not None and self.tau is not None and (step + 1) % self.target_period == 0:
                    polyak_update(part.target_values[view.rows], part.values[view.rows], self.tau[view.rows])
            summed += loss
        view.networks.eval()
        finite = summed.isfinite()
        for part in self.parts.values():
            finite &= part.values[view.rows].isfinite().all(1)
        self.diverged[view.rows] |= ~finite
        metrics = {f"loss_{name}": loss.detach() for name, loss in terms.losses.items()} | terms.metrics
        return dict(zip(metrics, self.share.mean(list(metrics.values())), strict=True))

    def _active(self, step: int) -> dict[str, Part]:
        """The parts that this step trains."""
        if self.spec.active is None:
            return self.parts
        names = self.spec.active(self.members[0].options, step)
        # what belongs to DR3 is trained when the critic is
        owners = {name: "critic" if name.startswith("dr3_") else name for name in self.parts}
        return {name: part for name, part in self.parts.items() if owners[name] in names}

    def _batches(self, view: View, n_steps: int) -> Iterator[tuple[Transition, dict[str, Tensor]]]:
        """The batches and noise of the next steps; rows are gathered for several steps at once."""
        at_once = max(1, GATHERED_ROWS // (len(view.members) * self.sampler.batch_size))
        for start in range(0, n_steps, at_once):
            draws = [self._draw(view) for _ in range(min(at_once, n_steps - start))]
            crops = [torch.stack([noise[name] for _, noise in draws]) for name in CROPS.values() if self.random_crop]
            rows = self._batch(torch.stack([indices for indices, _ in draws]), *crops)
            columns = {name: column for name, column in rows._asdict().items() if column is not None}
            for i, (_, noise) in enumerate(draws):
                batch = Transition(**{name: each_part(itemgetter(i), column) for name, column in columns.items()})
                yield batch, {name: values.to(self.device) for name, values in noise.items()}

    def _draw(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices and noise of this learner's share of the next batch, which all learners draw alike."""
        indices, noise = self.sampler.draw(view.rows)
        rows, per_step = self.share.rows(indices.shape[1]), self.sampler.noise.uniform_per_step
        return indices[:, rows], {name: v if name in per_step else v[:, rows] for name, v in noise.items()}

    def _batch(self, indices: Tensor, *crops: Tensor) -> Transition:
        """The columns of rows [*lead, B], as the networks take them; `crops` [*lead, B, 2] move the images."""
        if self.n_step > 1:
            columns = gather_n_step(self.data, indices, self.spec.columns, self.n_step)
        else:
            columns = self.data.gather(indices, self.spec.columns)
        found = {name: each_part(self._as_parameters, column) for name, column in columns.items()}
        for name, uniform in zip([name for name in CROPS if name in found], crops, strict=False):
            found[name] = crop_images(found[name], uniform.to(self.device), self.random_crop)
        for name in found.keys() & CROPS.keys():
            found[name] = normalized(self.networks, found[name])
        return Transition(**found)

    def _as_parameters(self, column: Tensor) -> Tensor:
        """On the networks' device, and floats in their precision."""
        return column.to(self.device, self.dtype if column.is_floating_point() else column.dtype)

    @torch.no_grad()
    def probe(self) -> dict[str, Tensor]:
        """Diagnostics on a fixed probe batch of 2,048 rows, each [K]; none for an algorithm without a critic.

        `dot_product`, `dot_product_abs`, `cosine`, `phi_norm` over rows with a backup; `effective_rank` of φ(s, a);
        `q_mean` over the data's actions; `td_error`, the base algorithm's temporal-difference loss, the
        mean over blocks of 256 rows.
        """
        if not self.spec.has_critic:
            return {}
        batch = self._batch(self._probe[0])
        noise = {name: values.to(self.device) for name, values in self._probe[1].items()}
        found: dict[str, list[Tensor]] = {}
        for view in self.views:
            blocks = [
                self._probe_rows(view, batch, noise, slice(start, start + PROBE_BLOCK))
                for start in range(0, PROBE_ROWS, PROBE_BLOCK)
            ]
            phis, next_phis, in_backups, q_means, td_errors = zip(*blocks, strict=True)
            phi = torch.cat(phis, dim=2)
            measured = feature_statistics(phi, torch.cat(next_phis, dim=2), torch.cat(in_backups, dim=1)) | {
                "effective_rank": effective_rank(phi).mean(-1),
                "q_mean": torch.stack(q_means).mean(0),
                "td_error": torch.stack(td_errors).mean(0),
            }
            for name, values in measured.items():
                found.setdefault(name, []).append(values)
        return {name: torch.cat(values) for name, values in found.items()}

    def _probe_rows(self, view: View, batch: Transition, noise: dict[str, Tensor], rows: slice) -> tuple[Tensor, ...]:
        """φ(s, a), φ(s', a'), in_backup, mean Q and temporal-difference loss of some rows of the probe batch."""
        k = len(view.members)
        columns = {
            name: each_part(lambda part: part[:, rows].expand(k, *part[:, rows].shape[1:]), column)
            for name, column in batch._asdict().items()
            if column is not None
        }
        per_step = self.sampler.noise.uniform_per_step
        draws = {name: values if name in per_step else values[:, rows] for name, values in noise.items()}
        draws = {name: values.expand(k, *values.shape[1:]) for name, values in draws.items()}
        some = Transition(**columns)
        terms, backup = view.base_objective(view.networks, some, draws, self.step)
        assert backup is not None
        next_phi = view.networks.critic.features(some.next_observations, backup.next_actions)  # type: ignore
        return backup.phi, next_phi, backup.in_backup, terms.metrics["q_data"], terms.losses["critic"]

    def act(self, observations: Observations) -> Tensor:
        """Deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A]."""
        return act(self.spec, self.networks, observations)

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that `networks` does not hold: optimisers, generators, step count, divergence."""
        state = {
            "adam": {name: part.adam.state_dict() for name, part in self.parts.items()},
            "sampler": self.sampler.state_dict(),
            "layers": [each.get_state() for each in self._layer_noise],
            "step": self.step,
            "diverged": self.diverged,
            "metrics": self.metrics,
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken; `networks` is loaded on its own."""
        for name, part in self.parts.items():
            part.adam.load_state_dict(state["adam"][name])
        self.sampler.load_state_dict(state["sampler"])
        for source, saved in zip(self._layer_noise, state["layers"], strict=True):
            source.set_state(saved)
        self.step = state["step"]
        self.diverged.copy_(state["diverged"])
        self.metrics = {name: values.to(self.device) for name, values in state["metrics"].items()}


def largest_activation(options: Any, noise: Noise) -> int:
    """Floats in one member's widest layer: rows of the batch, once and for every action sampled at each, by width."""
    samples = sum(shape[0] for shape in (noise.normal | noise.uniform).values() if len(shape) == 2)
    return int(options.batch_size * (1 + samples) * max(options.hidden_sizes, default=1))


def choose_execution(device: torch.device, activation: int) -> Execution:
    """`stacked` on a GPU and where activations are small, else `in_turn`: see benchmarks/pack.py."""
    return "stacked" if device.type != "cpu" or activation <= SMALL_ACTIVATION else "in_turn"


@torch.no_grad()
def act(spec: AlgorithmSpec, networks: nn.Module, observations: Observations) -> Tensor:
    """Deterministic actions of all members at observations [K, N, *observation]: [K, N] or [K, N, A]."""
    assert spec.act is not None
    return spec.act(networks, normalized(networks, observations))
