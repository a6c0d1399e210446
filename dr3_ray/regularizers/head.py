"""Categorical critics, HL-Gauss and two-hot: regression by classification (Farebrother et al., arXiv 2403.03950).

φ stays the input of the last linear layer, which has `bins` outputs for each value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dr3_ray.errors import UserError
from dr3_ray.networks.coding import Categorical, CriticHead
from dr3_ray.networks.encoders import Generators, StackedLinear
from dr3_ray.options import Number, Options, choice, number
from dr3_ray.regularizers.spec import Regularizer

CATEGORICAL = ("hl_gauss", "two_hot")
HAVE_SEVERAL = {"n_quantiles": "the quantiles of its return", "n_heads": "its heads, which are mixed anew every step"}


@dataclass(frozen=True)
class Head(Options):
    """What the critic's last layer gives for a value, and how it learns a target."""

    critic_head: CriticHead = choice(
        "scalar",
        "`scalar`: Q itself; else the logits of Q's distribution over bins, by cross-entropy with the target: "
        "`hl_gauss`, a Gaussian around it, or `two_hot`, its two neighbouring bins (arXiv 2403.03950)",
        ("scalar", *CATEGORICAL),
    )
    bins: int = choice(
        101, "bins of a value's distribution (51: arXiv 2403.03950 on Atari)", low=2, needs={"critic_head": CATEGORICAL}
    )
    v_min: Number = number(
        0.0,
        "least value of the bins, below which targets are cut; equal to v_max: from the data's returns",
        needs={"critic_head": CATEGORICAL},
    )
    v_max: Number = number(
        0.0, "largest value of the bins (−10 and 10: arXiv 2403.03950 on Atari)", needs={"critic_head": CATEGORICAL}
    )
    sigma: Number = number(
        0.75,
        "σ of the Gaussian over the width of a bin (0.75: arXiv 2403.03950)",
        low=1e-3,
        needs={"critic_head": ("hl_gauss",)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.v_min, float) and self.v_min > self.v_max:
            raise UserError(f"v_min = {self.v_min:g} is above v_max = {self.v_max:g}: exchange them")

    @property
    def asks_data(self) -> bool:
        """Whether a member's v_min and v_max are those of the data's returns."""
        return self.critic_head != "scalar" and bool(self.v_min == self.v_max)


def check(options: Head, beside: Mapping[str, Any], action_kind: str) -> None:
    """Check that the critic has one value for an action, and that one loss is asked for.

    Raises:
        UserError: it has several, or two losses are.
    """
    if options.critic_head == "scalar":
        return
    asked = f"critic_head={options.critic_head!r}"
    if several := [meant for name, meant in HAVE_SEVERAL.items() if name in beside]:
        raise UserError(f"{asked} is for one value an action, and this critic's outputs are {several[0]}: leave it out")
    if beside.get("loss", "huber") != "huber":
        raise UserError(
            f"loss={beside['loss']!r} has no effect with {asked}, whose loss is the cross-entropy: leave it out"
        )
    if options.asks_data and beside.get("hindsight", "none") != "none":
        raise UserError(f"{asked} takes v_min and v_max from the data's returns, which hindsight changes: give both")


def change(critic: nn.Module, options: Head, generators: Generators) -> None:
    """Put a last layer with `bins` outputs for each value in the place of the critic's own."""
    if options.critic_head == "scalar":
        return
    last: Any = critic.head
    _, copies, n_in, values = last.weight.shape
    critic.head = StackedLinear(generators, n_in, values * options.bins, copies)
    numbers = (torch.as_tensor(number) for number in (options.v_min, options.v_max, options.sigma))
    critic.coding = Categorical(options.critic_head, options.bins, *numbers)


REGULARIZER = Regularizer("head", Head, change=change, check=check)
