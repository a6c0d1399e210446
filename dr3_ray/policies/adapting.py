"""A policy's episodes with and without adaptation to each observation, from the same start states.

Three ways: plain, averaging over augmented copies, and MEMO (arXiv 2110.09506).
MEMO's gain over both is that of its step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.evaluation.fqe import some_action
from dr3_ray.evaluation.pixels import Change
from dr3_ray.evaluation.rollout import Rollout
from dr3_ray.losses.features import feature_dot
from dr3_ray.losses.marginal import log_marginal
from dr3_ray.networks.actors import greedy
from dr3_ray.observations import Observations, each_part
from dr3_ray.policies.memo import Memo
from dr3_ray.policies.playing import Episodes, play
from dr3_ray.training.normalization import as_trained

METHODS = ("memo",)
AT_A_TIME = 1024  # augmented copies in one pass: with the `impala` encoder on 84×84 pixels about 2 GB, an estimate


@dataclass
class DotProducts:
    """Sums of φ(s, a) · φ(s', a') over pairs of consecutive observations, with the actions played there.

    Both sides have the weights from `before`, or from `after`, the step at s'; the mean over critics.
    """

    before: float = 0.0
    after: float = 0.0
    pairs: int = 0

    def means(self) -> dict[str, float]:
        """Return the means over pairs, NaN without any, and their number."""
        before, after = (total / self.pairs if self.pairs else np.nan for total in (self.before, self.after))
        return {"before": before, "after": after, "pairs": self.pairs}


class Adapted(NamedTuple):
    """The same episodes played in three ways."""

    plain: Episodes
    """Without a step, which is what a step size of 0 gives."""
    averaging: Episodes
    """By the mean distribution over augmented copies, without a step."""
    memo: Episodes
    dot_products: DotProducts
    """Of MEMO's steps; without pairs where there is no critic."""


def play_adapted(
    memo: Memo, environment: str | None, episodes: int, seed: int = 0, shifts: Sequence[Change] = ()
) -> Adapted:
    """Play episodes of the seeds `seed`, `seed` + 1, … three times: plain, averaging, and with MEMO.

    Augmentations of an episode are drawn from its seed, alike for averaging and MEMO.

    Raises:
        UserError: as `play`, and where a step makes numbers infinite.
    """
    dot_products = DotProducts()
    asked = memo.policy, environment, episodes, seed, None, shifts
    return Adapted(
        play(*asked, way=lambda rollout, seeds: Plain(memo, rollout, seeds)),
        play(*asked, way=lambda rollout, seeds: Averaging(memo, rollout, seeds)),
        play(*asked, way=lambda rollout, seeds: Stepping(memo, rollout, seeds, dot_products)),
        dot_products,
    )


