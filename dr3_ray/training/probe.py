"""What is measured of a population on its probe batch, whose rows are the same for every run on the same data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dr3_ray.diagnostics.features import recorded_statistics
from dr3_ray.diagnostics.implicit import GradientLayers, implicit_regularizer
from dr3_ray.diagnostics.registry import DIAGNOSTICS, OF_BACKUPS
from dr3_ray.networks.architecture import FLAT
from dr3_ray.networks.critics import next_features
from dr3_ray.observations import each_part
from dr3_ray.options import Number, per_row
from dr3_ray.training.steps import Steps, View
from dr3_ray.types import Backup, Terms, Transition

BLOCK = 256  # rows at a time: 2,048 at once took gigabytes where a row stands for many actions or quantiles


class Block(NamedTuple):
    """Some rows, and the base algorithm's results on them."""

    batch: Transition
    terms: Terms
    backup: Backup


def diagnostics(steps: Steps, step: int) -> dict[str, Tensor]:
    """Return each diagnostic [K]: see `Population.probe`."""

    def measured(view: View, batch: Transition, blocks: list[Block]) -> dict[str, Tensor]:
        """Measure all blocks of the probe as one batch, and average what a block has averaged."""
        assert batch.terminateds is not None
        next_phis = [next_features(view.networks.critic, block.batch, block.backup) for block in blocks]
        phi, next_phi = torch.cat([block.backup.phi for block in blocks], dim=2), torch.cat(next_phis, dim=2)
        in_backup = torch.cat([block.backup.in_backup for block in blocks], dim=1)
        share = in_backup.new_tensor([block.backup.in_backup.shape[1] for block in blocks]) / in_backup.shape[1]
        numbers: dict[str, Tensor] = {}
        for diagnostic in DIAGNOSTICS:
            numbers |= diagnostic(phi, next_phi, in_backup)
        gamma = per_row(steps.batches.discount if steps.gamma is None else steps.gamma[view.rows])
        discounts = (gamma if batch.n_steps is None else gamma**batch.n_steps) * in_backup
        for of_backup in OF_BACKUPS:
            numbers |= of_backup(phi, next_phi, in_backup, torch.maximum(in_backup, batch.terminateds), discounts)
        known = known_pairs(batch)
        if known is not None:
            recorded = [recorded_features(view, *block) for block in zip(blocks, next_phis, strict=True)]
            numbers |= recorded_statistics(phi, torch.cat(recorded, dim=2), known)
        q_mean = share @ torch.stack([block.terms.metrics["q_data"] for block in blocks])
        return numbers | errors_of(blocks, share) | {"q_mean": q_mean}

    return over_views(steps, step, measured, by_part=True)


def errors_of(blocks: list[Block], share: Tensor) -> dict[str, Tensor]:
    """Return `td_error` [K], the loss that the base algorithm makes small, from blocks that are so large a share each.

    Of a categorical critic it is that of a scalar one, beside which a cross-entropy says nothing; and `clipped_targets`
    is the share of its targets beyond v_min and v_max.
    """
    metrics = [block.terms.metrics for block in blocks]
    if "value_error" not in metrics[0]:
        return {"td_error": share @ torch.stack([block.terms.losses["critic"] for block in blocks])}
    named = {"td_error": "value_error", "clipped_targets": "clipped_targets"}
    return {name: share @ torch.stack([name[own] for name in metrics]) for name, own in named.items()}


def known_pairs(batch: Transition) -> Tensor | None:
    """Return 1 where the data tell what was done at s' [K, B]; None where they never do."""
    if batch.next_actions is None or batch.next_actions_valid is None or batch.terminateds is None:
        return None
    known = batch.next_actions_valid * (1.0 - batch.terminateds)
    return known if bool(known.any()) else None


def recorded_features(view: View, block: Block, next_phi: Tensor) -> Tensor:
    """Return φ(s', a') of the data's a': `next_phi`, that of the backup, where this is the same."""
    critic: Any = view.networks.critic
    batch = block.batch
    if not critic.reads_actions or block.backup.next_actions is batch.next_actions:
        return next_phi
    features: Tensor = critic.features(batch.next_observations, batch.next_actions)
    return features


