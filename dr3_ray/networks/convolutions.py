"""Stacked convolutions, each by what is fastest on its device."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dr3_ray.compat import torch as compat
from dr3_ray.networks.encoders import Generators, first_weights
from dr3_ray.networks.precision import may_be_fast, rounded
from dr3_ray.networks.products import differentiable_gradients, through_relu

UNFOLDED = 8.0  # a GPU multiplies windows where this bounds the memory that they take, by that of the images


class StackedConv2d(nn.Module):
    """K × C independent convolutions as one grouped convolution, weights of shape [K, C, out, in, size, size].

    First weights and biases are uniform in ±1/√(in · size²), as in `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        generators: Generators,
        n_in: int,
        n_out: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        copies: int = 1,
    ):
        super().__init__()
        self.weight = first_weights(generators, n_in * size**2, (copies, n_out, n_in, size, size))
        self.bias = first_weights(generators, n_in * size**2, (copies, n_out))
        self.stride, self.padding = stride, padding

    def forward(
        self, x: Float[Tensor, "batch group n_in height width"], scale: float = 1.0
    ) -> Float[Tensor, "batch group n_out h w"]:
        """Apply the convolutions to x · scale, with a group for every member and copy: K · C."""
        if self.groups > 1 and x.device.type == "cuda" and self.overlap(x) < UNFOLDED:
            return self._of_windows(x, scale)
        y = functional.conv2d(
            self.flat(x), *self.factors(kept(x), scale), self.stride, self.padding, groups=self.groups
        )
        return y.view(y.shape[0], self.groups, -1, *y.shape[2:])

    @property
    def groups(self) -> int:
        """The number of groups, K · C."""
        return self.weight.shape[0] * self.weight.shape[1]

    def flat(self, x: Tensor) -> Tensor:
        """Return x with its groups side by side, [B, G · in, height, width]."""
        return laid_out(self.groups, x.flatten(1, 2).to(kept(x)))

    def factors(self, dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return W · scale [G · out, in, size, size] and b [G · out] for an x of this type."""
        return laid_out(self.groups, self._scaled(scale).to(dtype).flatten(0, 2)), self.bias.to(dtype).flatten()

    def _scaled(self, scale: float) -> Tensor:
        """Return W · scale, fewer numbers than x · scale."""
        return self.weight if scale == 1.0 else self.weight * scale

    def overlap(self, x: Tensor) -> float:
        """Return how often a number of x stands in a window, on average."""
        *_, size, _ = self.weight.shape
        outputs = [(n + 2 * self.padding - size) // self.stride + 1 for n in x.shape[3:]]
        return math.prod(outputs) * size**2 / math.prod(x.shape[3:])

    def _of_windows(self, x: Tensor, scale: float) -> Tensor:
        """Compute convolutions as products of matrices: cuDNN took 1.8 times as long for 64 groups, 2.5 in bfloat16.

        Neighbours in memory are the channels of a pixel, in x and in the result.
        """
        size = self.weight.shape[-1]
        images = functional.pad(x.to(kept(x)), [self.padding] * 4).permute(1, 0, 3, 4, 2).contiguous()
        windows = images.unfold(2, size, self.stride).unfold(3, size, self.stride)  # [G, B, h, w, in, size, size]
        matrices = windows.permute(0, 1, 2, 3, 5, 6, 4).flatten(4).flatten(1, 3)  # [G, B · h · w, size · size · in]
        weight = self._scaled(scale).flatten(0, 1).permute(0, 3, 4, 2, 1).flatten(1, 3)  # [G, size · size · in, out]
        y = torch.baddbmm(self.bias.flatten(0, 1).unsqueeze(1).to(kept(x)), matrices, weight.to(kept(x)))
        return y.view(*windows.shape[:4], -1).permute(1, 0, 4, 2, 3)


def kept(x: Tensor) -> torch.dtype:
    """Return the type of a layer's output: bfloat16 where the next layer would round to it, else that of x."""
    return torch.bfloat16 if rounded(x) else x.dtype


def channels_together(groups: int, x: Tensor) -> bool:
    """Return whether the channels of a pixel should be neighbours in memory: for one group on a CPU.

    oneDNN's gradient of the weights of Nature-CNN's first layer then takes 4 ms instead of 12, for 64 images.
    """
    return groups == 1 and x.device.type == "cpu"


def laid_out(groups: int, x: Tensor) -> Tensor:
    """Return images or weights with the channels of a pixel together where that is faster."""
    return x.contiguous(memory_format=torch.channels_last) if channels_together(groups, x) else x


class Convolutions(nn.ModuleList):
    """Convolutions with a ReLU between each two."""

    def forward(
        self, x: Float[Tensor, "batch group n_in height width"], scale: float = 1.0
    ) -> Float[Tensor, "batch group n_out h w"]:
        """Apply the convolutions to x · scale, with a group for every member and copy: K · C."""
        first, *others = self
        if by_onednn(first.groups, x):  # type: ignore[arg-type]
            geometry = [(layer.stride, layer.padding) for layer in self]
            parameters = [*first.factors(kept(x), scale)]  # type: ignore[operator]
            for layer in others:
                parameters += layer.factors(kept(x))  # type: ignore[operator]
            y = _ByOneDNN.apply(first.flat(x), geometry, *parameters)  # type: ignore[no-untyped-call, operator]
            return y.unsqueeze(1)  # type: ignore[no-any-return]
        y = first(x, scale)
        for layer in others:
            y = layer(torch.relu(y))
        return y  # type: ignore[no-any-return]


def by_onednn(groups: int, x: Tensor) -> bool:
    """Return whether oneDNN convolves here, and takes ReLUs with it."""
    return (
        may_be_fast()
        and channels_together(groups, x)
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and compat.by_onednn(compat.convolution)
    )


class _ByOneDNN(torch.autograd.Function):
    """Convolutions of strides and paddings; a ReLU between them takes no pass of its own, its gradient no memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: Sequence[tuple[int, int]], *parameters: Tensor) -> Tensor:
        passed = [x]
        for weight, bias, (stride, padding) in zip(parameters[::2], parameters[1::2], geometry, strict=True):
            activation = "relu" if len(passed) < len(geometry) else "none"
            convolved = compat.convolution(
                passed[-1], weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1, activation, [], ""
            )
            passed.append(convolved)
        ctx.geometry = geometry
        ctx.save_for_backward(*parameters, *passed[:-1])
        return passed[-1]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        depth, (needs_x, _, *needs) = len(ctx.geometry), ctx.needs_input_grad
        parameters, passed = ctx.saved_tensors[: 2 * depth], ctx.saved_tensors[2 * depth :]
        if torch.is_grad_enabled():
            plain, given = partial(_by_torch, geometry=ctx.geometry), (passed[0], *parameters)
            of_x, *others = differentiable_gradients(plain, given, [needs_x, *needs], upstream[0])
            return of_x, None, *others
        weights = parameters[::2]
        gradient, gradients = upstream[0], list[Tensor]()
        for layer in reversed(range(depth)):
            if layer < depth - 1:  # it is ours, and nobody else's to read
                gradient = through_relu(gradient, passed[layer + 1], out=gradient)
            (stride, padding), n_out = ctx.geometry[layer], len(weights[layer])
            mask = [layer > 0 or needs_x, *needs[2 * layer : 2 * layer + 2]]
            gradient, *of_layer = torch.ops.aten.convolution_backward(
                gradient, passed[layer], weights[layer],
                [n_out], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask,
            )  # fmt: skip
            gradients = [*of_layer, *gradients]
        return gradient, None, *gradients


def _by_torch(x: Tensor, *parameters: Tensor, geometry: Sequence[tuple[int, int]]) -> Tensor:
    """Compute convolutions by operations that torch can differentiate any number of times."""
    for layer, (stride, padding) in enumerate(geometry):
        x = functional.conv2d(x, parameters[2 * layer], parameters[2 * layer + 1], stride, padding)
        x = torch.relu(x) if layer < len(geometry) - 1 else x
    return x
