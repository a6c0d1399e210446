"""How the outputs of a critic's last layer say what Q is, and the loss by which they learn a target.

A critic's `coding` is the one place that knows: everything else reads Q.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dr3_ray.losses import categorical, td

CriticHead = Literal["scalar", "hl_gauss", "two_hot"]
ErrorKind = Literal["squared", "huber"]


def scalar_errors(
    q: Float[Tensor, "*member batch"], targets: Float[Tensor, "*#member batch"], error: ErrorKind
) -> Float[Tensor, "*member batch"]:
    """Return the squared or the Huber error of Q."""
    return (td.huber if error == "huber" else td.squared_error)(q, targets)


class Coding(nn.Module):
    """One output a number, which is Q itself."""

    categorical = False

    def one(self, raw: Tensor) -> Tensor:
        """Return the outputs of one number a row from those of the last layer [K, C, …, width]."""
        return raw.squeeze(-1)

    def several(self, raw: Tensor) -> Tensor:
        """Return the outputs of n numbers a row from those of the last layer [K, C, …, n · width]."""
        return raw

    def taken(self, outputs: Tensor, actions: Int[Tensor, "member batch"]) -> Tensor:
        """Return the outputs of these actions [K, C, B, …] from those of every action [K, C, B, n, …]."""
        return td.value_of(outputs, actions.unsqueeze(1))

    def decode(self, outputs: Tensor) -> Tensor:
        """Return Q."""
        return outputs

    def errors(
        self,
        outputs: Tensor,
        targets: Float[Tensor, "member #critic batch"],
        error: ErrorKind = "squared",
    ) -> Float[Tensor, "member critic batch"]:
        """Return the loss of each row's outputs [K, C, B, …] against its target, which has no gradient."""
        return scalar_errors(outputs, targets, error)


class Categorical(Coding):
    """`bins` outputs a number, the logits of its distribution between v_min and v_max; Q is its mean.

    HL-Gauss: v_min and v_max are the outer edges of the bins, σ is a ratio to their width. Two-hot: they are the first
    and the last centre. A member whose v_min and v_max are equal has those that `fit` was told.
    """

    categorical = True
    given: Tensor  # [K, 2], v_min and v_max of the options; NaN where they are to be fitted
    fitted: Tensor  # [K, 2], as given, or as fitted: part of a checkpoint
    sigma: Tensor  # [K]

    def __init__(
        self,
        head: CriticHead,
        bins: int,
        v_min: Float[Tensor, "member"],
        v_max: Float[Tensor, "member"],
        sigma: Float[Tensor, "member"],
    ):
        super().__init__()
        self.head, self.bins = head, bins
        asked = (v_min == v_max).unsqueeze(-1)
        given = torch.stack([v_min, v_max], dim=-1).masked_fill(asked, torch.nan)
        self.register_buffer("given", given, persistent=False)  # options, not a state
        self.register_buffer("fitted", given.clone())
        self.register_buffer("sigma", sigma, persistent=False)

    def fit(self, ranges: Float[Tensor, "member 2"]) -> None:
        """Take v_min and v_max of the members that have none yet."""
        self.fitted.copy_(torch.where(self.fitted.isnan(), ranges.to(self.fitted), self.fitted))

    @property
    def range(self) -> Float[Tensor, "member 2"]:
        """v_min and v_max of each member."""
        return torch.where(self.given.isnan(), self.fitted, self.given)

    def _along(self, places: Tensor, ndim: int) -> Tensor:
        """Return v_min + place · (v_max − v_min) of places [n] in [0, 1], to stand beside [K, …, n] of `ndim`."""
        low, high = self.range.unsqueeze(-1).unbind(1)
        return (low + (high - low) * places).view(-1, *[1] * (ndim - 2), len(places))

    def centres(self, ndim: int) -> Tensor:
        """Return the centres of the bins, to stand beside logits [K, …, bins] with `ndim` dimensions."""
        places = torch.arange(self.bins, dtype=self.sigma.dtype, device=self.sigma.device)
        return self._along(places / (self.bins - 1) if self.head == "two_hot" else (places + 0.5) / self.bins, ndim)

    def one(self, raw: Tensor) -> Tensor:
        """Return logits [K, C, …, bins], as they are."""
        return raw

    def several(self, raw: Tensor) -> Tensor:
        """Return logits [K, C, …, n, bins]."""
        return raw.reshape(*raw.shape[:-1], -1, self.bins)

    def taken(self, outputs: Tensor, actions: Int[Tensor, "member batch"]) -> Tensor:
        """Return the logits of these actions."""
        return td.value_of(outputs.movedim(-1, 0), actions.unsqueeze(1)).movedim(0, -1)

    def decode(self, outputs: Tensor) -> Tensor:
        """Return Q = Σ_i p_i c_i."""
        return categorical.expectation(outputs, self.centres(outputs.ndim))

    def slope(self, outputs: Tensor) -> Tensor:
        """Return the gradient of Q in its logits."""
        return categorical.expectation_slope(outputs, self.centres(outputs.ndim))

    def probabilities(self, targets: Float[Tensor, "member critic batch"]) -> Float[Tensor, "member critic batch bin"]:
        """Return what targets become, cut to [v_min, v_max] first."""
        low, high = self.range.view(-1, 2, 1, 1).unbind(1)
        cut = torch.minimum(torch.maximum(targets, low), high)
        if self.head == "two_hot":
            return categorical.two_hot(cut, self.centres(4))
        places = torch.arange(self.bins + 1, dtype=self.sigma.dtype, device=self.sigma.device) / self.bins
        sigma = self.sigma.view(-1, 1, 1) * (high - low) / self.bins
        return categorical.hl_gauss(cut, self._along(places, 4), sigma.unsqueeze(-1))

    def errors(
        self,
        outputs: Tensor,
        targets: Float[Tensor, "member #critic batch"],
        error: ErrorKind = "squared",
    ) -> Float[Tensor, "member critic batch"]:
        """Return the cross-entropy of each row's logits with its target's probabilities, whatever `error` is."""
        return categorical.cross_entropy(outputs, self.probabilities(targets))

    def outside(self, targets: Float[Tensor, "member batch"]) -> Float[Tensor, "member batch"]:
        """Return 1 where a target is cut, 0 elsewhere."""
        return categorical.outside(targets, *self.range.unsqueeze(-1).unbind(1))