def implicit_terms(
    steps: Steps, step: int, layers: GradientLayers, step_size: Number | None, negligible: float
) -> dict[str, Tensor]:
    """Return each term [K]: see `Population.implicit_regularizer`."""

    def measured(view: View, batch: Transition, blocks: list[Block]) -> dict[str, Tensor]:
        """Put the blocks' backups together and measure the implicit regulariser of the whole probe."""
        backup = Backup(
            torch.cat([block.backup.phi for block in blocks], dim=2),
            torch.cat([block.backup.next_actions for block in blocks], dim=1),
            torch.cat([block.backup.in_backup for block in blocks], dim=1),
        )
        gamma = 0.0 if steps.gamma is None else steps.gamma[view.rows]
        size = step_size[view.rows] if isinstance(step_size, Tensor) else step_size
        return implicit_regularizer(view.networks.critic, batch, backup, gamma, layers, size, negligible)  # type: ignore[arg-type]

    return over_views(steps, step, measured)


@torch.no_grad()
def over_views(
    steps: Steps,
    step: int,
    measured: Callable[[View, Transition, list[Block]], dict[str, Tensor]],
    by_part: bool = False,
) -> dict[str, Tensor]:
    """Measure all members, each quantity [K]; nothing of an algorithm without a critic.

    With `by_part` on a mixture also its parts: `q_mean_1` on rows of the first one.
    """
    if not steps.spec.has_critic:
        return {}
    batch, noise = steps.batches.probe()
    n = rows_at_a_time(steps)
    numbers: dict[str, list[Tensor]] = {}
    ends = list(accumulate(steps.batches.probe_counts))
    parts = [slice(start, end) for start, end in pairwise([0, *ends])]  # of a mixture, or the one part
    for view in steps.views:
        blocks = [
            [evaluated(steps, step, view, batch, noise, slice(start, min(start + n, part.stop)))
             for start in range(part.start, part.stop, n)]
            for part in parts
        ]  # fmt: skip
        results = [("", slice(None), [block for part in blocks for block in part])]
        if by_part and len(parts) > 1:
            results += [(f"_{place}", *block) for place, block in enumerate(zip(parts, blocks, strict=True), start=1)]
        for ending, rows, some in results:
            for name, values in measured(view, some_rows(batch, rows, view), some).items():
                numbers.setdefault(f"{name}{ending}", []).append(values)
    return {name: torch.cat(values) for name, values in numbers.items()}


def rows_at_a_time(steps: Steps) -> int:
    """Return how many rows are measured at a time: through convolutions no more than a step takes.

    256 rows, in 256 Nature-CNNs on a GPU, were 50 GiB of windows.
    """
    options = steps.members[0].options
    return BLOCK if options.encoder == FLAT else min(BLOCK, options.batch_size)


def evaluated(steps: Steps, step: int, view: View, batch: Transition, noise: dict[str, Tensor], rows: slice) -> Block:
    """Evaluate some rows of the probe batch by these members' objective."""
    k = len(view.members)
    per_step = steps.batches.sampler.noise.uniform_per_step
    draws = {name: values if name in per_step else values[:, rows] for name, values in noise.items()}
    draws = {name: values.expand(k, *values.shape[1:]) for name, values in draws.items()}
    some = some_rows(batch, rows, view)
    terms, backup = view.base_objective(view.networks, some, draws, step)
    assert backup is not None
    return Block(some, terms, backup)


def some_rows(batch: Transition, rows: slice, view: View) -> Transition:
    """Return these rows of [1, B, …] for each of a view's members alike, and of [K, B, …] its members' own."""

    def some(part: Tensor) -> Tensor:
        own = (part if len(part) == 1 else part[view.rows])[:, rows]
        return own.expand(len(view.members), *own.shape[1:])

    columns = {name: each_part(some, column) for name, column in batch._asdict().items() if column is not None}
    return Transition(**columns)
