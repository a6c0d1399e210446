"""Stacked layers, and what turns observations into vectors."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dr3_ray.networks.products import affine, relu_layers

Generators = Sequence[torch.Generator]  # one a member: a member's first weights do not depend on its pack


def first_weights(generators: Generators, fan_in: int, shape: Sequence[int]) -> nn.Parameter:
    """Draw [K, *shape], uniform in ±1/√fan_in, each member's from its own generator."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.stack([torch.empty(*shape).uniform_(-bound, bound, generator=one) for one in generators]))


class StackedLinear(nn.Module):
    """K × C independent linear layers, one matrix product: y = x W + b with W of shape [K, C, in, out].

    First weights and biases are uniform in ±1/√in, as in `torch.nn.Linear`.
    """

    def __init__(self, generators: Generators, n_in: int, n_out: int, copies: int = 1):
        super().__init__()
        self.weight = first_weights(generators, n_in, (copies, n_in, n_out))
        self.bias = first_weights(generators, n_in, (copies, 1, n_out))

    def forward(self, x: Float[Tensor, "member #critic batch n_in"]) -> Float[Tensor, "member critic batch n_out"]:
        """Apply layer (k, c) to x[k, c]; an x with one row of critics goes to all of them."""
        x = x.expand(-1, self.bias.shape[1], -1, -1)
        return affine(x.flatten(0, 1), *self.flat()).view(*x.shape[:3], -1)

    def flat(self, copies: int | None = None) -> tuple[Tensor, Tensor]:
        """Return W [K·C, in, out] and b [K·C, 1, out]; of the first `copies` only, with so many for C."""
        return self.matrix()[:, :copies].flatten(0, 1), self.bias[:, :copies].flatten(0, 1)

    def matrix(self) -> Tensor:
        """Return W, [K, C, in, out]."""
        return self.weight


class StackedLayerNorm(nn.Module):
    """K × C independent layer norms: (x − mean) / √(variance + 10⁻⁶) · weight + bias over the last dimension.

    ε is the one of flax and so of ReBRAC; torch's default is 10⁻⁵.
    """

    def __init__(self, members: int, n: int, copies: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, copies, 1, n))
        self.bias = nn.Parameter(torch.zeros(members, copies, 1, n))

    def forward(self, x: Float[Tensor, "member critic batch n"]) -> Float[Tensor, "member critic batch n"]:
        """Normalise each row."""
        return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * self.weight + self.bias


class SpectralLinear(StackedLinear):
    """A linear layer whose matrix is divided by its largest singular value (Miyato et al., arXiv 1802.05957).

    The value is estimated by one step of the power iteration in every pass of training through (s, a); its vector is
    part of a checkpoint.
    """

    right: Tensor  # [K, C, out]
    ahead = 0.0  # the share of the rows of a pass that are of (s', a'): a pass through them alone changes nothing

    def __init__(self, layer: StackedLinear):
        nn.Module.__init__(self)  # not of StackedLinear, which would draw first weights
        self.weight, self.bias = layer.weight, layer.bias
        # the iteration starts where it converges to
        self.register_buffer("right", torch.linalg.svd(layer.weight.detach())[2][..., 0, :].clone())

    def matrix(self) -> Tensor:
        """Return W / σ(W)."""
        with torch.no_grad():
            left = functional.normalize((self.weight @ self.right.unsqueeze(-1)).squeeze(-1), dim=-1)
            right = functional.normalize((left.unsqueeze(-2) @ self.weight).squeeze(-2), dim=-1)
            if self.training and self.ahead < 1.0:
                self.right.copy_(right)
        sigma = torch.einsum("kci,kcio,kco->kc", left, self.weight, right)
        return self.weight / sigma[..., None, None]


class UnitLength(nn.Module):
    """A layer that divides each row by its length: x / ‖x‖."""

    def forward(self, x: Float[Tensor, "member critic batch n"]) -> Float[Tensor, "member critic batch n"]:
        """Divide each row by its length."""
        return functional.normalize(x, dim=-1)


