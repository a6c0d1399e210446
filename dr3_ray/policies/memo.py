"""MEMO at the time of evaluation: a step on the entropy of the mean distribution over augmented copies, then act.

Zhang, Levine & Finn, arXiv 2110.09506, here for policies with discrete actions, and for critics by softmax(Q(s, ·)/τ).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dr3_ray.errors import UserError
from dr3_ray.evaluation.pixels import AUGMENTATIONS, Change, Images, read_changes
from dr3_ray.losses.marginal import marginal_entropy
from dr3_ray.networks.discrete_critics import MultiHeadCritic
from dr3_ray.networks.members import member_view
from dr3_ray.observations import Observations
from dr3_ray.options import Number, Options, choice, largest, number
from dr3_ray.policies.policy import Policy
from dr3_ray.training.normalization import as_trained

AUTO = "auto"


@dataclass(frozen=True)
class MemoOptions(Options):
    """Options of MEMO."""

    copies: int = choice(32, "augmented copies of each observation (the authors: 32 on CIFAR-10, 64 on ImageNet)")
    lr: Number = number(
        0.005, "step size of SGD (the authors: 0.005 on CIFAR-10, 0.00025 on ImageNet); 0: no step", low=0.0
    )
    tau: Number = number(1.0, "τ of softmax(Q(s, ·)/τ), where the policy is a critic's (ours)", low=1e-3)
    restore: str = choice(
        "observation",
        "when weights become those that were trained: before every `observation` (the authors) or `episode`",
        ("observation", "episode"),
    )
    augmentations: str = choice(
        AUTO,
        "what makes copies, all of them one after another: NAME or NAME:LEVEL of crop, cutout, brightness, noise, with "
        "commas; `auto`: all that apply to the images (ours; the authors: AugMix)",
    )


class Memo:
    """MEMO for a policy.

    Raises:
        UserError: its actions are continuous, its observations no images, or an option does not apply to it.
    """

    def __init__(self, policy: Policy, options: MemoOptions):
        self.policy, self.options = policy, options
        name = policy.spec.name
        if policy.spec.action_kind != "discrete":
            raise UserError(
                f"MEMO takes probabilities of actions, and {name} on Box actions has none: leave out --adapt"
            )
        self.child = "actor" if hasattr(policy.networks, "actor") else "critic"
        if self.child == "actor" and options.tau != MemoOptions().tau:
            raise UserError(f"tau divides Q(s, ·), and {name} has probabilities of its own: leave it out")
        parts = policy.recorded.observations.parts
        self.images = Images.of(parts, f"the data set {policy.recorded.name}", "--adapt")
        self.augmentations = self._augmentations(options.augmentations)
        self._view: tuple[int, nn.Module] = (0, policy.networks)  # the networks that were asked for last, of so many

    def _augmentations(self, text: str) -> tuple[Change, ...]:
        """Return the augmentations that are asked for, or all that apply."""
        if text == AUTO:
            wanted = [name for name, kind in AUGMENTATIONS.items() if not (kind.blends and self.images.unbounded())]
        else:
            wanted = text.split(",")
        changes = read_changes(wanted, AUGMENTATIONS, "augmentation")
        return self.images.settled(changes, AUGMENTATIONS, "augmentation")

    def trained(self) -> list[Tensor]:
        """Return the weights that a step changes, as they were trained, each [1, …]."""
        return self.weights(self.policy.networks)

    def weights(self, networks: nn.Module) -> list[Tensor]:
        """Return the weights of K members that a step changes, each [K, …]; they change with the networks."""
        return [weight.detach() for weight in getattr(networks, self.child).parameters()]

    def networks(self, weights: Sequence[Tensor]) -> nn.Module:
        """Return networks with these weights, each [K, …]: K members, who never mix. They are overwritten next time."""
        count = len(weights[0])
        if self._view[0] != count:
            view = member_view(self.policy.networks, [0] * count)
            getattr(view, self.child).requires_grad_(True)
            self._view = count, view
        networks = self._view[1]
        for own, weight in zip(self.weights(networks), weights, strict=True):
            own.copy_(weight)
        return networks

    def copies(self, seen: Observations, draws: Sequence[torch.Generator]) -> Observations:
        """Return n augmented copies of each of K observations [K, 1, *observation]: [K, n, *observation]."""
        parts = seen if isinstance(seen, dict) else {"": seen}
        made: dict[str, Tensor] = {}
        for name, part in parts.items():
            copies = part.expand(-1, self.options.copies, *part.shape[2:])
            if name in self.images.ranges:
                rows = [
                    self.images.changed(name, images, self.augmentations, AUGMENTATIONS, draw)
                    for images, draw in zip(copies, draws, strict=True)
                ]
                copies = torch.stack(rows)
            made[name] = copies
        return made.get("", made)

    def logits(self, networks: nn.Module, seen: Observations) -> Float[Tensor, "member batch action"]:
        """Return the logits of the policy, or Q(s, ·)/τ, at observations [K, B, *observation]."""
        return preferences(networks, as_trained(networks, seen)) / (1.0 if self.child == "actor" else self.options.tau)

    def step(self, networks: nn.Module, copies: Observations) -> None:
        """Make a step of SGD on the marginal entropy of each member's n copies [K, n, *observation].

        θ ← θ − lr ∇_θ H(mean_i π_θ(·|copy_i)), eq. 2 of the paper.
        """
        weights = list(getattr(networks, self.child).parameters())
        with torch.enable_grad():
            entropy = marginal_entropy(self.logits(networks, copies)).sum()  # each member's has its own weights alone
            gradients = torch.autograd.grad(entropy, weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight.sub_(gradient * largest(self.options.lr))


def preferences(networks: Any, observations: Observations) -> Float[Tensor, "member batch action"]:
    """Return the logits of the actor, or Q(s, ·) where there is none, of heads or quantiles the mean.

    The policy's deterministic action is that of the largest.
    """
    if hasattr(networks, "actor"):
        logits: Tensor = networks.actor(observations)
        return logits
    values: Tensor = networks.critic(observations)[0]
    return values.mean(-1) if isinstance(networks.critic, MultiHeadCritic) else values.squeeze(1)