class Marginal:
    """A way to act in the episodes of a rollout, which start from these seeds."""

    def __init__(self, memo: Memo, rollout: Rollout, seeds: Sequence[int]):
        self.memo, self._rollout = memo, rollout
        self._draws = [generator(seed, "augmentations") for seed in seeds]

    def __call__(self, seen: Observations) -> Tensor:
        """Return the actions [1, N] at the observations [1, N, *observation] of the episodes that are playing."""
        places = torch.from_numpy(self._rollout.playing)
        chosen = []
        for rows in torch.split(torch.arange(len(places)), max(1, AT_A_TIME // self.memo.options.copies)):
            alone = each_part(lambda part, rows=rows: part[0, rows].unsqueeze(1), seen)
            chosen.append(self.choose(alone, places[rows]))
        return torch.cat(chosen).unsqueeze(0)

    def choose(self, seen: Observations, places: Tensor) -> Tensor:
        """Return the actions [K] at K observations [K, 1, *observation] of the episodes at these places."""
        raise NotImplementedError

    def copies(self, seen: Observations, places: Tensor) -> Observations:
        """Return augmented copies, drawn from the stream of each episode."""
        return self.memo.copies(seen, [self._draws[place] for place in places.tolist()])

    def trained(self, count: int) -> nn.Module:
        """Return the networks as they were trained, `count` times."""
        return self.memo.networks([weight.expand(count, *weight.shape[1:]) for weight in self.memo.trained()])

    def actions(self, networks: nn.Module, seen: Observations) -> Tensor:
        """Return argmax_a π_k(a|s_k), [K], of K members at an observation each."""
        with torch.no_grad():
            return greedy(self.memo.logits(networks, seen)).squeeze(1)


class Plain(Marginal):
    """The policy without a step, in the shapes in which MEMO acts: a step of size 0 gives the same bits."""

    def choose(self, seen: Observations, places: Tensor) -> Tensor:
        """Return argmax_a π(a|s)."""
        return self.actions(self.trained(len(places)), seen)


class Averaging(Marginal):
    """The mean distribution over augmented copies, without a step."""

    def choose(self, seen: Observations, places: Tensor) -> Tensor:
        """Return argmax_a of the mean over copies of π(a|copy)."""
        with torch.no_grad():
            return greedy(log_marginal(self.memo.logits(self.trained(len(places)), self.copies(seen, places))))


class Stepping(Marginal):
    """MEMO: a step at each observation, then the action of the weights that it leads to at the plain observation.

    `weights`, [N, …] each, are those that the next step of each episode begins from.
    """

    def __init__(self, memo: Memo, rollout: Rollout, seeds: Sequence[int], dot_products: DotProducts):
        super().__init__(memo, rollout, seeds)
        everybody = [weight.expand(len(seeds), *weight.shape[1:]) for weight in memo.trained()]
        self._kept = memo.options.restore == "episode"
        self.weights = [weight.clone() for weight in everybody] if self._kept else everybody
        self._dot_products = dot_products
        self._last: Observations | None = None  # [N, 1, *observation], as far as `_begun`
        self._last_actions = torch.zeros(len(seeds), dtype=torch.int64)
        self._begun = torch.zeros(len(seeds), dtype=torch.bool)

    def choose(self, seen: Observations, places: Tensor) -> Tensor:
        """Return argmax_a π'(a|s), π' with the weights after the step."""
        memo, start = self.memo, [weight[places] for weight in self.weights]
        networks = memo.networks(start)
        memo.step(networks, self.copies(seen, places))
        actions = self.actions(networks, seen)
        if bool((actions < 0).any()):
            lr = memo.options.lr
            raise UserError(f"the policy, after a step of lr {lr:g}, gives NaN or infinity: give a smaller one")
        if self._kept:
            for weights, stepped in zip(self.weights, memo.weights(networks), strict=True):
                weights[places] = stepped
        if memo.policy.spec.has_critic:
            self._measure(networks, seen, actions, places, start)
        return actions

    def _measure(
        self, networks: nn.Module, seen: Observations, actions: Tensor, places: Tensor, start: Sequence[Tensor]
    ) -> None:
        """Add up the dot products of these observations and the last ones; networks are at `start` afterwards."""
        if self._last is None:
            shape = len(self._begun), 1
            self._last = each_part(lambda part: torch.zeros(*shape, *part.shape[2:], dtype=part.dtype), seen)
        pairs = each_part(lambda last, now: torch.cat([last[places], now], dim=1), self._last, seen)
        taken = torch.stack([self._last_actions[places], actions], dim=1)
        begun = self._begun[places]
        self._dot_products.after += float(consecutive_dots(networks, pairs, taken)[begun].sum())
        self._dot_products.before += float(consecutive_dots(self.memo.networks(start), pairs, taken)[begun].sum())
        self._dot_products.pairs += int(begun.sum())
        each_part(lambda last, now: last.index_copy_(0, places, now), self._last, seen)
        self._last_actions[places], self._begun[places] = actions, True


def consecutive_dots(networks: Any, pairs: Observations, actions: Tensor) -> Float[Tensor, "member"]:
    """Return φ(s, a) · φ(s', a') of each member's two observations [K, 2, *observation], the mean over critics."""
    with torch.no_grad():
        phi = networks.critic.features(as_trained(networks, pairs), some_action(actions))
    return feature_dot(phi[:, :, 0], phi[:, :, 1]).mean(1)
