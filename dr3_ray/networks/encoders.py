"""Stacked layers, and what turns observations into vectors."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Generators = Sequence[torch.Generator]  # one a member: a member's first weights do not depend on its pack


class StackedLinear(nn.Module):
    """K × C independent linear layers, one matrix product: y = x W + b with W of shape [K, C, in, out].

    First weights and biases are uniform in ±1/√in, as in `torch.nn.Linear`.
    """

    def __init__(self, generators: Generators, n_in: int, n_out: int, copies: int = 1):
        super().__init__()
        bound = 1.0 / math.sqrt(n_in)

        def uniform(*shape: int) -> nn.Parameter:
            drawn = [torch.empty(copies, *shape).uniform_(-bound, bound, generator=each) for each in generators]
            return nn.Parameter(torch.stack(drawn))

        self.weight = uniform(n_in, n_out)
        self.bias = uniform(1, n_out)

    def forward(self, x: Float[Tensor, "member #critic batch n_in"]) -> Float[Tensor, "member critic batch n_out"]:
        """Apply layer (k, c) to x[k, c]; an x with one row of critics goes to all of them."""
        members, copies = self.weight.shape[:2]
        if copies == 1:  # fewer views, each of which costs at a small batch
            return torch.baddbmm(self.bias.squeeze(1), x.squeeze(1), self.weight.squeeze(1)).unsqueeze(1)
        x = x.expand(members, copies, *x.shape[2:])
        y = torch.baddbmm(self.bias.flatten(0, 1), x.flatten(0, 1), self.weight.flatten(0, 1))
        return y.view(members, copies, *y.shape[1:])


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


class MLP(nn.Module):
    """Linear layers with a ReLU behind each: [K, 1 or C, B, in] -> [K, C, B, hidden_sizes[-1]].

    With `layer_norm`, one behind each ReLU, as in ReBRAC. With `unit_output` set, the last activations are divided by
    their length.
    """

    unit_output = False

    def __init__(
        self,
        generators: Generators,
        n_in: int,
        hidden_sizes: Sequence[int],
        copies: int = 1,
        layer_norm: bool = False,
    ):
        super().__init__()
        sizes = [n_in, *hidden_sizes]
        self.layers = nn.ModuleList(
            StackedLinear(generators, *pair, copies=copies) for pair in itertools.pairwise(sizes)
        )
        normalized = hidden_sizes if layer_norm else ()
        self.norms = nn.ModuleList(StackedLayerNorm(len(generators), n, copies) for n in normalized)
        self.n_out, self.copies, self.hidden_sizes = sizes[-1], copies, tuple(hidden_sizes)

    def forward(self, x: Float[Tensor, "member #critic batch n_in"]) -> Float[Tensor, "member critic batch n_out"]:
        """The activations of the last layer; without layers, x itself for every copy."""
        x = x.expand(-1, self.copies, -1, -1)
        for layer, norm in itertools.zip_longest(self.layers, self.norms):
            x = torch.relu(layer(x))
            if norm is not None:
                x = norm(x)
        return functional.normalize(x, dim=-1) if self.unit_output else x


def flat_observations(observations: Tensor, dtype: torch.dtype) -> Float[Tensor, "member 1 batch n_in"]:
    """[K, B, *observation] as [K, 1, B, n]; bytes are divided by 255."""
    flat = observations.flatten(2).unsqueeze(1)
    return flat.to(dtype) / 255.0 if flat.dtype == torch.uint8 else flat.to(dtype)