class MLP(nn.Module):
    """Linear layers with a ReLU behind each: [K, 1 or C, B, in] -> [K, C, B, hidden_sizes[-1]].

    With `layer_norm`, one behind each ReLU, as in ReBRAC. `dropout` stands behind both of them in every layer, `output`
    behind the last.
    """

    def __init__(
        self,
        generators: Generators,
        n_in: int,
        hidden_sizes: Sequence[int],
        copies: int = 1,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.members = len(generators)
        sizes = [n_in, *hidden_sizes]
        self.layers = nn.ModuleList(
            StackedLinear(generators, *pair, copies=copies) for pair in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList()
        self.dropout: nn.Module | None = None
        self.output: nn.Module | None = None
        self.n_out, self.copies, self.hidden_sizes = sizes[-1], copies, tuple(hidden_sizes)
        if layer_norm:
            self.normalize_layers()

    def normalize_layers(self) -> None:
        """Put LayerNorm behind every ReLU."""
        self.norms = nn.ModuleList(StackedLayerNorm(self.members, n, self.copies) for n in self.hidden_sizes)

    def forward(self, x: Float[Tensor, "member #critic batch n_in"]) -> Float[Tensor, "member critic batch n_out"]:
        """Return the activations of the last layer; without layers, x itself for every copy."""
        hidden = self.hidden(x)
        return hidden if self.output is None else self.output(hidden)

    def column(
        self, x: Float[Tensor, "member #critic batch n_in"], head: StackedLinear, copies: int | None = None
    ) -> Float[Tensor, "member chosen batch n_out"]:
        """Return head(self(x)), of the first `copies` only, without keeping activations."""
        if not self._plain or self.output is not None:
            return head(self(x))[:, :copies]  # type: ignore[no-any-return]
        x = x.expand(-1, self.copies, -1, -1)[:, :copies]
        return relu_layers(x.flatten(0, 1), self._flat(copies), head.flat(copies)).view(*x.shape[:3], -1)

    @property
    def _plain(self) -> bool:
        """Whether there is nothing but linear layers and ReLUs."""
        return bool(self.layers) and not self.norms and self.dropout is None

    def _flat(self, copies: int | None = None) -> list[tuple[Tensor, Tensor]]:
        return [layer.flat(copies) for layer in self.layers if isinstance(layer, StackedLinear)]

    def hidden(self, x: Float[Tensor, "member #critic batch n_in"]) -> Float[Tensor, "member critic batch n_out"]:
        """Return the input of `output`."""
        x = x.expand(-1, self.copies, -1, -1)
        if self._plain:
            return relu_layers(x.flatten(0, 1), self._flat()).view(*x.shape[:3], -1)
        for layer, norm in itertools.zip_longest(self.layers, self.norms):
            x = torch.relu(layer(x))
            if norm is not None:
                x = norm(x)
            if self.dropout is not None:
                x = self.dropout(x)
        return x

    @property
    def signed(self) -> bool:
        """Whether the activations can be negative and of any length."""
        if self.output is not None:
            return bool(getattr(self.output, "signed", False))
        return bool(self.norms) or not self.layers

    def posterior(self, x: Float[Tensor, "member #critic batch n_in"]) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of the noise that a variational `output` draws."""
        return self.output.posterior(self.hidden(x))  # type: ignore[union-attr, operator, no-any-return]


def flat_observations(observations: Tensor, dtype: torch.dtype) -> Float[Tensor, "member 1 batch n_in"]:
    """Return [K, B, *observation] as [K, 1, B, n]; bytes are divided by 255."""
    flat = observations.reshape(*observations.shape[:2], -1).unsqueeze(1)
    return flat.to(dtype) / 255.0 if flat.dtype == torch.uint8 else flat.to(dtype)
